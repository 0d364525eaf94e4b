/* SPDX-License-Identifier: BSD-2-Clause */
/* The payload as a function of this process, over the same region. It never returns: it is left by a
 * jump, from a hypercall or from a signal handler while `in_payload` is set. */
#include "runner_signals.h"
#include "runner_vcpu.h"

static _Thread_local struct vcpu *running;

static void leave(struct vcpu *vcpu)
{
	siglongjmp(vcpu->leave, 1);
}

/* Back into the payload; a kick that came meanwhile was not heard. */
static void enter(struct vcpu *vcpu)
{
	vcpu->in_payload = 1;
	if (atomic_load(&vcpu->vm->stop))
		leave(vcpu);
}

void guest_out(uint32_t port, uint32_t value)
{
	struct vcpu *vcpu = running;

	vcpu->in_payload = 0;
	if (!vcpu_out(vcpu, port, value))
		leave(vcpu);
	enter(vcpu);
}

uint32_t guest_in(uint32_t port)
{
	struct vcpu *vcpu = running;
	uint32_t value;

	vcpu->in_payload = 0;
	value = vcpu_in(vcpu, port);
	enter(vcpu);
	return value;
}

void backend_thread_run(struct vcpu *vcpu)
{
	running = vcpu;
	if (sigsetjmp(vcpu->leave, 1) == 0) {
		enter(vcpu);
		guest_main(vcpu->vm->params, vcpu->index);
	}
	vcpu->in_payload = 0;
	if (vcpu->poisoned)
		atomic_store(&vcpu->end, END_POISONED);
	else if (atomic_load(&vcpu->end) == END_RUNS)
		atomic_store(&vcpu->end, END_STOPPED);
}
