/* SPDX-License-Identifier: BSD-2-Clause */
/* A device on a file that is mapped: persistent memory (DAX), or a file in memory. Requests are copies, done within
 * submit(): the medium is memory.
 *
 * Touching a mapping must never raise SIGBUS. That happens where the file has become shorter, where a hole finds no
 * space, and where a disk fails. So only files are taken that nobody else can truncate (without a name, or sealed), whose space is
 * taken before, and that are in memory; the rest is refused. Nothing of them outlives the process, and flushing has
 * nothing to do. Guard: q.lock; copying happens outside. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux/device/device_file.h"
#include "base/mem.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>

/* Only keeps it out of the free list: the copy is made outside of the lock. */
static void start(struct vmemi_device_file *f, struct vmemi_request *s)
{
	vmemi_request_append(&f->q, &f->by.mapped.taken, s);
}

static void copy(const struct vmemi_device_file *f, const struct vmem_device_request *r)
{
	unsigned char *bytes = (unsigned char *)f->by.mapped.bytes + r->offset;

	if (r->op == VMEM_DEVICE_READ)
		memcpy(r->data, bytes, r->bytes);
	else if (r->op == VMEM_DEVICE_WRITE)
		memcpy(bytes, r->data, r->bytes);
}

/* What this thread has taken, or another has just put there: the same to both. */
static void do_taken(struct vmemi_device_file *f)
{
	struct vmemi_request *s;

	while ((s = vmemi_request_first(&f->q, &f->by.mapped.taken)) != NULL) {
		pthread_mutex_unlock(&f->q.lock);
		copy(f, &s->r);
		pthread_mutex_lock(&f->q.lock);
		vmemi_requests_done(&f->q, s, 0);
		vmemi_requests_tell(&f->q);
	}
}

static int mapped_submit(void *context, const struct vmem_device_request *requests, uint32_t count)
{
	struct vmemi_device_file *f = context;
	int result = vmemi_device_file_take(f, requests, count, start);

	do_taken(f);
	pthread_mutex_unlock(&f->q.lock);
	return result;
}

static void *mapped_map(void *context, uint64_t offset, uint64_t bytes)
{
	const struct vmemi_device_file *f = context;
	uint64_t size = f->device.size_bytes;

	if (bytes > size || offset > size - bytes)
		return NULL;
	return (unsigned char *)f->by.mapped.bytes + offset;
}

static void mapped_close(void *context)
{
	struct vmemi_device_file *f = context;

	f->k->munmap(f->by.mapped.bytes, f->device.size_bytes);
	vmemi_device_file_free(f);
}

const struct vmem_device_ops vmemi_file_mapped_ops = {
	.size = sizeof(struct vmem_device_ops),
	.submit = mapped_submit,
	.complete = vmemi_device_file_complete,
	.wait = vmemi_device_file_wait,
	.fd = vmemi_device_file_event,
	.map = mapped_map,
	.close = mapped_close,
};

/* A file without a name is nobody else's; one that was given may be, unless it is sealed. */
static int keep_length(const struct vmemi_device_file *f, bool is_ours)
{
	int seals;

	if (f->device.flags & VMEM_DEVICE_OUTLIVES)
		return -VMEM_ENOTSUP;
	if (is_ours)
		return 0;
	f->k->fcntl(f->fd, F_ADD_SEALS, F_SEAL_SHRINK);
	seals = f->k->fcntl(f->fd, F_GET_SEALS, 0);
	return seals >= 0 && seals & F_SEAL_SHRINK ? 0 : -VMEM_ENOTSUP;
}

int vmemi_file_mapped_open(struct vmemi_device_file *f, bool is_ours)
{
	struct vmemi_file_mapped *b = &f->by.mapped;
	uint64_t bytes = f->device.size_bytes;
	int error = keep_length(f, is_ours);

	if (error)
		return error;
	*b = (struct vmemi_file_mapped){ .taken = { VMEMI_REQUEST_NONE, VMEMI_REQUEST_NONE } };
	/* Only DAX can be mapped so. */
	error = f->k->map_sync(&b->bytes, bytes, PROT_READ | PROT_WRITE, f->fd, 0);
	if (error && f->k->fs_type(f->fd) == TMPFS_MAGIC)
		error = f->k->map_file(&b->bytes, bytes, PROT_READ | PROT_WRITE, f->fd, 0);
	if (error)
		return error == -ENOMEM ? -VMEM_ENOMEM : -VMEM_ENOTSUP;
	f->k->madvise(b->bytes, bytes, MADV_DONTFORK);
	f->k->madvise(b->bytes, bytes, MADV_DONTDUMP);
	f->device.flags = VMEM_DEVICE_MAPPED;
	f->device.ops = &vmemi_file_mapped_ops;
	return 0;
}
