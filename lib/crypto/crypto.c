/* SPDX-License-Identifier: BSD-2-Clause */
/* A device over another one that enciphers: see <vmem/crypto.h>.
 *
 * Each request in flight has a slot, whose number is its tag below, and a write a piece of the buffer, in which its
 * ciphertext lies until it is completed. Guard: lock, for the free slots and the map of the buffer; not held while
 * anything is enciphered, nor where the device below is called. */
#include <pthread.h>
#include <string.h>
#include <vmem/crypto.h>
#include "base/alloc.h"
#include "base/opts.h"
#include "crypto/cipher.h"

#define UNIT VMEMI_CIPHER_UNIT
#define BUFFER_BYTES (UINT64_C(4) << 20)
#define BUFFER_LEAST (UINT64_C(2) << 20)
#define BUFFER_MOST (UINT64_C(1) << 30)
#define BATCH 16u
#define NONE UINT32_MAX

struct slot {
	struct vmem_device_request r;
	uint32_t first, units; /* of the buffer */
	uint32_t next;
};

struct crypto {
	struct vmem_device device;
	struct vmem_device_ops ops;
	struct vmem_device *inner;
	struct vmem_allocator allocator;
	struct vmemi_cipher cipher;
	pthread_mutex_t lock;
	struct slot *slots;
	uint32_t free_slot;
	unsigned char *buffer;
	uint64_t buffer_bytes;
	unsigned char *is_used; /* a byte for each unit of the buffer */
};

/* The first piece that is large enough, or NONE. */
static uint32_t take_units(struct crypto *c, uint32_t count)
{
	uint32_t total = (uint32_t)(c->buffer_bytes / UNIT);
	uint32_t first = 0;

	for (uint32_t at = 0; at < total && at - first < count; at++)
		if (c->is_used[at])
			first = at + 1;
	if (first + count > total)
		return NONE;
	memset(c->is_used + first, 1, count);
	return first;
}

/* A slot, and a piece of the buffer for what is written; or NULL: too much is in flight. */
static struct slot *take_slot(struct crypto *c, const struct vmem_device_request *r)
{
	struct slot *s = NULL;
	uint32_t units = r->op == VMEM_DEVICE_WRITE ? (uint32_t)(r->bytes / UNIT) : 0;
	uint32_t first = 0;

	pthread_mutex_lock(&c->lock);
	if (c->free_slot != NONE && units)
		first = take_units(c, units);
	if (c->free_slot != NONE && first != NONE) {
		s = &c->slots[c->free_slot];
		c->free_slot = s->next;
		*s = (struct slot){ .r = *r, .first = first, .units = units, .next = NONE };
	}
	pthread_mutex_unlock(&c->lock);
	return s;
}

static void give_slot(struct crypto *c, struct slot *s)
{
	pthread_mutex_lock(&c->lock);
	memset(c->is_used + s->first, 0, s->units);
	s->next = c->free_slot;
	c->free_slot = (uint32_t)(s - c->slots);
	pthread_mutex_unlock(&c->lock);
}

/* One request as it goes down. Left out: it is refused (@ret_error), or there is no room. */
static bool prepare(struct crypto *c, const struct vmem_device_request *r,
		    struct vmem_device_request *below, int *ret_error)
{
	struct slot *s;

	*ret_error = vmem_device_check_request(&c->device, r);
	s = *ret_error ? NULL : take_slot(c, r);
	if (!s)
		return false;
	*below = *r;
	below->tag = (uint64_t)(s - c->slots);
	if (r->op != VMEM_DEVICE_WRITE)
		return true;
	below->data = c->buffer + (uint64_t)s->first * UNIT;
	if (vmemi_cipher_do(&c->cipher, true, below->data, r->data, r->bytes, r->offset / UNIT))
		return true;
	give_slot(c, s);
	*ret_error = -VMEM_EIO;
	return false;
}

static int crypto_submit(void *context, const struct vmem_device_request *requests, uint32_t count)
{
	struct crypto *c = context;
	struct vmem_device_request below[BATCH];
	uint32_t taken = 0, n;
	int error = 0, r;

	do {
		for (n = 0; n < BATCH && taken + n < count; n++)
			if (!prepare(c, &requests[taken + n], &below[n], &error))
				break;
		r = n ? c->inner->ops->submit(c->inner->context, below, n) : error;
		for (uint32_t i = r > 0 ? (uint32_t)r : 0; i < n; i++)
			give_slot(c, &c->slots[below[i].tag]);
		taken += r > 0 ? (uint32_t)r : 0;
	} while (n == BATCH && r == (int)BATCH && taken < count);
	return taken ? (int)taken : r;
}

static void finish(struct crypto *c, const struct vmem_device_completion *below,
		   struct vmem_device_completion *out)
{
	struct slot *s = &c->slots[below->tag];

	*out = (struct vmem_device_completion){ .tag = s->r.tag, .error = below->error };
	if (s->r.op == VMEM_DEVICE_READ && !out->error &&
	    !vmemi_cipher_do(&c->cipher, false, s->r.data, s->r.data, s->r.bytes,
			     s->r.offset / UNIT))
		out->error = -VMEM_EIO;
	give_slot(c, s);
}

