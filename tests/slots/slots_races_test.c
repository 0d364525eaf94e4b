/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads that take through cursors of their own and give back what others have taken, while a device shrinks and
 * grows: no slot has two owners at a time, and in the end none is lost. For ThreadSanitizer, too. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include "slots/slots_tools.h"
#include "support/slow.h"

enum { THREADS = 4, DEVICES = 2, CLUSTERS = 6, SHELF = 2048, STEPS = 60000 };

static struct vmemt_fail_alloc memory;
static vmem_slots *slots;
static _Atomic uint64_t shelf[SHELF]; /* runs that somebody has taken: slot + 1 */
static _Atomic uint32_t whose[DEVICES][4 * CLUSTERS * CLUSTER]; /* 0: nobody's */
static _Atomic int done;

static void fail(const char *what)
{
	fprintf(stderr, "%s\n", what);
	abort();
}

static void own(uint64_t slot, uint32_t count, uint32_t from, uint32_t to)
{
	for (uint64_t i = 0; i < count; i++) {
		uint32_t was = atomic_exchange(
			&whose[VMEM_SLOT_DEVICE(slot)][VMEM_SLOT_NUMBER(slot) + i], to);

		assert(was == from);
		(void)was;
	}
}

static void give(uint64_t slot)
{
	uint64_t owner = 0;
	uint32_t count;

	if (vmem_slots_owner(slots, slot, &owner))
		fail("a taken slot has no owner");
	count = (uint32_t)(owner & 1023);
	own(slot, count, (uint32_t)(owner >> 10), 0);
	if (vmem_slots_give(slots, slot, count))
		fail("a taken run is not to be given back");
}

static void *work(void *argument)
{
	uint32_t self = (uint32_t)(uintptr_t)argument;
	struct vmem_slots_cursor c = { 0 };
	uint64_t rng = vmemt_seed("slots_races") + self, slot, old;

	for (unsigned i = 0; i < STEPS / (VMEMT_SLOW ? 10 : 1); i++) {
		uint32_t count = vmemt_rand(&rng) % 2 ? 1 : 1 + (uint32_t)(vmemt_rand(&rng) % 24);
		int err = vmem_slots_take(slots, &c, count, (uint64_t)self << 10 | count, &slot);

		assert(!err || err == -VMEM_ENOSPC || err == -VMEM_EAGAIN);
		if (!err)
			own(slot, count, 0, self);
		old = atomic_exchange(&shelf[vmemt_rand(&rng) % SHELF], err ? 0 : slot + 1);
		if (old)
			give(old - 1);
		if (vmemt_rand(&rng) % 4096 == 0)
			vmem_slots_cursor_end(slots, &c);
	}
	vmem_slots_cursor_end(slots, &c);
	return NULL;
}

static void *discard(void *argument)
{
	uint64_t slot;
	uint32_t count;

	while (!atomic_load(&done)) {
		if (!vmem_slots_discard_next(slots, &slot, &count) &&
		    vmem_slots_discarded(slots, slot, count))
			fail("a run to be discarded cannot be");
		vmem_slots_work(slots);
	}
	return argument;
}

static void *resize(void *argument)
{
	uint64_t rng = 1, left;

	while (!atomic_load(&done)) {
		int err = vmem_slots_resize(
			slots, 0, (1 + vmemt_rand(&rng) % (4 * CLUSTERS)) * CLUSTER, &left);

		assert(!err || (err == -VMEM_EBUSY && left));
		(void)err;
		(void)vmemt_slots_stats(slots, 0);
		(void)vmem_slots_next(slots, VMEM_SLOT(0, 0), &left, NULL);
	}
	return argument;
}

static void start(pthread_t *thread, void *(*body)(void *), uintptr_t self)
{
	if (pthread_create(thread, NULL, body, (void *)self))
		fail("no thread");
}

