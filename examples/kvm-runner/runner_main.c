/* SPDX-License-Identifier: BSD-2-Clause */
/* vmem-kvm-runner: virtual machines in less memory than they have. This file is the order of things:
 * check, make a manager, attach the VMs' memory, load it, run, verify, report, give all back. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <vmem/common.h>
#include <vmem/manager.h>

#ifdef RUNNER_JEMALLOC
#include <vmem/jemalloc.h>
#else
typedef struct vmem_jemalloc vmem_jemalloc;
#endif

#include "runner_alloc.h"
#include "runner_balloon.h"
#include "runner_inject.h"
#include "runner_load.h"
#include "runner_low.h"
#include "runner_print.h"
#include "runner_result.h"
#include "runner_saved.h"
#include "runner_signals.h"
#include "runner_table.h"
#include "common/units.h"
#include "runner_vcpu.h"

#define TICK_NS UINT64_C(100000000)
#define SECOND UINT64_C(1000000000)

/* A VM that does nothing for so long is given up. */
#define PATIENCE_NS (30 * SECOND)
/* The same when the library has given up one of its pages, and this kernel cannot say so. */
#define PATIENCE_LOST_NS (3 * SECOND)
/* A vCPU that has not heard a kick for so long waits for a page. */
#define PATIENCE_STOP_NS SECOND

/* What the main thread knows of a VM while it runs. */
struct watch {
	uint64_t progress;
	uint64_t progress_ns;
	uint64_t stop_ns; /* when it was first told to stop; 0: not yet */
	bool reported;
};

struct session {
	struct runner_options options;
	struct runner runner;
	struct watch watch[RUNNER_MAX_VMS];
	struct table *table;
	vmem_jemalloc *jemalloc;
	bool injected;
	bool stopped; /* by Ctrl-C, and the VMs know */
};

/* On the reclaim thread. */
static void on_event(void *context, enum vmem_manager_event event, uint64_t used, uint64_t budget)
{
	struct runner *runner = context;

	(void)used;
	(void)budget;
	atomic_store(&runner->stuck, event == VMEM_MANAGER_STUCK);
}

static void say(const char *line)
{
	print_line("%s", line);
}

static void complain(const char *line)
{
	print_error("%s", line);
}

static int check_images(const struct runner_options *o)
{
	int error = 0;

	for (uint32_t i = 0; i < o->image_count && !error; i++) {
		struct image *image = NULL;

		error = image_open(&image, o->images[i], o->mem_bytes);
		if (error == -VMEM_ENOMEM)
			print_error("Out of memory while image %s was opened.", o->images[i]);
		image_close(image);
	}
	return error;
}

static int check_budget(const struct runner_options *o)
{
	struct low_layout layout;
	uint64_t pinned;

	low_part_layout(&layout, o);
	pinned = layout.pinned_bytes * o->vms;
	if (o->budget_bytes > pinned)
		return 0;
	print_error(
		"The budget, %s, is below the %s that the VMs keep pinned (page tables, and 16 bytes a page to "
		"know what it must hold). Give more with --budget.",
		UNITS_BYTES(o->budget_bytes), UNITS_BYTES(pinned));
	return -VMEM_EINVAL;
}

static int choose_backend(struct runner *runner)
{
	enum runner_backend wanted = runner->options->backend;

	runner->kvm_fd = -1;
	runner->backend = BACKEND_THREAD;
	if (wanted == BACKEND_THREAD)
		return 0;
	runner->kvm_fd = backend_kvm_open(wanted == BACKEND_KVM);
	if (runner->kvm_fd >= 0)
		runner->backend = BACKEND_KVM;
	else if (wanted == BACKEND_KVM)
		return runner->kvm_fd;
	else
		print_line("No usable /dev/kvm: the same payloads run as threads of this process.");
	return 0;
}

static void explain_manager_error(const struct runner_options *o, int error)
{
	if (error == -VMEM_EPERM)
		print_error("This process may not use userfaultfd. Set it free with 'sysctl -w "
			    "vm.unprivileged_userfaultfd=1', or give read and write permission on "
			    "/dev/userfaultfd, or the capability CAP_SYS_PTRACE.");
	else if (error == -VMEM_ENODEV)
		print_error(
			"This kernel has no userfaultfd (CONFIG_USERFAULTFD): libvmem cannot page memory on it.");
	else if (error == -VMEM_EINVAL)
		print_error(
			"The budget, %s, is less than libvmem can work with. Give more with --budget.",
			UNITS_BYTES(o->budget_bytes));
	else
		print_error("libvmem cannot be started: %s.", vmem_strerror(error));
}

