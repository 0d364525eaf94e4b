/* SPDX-License-Identifier: BSD-2-Clause */
/* A VM's memory, attached or allocated, and given back; and how the VM is doing. The main thread;
 * counters in guest memory are read while vCPUs change them. */
#include "runner_vm.h"

#include <sys/mman.h>
#include <vmem/huge.h>

#include "runner_balloon.h"
#include "runner_low.h"
#include "runner_print.h"
#include "runner_saved.h"
#include "common/units.h"

const char *const vm_end_names[END_WRONG + 1] = {
	[END_RUNS] = "runs",     [END_DONE] = "right",        [END_STOPPED] = "stopped",
	[END_FAILED] = "FAILED", [END_POISONED] = "POISONED", [END_WRONG] = "WRONG",
};

/* On a path that serves a fault: only takes a note. */
static void on_lost(void *context, uint64_t gpa, int error)
{
	struct vm *vm = context;

	atomic_store(&vm->lost_gpa, gpa);
	atomic_store(&vm->lost, error);
}

static void ask_for_huge(struct vm *vm, struct vmem_region_opts *opts)
{
	const char *why = vmem_region_huge_why(vm->runner->manager, opts);

	if (!vm->runner->options->huge)
		return;
	if (*why)
		print_line("vm %u: no huge pages: %s.", vm->index, why);
	else
		opts->flags |= VMEM_REGION_HUGE;
}

static int attach(struct vm *vm, struct vmem_region_opts *opts)
{
	int error;

	vm->mapped = mmap(NULL, opts->bytes, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (vm->mapped == MAP_FAILED) {
		vm->mapped = NULL;
		return -VMEM_ENOMEM;
	}
	opts->hva = vm->mapped;
	ask_for_huge(vm, opts);
	error = vmem_region_attach(&vm->region, vm->runner->manager, opts);
	if (error == -VMEM_ENOTSUP)
		print_error("vm %u: its memory cannot be paged: %s.", vm->index,
			    vmem_region_why(opts->hva, opts->bytes));
	return error;
}

/* On a thread of the library that serves no faults; or, where none runs, by who waits. */
static int read_source(void *context, uint64_t gpa, void *buffer)
{
	const struct vm *vm = context;

	return vmem_snapshot_read_page(vm->snapshot, gpa, buffer);
}

int vm_create(struct vm *vm, struct runner *runner, uint32_t index)
{
	const struct runner_options *o = runner->options;
	struct vmem_region_opts opts = {
		.size = sizeof(opts),
		.flags = VMEM_REGION_DMA_PINNED, /* these VMs have no devices */
		.bytes = o->mem_bytes,
		.fault_way = o->fault_way,
		.sharing = o->sharing,
		.on_lost = on_lost,
		.context = vm,
	};
	int error;

	if (o->lazy) { /* the file stays as it is: what is not written need not be stored */
		opts.flags |= VMEM_REGION_SOURCE_STAYS;
		opts.read_source = read_source;
	}
	vm->runner = runner;
	vm->snapshot_fd = -1;
	vm->index = index;
	vm->workload = o->workloads[index % o->workload_count];
	vm->fd = -1;
	for (uint32_t i = 0; i < GUEST_MAX_VCPUS; i++)
		vm->vcpu[i] = (struct vcpu){ .vm = vm, .index = i, .fd = -1 };
	low_part_layout(&vm->layout, o);
	if (index < o->attach) {
		error = attach(vm, &opts);
	} else {
		ask_for_huge(vm, &opts);
		error = vmem_region_alloc(&vm->region, runner->manager, &opts);
	}
	if (error) {
		print_error("vm %u: no memory for it (%s of address space): %s.", index,
			    UNITS_BYTES(o->mem_bytes), vmem_strerror(error));
		return error;
	}
	vm->hva = vmem_region_hva(vm->region);
	vm->params = (struct guest_params *)(vm->hva + GUEST_PARAMS_GPA);
	vm->truth = (struct guest_truth *)(vm->hva + vm->layout.truth_gpa);
	return o->balloon_pages ? balloon_create(vm) : 0;
}

int vm_destroy(struct vm *vm)
{
	int error;

	balloon_destroy(vm);
	error = vm->region ? vmem_region_detach(vm->region, VMEM_DETACH_DISCARD) : 0;

	if (error)
		print_error("vm %u: its memory cannot be detached: %s.", vm->index,
			    vmem_strerror(error));
	else
		vm->region = NULL;
	if (!error) /* nobody reads from it any more */
		vm_saved_close(vm);
	if (vm->mapped && !error)
		munmap(vm->mapped, vm->runner->options->mem_bytes);
	return error;
}

void vm_empty(struct vm *vm)
{
	uint64_t pinned = vm->layout.pinned_bytes;

	(void)vmem_region_discard(vm->region, pinned, vm->runner->options->mem_bytes - pinned,
				  NULL);
}

void vm_progress(const struct vm *vm, struct vm_progress *progress)
{
	*progress = (struct vm_progress){ .phase = GUEST_PHASE_END };
	for (uint32_t i = 0; i < vm->runner->options->vcpus; i++) {
		const struct guest_vcpu *vcpu = &vm->params->vcpu[i];
		uint32_t phase = __atomic_load_n(&vcpu->phase, __ATOMIC_RELAXED);

		progress->accesses += __atomic_load_n(&vcpu->accesses, __ATOMIC_RELAXED);
		progress->writes += __atomic_load_n(&vcpu->writes, __ATOMIC_RELAXED);
		progress->verified += __atomic_load_n(&vcpu->verified, __ATOMIC_RELAXED);
		progress->left_out += __atomic_load_n(&vcpu->left_out, __ATOMIC_RELAXED);
		if (phase < progress->phase)
			progress->phase = phase;
	}
}

enum vcpu_end vm_end(const struct vm *vm, const struct vcpu **ret_vcpu)
{
	enum vcpu_end worst = END_RUNS;

	for (uint32_t i = 0; i < vm->started; i++) {
		enum vcpu_end end = (enum vcpu_end)atomic_load(&vm->vcpu[i].end);

		if (end == END_RUNS)
			return END_RUNS;
		if (end > worst) {
			worst = end;
			*ret_vcpu = &vm->vcpu[i];
		}
	}
	/* Stopped by the main thread, which knows why. */
	if (worst == END_STOPPED && vm->hung)
		return atomic_load(&vm->lost) ? END_POISONED : END_FAILED;
	return worst;
}
