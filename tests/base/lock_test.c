/* SPDX-License-Identifier: BSD-2-Clause */
/* Locks, pauses and log records go to the caller's environment. Without threads. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include "base/lock.h"

/* An environment that writes down what it is asked for. */
struct seen {
	struct vmem_env env;
	int refuse; /* lock_new fails */
	int locks;  /* that exist */
	int held;
	int locked; /* times */
	int relaxed;
	enum vmem_log_code code;
	uint64_t a, b;
};

static void *seen_lock_new(void *context)
{
	struct seen *s = context;

	if (s->refuse)
		return NULL;
	s->locks++;
	return &s->held;
}

static void seen_lock_free(void *context, void *lock)
{
	struct seen *s = context;

	cr_assert_eq(lock, &s->held);
	s->locks--;
}

static void seen_lock(void *context, void *lock)
{
	struct seen *s = context;

	cr_assert_eq(lock, &s->held);
	cr_assert_eq(s->held, 0);
	s->held = 1;
	s->locked++;
}

static void seen_unlock(void *context, void *lock)
{
	struct seen *s = context;

	cr_assert_eq(lock, &s->held);
	cr_assert_eq(s->held, 1);
	s->held = 0;
}

static void seen_relax(void *context)
{
	((struct seen *)context)->relaxed++;
}

static void seen_log(void *context, enum vmem_log_code code, uint64_t a, uint64_t b)
{
	struct seen *s = context;

	s->code = code;
	s->a = a;
	s->b = b;
}

static void seen_init(struct seen *s)
{
	*s = (struct seen){
		.env = { .size = sizeof(s->env),
			 .context = s,
			 .lock_new = seen_lock_new,
			 .lock_free = seen_lock_free,
			 .lock = seen_lock,
			 .unlock = seen_unlock,
			 .relax = seen_relax,
			 .log = seen_log },
	};
}

Test(env, default_is_taken_for_none)
{
	struct vmem_env e;

	cr_assert_eq(vmemi_env_take(&e, NULL), 0);
	cr_assert_eq(memcmp(&e, vmemi_env_default(), sizeof(e)), 0);
}

Test(env, callers_own_is_copied)
{
	struct vmem_env e;
	struct seen s;

	seen_init(&s);
	cr_assert_eq(vmemi_env_take(&e, &s.env), 0);
	memset(&s.env, 0, sizeof(s.env));
	vmemi_relax(&e);
	cr_assert_eq(s.relaxed, 1);
}

Test(env, incomplete_is_refused)
{
	struct vmem_env e;
	struct seen s;

	seen_init(&s);
	s.env.size = offsetof(struct vmem_env, log);
	cr_assert_eq(vmemi_env_take(&e, &s.env), -VMEM_EINVAL);
	seen_init(&s);
	s.env.lock_free = NULL;
	cr_assert_eq(vmemi_env_take(&e, &s.env), -VMEM_EINVAL);
	seen_init(&s);
	s.env.lock = NULL;
	cr_assert_eq(vmemi_env_take(&e, &s.env), -VMEM_EINVAL);
	seen_init(&s);
	s.env.unlock = NULL;
	cr_assert_eq(vmemi_env_take(&e, &s.env), -VMEM_EINVAL);
	s.env.lock_new = NULL; /* no locks at all are fine */
	cr_assert_eq(vmemi_env_take(&e, &s.env), 0);
}

Test(env, newer_is_refused_only_if_it_uses_what_is_new)
{
	struct {
		struct vmem_env known;
		void *unknown;
	} newer = { .known = *vmemi_env_default() };
	struct vmem_env e;

	newer.known.size = sizeof(newer);
	cr_assert_eq(vmemi_env_take(&e, &newer.known), 0);
	newer.unknown = &newer;
	cr_assert_eq(vmemi_env_take(&e, &newer.known), -VMEM_E2BIG);
}

static uint64_t seen_cpu_time(void *context)
{
	return (uint64_t)((struct seen *)context)->locked;
}

