/* SPDX-License-Identifier: BSD-2-Clause */
/* See device_suite.h. Blocks are written as a number of theirs and of the time; what has no such number may be
 * anything. */
#include "device/device_suite.h"
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "support/deadline.h"
#include "support/rng.h"

#define BLOCK 4096u
#define BLOCKS (VMEMT_DEVICE_BYTES / BLOCK)
#define RUN 16u /* most blocks of a request */
#define STEPS 600
#define THREADS 4u
#define WAIT_NS 100000000

unsigned char *vmemt_device_buffer(uint64_t bytes)
{
	unsigned char *data = aligned_alloc(BLOCK, bytes);

	assert(data);
	memset(data, 0xa5, bytes);
	return data;
}

static uint64_t word_of(uint64_t what, uint64_t i)
{
	return (what + 1) * UINT64_C(0x9e3779b97f4a7c15) + i;
}

void vmemt_device_fill(unsigned char *data, uint64_t bytes, uint64_t what)
{
	for (uint64_t i = 0; i < bytes / 8; i++) {
		uint64_t word = word_of(what, i);

		memcpy(data + 8 * i, &word, 8);
	}
}

bool vmemt_device_is_filled(const unsigned char *data, uint64_t bytes, uint64_t what)
{
	for (uint64_t i = 0; i < bytes / 8; i++) {
		uint64_t word = word_of(what, i);

		if (memcmp(data + 8 * i, &word, 8) != 0)
			return false;
	}
	return true;
}

uint32_t vmemt_device_await(struct vmem_device *d, struct vmem_device_completion *out, uint32_t max)
{
	int n;

	VMEMT_UNTIL((n = d->ops->complete(d->context, out, max)) != 0 ||
		    (d->ops->wait && d->ops->wait(d->context, WAIT_NS) != 0));
	assert(n > 0 && (uint32_t)n <= max);
	return (uint32_t)n;
}

int vmemt_device_do(struct vmem_device *d, uint32_t op, uint64_t offset, void *data, uint64_t bytes)
{
	struct vmem_device_request r = {
		.op = op, .offset = offset, .data = data, .bytes = bytes, .tag = UINT64_MAX
	};
	struct vmem_device_completion c;
	int taken = d->ops->submit(d->context, &r, 1);

	if (taken < 0)
		return taken;
	assert(taken == 1);
	vmemt_device_await(d, &c, 1);
	assert(c.tag == UINT64_MAX && !c.reserved);
	return c.error;
}

/* Many requests in flight, none of which overlaps another. */
struct model {
	struct vmem_device *d;
	uint64_t rng;
	uint64_t now;
	uint64_t what[BLOCKS]; /* 0: any bytes */
	bool busy[BLOCKS];
	struct vmem_device_request r[VMEMT_DEVICE_DEPTH]; /* bytes 0: none */
	unsigned char *data[VMEMT_DEVICE_DEPTH];
	uint32_t in_flight;
};

static uint64_t first_of(const struct vmem_device_request *r)
{
	return r->offset / BLOCK;
}

static void set_busy(struct model *m, const struct vmem_device_request *r, bool busy)
{
	for (uint64_t i = 0; i < r->bytes / BLOCK; i++) {
		assert(m->busy[first_of(r) + i] != busy);
		m->busy[first_of(r) + i] = busy;
	}
}

/* A request on blocks of which none is busy. */
static bool choose(struct model *m, struct vmem_device_request *r, uint64_t slot)
{
	uint64_t count = 1 + vmemt_rand(&m->rng) % RUN;
	uint64_t first = vmemt_rand(&m->rng) % (BLOCKS - count + 1);
	uint64_t dice = vmemt_rand(&m->rng) % 16;

	for (uint64_t i = 0; i < count; i++)
		if (m->busy[first + i])
			return false;
	*r = (struct vmem_device_request){
		.op = dice < 7 ? VMEM_DEVICE_READ : VMEM_DEVICE_WRITE,
		.offset = first * BLOCK,
		.bytes = count * BLOCK,
		.data = m->data[slot],
		.tag = slot,
	};
	if (dice == 15 && m->d->flags & VMEM_DEVICE_CAN_DISCARD) {
		r->op = VMEM_DEVICE_DISCARD;
		r->data = NULL;
	}
	return true;
}

