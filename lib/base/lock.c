/* SPDX-License-Identifier: BSD-2-Clause */
/* The caller's environment, and locks through it: see lock.h. */
#include "base/lock.h"
#include "base/opts.h"

#ifdef VMEMI_CORE
static const struct vmem_env default_env = { .size = sizeof(default_env) };
#else
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>
#ifdef __linux__
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

static void *mutex_new(void *context)
{
	pthread_mutex_t *m = malloc(sizeof(*m));

	(void)context;
	if (m && pthread_mutex_init(m, NULL)) {
		free(m);
		m = NULL;
	}
	return m;
}

static void mutex_free(void *context, void *lock)
{
	(void)context;
	pthread_mutex_destroy(lock);
	free(lock);
}

static void mutex_lock(void *context, void *lock)
{
	(void)context;
	pthread_mutex_lock(lock);
}

static void mutex_unlock(void *context, void *lock)
{
	(void)context;
	pthread_mutex_unlock(lock);
}

static void yield_processor(void *context)
{
	(void)context;
	sched_yield();
}

static uint64_t thread_time(void *context)
{
	struct timespec t = { 0 };

	(void)context;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* A process has to say once that it will ask for this. */
static int all_pass_barrier(void *context)
{
	(void)context;
#if defined(__linux__) && defined(SYS_membarrier)
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0)
		return 0;
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0)
		return -1;
	return syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0 ? 0 : -1;
#else
	return -1;
#endif
}

static const struct vmem_env default_env = {
	.size = sizeof(default_env),
	.lock_new = mutex_new,
	.lock_free = mutex_free,
	.lock = mutex_lock,
	.unlock = mutex_unlock,
	.relax = yield_processor,
	.cpu_time_ns = thread_time,
	.barrier = all_pass_barrier,
};
#endif

const struct vmem_env *vmemi_env_default(void)
{
	return &default_env;
}

int vmemi_env_take(struct vmem_env *ret, const struct vmem_env *given)
{
	int err = vmemi_callbacks_take(ret, sizeof(*ret), VMEMI_BYTES_TO(struct vmem_env, log),
				       given ? given : vmemi_env_default());

	if (!err && ret->lock_new && (!ret->lock_free || !ret->lock || !ret->unlock))
		err = -VMEM_EINVAL;
	if (!err && !ret->cpu_time_ns)
		ret->cpu_time_ns = default_env.cpu_time_ns;
	return err;
}

int vmemi_lock_init(struct vmemi_lock *l, const struct vmem_env *env)
{
	l->env = env;
	l->lock = NULL;
	if (!env->lock_new)
		return 0;
	l->lock = env->lock_new(env->context);
	return l->lock ? 0 : -VMEM_ENOMEM;
}

void vmemi_lock_destroy(struct vmemi_lock *l)
{
	if (l->lock)
		l->env->lock_free(l->env->context, l->lock);
	l->lock = NULL;
}
