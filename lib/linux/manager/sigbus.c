/* SPDX-License-Identifier: BSD-2-Clause */
/* Faults that arrive as SIGBUS in the faulting thread: see vmem/fault.h. What is called from here on
 * uses atomics, ioctl, write, futex, sched_yield and clock_gettime only. No lock is taken: slow loads, which need
 * one, are left to the handler, and stale refs to reclaim. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux/backing/backing.h"
#include "linux/manager/manager.h"
#include <errno.h>
#include <ucontext.h>
#include <vmem/fault.h>

/* Two looks at the clock would be a hundredth of a fault: one in so many is measured. */
#define LATENCY_EVERY 8

/* Whether the access was a write: bit 1 of the page-fault error code (Intel SDM vol. 3, 4.7). */
static bool was_write(const void *ucontext)
{
#ifdef __x86_64__
	const ucontext_t *u = ucontext;

	return u && (u->uc_mcontext.gregs[REG_ERR] & 2);
#else
	(void)ucontext;
	return false;
#endif
}

static bool in_place(uint64_t word)
{
	enum vmem_page_state s = vmemi_page_state(word);

	return s == VMEM_PAGE_RESIDENT || s == VMEM_PAGE_CLEAN || s == VMEM_PAGE_SHARED;
}

int vmem_fault_sigbus(vmem_manager *manager, const void *address, const void *ucontext,
		      uint64_t *ret_gpa)
{
	struct vmemi_host *host = &manager->host;
	struct vmem_region *r = vmemi_host_find(host, address);
	struct vmemi_fault f = { .demand = true, .write = was_write(ucontext) };
	struct vmemi_around around;
	int keep_errno = errno;
	uint64_t start, word;
	bool ok, sampled;

	if (!r)
		return -VMEM_ENOENT;
	f.page = (uint64_t)((const unsigned char *)address - r->base) / VMEM_PAGE_SIZE;
	word = vmemi_region_word(r, f.page);
	if (r->opts.fault_way != VMEM_FAULT_SIGBUS) {
		/* A page is poisoned before that is booked. */
		for (; vmemi_page_state(word) == VMEM_PAGE_ARRIVING;
		     word = vmemi_region_word(r, f.page))
			vmemi_relax(host->env);
		if (vmemi_page_state(word) != VMEM_PAGE_POISONED)
			return -VMEM_ENOENT;
	}
	if (ret_gpa)
		*ret_gpa = vmemi_region_gpa(r, f.page);
	if (vmemi_page_state(word) == VMEM_PAGE_POISONED)
		return -VMEM_EIO;
	sampled = atomic_fetch_add_explicit(&r->sigbus_faults, 1, memory_order_relaxed) %
			  LATENCY_EVERY ==
		  0;
	start = sampled ? host->k->clock_ns() : 0;
	/* A page in place is one that is write-protected, or came back since. */
	f.write |= in_place(word) && !ucontext;
	f.kind = vmemi_backing_kind(r, word, f.write);
	ok = vmemi_serve_wait(r, &f) == VMEMI_SERVED;
	if (ok && f.kind == VMEMI_FAULT_MISSING && vmemi_around_begin(&around, r, f.page, f.write))
		while (vmemi_around_some(&around))
			;
	if (sampled) {
		uint64_t ns = host->k->clock_ns() - start;

		vmemi_latency_add(&r->latency, ns);
		vmemi_pressure_add(&r->pressure, LATENCY_EVERY * (ns - f.waited_ns));
	}
	errno = keep_errno;
	return ok ? 0 : -VMEM_EIO;
}