static void begin(struct model *m, struct vmem_device_request *r)
{
	m->now++;
	for (uint64_t i = 0; i < r->bytes / BLOCK; i++) {
		if (r->op == VMEM_DEVICE_DISCARD)
			m->what[first_of(r) + i] = 0;
		if (r->op != VMEM_DEVICE_WRITE)
			continue;
		m->what[first_of(r) + i] = m->now * BLOCKS + first_of(r) + i;
		vmemt_device_fill(m->data[r->tag] + i * BLOCK, BLOCK, m->what[first_of(r) + i]);
	}
	set_busy(m, r, true);
	m->r[r->tag] = *r;
	m->in_flight++;
	assert(m->d->ops->submit(m->d->context, r, 1) == 1);
}

static void end(struct model *m, const struct vmem_device_completion *c)
{
	struct vmem_device_request *r = &m->r[c->tag];

	assert(c->tag < VMEMT_DEVICE_DEPTH && r->bytes);
	assert(!c->error || (c->error == -VMEM_ENOTSUP && r->op == VMEM_DEVICE_DISCARD));
	for (uint64_t i = 0; r->op != VMEM_DEVICE_DISCARD && i < r->bytes / BLOCK; i++) {
		uint64_t what = m->what[first_of(r) + i];

		assert(!what || vmemt_device_is_filled(m->data[c->tag] + i * BLOCK, BLOCK, what));
	}
	set_busy(m, r, false);
	r->bytes = 0;
	m->in_flight--;
}

static void reap(struct model *m)
{
	struct vmem_device_completion c[4];
	uint32_t n = vmemt_device_await(m->d, c, 1 + (uint32_t)(vmemt_rand(&m->rng) % 4));

	for (uint32_t i = 0; i < n; i++)
		end(m, &c[i]);
}

static void random_requests(struct vmem_device *d)
{
	struct model *m = calloc(1, sizeof(*m));
	uint32_t depth = d->depth < VMEMT_DEVICE_DEPTH ? d->depth : VMEMT_DEVICE_DEPTH;

	assert(m);
	m->d = d;
	m->rng = vmemt_seed("random_requests");
	for (uint32_t i = 0; i < VMEMT_DEVICE_DEPTH; i++)
		m->data[i] = vmemt_device_buffer((uint64_t)RUN * BLOCK);
	for (int step = 0; step < STEPS; step++) {
		struct vmem_device_request r;
		uint32_t slot = 0;

		while (slot < depth && m->r[slot].bytes)
			slot++;
		if (slot == depth)
			reap(m);
		else if (choose(m, &r, slot))
			begin(m, &r);
		if (step % 100 == 99) {
			while (m->in_flight)
				reap(m);
			assert(!vmemt_device_do(d, VMEM_DEVICE_FLUSH, 0, NULL, 0));
		}
	}
	while (m->in_flight)
		reap(m);
	for (uint32_t i = 0; i < VMEMT_DEVICE_DEPTH; i++)
		free(m->data[i]);
	free(m);
}

static void is_described(struct vmem_device *d)
{
	assert(!vmem_device_check(d));
	assert(d->size_bytes == VMEMT_DEVICE_BYTES && d->depth <= VMEMT_DEVICE_DEPTH);
}

static void refuses(struct vmem_device *d)
{
	unsigned char *data = vmemt_device_buffer(2 * BLOCK);
	struct vmem_device_request two[2] = {
		{ .bytes = BLOCK, .data = data, .tag = 5 },
		{ .bytes = BLOCK, .data = data, .op = 77 },
	};
	struct vmem_device_completion c;

	assert(vmemt_device_do(d, VMEM_DEVICE_READ, 1, data, BLOCK) == -VMEM_EINVAL);
	assert(vmemt_device_do(d, VMEM_DEVICE_READ, 0, data + 8, BLOCK) == -VMEM_EINVAL);
	assert(vmemt_device_do(d, VMEM_DEVICE_WRITE, 0, data, 100) == -VMEM_EINVAL);
	assert(vmemt_device_do(d, VMEM_DEVICE_WRITE, 0, data, 0) == -VMEM_EINVAL);
	assert(vmemt_device_do(d, VMEM_DEVICE_READ, d->size_bytes, data, BLOCK) == -VMEM_ERANGE);
	assert(vmemt_device_do(d, VMEM_DEVICE_READ, d->size_bytes - BLOCK, data, 2 * BLOCK) ==
	       -VMEM_ERANGE);
	assert(vmemt_device_do(d, 77, 0, data, BLOCK) == -VMEM_EINVAL);
	if (!(d->flags & VMEM_DEVICE_CAN_DISCARD))
		assert(vmemt_device_do(d, VMEM_DEVICE_DISCARD, 0, NULL, BLOCK) == -VMEM_ENOTSUP);
	/* What comes before one that is refused is taken. */
	assert(d->ops->submit(d->context, two, 2) == 1);
	assert(vmemt_device_await(d, &c, 1) == 1 && c.tag == 5 && !c.error);
	assert(d->ops->submit(d->context, two, 0) == 0);
	assert(d->ops->complete(d->context, &c, 1) == 0);
	free(data);
}

