/* SPDX-License-Identifier: BSD-2-Clause */
/* See memory_device.h. */
#include "store/memory_device.h"
#include <assert.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

static int submit(void *context, const struct vmem_device_request *r, uint32_t count)
{
	struct vmemt_memory_device *m = context;
	uint32_t n = 0;

	if (atomic_load(&m->submit_error))
		return atomic_load(&m->submit_error);
	pthread_mutex_lock(&m->lock);
	while (n < count && m->count < m->device.depth) {
		if (vmem_device_check_request(&m->device, &r[n]))
			atomic_fetch_add(&m->wrong, 1);
		m->queue[m->count++] = r[n++];
	}
	pthread_mutex_unlock(&m->lock);
	return (int)n;
}

static int write_error(struct vmemt_memory_device *m, uint64_t offset)
{
	uint64_t any = UINT64_MAX;

	(void)atomic_compare_exchange_strong(&m->bad_place, &any, offset + 1);
	return atomic_load(&m->bad_place) == offset + 1 ? -VMEM_EIO : atomic_load(&m->write_error);
}

static int do_request(struct vmemt_memory_device *m, const struct vmem_device_request *r)
{
	unsigned char *data = r->data;

	if (r->op == VMEM_DEVICE_DISCARD) {
		atomic_fetch_add(&m->discards, r->bytes);
		memset(m->bytes + r->offset, 0xdd, r->bytes);
		return atomic_load(&m->discard_error);
	}
	if (r->op == VMEM_DEVICE_WRITE) {
		int error = write_error(m, r->offset);

		atomic_fetch_add(&m->writes, 1);
		if (!error)
			memcpy(m->bytes + r->offset, data, r->bytes);
		return error;
	}
	atomic_fetch_add(&m->reads, 1);
	if (atomic_load(&m->read_error))
		return atomic_load(&m->read_error);
	memcpy(data, m->bytes + r->offset, atomic_load(&m->short_reads) ? r->bytes / 2 : r->bytes);
	for (uint64_t at = 0; atomic_load(&m->corrupt) && at < r->bytes; at += 64)
		data[at] ^= 4;
	return m->spoil ? m->spoil(m, r) : 0;
}

static int complete(void *context, struct vmem_device_completion *c, uint32_t max)
{
	struct vmemt_memory_device *m = context;
	uint32_t n = 0;

	if (atomic_load(&m->hold))
		return 0;
	pthread_mutex_lock(&m->lock);
	while (n < max && m->count) {
		const struct vmem_device_request *r = &m->queue[--m->count]; /* in no order */

		c[n] = (struct vmem_device_completion){ .tag = r->tag, .error = do_request(m, r) };
		n++;
	}
	pthread_mutex_unlock(&m->lock);
	return (int)n;
}

static int wait(void *context, uint64_t timeout_ns)
{
	struct vmemt_memory_device *m = context;

	atomic_store(&m->waited_ns, timeout_ns);
	sched_yield();
	return 0;
}

static void *map(void *context, uint64_t offset, uint64_t bytes)
{
	struct vmemt_memory_device *m = context;

	if (!(m->device.flags & VMEM_DEVICE_MAPPED) || atomic_load(&m->refuse_map) ||
	    bytes > m->device.size_bytes || offset > m->device.size_bytes - bytes)
		return NULL;
	atomic_fetch_add(&m->maps, 1);
	return m->bytes + offset;
}

static int register_buffers(void *context, void *memory, uint64_t bytes)
{
	struct vmemt_memory_device *m = context;

	(void)memory;
	(void)bytes;
	atomic_fetch_add(&m->registered, 1);
	return 0;
}

static void close_device(void *context)
{
	struct vmemt_memory_device *m = context;

	atomic_store(&m->closing, 1);
	while (atomic_load(&m->hold_close))
		sched_yield();
	free(m->bytes);
	pthread_mutex_destroy(&m->lock);
	atomic_store(&m->closed, 1);
}

void vmemt_memory_device_init(struct vmemt_memory_device *m, uint64_t bytes, uint32_t depth)
{
	static const struct vmem_device_ops ops = { .size = sizeof(ops),
						    .submit = submit,
						    .complete = complete,
						    .wait = wait,
						    .map = map,
						    .register_buffers = register_buffers,
						    .close = close_device };

	memset(m, 0, sizeof(*m));
	m->device = (struct vmem_device){ .size = sizeof(m->device),
					  .ops = &ops,
					  .context = m,
					  .size_bytes = bytes,
					  .block_bytes = 4096,
					  .max_bytes = VMEM_DEVICE_BYTES_LEAST,
					  .depth = depth };
	m->bytes = malloc(bytes);
	assert(m->bytes && !pthread_mutex_init(&m->lock, NULL));
	memset(m->bytes, 0x3c, bytes);
}
