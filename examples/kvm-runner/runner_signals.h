/* SPDX-License-Identifier: BSD-2-Clause */
/* Signals. SIGINT and SIGTERM are blocked everywhere and fetched by the main thread; SIGUSR1 kicks a
 * vCPU thread out of the guest; SIGBUS is how libvmem serves a fault or fails an access. */
#ifndef RUNNER_SIGNALS_H
#define RUNNER_SIGNALS_H
#include <stdbool.h>
#include <stdint.h>

#include <vmem/manager.h>

struct vcpu;

/* Before any thread starts. */
void signals_init(void);

/* What vmem_fault_sigbus() is called with. Before guest memory is touched. */
void signals_set_manager(vmem_manager *manager);

/* The calling thread is this vCPU from now on; NULL: none any more. */
void signals_set_vcpu(struct vcpu *vcpu);

/* Kick a vCPU's thread: it looks at vm->stop. */
void signals_kick(struct vcpu *vcpu);

/* Wake the main thread in signals_wait(). Any thread. */
void signals_wake(void);

/* Main thread: wait until woken, interrupted, or `ns` have passed. */
void signals_wait(uint64_t ns);

/* Main thread: whether Ctrl-C or SIGTERM came. After that, the next one ends the process at once. */
bool signals_interrupted(void);

#endif