/* More than it takes, in one call and in many; each comes back once. */
static void fills_up(struct vmem_device *d)
{
	uint32_t count = 2 * d->depth + 3, taken = 0, done = 0;
	struct vmem_device_request *r = calloc(count, sizeof(*r));
	bool *seen = calloc(count, sizeof(*seen));
	struct vmem_device_completion c[3];

	assert(r && seen);
	for (uint32_t i = 0; i < count; i++)
		r[i] = (struct vmem_device_request){
			.op = VMEM_DEVICE_WRITE,
			.offset = (uint64_t)i * BLOCK,
			.bytes = BLOCK,
			.data = vmemt_device_buffer(BLOCK),
			.tag = i,
		};
	while (done < count) {
		int n = d->ops->submit(d->context, r + taken, count - taken);

		assert(n >= 0 && (uint32_t)n <= count - taken);
		taken += (uint32_t)n;
		assert(taken - done <= d->depth);
		/* Nothing was handed out, so nothing was made room for. */
		if (taken - done == d->depth && taken < count)
			assert(d->ops->submit(d->context, r + taken, count - taken) == 0);
		for (uint32_t i = vmemt_device_await(d, c, 3); i; i--) {
			assert(!c[i - 1].error && c[i - 1].tag < taken && !seen[c[i - 1].tag]);
			seen[c[i - 1].tag] = true;
			done++;
		}
	}
	assert(d->ops->complete(d->context, c, 3) == 0);
	for (uint32_t i = 0; i < count; i++)
		free(r[i].data);
	free(seen);
	free(r);
}

static void can_be_waited_for(struct vmem_device *d)
{
	unsigned char *data = vmemt_device_buffer(BLOCK);
	struct vmem_device_request r = { .bytes = BLOCK, .data = data, .tag = 9 };
	struct vmem_device_completion c;
	int fd = d->ops->fd ? d->ops->fd(d->context) : -VMEM_ENOTSUP;

	/* Nothing is in flight: no end of waiting would come. */
	assert(!d->ops->wait || !d->ops->wait(d->context, VMEM_DEVICE_FOREVER));
	for (int i = 0; fd >= 0 && i < 3; i++) {
		int n = 0;

		assert(d->ops->submit(d->context, &r, 1) == 1);
		while (!n) {
			vmemt_until_readable(fd);
			n = d->ops->complete(d->context, &c, 1);
		}
		assert(n == 1 && c.tag == 9 && !c.error);
		VMEMT_UNTIL(d->ops->complete(d->context, &c, 1) == 0 && !vmemt_is_readable(fd));
	}
	free(data);
}

static void takes_registered_memory(struct vmem_device *d)
{
	unsigned char *data = vmemt_device_buffer(4 * BLOCK);
	unsigned char *other = vmemt_device_buffer(BLOCK);

	if (d->ops->register_buffers && !d->ops->register_buffers(d->context, data, 3ul * BLOCK))
		assert(d->ops->register_buffers(d->context, data, BLOCK) == -VMEM_EEXIST);
	vmemt_device_fill(data, 4ul * BLOCK, 1);
	assert(!vmemt_device_do(d, VMEM_DEVICE_WRITE, 0, data, 4ul * BLOCK)); /* some of it is */
	vmemt_device_fill(data + BLOCK, BLOCK, 2);
	assert(!vmemt_device_do(d, VMEM_DEVICE_WRITE, 0, data + BLOCK, BLOCK));
	assert(!vmemt_device_do(d, VMEM_DEVICE_READ, 0, other, BLOCK));
	assert(vmemt_device_is_filled(other, BLOCK, 2));
	assert(!vmemt_device_do(d, VMEM_DEVICE_READ, 0, data + 2ul * BLOCK, BLOCK));
	assert(vmemt_device_is_filled(data + 2ul * BLOCK, BLOCK, 2));
	free(other);
	/* The device has the rest until it is closed: see closes_busy(). */
	vmemt_device_fill(data, BLOCK, 3);
	assert(!vmemt_device_do(d, VMEM_DEVICE_WRITE, 0, data, BLOCK));
	vmem_device_close(d);
	free(data);
}

