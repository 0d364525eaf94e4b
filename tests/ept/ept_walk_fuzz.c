/* SPDX-License-Identifier: BSD-2-Clause */
/* Hostile tables in a small memory: each input is a processor, a pointer and some entries. Walks and the check end, read
 * only whole entries, each a bounded number of times, and agree: where the check finds no defect no walk is
 * misconfigured, and where it finds one a walk finds the same. Walks set accessed and dirty bits and nothing else. */
#include <stdlib.h>
#include <string.h>
#include <vmem/ept_walk.h>
#include "support/fuzz_input.h"

enum { PAGES = 12, WALKS = 16 };

#define AT UINT64_C(0x10000000)

static struct memory {
	uint64_t page[PAGES][512];
	uint64_t before[PAGES][512];
	uint64_t seen; /* a bit a page */
	uint64_t reads, most_reads;
	uint64_t changing;
} m;

static uint64_t *entry_at(uint64_t hpa)
{
	require(hpa % 8 == 0);
	require(hpa >> 52 == 0);
	if (hpa < AT || hpa >= AT + sizeof(m.page))
		return NULL;
	return &m.page[(hpa - AT) / 4096][hpa % 4096 / 8];
}

static int read_entry(void *context, uint64_t hpa, uint64_t *ret_entry)
{
	const uint64_t *entry = entry_at(hpa);

	(void)context;
	require(++m.reads <= m.most_reads);
	if (!entry)
		return -1;
	*ret_entry = *entry;
	return 0;
}

static int set_bits(void *context, uint64_t hpa, uint64_t expected, uint64_t bits)
{
	uint64_t *entry = entry_at(hpa);

	(void)context;
	require(entry && (bits & ~UINT64_C(0x360)) == 0 && (bits & expected) == 0 && bits != 0);
	if (m.changing) {
		m.changing--;
		return 1;
	}
	if (*entry != expected) /* one entry is used at two levels */
		return 1;
	*entry |= bits;
	return 0;
}

static int seen(void *context, uint64_t hpa)
{
	uint64_t bit;

	(void)context;
	if (hpa < AT || hpa >= AT + sizeof(m.page))
		return 0;
	bit = UINT64_C(1) << (hpa - AT) / 4096;
	if (m.seen & bit)
		return 1;
	m.seen |= bit;
	return 0;
}

static const struct vmem_ept_view view = { sizeof(view), NULL, read_entry, set_bits };

/* Mostly entries that mean something: a table or a leaf with some rights, and a change of some bits. */
static uint64_t take_entry(struct input *in)
{
	uint64_t how = take(in, 1), value;

	if (how & 1)
		return take(in, 8);
	value = AT + 4096 * (take(in, 1) % (PAGES + 1));
	value |= how & 2 ? 0x37 : 0x7;
	if (how & 4)
		value |= 0x80;
	if (how & 8)
		value ^= UINT64_C(1) << take(in, 1) % 64;
	return value;
}

static void take_tables(struct input *in)
{
	memset(&m, 0, sizeof(m));
	while (in->left) {
		uint64_t page = take(in, 1) % PAGES, index = take(in, 2) % 512;

		m.page[page][index] = take_entry(in);
	}
	memcpy(m.before, m.page, sizeof(m.page));
}

static void look_at_walked(const struct vmem_ept_capabilities *processor,
			   const struct vmem_ept_access *access,
			   const struct vmem_ept_walked *walked)
{
	const uint64_t width = UINT64_C(1) << processor->physical_bits;

	require(walked->outcome <= VMEM_EPT_WALK_SUBPAGE_MISCONFIG);
	require(walked->level <= VMEM_EPT_LEVELS);
	require(walked->subpage_level <= 4);
	if (walked->subpage_level)
		require((access->context & VMEM_EPT_WALK_SUBPAGE) && walked->level == 1 &&
			(access->kind == VMEM_EPT_ACCESS_WRITE ||
			 access->kind == VMEM_EPT_ACCESS_SHADOW_STACK_WRITE));
	if (walked->outcome == VMEM_EPT_WALK_SUBPAGE_MISS ||
	    walked->outcome == VMEM_EPT_WALK_SUBPAGE_MISCONFIG)
		require(walked->subpage_level && !walked->virtualization_exception);
	if (walked->outcome == VMEM_EPT_WALK_OK) {
		require(walked->hpa < width && walked->level >= 1 && walked->level <= 3);
		require(walked->bytes == VMEM_EPT_LEVEL_BYTES(walked->level));
		require(((walked->hpa ^ access->gpa) & (walked->bytes - 1)) == 0);
		require(walked->qualification == 0 && walked->rights != 0);
	}
	if (walked->outcome == VMEM_EPT_WALK_VIOLATION && processor->format != VMEM_EPT_AMD)
		require((walked->qualification & 7) != 0);
	require((walked->outcome == VMEM_EPT_WALK_MISCONFIG ||
		 walked->outcome == VMEM_EPT_WALK_SUBPAGE_MISCONFIG ||
		 walked->outcome == VMEM_EPT_WALK_BAD_POINTER) == (walked->misconfig != 0));
}

static struct vmem_ept_walked walk(const struct vmem_ept_capabilities *processor,
				   const struct vmem_ept_access *access)
{
	struct vmem_ept_walked walked = { .size = sizeof(walked) };

	m.reads = 0;
	m.most_reads = (5 + 4) * 260; /* set says "changed" up to 255 times */
	require(vmem_ept_walk(processor, &view, access, &walked) == 0);
	look_at_walked(processor, access, &walked);
	return walked;
}

