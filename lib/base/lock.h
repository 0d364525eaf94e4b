/* SPDX-License-Identifier: BSD-2-Clause */
/* Locks, pauses and the rest of the caller's environment. */
#ifndef VMEMI_LOCK_H
#define VMEMI_LOCK_H
#include <vmem/env.h>

/* pthread mutexes and the thread's clock, or nothing in the freestanding build. */
const struct vmem_env *vmemi_env_default(void);

/* Copies the caller's environment, or the default for NULL. 0, -VMEM_EINVAL (incomplete), -VMEM_E2BIG. */
int vmemi_env_take(struct vmem_env *ret, const struct vmem_env *given);

struct vmemi_lock {
	const struct vmem_env *env;
	void *lock; /* NULL: no locks */
};

/* 0, -VMEM_ENOMEM. */
int vmemi_lock_init(struct vmemi_lock *l, const struct vmem_env *env);
void vmemi_lock_destroy(struct vmemi_lock *l); /* an all-zero lock is fine */

static inline void vmemi_lock(struct vmemi_lock *l)
{
	if (l->lock)
		l->env->lock(l->env->context, l->lock);
}

static inline void vmemi_unlock(struct vmemi_lock *l)
{
	if (l->lock)
		l->env->unlock(l->env->context, l->lock);
}

static inline void vmemi_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Once in each turn of a loop that waits for another thread. */
static inline void vmemi_relax(const struct vmem_env *env)
{
	if (env->relax)
		env->relax(env->context);
	else
		vmemi_pause();
}

static inline void vmemi_log(const struct vmem_env *env, enum vmem_log_code code, uint64_t a,
			     uint64_t b)
{
	if (env->log)
		env->log(env->context, code, a, b);
}

/* CPU time of this thread, 0 without a clock. */
static inline uint64_t vmemi_cpu_ns(const struct vmem_env *env)
{
	return env->cpu_time_ns ? env->cpu_time_ns(env->context) : 0;
}

#endif
