/* SPDX-License-Identifier: BSD-2-Clause */
/* Words for people. The main thread, when the VM in question has ended. */
#include "runner_result.h"

#include <stdio.h>
#include <string.h>

#include "page_sum.h"
#include "runner_alloc.h"
#include "runner_balloon.h"
#include "runner_print.h"
#include "runner_sample.h"
#include "common/units.h"
#include "runner_vcpu.h"

typedef unsigned long long ull;

static double percent(uint64_t part, uint64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

void result_print_image(const struct vm *vm)
{
	const struct runner_options *o = vm->runner->options;
	const struct image_counts *c = &vm->image;
	uint64_t same = c->zero + c->same;
	char origin[200];

	if (o->image_count)
		snprintf(origin, sizeof(origin), "%s: %.1f %% other pages",
			 o->images[vm->index % o->image_count], percent(c->pages - same, c->pages));
	else
		snprintf(
			origin, sizeof(origin),
			"files of this machine: %.1f %% executables, %.1f %% libraries, %.1f %% text%s",
			percent(c->made[CORPUS_EXECUTABLE], c->pages),
			percent(c->made[CORPUS_LIBRARY], c->pages),
			percent(c->made[CORPUS_TEXT], c->pages),
			c->repeated ? " (some of it more than once)" : "");
	print_line(
		"vm %u: %s, %u vCPU, %s, memory %s; image of %s from %s, %.1f %% same-filled (%.1f %% zero)",
		vm->index, UNITS_BYTES(o->mem_bytes), o->vcpus, runner_workload_names[vm->workload],
		vm->mapped ? "mapped by the runner and attached" : "from vmem_region_alloc()",
		UNITS_BYTES(c->pages * GUEST_PAGE_SIZE), origin, percent(same, c->pages),
		percent(c->zero, c->pages));
}

/* What the host sees in the page now, for whoever looks for the reason. */
static void print_second_look(struct vm *vm, const struct guest_wrong *wrong)
{
	static const char *const states[VMEM_PAGE_STATES] = { "absent",  "source", "resident",
							      "clean",   "shared", "staged",
							      "storing", "stored", "arriving",
							      "poisoned" };
	uint64_t gpa = wrong->gfn << GUEST_PAGE_SHIFT;
	uint64_t *page = alloc_pages(GUEST_PAGE_SIZE);
	int state = vmem_region_page_state(vm->region, gpa);
	int error = page ? vmem_region_read(vm->region, gpa, page, GUEST_PAGE_SIZE) : -VMEM_ENOMEM;
	const char *now;

	if (error)
		now = vmem_strerror(error);
	else if (page_sum(page) == wrong->expected_sum)
		now = "it holds the right bytes now";
	else
		now = page_sum(page) == wrong->found_sum ? "it still holds the same"
							 : "it holds others now";
	print_line("      A second look by the runner, page state %s: %s.",
		   state >= 0 && state < VMEM_PAGE_STATES ? states[state] : "unknown", now);
	alloc_free(page);
}

static void print_stamp(const struct vm *vm, const struct guest_wrong *wrong)
{
	uint64_t found = wrong->found_word;
	uint64_t expected = wrong->expected_word;
	char whose[80] = "which is not a stamp";

	/* Stamps of one place in the page differ in page and version. */
	if ((found & 0xf) == (expected & 0xf) && found >> 36 < vm_pages(vm) && found >> 36 != 0)
		snprintf(whose, sizeof(whose), "the stamp of write %u to frame %#llx",
			 (unsigned)(found >> 12 & 0xffffff), (ull)(found >> 36));
	print_line("      At offset %#x: %#llx, %s, instead of %#llx of write %u.", wrong->offset,
		   (ull)found, whose, (ull)expected, wrong->version);
}

static void print_wrong(struct vm *vm, const struct vcpu *vcpu)
{
	const struct guest_wrong *wrong = &vm->params->vcpu[vcpu->index].wrong;
	uint64_t whose = vm_first_page(vm);
	char holds[80];

	if (wrong->gfn >= vm_pages(vm)) {
		print_line("vm %u: WRONG, but the report of its vCPU %u is not: frame %#llx.",
			   vm->index, vcpu->index, (ull)wrong->gfn);
		return;
	}
	while (whose < vm_pages(vm) && vm->truth[whose].sum != wrong->found_sum)
		whose++;
	if (wrong->is_zero)
		snprintf(holds, sizeof(holds), "it reads as zeros");
	else if (whose < vm_pages(vm))
		snprintf(holds, sizeof(holds), "it holds what frame %#llx should", (ull)whose);
	else
		snprintf(holds, sizeof(holds), "it holds something else");
	print_line(
		"vm %u: WRONG BYTE in frame %#llx (guest physical %#llx): %s; %s. Sum %#llx, found %#llx.",
		vm->index, (ull)wrong->gfn, (ull)wrong->gfn << GUEST_PAGE_SHIFT,
		wrong->content == GUEST_CONTENT_LOADED    ? "it should be as it was loaded"
		: wrong->content == GUEST_CONTENT_STAMPED ? "it should be as the guest wrote it"
							  : "the guest wrote zeros to it",
		holds, (ull)wrong->expected_sum, (ull)wrong->found_sum);
	if (wrong->offset < GUEST_PAGE_SIZE && !wrong->is_zero)
		print_stamp(vm, wrong);
	print_second_look(vm, wrong);
}

static void print_poisoned(const struct vm *vm, const struct vcpu *vcpu)
{
	uint64_t gpa = vcpu->poisoned ? vcpu->poison_gpa : atomic_load(&vm->lost_gpa);

	print_line(
		"vm %u: frame %#llx (guest physical %#llx) is POISONED: %s. Nothing was handed to the guest in "
		"its place; this VM stops, the others go on.",
		vm->index, (ull)gpa >> GUEST_PAGE_SHIFT, (ull)gpa,
		vmem_strerror(atomic_load(&vm->lost)));
}

void result_print_end(struct vm *vm)
{
	const struct vcpu *vcpu;

	switch (vm_end(vm, &vcpu)) {
	case END_WRONG: print_wrong(vm, vcpu); break;
	case END_POISONED: print_poisoned(vm, vcpu); break;
	case END_FAILED:
		print_line("vm %u: FAILED: %s.", vm->index, vcpu->why[0] ? vcpu->why : vm->hung);
		break;
	case END_RUNS:
	case END_STOPPED:
	case END_DONE: break;
	}
}

static void print_vm(struct vm *vm, const struct sample *sample, enum vcpu_end end)
{
	const struct vmem_region_metrics *m = &sample->region;

	print_line(
		"vm %u: %s: %llu of %llu pages verified at the end; %llu accesses, %llu of them writes; "
		"%llu faults (%llu zero, %llu from staging, %llu from the store), p50 %s, p99 %s; "
		"%llu pages prefetched",
		vm->index, vm_end_names[end], (ull)sample->progress.verified,
		(ull)(vm_pages(vm) - vm_first_page(vm)), (ull)sample->progress.accesses,
		(ull)sample->progress.writes, (ull)m->faults, (ull)m->faults_zero,
		(ull)m->faults_staged, (ull)m->faults_stored, UNITS_TIME(m->fault_p50_ns),
		UNITS_TIME(m->fault_p99_ns), (ull)m->prefetched);
}

enum runner_exit result_print_totals(struct runner *runner, bool interrupted)
{
	uint32_t by_end[END_WRONG + 1] = { 0 };
	uint64_t verified = 0;
	uint64_t accesses = 0;
	double seconds = (double)(runner_now_ns() - runner->start_ns) / 1e9;

	for (uint32_t i = 0; i < runner->options->vms; i++) {
		struct vm *vm = &runner->vms[i];
		const struct vcpu *vcpu;
		enum vcpu_end end = vm_end(vm, &vcpu);
		struct sample sample;

		sample_vm(vm, &sample);
		print_vm(vm, &sample, end);
		balloon_print(vm);
		by_end[end]++;
		verified += sample.progress.verified;
		accesses += sample.progress.accesses;
	}
	print_line("total: %llu accesses and %llu pages verified at the end in %.1f s",
		   (ull)accesses, (ull)verified, seconds);
	print_line(
		"VMs with a wrong byte: %u, with a poisoned page: %u, failed: %u, stopped early: %u, "
		"right: %u of %u",
		by_end[END_WRONG], by_end[END_POISONED], by_end[END_FAILED], by_end[END_STOPPED],
		by_end[END_DONE], runner->options->vms);
	if (by_end[END_DONE] == runner->options->vms)
		return RUNNER_EXIT_GOOD;
	return interrupted && by_end[END_DONE] + by_end[END_STOPPED] == runner->options->vms
		       ? RUNNER_EXIT_INTERRUPTED
		       : RUNNER_EXIT_BAD;
}
