/* SPDX-License-Identifier: BSD-2-Clause */
/* See ept_machine.h. */
#include "ept_machine.h"

#include "common/units.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PHYSICAL_BITS 46u
#define MOST_TRIES 8 /* of one access: a violation for each thing that is in its way */

int ept_failed(const char *what, int error)
{
	fprintf(stderr, "%s: %s\n", what, vmem_strerror(error));
	return 1;
}

int ept_option_number(const char *option, const char *text, uint32_t least, uint32_t most,
		      uint32_t *ret_number)
{
	uint64_t number;

	if (units_parse_number(text, least, most, &number)) {
		fprintf(stderr, "%s: '%s' is no number from %u to %u\n", option, text, least, most);
		return 1;
	}
	*ret_number = (uint32_t)number;
	return 0;
}

int ept_options_end(int argc, char **argv, int next)
{
	if (next == argc)
		return 0;
	fprintf(stderr, "'%s' is no option\n", argv[next]);
	return 1;
}

int ept_frame_take(struct ept_machine *machine, uint64_t *ret_hpa)
{
	if (!machine->free_frames)
		return -VMEM_ENOMEM;
	*ret_hpa = UINT64_C(4096) * machine->free_list[--machine->free_frames];
	return 0;
}

void ept_frame_give(struct ept_machine *machine, uint64_t hpa)
{
	machine->free_list[machine->free_frames++] = (uint32_t)(hpa / 4096);
}

void *ept_frame(const struct ept_machine *machine, uint64_t hpa)
{
	return machine->memory + hpa;
}

/* Tables come from the same frames as the guest's memory. */
static int table_take(void *context, uint64_t *ret_hpa)
{
	return ept_frame_take(context, ret_hpa);
}

static void table_give(void *context, uint64_t hpa)
{
	ept_frame_give(context, hpa);
}

static int all_capabilities(struct vmem_ept_capabilities *processor, uint32_t format,
			    uint32_t levels)
{
	processor->size = sizeof(*processor);
	switch (format) {
	case VMEM_EPT_AMD: /* 1-GiB pages, no-execute, nested paging; CR4.LA57 is what tells levels */
		return vmem_ept_capabilities_amd(processor, 1u << 26 | 1u << 20, 1, 1u << 11,
						 levels == 5 ? 1u << 12 : 0, PHYSICAL_BITS);
	case VMEM_EPT_VTD: /* three to five levels, large pages, snoop control, accessed and dirty */
		return vmem_ept_capabilities_vtd(processor, 7u << 9 | UINT64_C(3) << 34,
						 1u << 7 | UINT64_C(1) << 45, PHYSICAL_BITS);
	default: /* four and five levels, all leaves, all else but the newest controls */
		return vmem_ept_capabilities_intel(processor, ~UINT64_C(0), 0, 0, PHYSICAL_BITS);
	}
}

static int tables_new(struct ept_machine *machine)
{
	const struct vmem_ept_memory memory = {
		.size = sizeof(memory),
		.context = machine,
		.allocate = table_take,
		.free = table_give,
		.offset = (uint64_t)(uintptr_t)machine->memory,
	};
	const struct vmem_ept_opts opts = {
		.size = sizeof(opts),
		.flags = VMEM_EPT_AD,
		.capabilities = &machine->processor,
		.memory = &memory,
		.levels = machine->levels,
	};

	return vmem_ept_new(&machine->ept, &opts);
}

int ept_machine_begin(struct ept_machine *machine, uint32_t frames, uint32_t format,
		      uint32_t levels)
{
	int error;

	memset(machine, 0, sizeof(*machine));
	machine->frames = frames;
	machine->levels = levels ? levels : 4;
	machine->memory = aligned_alloc(4096, (size_t)4096 * (frames + 1));
	machine->free_list = calloc(frames, sizeof(*machine->free_list));
	if (!machine->memory || !machine->free_list)
		error = -VMEM_ENOMEM;
	else
		error = all_capabilities(&machine->processor, format, machine->levels);
	for (uint32_t frame = frames; frame > 0 && !error; frame--)
		machine->free_list[machine->free_frames++] = frame;
	if (!error)
		error = tables_new(machine);
	if (error)
		ept_machine_end(machine);
	return error;
}

void ept_machine_end(struct ept_machine *machine)
{
	vmem_ept_free(machine->ept);
	free(machine->free_list);
	free(machine->memory);
	memset(machine, 0, sizeof(*machine));
}

void ept_machine_flush(struct ept_machine *machine, const struct vmem_ept_change *change)
{
	if (change->flush != VMEM_EPT_FLUSH_NONE)
		machine->invalidations++;
	if (change->epoch)
		vmem_ept_flushed(machine->ept, change->epoch);
}