static void is_mapped(struct vmem_device *d)
{
	unsigned char *data = vmemt_device_buffer(BLOCK), *bytes;

	if (!(d->flags & VMEM_DEVICE_MAPPED)) {
		assert(!d->ops->map || !d->ops->map(d->context, 0, BLOCK));
		free(data);
		return;
	}
	vmemt_device_fill(data, BLOCK, 4);
	assert(!vmemt_device_do(d, VMEM_DEVICE_WRITE, 3ul * BLOCK, data, BLOCK));
	bytes = d->ops->map(d->context, 0, d->size_bytes);
	assert(bytes && vmemt_device_is_filled(bytes + 3ul * BLOCK, BLOCK, 4));
	vmemt_device_fill(bytes + 5ul * BLOCK, BLOCK, 5);
	assert(!vmemt_device_do(d, VMEM_DEVICE_READ, 5ul * BLOCK, data, BLOCK));
	assert(vmemt_device_is_filled(data, BLOCK, 5));
	assert(d->ops->map(d->context, 5ul * BLOCK, BLOCK) == bytes + 5ul * BLOCK);
	assert(!d->ops->map(d->context, d->size_bytes, BLOCK));
	assert(!d->ops->map(d->context, BLOCK, d->size_bytes));
	assert(!d->ops->map(d->context, UINT64_MAX, BLOCK));
	memset(bytes, 1, d->size_bytes);
	free(data);
}

/* Threads that submit and complete; what one has submitted any of them may complete. */
struct crowd {
	struct vmem_device *d;
	uint64_t seed;
	_Atomic uint32_t working;
	_Atomic int done[THREADS][2]; /* error of a request, or 1: in flight */
};

struct member {
	struct crowd *c;
	uint32_t number;
};

static void pass_on(struct crowd *c)
{
	struct vmem_device_completion done[2];
	int n = c->d->ops->complete(c->d->context, done, 2);

	assert(n >= 0);
	for (int i = 0; i < n; i++) {
		assert(atomic_load(&c->done[done[i].tag / 2][done[i].tag % 2]) == 1);
		atomic_store(&c->done[done[i].tag / 2][done[i].tag % 2], done[i].error);
	}
	if (!n && c->d->ops->wait)
		assert(!c->d->ops->wait(c->d->context, 1000000));
}

static void submit_two(struct crowd *c, uint32_t number, uint32_t op, uint64_t offset,
		       unsigned char *data)
{
	struct vmem_device_request r[2];
	uint32_t taken = 0;

	for (uint32_t i = 0; i < 2; i++) {
		r[i] = (struct vmem_device_request){ .op = op,
						     .offset = offset + (uint64_t)i * BLOCK,
						     .bytes = BLOCK,
						     .data = data + (uint64_t)i * BLOCK,
						     .tag = 2 * number + i };
		atomic_store(&c->done[number][i], 1);
	}
	while (taken < 2) {
		int n = c->d->ops->submit(c->d->context, r + taken, 2 - taken);

		assert(n >= 0);
		taken += (uint32_t)n;
		if (taken < 2)
			pass_on(c);
	}
	while (atomic_load(&c->done[number][0]) == 1 || atomic_load(&c->done[number][1]) == 1)
		pass_on(c);
	assert(!atomic_load(&c->done[number][0]) && !atomic_load(&c->done[number][1]));
}

static void *take_part(void *argument)
{
	struct member *m = argument;
	uint64_t rng = m->c->seed + m->number;
	uint64_t share = BLOCKS / THREADS;
	unsigned char *data = vmemt_device_buffer(2ul * BLOCK);

	for (uint64_t i = 0; i < 60; i++) {
		uint64_t block = m->number * share + vmemt_rand(&rng) % (share - 1);

		vmemt_device_fill(data, 2ul * BLOCK, block * 64 + i);
		submit_two(m->c, m->number, VMEM_DEVICE_WRITE, block * BLOCK, data);
		memset(data, 0, 2ul * BLOCK);
		submit_two(m->c, m->number, VMEM_DEVICE_READ, block * BLOCK, data);
		assert(vmemt_device_is_filled(data, 2ul * BLOCK, block * 64 + i));
	}
	free(data);
	return NULL;
}

