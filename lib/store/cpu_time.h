/* SPDX-License-Identifier: BSD-2-Clause */
/* CPU time of calls that come often. To look at the clock takes as long as a good part of a load, so that of
 * 64 calls one is timed, less what looking takes, and stands for all of them: each time at another place
 * among the 64, as callers may have a rhythm of their own. */
#ifndef VMEMI_CPU_TIME_H
#define VMEMI_CPU_TIME_H
#include <stdatomic.h>
#include "base/lock.h"

#define VMEMI_CPU_SAMPLE 64u
#define VMEMI_CPU_UNTIMED UINT64_MAX

/* Constant. */
struct vmemi_cpu_clock {
	const struct vmem_env *env;
	uint64_t look_ns; /* what looking takes */
};

/* Of one kind of call. */
struct vmemi_cpu_time {
	_Atomic uint64_t calls; /* atomic; one that is lost to another thread is no harm */
	_Atomic uint64_t ns;    /* atomic */
};

static inline void vmemi_cpu_init(struct vmemi_cpu_clock *c, const struct vmem_env *env)
{
	c->env = env;
	c->look_ns = UINT64_MAX;
	for (int i = 0; i < 8; i++) {
		uint64_t begun = vmemi_cpu_ns(env), took = vmemi_cpu_ns(env) - begun;

		c->look_ns = took < c->look_ns ? took : c->look_ns;
	}
}

/* A call begins. Any thread. */
static inline uint64_t vmemi_cpu_begin(struct vmemi_cpu_time *t, const struct vmemi_cpu_clock *c)
{
	uint64_t n = atomic_load_explicit(&t->calls, memory_order_relaxed);
	uint32_t place = (uint32_t)(n / VMEMI_CPU_SAMPLE) * UINT32_C(0x9e3779b9) >> 26;

	atomic_store_explicit(&t->calls, n + 1, memory_order_relaxed);
	if (n % VMEMI_CPU_SAMPLE != place || !c->env->cpu_time_ns)
		return VMEMI_CPU_UNTIMED;
	return vmemi_cpu_ns(c->env) + c->look_ns;
}

/* And ends, on the same thread. @begun: what vmemi_cpu_begin() has returned. */
static inline void vmemi_cpu_end(struct vmemi_cpu_time *t, const struct vmemi_cpu_clock *c,
				 uint64_t begun)
{
	uint64_t now;

	if (begun == VMEMI_CPU_UNTIMED)
		return;
	now = vmemi_cpu_ns(c->env);
	if (now > begun)
		atomic_fetch_add_explicit(&t->ns, (now - begun) * VMEMI_CPU_SAMPLE,
					  memory_order_relaxed);
}

#endif