static void take_and_give(unsigned threads)
{
	pthread_t thread[THREADS];

	for (unsigned i = 0; i < threads; i++)
		start(&thread[i], work, i + 1);
	for (unsigned i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	for (unsigned i = 0; i < SHELF; i++)
		if (atomic_load(&shelf[i]))
			give(atomic_exchange(&shelf[i], 0) - 1);
}

static int nothing_is_lost(uint32_t devices, uint64_t clusters)
{
	const char *wrong = NULL;
	uint64_t slot;
	uint32_t count;

	while (!vmem_slots_discard_next(slots, &slot, &count))
		if (vmem_slots_discarded(slots, slot, count))
			wrong = "a run to be discarded cannot be";
	for (uint32_t d = 0; d < devices && !wrong; d++)
		if (vmemt_slots_stats(slots, d).taken || vmemt_slots_stats(slots, d).tables ||
		    vmem_slots_resize(slots, d, clusters * CLUSTER, NULL))
			wrong = "slots are lost";
	if (!wrong)
		wrong = vmemi_slots_check(slots);
	vmem_slots_free(slots);
	if (wrong)
		fprintf(stderr, "%s\n", wrong);
	return wrong || memory.live_bytes;
}

static void *give_all(void *argument)
{
	uint64_t first = (uintptr_t)argument;

	for (uint64_t i = 0; i < CLUSTER; i++)
		if (vmem_slots_give(slots, first + i, 1))
			fail("a taken slot is not to be given back");
	atomic_store(&done, 1);
	return NULL;
}

/* The device goes and comes while its slots are given back. */
static const char *give_while_it_shrinks(void)
{
	struct vmem_slots_cursor c = { 0 };
	uint64_t first = 0;
	pthread_t giver;

	if (vmem_slots_take(slots, &c, CLUSTER, 0, &first))
		fail("no slots");
	vmem_slots_cursor_end(slots, &c);
	atomic_store(&done, 0);
	start(&giver, give_all, first);
	while (!atomic_load(&done)) {
		(void)vmem_slots_resize(slots, 0, 0, NULL);
		if (vmem_slots_resize(slots, 0, CLUSTER, NULL))
			fail("it does not grow");
	}
	pthread_join(giver, NULL);
	if (vmemt_slots_stats(slots, 0).taken || vmemt_slots_stats(slots, 0).tables)
		return "a slot given back meanwhile has stayed behind";
	return vmemi_slots_check(slots);
}

static int while_it_shrinks(void)
{
	const char *wrong = NULL;

	slots = vmemt_slots_new(&memory);
	vmemt_slots_add(slots, 1, 0, 0);
	for (unsigned i = 0; i < (VMEMT_SLOW ? 30 : 150) && !wrong; i++)
		wrong = give_while_it_shrinks();
	vmem_slots_free(slots);
	if (wrong)
		fprintf(stderr, "%s\n", wrong);
	return wrong || memory.live_bytes;
}

/* All take from the one cluster that one of them has. */
static int in_one_cluster(const struct vmem_env *env)
{
	slots = vmemt_slots_new_in(&memory, env);
	vmemt_slots_add(slots, 1, 0, 0);
	take_and_give(2);
	return nothing_is_lost(1, 1);
}

static int everywhere(const struct vmem_env *env)
{
	pthread_t discarder, resizer;

	atomic_store(&done, 0);
	slots = vmemt_slots_new_in(&memory, env);
	vmemt_slots_add(slots, CLUSTERS, 0, 0);
	vmemt_slots_add(slots, CLUSTERS, 0, 16);
	start(&discarder, discard, 0);
	start(&resizer, resize, 0);
	take_and_give(THREADS);
	atomic_store(&done, 1);
	pthread_join(discarder, NULL);
	pthread_join(resizer, NULL);
	return nothing_is_lost(DEVICES, CLUSTERS);
}

int main(void)
{
	struct vmem_env env;

	return in_one_cluster(NULL) || everywhere(NULL) || while_it_shrinks() ||
	       in_one_cluster(vmemt_slots_no_barrier(&env)) || everywhere(&env);
}
