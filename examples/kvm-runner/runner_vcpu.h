/* SPDX-License-Identifier: BSD-2-Clause */
/* vCPUs: a thread each, which runs the payload in a VM or as an ordinary function. */
#ifndef RUNNER_VCPU_H
#define RUNNER_VCPU_H
#include "runner_vm.h"

/* Start the vCPU's thread. Returns 0, or -VMEM_ENOMEM. */
int vcpu_start(struct vcpu *vcpu);

/* What a payload asks for. OUT: returns false when it is over for this vCPU, whose `end` is then set. */
bool vcpu_out(struct vcpu *vcpu, uint32_t port, uint32_t value);
uint32_t vcpu_in(const struct vcpu *vcpu, uint32_t port);

/* Ends the vCPU as failed; `why` as printf(). */
void vcpu_fail(struct vcpu *vcpu, const char *why, ...) __attribute__((format(printf, 2, 3)));

/* The backends: run the payload until vcpu->end is set. On the vCPU's thread. */
void backend_kvm_run(struct vcpu *vcpu);
void backend_thread_run(struct vcpu *vcpu);

/* KVM alone. Open it; returns the descriptor, or a negative VMEM error after a message if `explain`. */
int backend_kvm_open(bool explain);

/* Make the VM with its memory and vCPUs. Returns 0, or a negative VMEM error after a message. */
int backend_kvm_create(struct vm *vm);
void backend_kvm_destroy(struct vm *vm);

/* Nanoseconds of the monotonic clock. */
uint64_t runner_now_ns(void);

#endif
