/* SPDX-License-Identifier: BSD-2-Clause */
/* One VM: a region of libvmem as its memory, the pinned low part of it, and its vCPUs. */
#ifndef RUNNER_VM_H
#define RUNNER_VM_H
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <vmem/manager.h>
#include <vmem/region.h>
#include <vmem/snapshot_source.h>

#include "guest_abi.h"
#include "runner_image.h"
#include "runner_options.h"

/* How a vCPU, and a VM as the worst of its vCPUs, ended. */
enum vcpu_end {
	END_RUNS = 0,    /* it has not */
	END_DONE = 1,    /* all its pages are right */
	END_STOPPED = 2, /* by Ctrl-C, or because another vCPU of the VM ended badly */
	END_FAILED = 3,  /* `why` says how */
	END_POISONED = 4,
	END_WRONG = 5
};

struct balloon;
struct kvm_run;
struct vm;

struct vcpu {
	struct vm *vm;
	uint32_t index;
	pthread_t thread;
	_Atomic uint32_t end; /* enum vcpu_end; what follows is read only after it was set */
	char why[160];
	uint64_t poison_gpa;

	/* The rest belongs to the vCPU's thread and its signal handlers. */
	volatile sig_atomic_t poisoned;
	volatile sig_atomic_t in_payload; /* thread: the code that runs is the payload's */
	sigjmp_buf leave;                 /* thread: out of it */
	int fd;                           /* KVM */
	struct kvm_run *run;              /* KVM; NULL: thread */
	uint32_t line_length;
	char line[160]; /* of output, until its end */
};

/* Where things lie in the low part of guest memory. */
struct low_layout {
	uint64_t tables_gpa; /* page tables: identity, 2 MiB pages */
	uint32_t directories;
	uint64_t stacks_gpa; /* LOW_STACK_BYTES for each vCPU */
	uint64_t zipf_gpa;
	uint64_t balloon_gpa; /* for the driver, whether there is a balloon or not */
	uint64_t truth_gpa;
	uint64_t pinned_bytes; /* what comes behind belongs to the workload */
};

#define LOW_STACK_BYTES 8192u

/* What all VMs share. Set before they start. */
struct runner {
	const struct runner_options *options;
	vmem_manager *manager;
	enum runner_backend backend; /* KVM or THREAD */
	int kvm_fd;                  /* /dev/kvm */
	struct corpus corpus;
	struct swap swap;
	struct vm *vms; /* options->vms of them */
	uint64_t start_ns;
	uint64_t end_ns;    /* when the workloads stop and the sweep begins */
	_Atomic bool stuck; /* the library says that it can take nothing more */
};

struct vm {
	struct runner *runner;
	uint32_t index;
	uint32_t workload; /* enum guest_workload */
	vmem_region *region;
	void *mapped; /* memory that the runner mapped itself and attached, else NULL */
	uint8_t *hva;
	struct low_layout layout;
	struct guest_params *params; /* in guest memory, pinned */
	struct guest_truth *truth;   /* the same */
	struct image_counts image;
	struct balloon *balloon; /* NULL: none */
	vmem_snapshot *snapshot; /* --lazy: where its pages come from */
	int snapshot_fd;
	int fd; /* KVM */
	struct vcpu vcpu[GUEST_MAX_VCPUS];
	uint32_t started;  /* vCPU threads */
	const char *hung;  /* why the main thread gave up waiting for it, else NULL */
	_Atomic bool stop; /* the vCPUs shall end now */
	_Atomic int lost;  /* the library gave up a page: its error number */
	_Atomic uint64_t lost_gpa;
};

/* Give the VM its memory. Returns 0, or a negative VMEM error after a message. */
int vm_create(struct vm *vm, struct runner *runner, uint32_t index);

/* Give it all back. The vCPUs have ended. Returns 0 or a negative VMEM error after a message. */
int vm_destroy(struct vm *vm);

/* Discard all that the guest works with, so that nobody waits for a page of it or for room any more.
 * Its vCPUs must have been told to stop. Any thread. */
void vm_empty(struct vm *vm);

static inline uint64_t vm_pages(const struct vm *vm)
{
	return vm->runner->options->mem_bytes >> GUEST_PAGE_SHIFT;
}

/* First page that belongs to the workload. */
static inline uint64_t vm_first_page(const struct vm *vm)
{
	return vm->layout.pinned_bytes >> GUEST_PAGE_SHIFT;
}

/* What the guest has done so far, over its vCPUs. */
struct vm_progress {
	uint64_t accesses;
	uint64_t writes;
	uint64_t verified;
	uint64_t left_out;
	uint32_t phase; /* of the vCPU that is least far */
};

void vm_progress(const struct vm *vm, struct vm_progress *progress);

/* How the VM ended; END_RUNS until all vCPUs that were started have. Sets the vCPU that says so. */
enum vcpu_end vm_end(const struct vm *vm, const struct vcpu **ret_vcpu);

/* Words for enum vcpu_end, for the table and JSON. */
extern const char *const vm_end_names[END_WRONG + 1];

#endif
