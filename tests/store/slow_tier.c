/* SPDX-License-Identifier: BSD-2-Clause */
/* See slow_tier.h. Tokens wait in an array; the store is called without the lock. */
#include "store/slow_tier.h"
#include <assert.h>
#include <string.h>

static int slow(void *context, uint64_t key, vmem_store_ref ref)
{
	struct vmemt_slow_tier *t = context;

	(void)key;
	(void)ref;
	return atomic_load(&t->hold);
}

static void begin(void *context, vmem_store_token token)
{
	struct vmemt_slow_tier *t = context;

	pthread_mutex_lock(&t->lock);
	assert(t->held < VMEMI_INFLIGHT_ENTRIES);
	t->token[t->held++] = token;
	pthread_mutex_unlock(&t->lock);
}

static void poll(void *context)
{
	struct vmemt_slow_tier *t = context;

	if (atomic_load(&t->at_poll))
		vmemt_slow_tier_finish(t, 0, 0);
}

void vmemt_slow_tier_init(struct vmemt_slow_tier *t, vmem_store *store)
{
	memset(t, 0, sizeof(*t));
	t->tier = (struct vmemi_store_tier){
		.context = t, .slow = slow, .begin = begin, .poll = poll
	};
	t->store = store;
	atomic_init(&t->hold, 1);
	pthread_mutex_init(&t->lock, NULL);
	vmemi_store_set_tier(store, &t->tier);
}

void vmemt_slow_tier_destroy(struct vmemt_slow_tier *t)
{
	assert(!vmemt_slow_tier_held(t));
	vmemi_store_set_tier(t->store, NULL);
	pthread_mutex_destroy(&t->lock);
}

uint32_t vmemt_slow_tier_held(struct vmemt_slow_tier *t)
{
	uint32_t held;

	pthread_mutex_lock(&t->lock);
	held = t->held;
	pthread_mutex_unlock(&t->lock);
	return held;
}

int vmemt_slow_tier_finish(struct vmemt_slow_tier *t, uint32_t nth, int result)
{
	vmem_store_token token = 0;

	pthread_mutex_lock(&t->lock);
	if (nth < t->held) {
		token = t->token[nth];
		t->held--;
		memmove(&t->token[nth], &t->token[nth + 1], (t->held - nth) * sizeof(t->token[0]));
	}
	pthread_mutex_unlock(&t->lock);
	return token ? vmemi_store_finish_load(t->store, token, result) : -VMEM_ENOENT;
}
