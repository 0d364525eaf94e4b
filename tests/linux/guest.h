/* SPDX-License-Identifier: BSD-2-Clause */
/* What tests of real guest memory share: a virtual processor, which is a thread that touches memory when
 * it is told to, so that a fault that nobody answers fails the test at a deadline instead of hanging it;
 * and the set-up of a manager with a region. */
#ifndef VMEMT_GUEST_H
#define VMEMT_GUEST_H
#include <assert.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdbool.h>
#include <vmem/region.h>
#include "linux/kernel/kernel.h"
#include "linux/manager/manager.h"
#include "support/deadline.h"
#include "support/pages.h"

/* Whether a sanitizer is at work, whose own memory is then in every measurement of the process. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define VMEMT_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define VMEMT_SANITIZED 1
#endif
#endif
#ifndef VMEMT_SANITIZED
#define VMEMT_SANITIZED 0
#endif

/* --- A virtual processor --- */

enum vmemt_touch { VMEMT_READ, VMEMT_WRITE };

struct vmemt_cpu {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum { VMEMT_IDLE, VMEMT_BUSY, VMEMT_QUIT } state; /* lock */
	enum vmemt_touch touch;                            /* who is to act next, by state */
	void *address;                                     /* likewise */
	uint64_t *data;                                    /* likewise */
	size_t words;                                      /* likewise */
	vmem_region *region; /* its memory; NULL: any. Set it between touches */
	sigjmp_buf escape;   /* its own thread's */
	int signal;          /* of the last touch, 0: none */
	int code;            /* si_code */
	int answer;          /* what vmem_fault_sigbus() said */
	uint64_t gpa;        /* likewise */
};

void vmemt_cpu_start(struct vmemt_cpu *c);
void vmemt_cpu_stop(struct vmemt_cpu *c);

/* Lets it copy @bytes (a multiple of 8) from memory into @data or the other way, and returns at once. */
void vmemt_touch_begin(struct vmemt_cpu *c, enum vmemt_touch touch, void *memory, void *data,
		       size_t bytes);
bool vmemt_touch_over(struct vmemt_cpu *c);
/* Waits for the end of it, which no answer in time fails; and, in its region, until the library has booked
 * it: the kernel wakes who waits a moment before that. 0, or the signal that it met. */
int vmemt_touch_end(struct vmemt_cpu *c);
/* All of it. */
int vmemt_touch(struct vmemt_cpu *c, enum vmemt_touch touch, void *memory, void *data,
		size_t bytes);
/* The same while the caller steps the manager. */
int vmemt_touch_step(struct vmemt_cpu *c, enum vmemt_touch touch, void *memory, void *data,
		     size_t bytes, vmem_manager *manager);

/* Waits for something while @manager is stepped. */
#define VMEMT_STEP_UNTIL(manager, condition) \
	VMEMT_UNTIL((condition) || (assert(vmem_manager_step(manager, 100, NULL) >= 0), false))

/* Catches SIGBUS and SIGSEGV in all threads: SIGBUS goes to vmem_fault_sigbus(@manager) first; what that
 * does not serve ends the touch. NULL: all signals end it. */
void vmemt_catch_signals(vmem_manager *manager);

/* --- Contents --- */

/* Each page of a test's memory has contents of its own: text by its number and a version. */
void vmemt_put(struct vmemt_cpu *c, unsigned char *base, uint64_t page, uint64_t version);
/* Reads the page and compares; version 0: zeros. */
bool vmemt_is(struct vmemt_cpu *c, unsigned char *base, uint64_t page, uint64_t version);
void vmemt_make(struct vmemt_page *p, uint64_t page, uint64_t version);
/* The same by calls, for pages of [0, @pages) in version 1: writes all; brings every second one in place, and reads and
 * compares all. */
void vmemt_write_all(vmem_region *r, uint64_t pages);
void vmemt_read_all(vmem_region *r, uint64_t pages);

/* Whether the kernel has a page mapped there (/proc/self/pagemap). */
bool vmemt_mapped(const void *address);

/* What on_lost said; its context. */
struct vmemt_losses {
	_Atomic uint32_t count; /* atomic */
	_Atomic int error;      /* atomic; of the last one */
};
void vmemt_on_lost(void *context, uint64_t gpa, int error);

/* --- Managers and regions --- */

/* Ends the test as skipped if this machine has no userfaultfd for it, or not all of @features. */
void vmemt_need(uint64_t features);
void vmemt_skip(const char *why) __attribute__((noreturn));

/* A manager that must come to be. @budget 0: none. With VMEM_TEST_FAULT_THREADS set it has so many threads
 * that serve faults; with VMEM_TEST_ASYNC_WP it has VMEM_MANAGER_ASYNC_WP. */
vmem_manager *vmemt_manager(uint64_t budget);
/* The same with other options; @opts->fault_threads stands if that is not set. */
vmem_manager *vmemt_manager_of(const struct vmem_manager_opts *opts);
/* Whether the tests run on files (VMEM_TEST_FILES is set): then regions of vmemt_alloc() and vmemt_region() are
 * in one, and taken out of it in its way. */
bool vmemt_on_files(void);
/* vmem_region_alloc(), on files if the tests run on files; with VMEM_TEST_HUGE set it has VMEM_REGION_HUGE, if it can. */
int vmemt_alloc(vmem_region **ret_region, vmem_manager *m, const struct vmem_region_opts *opts);
/* A region of @pages pages at @gpa that must come to be. */
vmem_region *vmemt_region(vmem_manager *m, uint64_t gpa, uint64_t pages, uint64_t flags);
struct vmem_region_metrics vmemt_metrics(vmem_region *r);
struct vmem_manager_metrics vmemt_manager_metrics(vmem_manager *m);
/* When reclaim has dropped what faults left for it. */
struct vmem_store_account vmemt_account(vmem_region *r);
/* Whether reclaim keeps off a page because the kernel would not let it go. */
bool vmemt_kept(vmem_region *r, uint64_t page);
/* The age of page @page. The caller guards the tracker. */
uint32_t vmemt_age(vmem_region *r, uint64_t page);
/* Pages that the guest has touched so far may be taken at once: as if a while had gone by. The caller has the lock of
 * reclaim, or its threads do not run. */
void vmemt_let_go(vmem_region *r);
/* The state of page @page. */
enum vmem_page_state vmemt_state(vmem_region *r, uint64_t page);
/* Asserts that all counters and words agree. Stops the manager's threads meanwhile, if they run. */
void vmemt_check(vmem_manager *m, vmem_region *r);
/* Takes all pages of [first, first + count) out into staging, and on into the store. */
void vmemt_stage(vmem_region *r, uint64_t first, uint64_t count);
void vmemt_store(vmem_region *r, uint64_t first, uint64_t count);
/* Detaches with VMEM_DETACH_RESTORE memory of the library's, in which pages of [0, @pages) must be in version 1. */
void vmemt_restore(vmem_region *r, uint64_t pages);
/* Detaches and frees; both must work. */
void vmemt_end(vmem_manager *m, vmem_region *r);
/* Detaches with VMEM_DETACH_DISCARD from a thread of its own, which must be over before the deadline of touches
 * from the end on. */
struct vmemt_detaching {
	vmem_region *region;
	pthread_t thread;
	_Atomic int over; /* atomic */
};
void vmemt_detach_begin(struct vmemt_detaching *d, vmem_region *r);
void vmemt_detach_end(struct vmemt_detaching *d);

/* Descriptors of this process. */
unsigned vmemt_open_files(void);

#endif