static void serves_threads(struct vmem_device *d)
{
	struct crowd c = { .d = d, .seed = vmemt_seed("serves_threads") };
	struct member m[THREADS];
	pthread_t thread[THREADS];

	for (uint32_t i = 0; i < THREADS; i++) {
		m[i] = (struct member){ &c, i };
		assert(!pthread_create(&thread[i], NULL, take_part, &m[i]));
	}
	for (uint32_t i = 0; i < THREADS; i++)
		assert(!pthread_join(thread[i], NULL));
}

static void *submit_and_end(void *argument)
{
	struct crowd *c = argument;
	unsigned char *data = vmemt_device_buffer(4ul * BLOCK);
	struct vmem_device_request r[4];

	vmemt_device_fill(data, 4ul * BLOCK, 8);
	for (uint32_t i = 0; i < 4; i++)
		r[i] = (struct vmem_device_request){ .op = VMEM_DEVICE_WRITE,
						     .offset = (uint64_t)i * BLOCK,
						     .bytes = BLOCK,
						     .data = data + (uint64_t)i * BLOCK };
	atomic_store(&c->working, (uint32_t)c->d->ops->submit(c->d->context, r, 4));
	return data;
}

/* What a thread has submitted is done although it has ended. */
static void outlasts_threads(struct vmem_device *d)
{
	for (int i = 0; i < 20; i++) {
		struct crowd c = { .d = d };
		struct vmem_device_completion out;
		pthread_t thread;
		void *data;

		assert(!pthread_create(&thread, NULL, submit_and_end, &c));
		assert(!pthread_join(thread, &data));
		assert(atomic_load(&c.working) >= 1);
		for (uint32_t n = 0; n < atomic_load(&c.working); n++)
			assert(vmemt_device_await(d, &out, 1) == 1 && !out.error);
		free(data);
	}
}

static void *wait_for_all(void *argument)
{
	struct crowd *c = argument;
	struct vmem_device_completion out;

	while (atomic_load(&c->working)) {
		assert(!c->d->ops->wait(c->d->context, VMEM_DEVICE_FOREVER));
		if (c->d->ops->complete(c->d->context, &out, 1))
			atomic_fetch_sub(&c->working, 1);
	}
	return NULL;
}

/* Several wait without end for what only one of them gets: the others are let go. */
static void lets_waiters_go(struct vmem_device *d)
{
	unsigned char *data = vmemt_device_buffer(BLOCK);
	struct vmem_device_request r = { .bytes = BLOCK, .data = data };

	for (int i = 0; d->ops->wait && i < 30; i++) {
		struct crowd c = { .d = d, .working = 1 };
		pthread_t thread[THREADS];

		assert(d->ops->submit(d->context, &r, 1) == 1);
		for (uint32_t t = 0; t < THREADS; t++)
			assert(!pthread_create(&thread[t], NULL, wait_for_all, &c));
		for (uint32_t t = 0; t < THREADS; t++)
			assert(!pthread_join(thread[t], NULL));
	}
	free(data);
}

/* Data is not touched after close(), which an address sanitizer sees. */
static void closes_busy(struct vmem_device *d)
{
	struct vmem_device_request r[VMEMT_DEVICE_DEPTH] = { { 0 } };
	uint32_t count = d->depth;

	for (uint32_t i = 0; i < count; i++) {
		r[i] = (struct vmem_device_request){
			.op = i % 3 ? VMEM_DEVICE_WRITE : VMEM_DEVICE_READ,
			.offset = (uint64_t)i * RUN * BLOCK,
			.bytes = (uint64_t)RUN * BLOCK,
			.data = vmemt_device_buffer((uint64_t)RUN * BLOCK),
		};
	}
	assert(d->ops->submit(d->context, r, count) > 0);
	vmem_device_close(d);
	for (uint32_t i = 0; i < count; i++)
		free(r[i].data);
}

bool vmemt_device_conforms(const struct vmemt_device_kind *kind)
{
	static void (*const part[])(struct vmem_device * d) = {
		is_described,   refuses,          random_requests, fills_up,  can_be_waited_for,
		serves_threads, outlasts_threads, lets_waiters_go, is_mapped,
	};
	static void (*const last[])(struct vmem_device * d) = { takes_registered_memory,
								closes_busy };
	struct vmem_device *d = kind->open(kind->context);

	if (!d)
		return false;
	fprintf(stderr, "%s\n", kind->name);
	for (size_t i = 0; i < sizeof(part) / sizeof(part[0]); i++)
		part[i](d);
	vmem_device_close(d);
	/* These close it. */
	for (size_t i = 0; i < sizeof(last) / sizeof(last[0]); i++) {
		d = kind->open(kind->context);
		assert(d);
		last[i](d);
	}
	return true;
}
