/* SPDX-License-Identifier: BSD-2-Clause */
/* See the header. `interrupted` belongs to the main thread, `manager` is set once before guest memory
 * is touched, `this_vcpu` belongs to its thread and the handlers that run on it. */
#include "runner_signals.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <linux/kvm.h>

#include <vmem/fault.h>

#include "runner_print.h"
#include "runner_vm.h"

#define SIGNAL_KICK SIGUSR1
#define SIGNAL_WAKE SIGUSR2

static vmem_manager *manager;
static bool interrupted;
static _Thread_local struct vcpu *this_vcpu;

/* A vCPU in KVM_RUN returns with EINTR; one that is about to enter it does so, too. A payload that
 * runs as a thread is left by a jump, which only its own code allows. */
static void on_kick(int signal)
{
	struct vcpu *vcpu = this_vcpu;

	(void)signal;
	if (!vcpu)
		return;
	if (vcpu->run)
		vcpu->run->immediate_exit = 1;
	else if (vcpu->in_payload && atomic_load(&vcpu->vm->stop))
		siglongjmp(vcpu->leave, 1);
}

/* The library knows the address: the page is there now, or is poisoned. Anything else is a bug, and
 * repeating the access with the default action ends the process as such. */
static void on_bus(int signal, siginfo_t *info, void *context)
{
	struct vcpu *vcpu = this_vcpu;
	uint64_t gpa = 0;
	int error =
		manager ? vmem_fault_sigbus(manager, info->si_addr, context, &gpa) : -VMEM_ENOENT;

	if (error == 0)
		return;
	if (error == -VMEM_EIO && vcpu) {
		vcpu->poison_gpa = gpa;
		vcpu->poisoned = 1;
		if (vcpu->run)
			return;
		if (vcpu->in_payload)
			siglongjmp(vcpu->leave, 1);
	}
	(void)sigaction(signal, &(struct sigaction){ .sa_handler = SIG_DFL }, NULL);
	(void)raise(signal);
}

static void for_main(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGNAL_WAKE);
}

void signals_init(void)
{
	struct sigaction kick = { .sa_handler = on_kick };
	struct sigaction bus = { .sa_sigaction = on_bus, .sa_flags = SA_SIGINFO };
	sigset_t set;

	for_main(&set);
	(void)pthread_sigmask(SIG_BLOCK, &set, NULL);
	(void)sigaction(SIGNAL_KICK, &kick, NULL);
	/* A kick must not jump out of the library. */
	sigemptyset(&bus.sa_mask);
	sigaddset(&bus.sa_mask, SIGNAL_KICK);
	(void)sigaction(SIGBUS, &bus, NULL);
	/* A shell starts what runs in its background with Ctrl-C ignored. */
	(void)sigaction(SIGINT, &(struct sigaction){ .sa_handler = SIG_DFL }, NULL);
	(void)sigaction(SIGPIPE, &(struct sigaction){ .sa_handler = SIG_IGN }, NULL);
}

void signals_set_manager(vmem_manager *the_manager)
{
	manager = the_manager;
}

void signals_set_vcpu(struct vcpu *vcpu)
{
	this_vcpu = vcpu;
}

void signals_kick(struct vcpu *vcpu)
{
	(void)pthread_kill(vcpu->thread, SIGNAL_KICK);
}

void signals_wake(void)
{
	(void)kill(getpid(), SIGNAL_WAKE);
}

static void note(int signal)
{
	sigset_t set;

	if (signal != SIGINT && signal != SIGTERM)
		return;
	interrupted = true;
	print_error("Interrupted: the VMs stop. (Again: end at once.)");
	sigemptyset(&set);
	sigaddset(&set, signal);
	(void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void signals_wait(uint64_t ns)
{
	struct timespec time = { .tv_sec = (time_t)(ns / 1000000000u),
				 .tv_nsec = (long)(ns % 1000000000u) };
	sigset_t set;

	for_main(&set);
	note(sigtimedwait(&set, NULL, &time));
}

bool signals_interrupted(void)
{
	if (!interrupted)
		signals_wait(0);
	return interrupted;
}