/* Only accessed and dirty bits, of what was present. */
static void only_marks(uint32_t format)
{
	const uint64_t marks = format == VMEM_EPT_AMD ? 0x60 : 0x300;

	for (size_t i = 0; i < (size_t)PAGES * 512; i++)
		require(((&m.page[0][0])[i] & ~(&m.before[0][0])[i] & ~marks) == 0 &&
			(~(&m.page[0][0])[i] & (&m.before[0][0])[i]) == 0);
}

static struct vmem_ept_checked check(const struct vmem_ept_capabilities *processor,
				     uint64_t pointer, uint32_t flags)
{
	struct vmem_ept_checked checked = { .size = sizeof(checked) };

	m.seen = m.reads = 0;
	m.most_reads = (uint64_t)PAGES * 512 + 1;
	require(vmem_ept_check(processor, &view, pointer, flags, seen, &checked) == 0);
	return checked;
}

/* What a processor of that kind can be in the middle of. */
static uint32_t context_of(const struct vmem_ept_capabilities *processor, uint32_t wish)
{
	const uint64_t caps = processor->caps;
	uint32_t context = 0;

	if (processor->format == VMEM_EPT_AMD) {
		context |= caps & VMEM_EPT_CAP_5_LEVELS ? wish & VMEM_EPT_WALK_5_LEVELS : 0;
		if ((caps & VMEM_EPT_CAP_GMET) && (caps & VMEM_EPT_CAP_NO_EXEC))
			context |= wish & VMEM_EPT_WALK_GMET;
		return context;
	}
	if (processor->format == VMEM_EPT_VTD)
		return 0;
	context |= caps & VMEM_EPT_CAP_MBEC ? VMEM_EPT_WALK_MBEC : 0;
	context |= caps & VMEM_EPT_CAP_SUPPRESS_VE ? wish & VMEM_EPT_WALK_VE : 0;
	context |= caps & VMEM_EPT_CAP_SUBPAGE ? wish & VMEM_EPT_WALK_SUBPAGE : 0;
	context |= caps & VMEM_EPT_CAP_PAGING_WRITE ? wish & VMEM_EPT_WALK_PAGING_WRITE : 0;
	context |= caps & VMEM_EPT_CAP_VERIFY ? wish & VMEM_EPT_WALK_VERIFY : 0;
	return context;
}

/* The check and a walk to where it found something. */
static void agree(const struct vmem_ept_capabilities *processor, struct vmem_ept_access access,
		  struct vmem_ept_checked checked)
{
	struct vmem_ept_walked walked;

	access.gpa = checked.gpa;
	access.subpage_pointer = 0;
	walked = walk(processor, &access);
	if (checked.defect == VMEM_EPT_DEFECT_POINTER)
		require(walked.outcome == VMEM_EPT_WALK_BAD_POINTER);
	else
		require(walked.outcome != VMEM_EPT_WALK_BAD_POINTER);
	if (checked.defect == VMEM_EPT_DEFECT_MISCONFIGURED)
		require(walked.outcome == VMEM_EPT_WALK_MISCONFIG &&
			walked.level == checked.level && walked.misconfig == checked.misconfig);
	if (checked.defect == VMEM_EPT_DEFECT_NO_TABLE)
		require(walked.outcome == VMEM_EPT_WALK_NO_TABLE && walked.level == checked.level);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct input in = { data, bytes };
	struct vmem_ept_capabilities processor = { .size = sizeof(processor) };
	struct vmem_ept_access access = { .size = sizeof(access) };
	struct vmem_ept_checked checked;
	uint64_t gpas, wish, changing;

	processor.format = (uint32_t)take(&in, 1) % VMEM_EPT_FORMATS;
	processor.physical_bits = 32 + (uint32_t)take(&in, 1) % 21;
	processor.caps = ~take(&in, 3); /* most inputs: a processor that can all */
	wish = take(&in, 1);
	access.pointer = AT + take(&in, 2);
	gpas = take(&in, 8);
	changing = take(&in, 1);
	take_tables(&in);
	access.context = context_of(&processor, (uint32_t)wish);
	if (wish & 0x80) /* mostly one that may be loaded */
		access.subpage_pointer = AT + 4096 * (changing % (PAGES + 1)) + (changing == 255);
	checked = check(&processor, access.pointer,
			access.context & VMEM_EPT_WALK_5_LEVELS ? VMEM_EPT_CHECK_5_LEVELS : 0);
	agree(&processor, access, checked);
	for (uint64_t i = 0; i < WALKS; i++) {
		struct vmem_ept_walked walked;

		/* Near what was asked, where tables are, and anywhere. */
		access.gpa = (gpas + (i & 3) * UINT64_C(0x40201000)) >> (i & 12);
		access.kind = (uint32_t)(i + wish) % (VMEM_EPT_ACCESS_SHADOW_STACK_WRITE + 1);
		if (processor.format == VMEM_EPT_VTD)
			access.kind %= VMEM_EPT_ACCESS_SHADOW_STACK;
		access.user = (wish >> 6 ^ i) & 1;
		access.no_linear = i == 7;
		access.unverified = i & 1;
		m.changing = changing;
		walked = walk(&processor, &access);
		if (checked.defect == VMEM_EPT_SOUND)
			require(walked.outcome != VMEM_EPT_WALK_MISCONFIG &&
				(walked.outcome != VMEM_EPT_WALK_NO_TABLE || walked.subpage_level));
	}
	only_marks(processor.format);
	return 0;
}