/* KVM reads and writes guest memory inside the kernel. */
static int leave_kvm(struct runner *runner)
{
	if (runner->options->backend == BACKEND_KVM) {
		print_error(
			"KVM reads and writes guest memory inside the kernel, and this process may only use "
			"userfaultfd for faults of user mode. Set 'sysctl -w vm.unprivileged_userfaultfd=1', or "
			"give read and write permission on /dev/userfaultfd, or the capability "
			"CAP_SYS_PTRACE; or use --backend thread.");
		return -VMEM_EPERM;
	}
	close(runner->kvm_fd);
	runner->kvm_fd = -1;
	runner->backend = BACKEND_THREAD;
	print_line("No right to serve the faults of KVM (--backend kvm says what to do): the same "
		   "payloads run as threads of this process.");
	return 0;
}

/* What this kernel and this process must be able to do for what was asked. */
static int check_kernel(struct runner *runner)
{
	struct vmem_manager_metrics m = { .size = sizeof(m) };
	int error = vmem_manager_get_metrics(runner->manager, &m);

	if (error)
		return error;
	if (runner->backend == BACKEND_KVM && !(m.kernel_features & VMEM_KERNEL_KERNEL_FAULTS))
		return leave_kvm(runner);
	if (runner->options->fault_way == VMEM_FAULT_SIGBUS &&
	    !(m.kernel_features & VMEM_KERNEL_SIGBUS)) {
		print_error("This kernel cannot deliver faults as SIGBUS. Use --fault-way thread.");
		return -VMEM_ENODEV;
	}
	return 0;
}

static const struct vmem_allocator *choose_allocator(struct session *s)
{
#ifdef RUNNER_JEMALLOC
	if (s->options.jemalloc) {
		if (vmem_jemalloc_new(&s->jemalloc, NULL) != 0)
			return NULL;
		return vmem_jemalloc_allocator(s->jemalloc);
	}
#endif
	(void)s;
	return alloc_for_library();
}

static int make_manager(struct session *s)
{
	struct vmem_manager_opts opts = {
		.size = sizeof(opts),
		.flags = s->options.as_saved ? VMEM_MANAGER_AS_SAVED : 0,
		.allocator = choose_allocator(s),
		.budget_bytes = s->options.budget_bytes,
		.on_event = on_event,
		.context = &s->runner,
		.cold_pages_per_second = s->options.recompress_per_second,
	};
	int error = opts.allocator ? vmem_manager_new(&s->runner.manager, &opts) : -VMEM_ENOMEM;

	if (error) {
		explain_manager_error(&s->options, error);
		return error;
	}
	signals_set_manager(s->runner.manager);
	return check_kernel(&s->runner);
}

/* All memory is attached, and all descriptors are open, before the manager's threads start. */
static int make_vms(struct session *s)
{
	struct runner *runner = &s->runner;
	int error = s->options.image_count || s->options.restore ? 0 : corpus_find(&runner->corpus);

	runner->vms = error ? NULL : alloc_new(s->options.vms * sizeof(*runner->vms));
	if (!runner->vms) {
		print_error("Out of memory while the VMs were made.");
		return -VMEM_ENOMEM;
	}
	for (uint32_t i = 0; i < s->options.vms && !error; i++) {
		error = vm_create(&runner->vms[i], runner, i);
		if (!error && runner->backend == BACKEND_KVM)
			error = backend_kvm_create(&runner->vms[i]);
	}
	if (error)
		return error;
	error = vmem_manager_thread_start(runner->manager);
	if (error)
		print_error("The library's threads cannot be started: %s.", vmem_strerror(error));
	return error;
}

static int start_vms(struct session *s)
{
	struct runner *runner = &s->runner;
	int error;

	runner->start_ns = runner_now_ns();
	runner->end_ns = runner->start_ns + s->options.seconds * SECOND;
	error = table_new(&s->table, runner);
	for (uint32_t i = 0; i < s->options.vms && !error; i++) {
		struct vm *vm = &runner->vms[i];

		s->watch[i].progress_ns = runner->start_ns;
		for (uint32_t k = 0; k < s->options.vcpus && !error; k++) {
			error = vcpu_start(&vm->vcpu[k]);
			vm->started += error == 0;
		}
	}
	if (error)
		print_error("The VMs cannot be started: %s.", vmem_strerror(error));
	else
		print_line("The VMs run for %u s.", s->options.seconds);
	return error;
}

