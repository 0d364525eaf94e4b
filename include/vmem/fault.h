/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/fault.h
 *  Faults that arrive as SIGBUS in the faulting thread. The library installs no signal handler: the
 *  VMM's own (sigaction with SA_SIGINFO) calls vmem_fault_sigbus(). Linux only. */
#ifndef VMEM_FAULT_H
#define VMEM_FAULT_H
#include <vmem/common.h>
#include <vmem/manager.h>
VMEM_BEGIN_DECLS

/** Serve the fault at @p address: for regions attached with VMEM_FAULT_SIGBUS, and for poisoned pages
 *  of any region (there the signal is how the access fails, also in KVM_RUN, si_code BUS_MCEERR_AR).
 *  Call it whatever si_code is: for a plain access to a poisoned page it is BUS_MCEERR_AR only on kernels
 *  with CONFIG_MEMORY_FAILURE, else BUS_ADRERR.
 *  Async-signal-safe; takes no lock that blocks, allocates nothing, keeps errno.
 *  @param address  si_addr of the signal
 *  @param ucontext  third argument of the handler: on x86-64 it tells a read from a write, which saves a
 *                   second fault; NULL: not known
 *  @param[out] ret_gpa  guest physical address, set with 0 and -VMEM_EIO; may be NULL
 *  @return 0 (return from the handler: the access is repeated), -VMEM_EIO (the page is poisoned: stop the
 *          guest), -VMEM_ENOENT (not in a region: pass the signal on)
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_fault_sigbus(vmem_manager *manager, const void *address, const void *ucontext,
			       uint64_t *ret_gpa) VMEM_NODISCARD;

VMEM_END_DECLS
#endif
