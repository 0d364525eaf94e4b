/* SPDX-License-Identifier: BSD-2-Clause */
/* See fail_locks.h. */
#include "support/fail_locks.h"
#include "base/lock.h"

static void *fail_lock_new(void *context)
{
	struct vmemt_fail_locks *f = context;
	void *lock = NULL;

	if (__atomic_fetch_add(&f->calls, 1, __ATOMIC_RELAXED) != f->fail_after)
		lock = vmemi_env_default()->lock_new(NULL);
	__atomic_fetch_add(lock ? &f->live : &f->failed, 1, __ATOMIC_RELAXED);
	return lock;
}

static void fail_lock_free(void *context, void *lock)
{
	struct vmemt_fail_locks *f = context;

	__atomic_fetch_sub(&f->live, 1, __ATOMIC_RELAXED);
	vmemi_env_default()->lock_free(NULL, lock);
}

void vmemt_fail_locks_init(struct vmemt_fail_locks *f)
{
	*f = (struct vmemt_fail_locks){ .env = *vmemi_env_default(), .fail_after = -1 };
	f->env.context = f;
	f->env.lock_new = fail_lock_new;
	f->env.lock_free = fail_lock_free;
}