static int crypto_complete(void *context, struct vmem_device_completion *completions, uint32_t max)
{
	struct crypto *c = context;
	struct vmem_device_completion below[BATCH];
	uint32_t done = 0, ask;
	int n;

	do {
		ask = max - done < BATCH ? max - done : BATCH;
		n = c->inner->ops->complete(c->inner->context, below, ask);
		for (int i = 0; i < n; i++)
			finish(c, &below[i], &completions[done++]);
	} while (n == (int)ask && done < max);
	return (int)done;
}

static int crypto_wait(void *context, uint64_t timeout_ns)
{
	const struct crypto *c = context;

	return c->inner->ops->wait(c->inner->context, timeout_ns);
}

static int crypto_fd(void *context)
{
	const struct crypto *c = context;

	return c->inner->ops->fd(c->inner->context);
}

/* Of use for what is read. */
static int crypto_register_buffers(void *context, void *memory, uint64_t bytes)
{
	const struct crypto *c = context;

	return c->inner->ops->register_buffers(c->inner->context, memory, bytes);
}

/* Whatever was made of it, but not the device below. */
static void give_up(struct crypto *c)
{
	struct vmem_allocator a = c->allocator;

	vmemi_free(&a, c->slots, c->device.depth * sizeof(*c->slots), _Alignof(struct slot));
	vmemi_free(&a, c->is_used, c->buffer_bytes / UNIT, 1);
	vmemi_free(&a, c->buffer, c->buffer_bytes, UNIT);
	vmemi_free(&a, c, sizeof(*c), _Alignof(struct crypto));
}

static void crypto_close(void *context)
{
	struct crypto *c = context;

	c->inner->ops->close(c->inner->context);
	vmemi_cipher_close(&c->cipher);
	pthread_mutex_destroy(&c->lock);
	give_up(c);
}

static void describe(struct crypto *c, struct vmem_device *inner)
{
	const struct vmem_device_ops *below = inner->ops;
	uint32_t half = (uint32_t)(c->buffer_bytes / UNIT / 2 * UNIT);

	c->inner = inner;
	c->ops = (struct vmem_device_ops){
		.size = sizeof(c->ops),
		.submit = crypto_submit,
		.complete = crypto_complete,
		.wait = below->wait ? crypto_wait : NULL,
		.fd = below->fd ? crypto_fd : NULL,
		.register_buffers = below->register_buffers ? crypto_register_buffers : NULL,
		.close = crypto_close,
	};
	c->device = (struct vmem_device){
		.size = sizeof(c->device),
		.ops = &c->ops,
		.context = c,
		.size_bytes = inner->size_bytes / UNIT * UNIT,
		.block_bytes = UNIT,
		.max_bytes = inner->max_bytes / UNIT * UNIT < half ? inner->max_bytes / UNIT * UNIT
								   : half,
		.depth = inner->depth,
		.flags = (inner->flags & ~VMEM_DEVICE_MAPPED) | VMEM_DEVICE_ENCRYPTED,
	};
}

static int take_opts(struct vmem_crypto_opts *o, const struct vmem_crypto_opts *given)
{
	int error = vmemi_opts_take(o, sizeof(*o), given);

	if (!error && !o->buffer_bytes)
		o->buffer_bytes = BUFFER_BYTES;
	if (!error && (o->flags || o->buffer_bytes % UNIT || o->buffer_bytes < BUFFER_LEAST ||
		       o->buffer_bytes > BUFFER_MOST))
		error = -VMEM_EINVAL;
	return error;
}

/* All slots and the whole buffer are free. */
static int take_memory(struct crypto *c)
{
	const struct vmem_allocator *a = &c->allocator;
	uint32_t depth = c->device.depth;

	c->slots = vmemi_zalloc(a, depth * sizeof(*c->slots), _Alignof(struct slot));
	c->is_used = vmemi_zalloc(a, c->buffer_bytes / UNIT, 1);
	c->buffer = vmemi_alloc(a, c->buffer_bytes, UNIT);
	if (!c->slots || !c->is_used || !c->buffer)
		return -VMEM_ENOMEM;
	for (uint32_t i = 0; i < depth; i++)
		c->slots[i].next = i + 1 < depth ? i + 1 : NONE;
	return 0;
}

int vmem_crypto_open(struct vmem_device **ret_device, struct vmem_device *inner,
		     const struct vmem_crypto_opts *opts)
{
	struct vmem_crypto_opts o;
	struct vmem_allocator a;
	struct crypto *c;
	int error = take_opts(&o, opts);

	if (!error)
		error = vmem_device_check(inner);
	if (!error && inner->size_bytes < UNIT)
		error = -VMEM_EINVAL;
	if (!error)
		error = vmemi_alloc_take(&a, o.allocator);
	if (error)
		return error;
	c = vmemi_zalloc(&a, sizeof(*c), _Alignof(struct crypto));
	if (!c)
		return -VMEM_ENOMEM;
	c->allocator = a;
	c->buffer_bytes = o.buffer_bytes;
	describe(c, inner);
	error = take_memory(c);
	if (!error && pthread_mutex_init(&c->lock, NULL))
		error = -VMEM_ENOMEM;
	if (!error) {
		error = vmemi_cipher_open(&c->cipher);
		if (error)
			pthread_mutex_destroy(&c->lock);
	}
	if (error) {
		give_up(c);
		return error;
	}
	*ret_device = &c->device;
	return 0;
}