Test(env, clock_is_the_callers_or_the_threads)
{
	struct vmem_env e;
	uint64_t first;
	struct seen s;

	seen_init(&s);
	s.locked = 5;
	s.env.cpu_time_ns = seen_cpu_time;
	cr_assert_eq(vmemi_env_take(&e, &s.env), 0);
	cr_assert_eq(vmemi_cpu_ns(&e), 5);
	s.env.cpu_time_ns = NULL;
	cr_assert_eq(vmemi_env_take(&e, &s.env), 0);
	cr_assert_eq(e.log, s.env.log);
	first = vmemi_cpu_ns(&e);
	cr_assert_gt(first, 0);
	while (vmemi_cpu_ns(&e) == first) /* it goes on as the thread runs */
		;
	e.cpu_time_ns = NULL;
	cr_assert_eq(vmemi_cpu_ns(&e), 0);
}

Test(env, of_the_first_version_gets_the_clock)
{
	struct vmem_env e;
	struct seen s;

	seen_init(&s);
	s.env.size = offsetof(struct vmem_env, cpu_time_ns);
	s.env.cpu_time_ns = seen_cpu_time; /* is not there */
	cr_assert_eq(vmemi_env_take(&e, &s.env), 0);
	cr_assert_eq(e.cpu_time_ns, vmemi_env_default()->cpu_time_ns);
	cr_assert_eq(e.size, sizeof(e));
}

/* There need not be one, but what has worked once goes on to. */
Test(env, barrier)
{
	const struct vmem_env *env = vmemi_env_default();
	int result = env->barrier(env->context);
	struct vmem_env e;
	struct seen s;

	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(env->barrier(env->context), result);
	seen_init(&s);
	s.env.barrier = NULL; /* is not replaced: the caller knows who calls */
	cr_assert_eq(vmemi_env_take(&e, &s.env), 0);
	cr_assert_null(e.barrier);
}

Test(lock, goes_to_the_environment)
{
	struct vmemi_lock l;
	struct seen s;

	seen_init(&s);
	cr_assert_eq(vmemi_lock_init(&l, &s.env), 0);
	cr_assert_eq(s.locks, 1);
	vmemi_lock(&l);
	cr_assert_eq(s.held, 1);
	vmemi_unlock(&l);
	cr_assert_eq(s.held, 0);
	cr_assert_eq(s.locked, 1);
	vmemi_lock_destroy(&l);
	cr_assert_eq(s.locks, 0);
	vmemi_lock_destroy(&l);
	cr_assert_eq(s.locks, 0, "destroyed twice");
}

Test(lock, that_cannot_be_made)
{
	struct vmemi_lock l;
	struct seen s;

	seen_init(&s);
	s.refuse = 1;
	cr_assert_eq(vmemi_lock_init(&l, &s.env), -VMEM_ENOMEM);
	vmemi_lock_destroy(&l);
	cr_assert_eq(s.locks, 0);
}

Test(lock, none)
{
	struct vmemi_lock l, zero = { 0 };
	struct seen s;

	seen_init(&s);
	s.env.lock_new = NULL;
	cr_assert_eq(vmemi_lock_init(&l, &s.env), 0);
	vmemi_lock(&l);
	vmemi_unlock(&l);
	vmemi_lock_destroy(&l);
	vmemi_lock_destroy(&zero);
	cr_assert_eq(s.locked, 0);
}

Test(env, relax_and_log)
{
	struct seen s;

	seen_init(&s);
	vmemi_relax(&s.env);
	cr_assert_eq(s.relaxed, 1);
	vmemi_log(&s.env, VMEM_LOG_BUDGET_EXCEEDED, 5, 6);
	cr_assert_eq(s.code, VMEM_LOG_BUDGET_EXCEEDED);
	cr_assert_eq(s.a, 5u);
	cr_assert_eq(s.b, 6u);
	s.env.relax = NULL;
	s.env.log = NULL;
	vmemi_relax(&s.env);
	vmemi_log(&s.env, VMEM_LOG_BUDGET_EXCEEDED, 0, 0);
	cr_assert_eq(s.relaxed, 1);
	cr_assert_eq(s.code, VMEM_LOG_BUDGET_EXCEEDED);
}