/* Again and again, until all vCPUs have heard it. Where the library serves a fault in a signal handler,
 * and before Linux 6.2 in KVM, a kick does not end the wait for a page. So the page comes, empty, and
 * the kick, which is pending, ends the vCPU before it can read it. */
static void stop_vm(struct vm *vm, struct watch *watch, uint64_t now)
{
	atomic_store(&vm->stop, true);
	for (uint32_t i = 0; i < vm->started; i++)
		if (atomic_load(&vm->vcpu[i].end) == END_RUNS)
			signals_kick(&vm->vcpu[i]);
	if (watch->stop_ns == 0)
		watch->stop_ns = now;
	else if (now - watch->stop_ns > PATIENCE_STOP_NS)
		vm_empty(vm);
}

/* Whether the VM still gets on; if not for too long, it is given up. */
static void watch_progress(struct vm *vm, struct watch *watch, uint64_t now)
{
	struct vm_progress p;
	uint64_t patience = atomic_load(&vm->lost) ? PATIENCE_LOST_NS : PATIENCE_NS;

	vm_progress(vm, &p);
	if (p.accesses + p.verified != watch->progress) {
		watch->progress = p.accesses + p.verified;
		watch->progress_ns = now;
	} else if (now - watch->progress_ns > patience) {
		vm->hung =
			"it did nothing for half a minute. If the table says that the library is stuck, "
			"the budget is too small for what the guests use: give more with --budget";
		atomic_store(&vm->stop, true);
	}
}

/* Returns whether the VM has ended. */
static bool watch_vm(struct vm *vm, struct watch *watch, uint64_t now)
{
	const struct vcpu *vcpu;

	if (vm->started == 0)
		return true;
	if (vm_end(vm, &vcpu) == END_RUNS) {
		balloon_tick(vm, now);
		watch_progress(vm, watch, now);
		if (atomic_load(&vm->stop))
			stop_vm(vm, watch, now);
		return false;
	}
	if (!watch->reported)
		result_print_end(vm);
	watch->reported = true;
	return true;
}

/* Behind the guest's back means: while it runs. */
static int inject_while_running(struct session *s, uint64_t now)
{
	struct runner *runner = &s->runner;

	struct vm_progress progress;
	int error;

	if (s->injected || s->options.injection != INJECT_DROP_PAGE ||
	    now - runner->start_ns < (runner->end_ns - runner->start_ns) / 4)
		return 0;
	/* A guest that still fills its memory does so without a look at what is there; what it has looked
	 * at for the last time may be wrong from then on. */
	vm_progress(&runner->vms[0], &progress);
	if (progress.phase != GUEST_PHASE_WORK)
		return 0;
	error = inject_drop_page(&runner->vms[0]);
	s->injected = error == 0;
	return error == -VMEM_ENOENT ? 0 : error; /* there may be one later */
}

static int watch_vms(struct session *s)
{
	struct runner *runner = &s->runner;
	bool ended = false;
	int error = 0;

	while (!ended) {
		uint64_t now = runner_now_ns();

		if ((signals_interrupted() || error) && !s->stopped) {
			s->stopped = true;
			for (uint32_t i = 0; i < s->options.vms; i++)
				atomic_store(&runner->vms[i].stop, true);
		}
		ended = true;
		for (uint32_t i = 0; i < s->options.vms; i++)
			ended &= watch_vm(&runner->vms[i], &s->watch[i], now);
		if (ended)
			break;
		table_tick(s->table, now);
		swap_watch(&runner->swap, runner->manager);
		if (!error)
			error = inject_while_running(s, now);
		signals_wait(TICK_NS);
	}
	if (s->options.injection == INJECT_DROP_PAGE && !s->injected && !error && !s->stopped) {
		print_error("Nothing was dropped: vm 0 never worked on a page that is not zero.");
		error = -VMEM_ENOENT;
	}
	return error;
}

static void join_vms(struct session *s)
{
	for (uint32_t i = 0; s->runner.vms && i < s->options.vms; i++) {
		struct vm *vm = &s->runner.vms[i];

		for (uint32_t k = 0; k < vm->started; k++)
			pthread_join(vm->vcpu[k].thread, NULL);
	}
}