static uint64_t *entry_at(const struct ept_machine *machine, uint64_t hpa)
{
	if (hpa < 4096 || hpa >= UINT64_C(4096) * (machine->frames + 1))
		return NULL;
	return (uint64_t *)(void *)(machine->memory + hpa);
}

static int read_entry(void *context, uint64_t hpa, uint64_t *ret_entry)
{
	const uint64_t *entry = entry_at(context, hpa);

	if (!entry)
		return -1;
	*ret_entry = __atomic_load_n(entry, __ATOMIC_RELAXED);
	return 0;
}

static int set_bits(void *context, uint64_t hpa, uint64_t expected, uint64_t bits)
{
	return !__atomic_compare_exchange_n(entry_at(context, hpa), &expected, expected | bits, 0,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

static struct vmem_ept_view view_of(const struct ept_machine *machine)
{
	struct vmem_ept_view view = { .size = sizeof(view),
				      .context = (void *)(uintptr_t)machine,
				      .read = read_entry,
				      .set = set_bits };

	return view;
}

struct vmem_ept_walked ept_machine_walk(const struct ept_machine *machine, uint64_t gpa,
					uint32_t kind)
{
	struct vmem_ept_walked walked = { .size = sizeof(walked) };
	struct vmem_ept_access access = { .size = sizeof(access), .gpa = gpa, .kind = kind };
	struct vmem_ept_view view = view_of(machine);

	access.pointer = vmem_ept_pointer(machine->ept);
	/* nCR3 does not say how many levels there are: the host's CR4 does. */
	if (machine->processor.format == VMEM_EPT_AMD && machine->levels == 5)
		access.context = VMEM_EPT_WALK_5_LEVELS;
	if (vmem_ept_walk(&machine->processor, &view, &access, &walked) != 0)
		walked.outcome = VMEM_EPT_WALK_BAD_POINTER;
	return walked;
}

/* Where the page of an access is, after as many violations as it takes. */
static int touch(struct ept_machine *machine, uint64_t gpa, uint32_t kind, uint64_t *ret_hpa)
{
	machine->accesses++;
	for (int tries = 0; tries < MOST_TRIES; tries++) {
		struct vmem_ept_walked walked = ept_machine_walk(machine, gpa, kind);
		int error;

		if (walked.outcome == VMEM_EPT_WALK_OK) {
			*ret_hpa = walked.hpa;
			return 0;
		}
		if (walked.outcome != VMEM_EPT_WALK_VIOLATION)
			return -VMEM_EIO;
		machine->violations++;
		error = machine->violation ? machine->violation(machine->context, gpa, &walked)
					   : -VMEM_EFAULT;
		if (error)
			return error;
	}
	return -VMEM_EIO;
}

/* Of an access the part that lies in one page. */
static size_t in_page(uint64_t gpa, size_t count)
{
	const size_t room = 4096 - gpa % 4096;

	return count < room ? count : room;
}

int ept_guest_read(struct ept_machine *machine, uint64_t gpa, void *bytes, size_t count)
{
	uint8_t *to = bytes;

	while (count) {
		const size_t part = in_page(gpa, count);
		uint64_t hpa;
		int error = touch(machine, gpa, VMEM_EPT_ACCESS_READ, &hpa);

		if (error)
			return error;
		memcpy(to, ept_frame(machine, hpa), part);
		to += part;
		gpa += part;
		count -= part;
	}
	return 0;
}

int ept_guest_write(struct ept_machine *machine, uint64_t gpa, const void *bytes, size_t count)
{
	const uint8_t *from = bytes;

	while (count) {
		const size_t part = in_page(gpa, count);
		uint64_t hpa;
		int error = touch(machine, gpa, VMEM_EPT_ACCESS_WRITE, &hpa);

		if (error)
			return error;
		memcpy(ept_frame(machine, hpa), from, part);
		from += part;
		gpa += part;
		count -= part;
	}
	return 0;
}

int ept_machine_sound(const struct ept_machine *machine)
{
	struct vmem_ept_checked checked = { .size = sizeof(checked) };
	struct vmem_ept_view view = view_of(machine);
	uint32_t flags = 0;
	int error;

	if (machine->processor.format == VMEM_EPT_AMD && machine->levels == 5)
		flags = VMEM_EPT_CHECK_5_LEVELS;
	error = vmem_ept_check(&machine->processor, &view, vmem_ept_pointer(machine->ept), flags,
			       NULL, &checked);
	if (error)
		return !ept_failed("vmem_ept_check", error);
	if (checked.defect != VMEM_EPT_SOUND)
		fprintf(stderr, "defect %u at level %u, guest address %#llx, entry %#llx\n",
			checked.defect, checked.level, (unsigned long long)checked.gpa,
			(unsigned long long)checked.entry);
	return checked.defect == VMEM_EPT_SOUND;
}
