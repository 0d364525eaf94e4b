/* SPDX-License-Identifier: BSD-2-Clause */
/* Layout and contents of the low part. The main thread, before the vCPUs start. */
#include "runner_low.h"

#include <string.h>

#include "payload_balloon.h"
#include "payload_blob.h"
#include "runner_zipf.h"
#include "common/split_random.h"

#define LARGE_PAGE (UINT64_C(2) << 20)
#define ENTRIES 512u

/* Page table entries (Intel SDM vol. 3, 4.5): accessed and dirty are set, so that the processor has
 * no reason to write to them. */
#define PTE_TABLE UINT64_C(0x27) /* present, writable, user, accessed */
#define PTE_LARGE UINT64_C(0xe7) /* the same with dirty and page size */

static uint64_t page_up(uint64_t bytes)
{
	return (bytes + GUEST_PAGE_SIZE - 1) & ~(uint64_t)(GUEST_PAGE_SIZE - 1);
}

void low_part_layout(struct low_layout *layout, const struct runner_options *options)
{
	uint64_t pages = options->mem_bytes >> GUEST_PAGE_SHIFT;
	uint64_t gpa = GUEST_PARAMS_GPA + GUEST_PAGE_SIZE;

	layout->tables_gpa = gpa;
	layout->directories = (uint32_t)((options->mem_bytes + (1u << 30) - 1) >> 30);
	gpa += (2 + layout->directories) * (uint64_t)GUEST_PAGE_SIZE;
	layout->stacks_gpa = gpa;
	gpa += options->vcpus * LOW_STACK_BYTES;
	layout->zipf_gpa = gpa;
	gpa += page_up(ZIPF_CLASSES_MOST * sizeof(struct guest_zipf));
	layout->balloon_gpa = gpa;
	gpa += page_up(PAYLOAD_BALLOON_BYTES(pages));
	layout->truth_gpa = gpa;
	layout->pinned_bytes = page_up(gpa + pages * sizeof(struct guest_truth));
}

/* One level 4 table, one level 3 table, and a directory for each GiB. */
static void fill_page_tables(struct vm *vm)
{
	uint64_t *table = (uint64_t *)(vm->hva + vm->layout.tables_gpa);
	uint64_t *level3 = table + ENTRIES;
	uint64_t *directory = level3 + ENTRIES;
	uint64_t large = (vm->runner->options->mem_bytes + LARGE_PAGE - 1) / LARGE_PAGE;

	table[0] = (vm->layout.tables_gpa + GUEST_PAGE_SIZE) | PTE_TABLE;
	for (uint32_t i = 0; i < vm->layout.directories; i++)
		level3[i] =
			(vm->layout.tables_gpa + (2 + i) * (uint64_t)GUEST_PAGE_SIZE) | PTE_TABLE;
	for (uint64_t i = 0; i < large; i++)
		directory[i] = i * LARGE_PAGE | PTE_LARGE;
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
	while (b) {
		uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

static void fill_vcpu(struct guest_vcpu *vcpu, struct vm *vm, uint32_t index)
{
	uint64_t first = vm_first_page(vm) + index;
	uint32_t vcpus = vm->runner->options->vcpus;

	vcpu->first = first;
	vcpu->count = (vm_pages(vm) - first + vcpus - 1) / vcpus;
	/* About the golden part of it, so that neighbours in rank lie far apart. */
	vcpu->scatter = (uint64_t)((double)vcpu->count * 0.6180339887) | 1;
	while (common_divisor(vcpu->scatter, vcpu->count) != 1)
		vcpu->scatter += 2;
}

/* Another balloon begins empty. What was in the last one holds anything. */
static void empty_balloon(struct vm *vm)
{
	for (uint64_t gfn = vm_first_page(vm); gfn < vm_pages(vm); gfn++) {
		struct guest_truth *truth = &vm->truth[gfn];

		if (truth->holder == GUEST_HELD_BY_BALLOON || guest_is_free(truth))
			truth->content = GUEST_CONTENT_ANYTHING;
		truth->holder = GUEST_HELD_BY_NOBODY;
		vm->params->unused += (uint64_t)guest_is_free(truth);
	}
}

void low_part_fill(struct vm *vm, bool restored)
{
	const struct runner_options *o = vm->runner->options;
	struct guest_params *params = vm->params;
	uint64_t seed = o->seed ^ (uint64_t)(vm->index + 1) << 32;

	memset(vm->hva, 0, restored ? vm->layout.truth_gpa : vm->layout.pinned_bytes);
	memcpy(vm->hva + GUEST_PAYLOAD_GPA, payload_blob, payload_blob_bytes);
	fill_page_tables(vm);
	params->base = vm->runner->backend == BACKEND_KVM ? 0 : (uint64_t)(uintptr_t)vm->hva;
	params->seed = random_next(&seed);
	params->truth_gpa = vm->layout.truth_gpa;
	params->zipf_gpa = vm->layout.zipf_gpa;
	params->workload = vm->workload;
	params->vcpus = o->vcpus;
	params->pages = vm_pages(vm);
	params->balloon = o->balloon_pages != 0;
	params->frees = o->balloon_report;
	params->driver = o->injection == INJECT_BAD_BALLOON     ? GUEST_DRIVER_BAD
			 : o->injection == INJECT_FLOOD_BALLOON ? GUEST_DRIVER_FLOOD
								: GUEST_DRIVER_GOOD;
	params->balloon_gpa = vm->layout.balloon_gpa;
	params->balloon_bytes = vm->layout.truth_gpa - vm->layout.balloon_gpa;
	params->write_percent = o->write_percent;
	for (uint32_t i = 0; i < o->vcpus; i++)
		fill_vcpu(&params->vcpu[i], vm, i);
	if (restored)
		empty_balloon(vm);
	params->zipf_classes = zipf_fill((struct guest_zipf *)(vm->hva + vm->layout.zipf_gpa),
					 params->vcpu[0].count, o->skew);
}