/* Before the VMs run: what the user can change is told apart from what failed. */
static enum runner_exit exit_of(int error)
{
	switch (error) {
	case -VMEM_EINVAL:
	case -VMEM_ENODEV:
	case -VMEM_ENOSPC:
	case -VMEM_ENOTSUP:
	case -VMEM_EPERM: return RUNNER_EXIT_USAGE;
	default: return RUNNER_EXIT_BAD;
	}
}

static int check(struct session *s)
{
	int error = s->options.json ? result_check_json(s->options.json) : 0;

	if (!error && s->options.save)
		error = saved_check(&s->options);
	if (!error)
		error = check_images(&s->options);
	if (!error)
		error = check_budget(&s->options);
	if (!error)
		error = choose_backend(&s->runner);
	return error;
}

/* Everything until the VMs can start. */
static int prepare(struct session *s)
{
	int error = swap_open_all(&s->runner.swap, &s->options.swap, alloc_for_library());

	if (!error)
		error = make_manager(s);
	if (!error)
		error = swap_hand_over(&s->runner.swap, s->runner.manager, &s->options.swap);
	if (!error)
		error = make_vms(s);
	if (!error)
		error = load_vms(&s->runner);
	if (!error && s->options.injection == INJECT_CORRUPT_PAGE)
		error = inject_corrupt_page(&s->runner.vms[0]);
	return error;
}

/* From start to totals. */
static enum runner_exit run(struct session *s)
{
	enum runner_exit status;
	int error = start_vms(s);

	if (error)
		for (uint32_t i = 0; i < s->options.vms; i++)
			atomic_store(&s->runner.vms[i].stop, true);
	if (!s->table)
		return RUNNER_EXIT_BAD;
	if (watch_vms(s) != 0)
		error = -VMEM_EIO;
	join_vms(s);
	table_end(s->table);
	status = result_print_totals(&s->runner, signals_interrupted());
	swap_watch(&s->runner.swap, s->runner.manager);
	swap_print_totals(&s->runner.swap, s->runner.manager);
	if (error)
		status = RUNNER_EXIT_BAD;
	for (uint32_t i = 0; s->options.save && status == RUNNER_EXIT_GOOD && i < s->options.vms;
	     i++)
		if (vm_save(&s->runner.vms[i]) != 0)
			status = RUNNER_EXIT_BAD;
	if (s->options.json && result_write_json(&s->runner, status, s->options.json) != 0)
		status = RUNNER_EXIT_BAD;
	return status;
}

/* What was made, in the other order; also when only part of it was. */
static int clean_up(struct session *s)
{
	struct runner *runner = &s->runner;
	int error = 0;

	for (uint32_t i = 0; runner->vms && i < s->options.vms; i++) {
		if (!runner->vms[i].runner)
			continue;
		if (runner->backend == BACKEND_KVM)
			backend_kvm_destroy(&runner->vms[i]);
		if (vm_destroy(&runner->vms[i]) != 0)
			error = -VMEM_EIO;
	}
	if (runner->manager && vmem_manager_free(runner->manager) != 0) {
		print_error("libvmem still holds memory of a VM.");
		error = -VMEM_EIO;
	}
	swap_close(&runner->swap);
	table_free(s->table);
	corpus_free(&runner->corpus);
	alloc_free(runner->vms);
	if (runner->kvm_fd >= 0)
		close(runner->kvm_fd);
#ifdef RUNNER_JEMALLOC
	vmem_jemalloc_free(s->jemalloc);
#endif
	return error;
}

int main(int argc, char **argv)
{
	static struct session session;
	struct session *s = &session;
	enum runner_exit status;
	int error;

	runner_options_parse(&s->options, argc, argv);
	s->runner.options = &s->options;
	s->runner.kvm_fd = -1;
	s->runner.swap = (struct swap){ .say = say, .complain = complain };
	signals_init();
	print_init();
	if (s->options.injection == INJECT_FAIL_ALLOC)
		alloc_fail_at(s->options.injection_number);
	error = check(s);
	if (error)
		return (int)exit_of(error);
	print_line("%u VMs of %s in a budget of %s, seed %llu", s->options.vms,
		   UNITS_BYTES(s->options.mem_bytes), UNITS_BYTES(s->options.budget_bytes),
		   (unsigned long long)s->options.seed);
	error = prepare(s);
	if (error)
		status = signals_interrupted() ? RUNNER_EXIT_INTERRUPTED : exit_of(error);
	else
		status = run(s);
	if (clean_up(s) != 0)
		status = RUNNER_EXIT_BAD;
	if (alloc_failure_waits())
		print_line("Injected nothing: there were fewer allocations.");
	return (int)status;
}
