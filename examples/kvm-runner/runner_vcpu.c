/* SPDX-License-Identifier: BSD-2-Clause */
/* What both backends share: the thread and the hypercalls. A vCPU is used by its own thread only,
 * until it sets `end`. */
#include "runner_vcpu.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include <vmem/common.h>

#include "runner_balloon.h"
#include "runner_print.h"
#include "runner_signals.h"

#define WAIT_MOST_MS 1000u

uint64_t runner_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void vcpu_fail(struct vcpu *vcpu, const char *why, ...)
{
	va_list arguments;

	va_start(arguments, why);
	vsnprintf(vcpu->why, sizeof(vcpu->why), why, arguments);
	va_end(arguments);
	atomic_store(&vcpu->end, END_FAILED);
}

/* The guest is not trusted: only what can be shown is, and lines that do not end are cut. */
static void print_character(struct vcpu *vcpu, uint32_t value)
{
	char c = (char)(uint8_t)value;

	if (c != '\n' && vcpu->line_length < sizeof(vcpu->line) - 1) {
		vcpu->line[vcpu->line_length++] = c >= ' ' && c <= '~' ? c : '?';
		return;
	}
	vcpu->line[vcpu->line_length] = '\0';
	vcpu->line_length = 0;
	print_line("vm %u says: %s", vcpu->vm->index, vcpu->line);
}

static void wait_ms(uint32_t ms)
{
	struct timespec time;

	if (ms > WAIT_MOST_MS)
		ms = WAIT_MOST_MS;
	time = (struct timespec){ .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };
	(void)nanosleep(&time, NULL); /* a kick ends it early */
}

static bool is_virtio(const struct vcpu *vcpu, uint32_t port)
{
	return vcpu->vm->balloon && port >= GUEST_PORT_VIRTIO && port < GUEST_PORT_VIRTIO_END;
}

bool vcpu_out(struct vcpu *vcpu, uint32_t port, uint32_t value)
{
	switch (port) {
	case GUEST_PORT_PRINT: print_character(vcpu, value); return true;
	case GUEST_PORT_WAIT: wait_ms(value); return true;
	case GUEST_PORT_STOP:
		if (value == GUEST_STOP_DONE || value == GUEST_STOP_WRONG)
			atomic_store(&vcpu->end, value == GUEST_STOP_DONE ? END_DONE : END_WRONG);
		else
			vcpu_fail(vcpu, "the guest stopped for an unknown reason, %u", value);
		return false;
	default:
		if (is_virtio(vcpu, port)) {
			balloon_set_register(vcpu->vm->balloon, port - GUEST_PORT_VIRTIO, value);
			return true;
		}
		vcpu_fail(vcpu, "the guest wrote to port %#x, which is not there", port);
		return false;
	}
}

uint32_t vcpu_in(const struct vcpu *vcpu, uint32_t port)
{
	uint64_t now = runner_now_ns();
	uint64_t end = vcpu->vm->runner->end_ns;
	uint64_t left_ms = now < end ? (end - now + 999999) / 1000000 : 0;

	if (is_virtio(vcpu, port))
		return balloon_get_register(vcpu->vm->balloon, port - GUEST_PORT_VIRTIO);
	if (port != GUEST_PORT_TIME)
		return UINT32_MAX; /* as an empty bus */
	return left_ms < UINT32_MAX ? (uint32_t)left_ms : UINT32_MAX;
}

static void *vcpu_thread(void *argument)
{
	struct vcpu *vcpu = argument;
	struct vm *vm = vcpu->vm;

	signals_set_vcpu(vcpu);
	if (vm->runner->backend == BACKEND_KVM)
		backend_kvm_run(vcpu);
	else
		backend_thread_run(vcpu);
	signals_set_vcpu(NULL);
	/* The VM is over when one of its vCPUs is not well. */
	if (atomic_load(&vcpu->end) != END_DONE)
		atomic_store(&vm->stop, true);
	signals_wake();
	return NULL;
}

int vcpu_start(struct vcpu *vcpu)
{
	return pthread_create(&vcpu->thread, NULL, vcpu_thread, vcpu) == 0 ? 0 : -VMEM_ENOMEM;
}
