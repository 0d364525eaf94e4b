/* SPDX-License-Identifier: BSD-2-Clause */
/* Log records in the store's terms: the pool knows handles and streams, who uses a store refs and VMs.
 * The pool is given an environment that translates its records and passes everything else on; without
 * a log, the caller's own. Its context is the caller's environment, which the store keeps. */
#include "store/store_internal.h"

static void *pass_lock_new(void *context)
{
	const struct vmem_env *env = context;

	return env->lock_new(env->context);
}

static void pass_lock_free(void *context, void *lock)
{
	const struct vmem_env *env = context;

	env->lock_free(env->context, lock);
}

static void pass_lock(void *context, void *lock)
{
	const struct vmem_env *env = context;

	env->lock(env->context, lock);
}

static void pass_unlock(void *context, void *lock)
{
	const struct vmem_env *env = context;

	env->unlock(env->context, lock);
}

static void pass_relax(void *context)
{
	vmemi_relax(context);
}

static void translate(void *context, enum vmem_log_code code, uint64_t a, uint64_t b)
{
	if (code == VMEM_LOG_CORRUPT_OBJECT) /* a handle and a stream, which is the VM's number */
		a = vmemi_ref_make(VMEMI_REF_POOL, (uint32_t)b, a);
	vmemi_log(context, code, a, b);
}

void vmemi_store_pool_env(struct vmem_env *ret, struct vmem_env *given)
{
	*ret = *given;
	if (!given->log)
		return;
	ret->context = given;
	ret->lock_new = given->lock_new ? pass_lock_new : NULL;
	ret->lock_free = pass_lock_free;
	ret->lock = pass_lock;
	ret->unlock = pass_unlock;
	ret->relax = given->relax ? pass_relax : NULL;
	ret->log = translate;
}
