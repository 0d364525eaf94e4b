/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads of the library: see thread.h. No state. */
#include "linux/kernel/thread.h"
#include <signal.h>
#include <vmem/common.h>

/* The VMM's signals are for the VMM's threads. */
int vmemi_thread_start(pthread_t *thread, void *(*loop)(void *), void *context)
{
	sigset_t all, old;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	error = pthread_create(thread, NULL, loop, context);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return error ? -VMEM_ENOMEM : 0;
}
