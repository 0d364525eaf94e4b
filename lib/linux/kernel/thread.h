/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads of the library. */
#ifndef VMEMI_THREAD_H
#define VMEMI_THREAD_H
#include <pthread.h>

/* Starts one. 0, -VMEM_ENOMEM. */
int vmemi_thread_start(pthread_t *thread, void *(*loop)(void *), void *context);

#endif
