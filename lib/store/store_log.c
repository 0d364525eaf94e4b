/* SPDX-License-Identifier: BSD-2-Clause */
/* Log records in the store's terms: the pool knows handles and streams, who uses a store refs and VMs.
 * The pool is given an environment that translates its records and passes everything else on; without
 * a log, the caller's own. Its context is the store. */
#include "store/store_internal.h"

static const struct vmem_env *env_of(void *context)
{
	const vmem_store *store = context;

	return &store->env;
}

static void *pass_lock_new(void *context)
{
	const struct vmem_env *env = env_of(context);

	return env->lock_new(env->context);
}

static void pass_lock_free(void *context, void *lock)
{
	const struct vmem_env *env = env_of(context);

	env->lock_free(env->context, lock);
}

static void pass_lock(void *context, void *lock)
{
	const struct vmem_env *env = env_of(context);

	env->lock(env->context, lock);
}

static void pass_unlock(void *context, void *lock)
{
	const struct vmem_env *env = env_of(context);

	env->unlock(env->context, lock);
}

static void pass_relax(void *context)
{
	vmemi_relax(env_of(context));
}

static uint64_t pass_cpu_time(void *context)
{
	return vmemi_cpu_ns(env_of(context));
}

static bool is_of_group(vmem_store *store, uint64_t stream)
{
	const struct vmemi_domain *d;

	vmemi_lock(&store->vm_lock);
	for (d = store->groups; d && d->stream != stream; d = d->next)
		;
	vmemi_unlock(&store->vm_lock);
	return d != NULL;
}

/* A damaged object comes as its handle and its stream, whose number is the VM's, if it is not a group's. */
static void translate(void *context, enum vmem_log_code code, uint64_t a, uint64_t b)
{
	if (code == VMEM_LOG_CORRUPT_OBJECT && is_of_group(context, b))
		b = UINT64_MAX;
	else if (code == VMEM_LOG_CORRUPT_OBJECT)
		a = vmemi_ref_make(VMEMI_REF_POOL, (uint32_t)b, a);
	vmemi_log(env_of(context), code, a, b);
}

void vmemi_store_pool_env(vmem_store *store)
{
	const struct vmem_env *given = &store->env;
	struct vmem_env *env = &store->pool_env;

	*env = *given;
	if (!given->log)
		return;
	env->context = store;
	env->lock_new = given->lock_new ? pass_lock_new : NULL;
	env->lock_free = pass_lock_free;
	env->lock = pass_lock;
	env->unlock = pass_unlock;
	env->relax = given->relax ? pass_relax : NULL;
	env->log = translate;
	env->cpu_time_ns = given->cpu_time_ns ? pass_cpu_time : NULL;
}
