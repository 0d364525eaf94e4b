/* SPDX-License-Identifier: BSD-2-Clause */
/* What all ways of a device on a file have in common: which requests are taken, and what comes of them. */
#include "linux/device/device_file.h"
#include "base/alloc.h"
#include "base/opts.h"
#include <errno.h>

#define TRIES 64 /* of a transfer that the kernel interrupts, cancels or puts off */

/* Somebody may have truncated the file. */
static uint64_t bytes_now(const struct vmemi_device_file *f)
{
	struct stat st;

	if (!f->may_shrink || f->k->fstat(f->fd, &st))
		return UINT64_MAX;
	return (uint64_t)st.st_size;
}

int vmemi_device_file_take(struct vmemi_device_file *f, const struct vmem_device_request *requests,
			   uint32_t count,
			   void (*start)(struct vmemi_device_file *f, struct vmemi_request *s))
{
	uint64_t now = bytes_now(f);
	uint32_t taken = 0;
	int error = 0;

	if (count > INT32_MAX)
		count = INT32_MAX;
	pthread_mutex_lock(&f->q.lock);
	if (now < f->least_bytes)
		f->least_bytes = now;
	for (; taken < count && !error; taken++) {
		const struct vmem_device_request *r = &requests[taken];
		struct vmemi_request *s;

		error = vmem_device_check_request(&f->device, r);
		if (error)
			break;
		s = vmemi_requests_take(&f->q, r);
		if (!s)
			break;
		/* What was there is gone, and writing would make zeros of the rest. */
		if (r->offset + r->bytes > f->least_bytes)
			vmemi_requests_done(&f->q, s, -VMEM_EIO);
		else
			start(f, s);
	}
	return taken ? (int)taken : error;
}

static int error_of(int64_t error, uint32_t op)
{
	switch (error) {
	case -ENOSPC:
	case -EDQUOT:
	case -EFBIG: return -VMEM_ENOSPC;
	case -ENODEV:
	case -ENXIO: return -VMEM_ENODEV;
	case -ENOMEM:
	case -ENOBUFS: return -VMEM_ENOMEM;
	case -EFAULT: return -VMEM_EFAULT;
	case -EPERM:
	case -EACCES:
	case -EROFS: return -VMEM_EPERM;
	case -EOPNOTSUPP:
	case -ENOSYS:
	case -EINVAL: return op == VMEM_DEVICE_DISCARD ? -VMEM_ENOTSUP : -VMEM_EIO;
	default: return -VMEM_EIO;
	}
}

int vmemi_device_file_step(const struct vmemi_device_file *f, struct vmemi_request *s,
			   int64_t result)
{
	bool moves = s->r.op == VMEM_DEVICE_READ || s->r.op == VMEM_DEVICE_WRITE;

	/* A request is cancelled when the thread that submitted it ends. */
	if (result == -EINTR || result == -EAGAIN || result == -ECANCELED)
		return ++s->tries < TRIES ? -VMEM_EAGAIN : -VMEM_EIO;
	if (result < 0)
		return error_of(result, s->r.op);
	if (!moves)
		return 0;
	if (!result || (uint64_t)result > s->r.bytes - s->done)
		return -VMEM_EIO; /* the end of the file */
	s->done += (uint64_t)result;
	if (s->done == s->r.bytes)
		return 0;
	return f->is_direct && s->done % f->device.block_bytes ? -VMEM_EIO : -VMEM_EAGAIN;
}

int vmemi_device_file_complete(void *context, struct vmem_device_completion *completions,
			       uint32_t max)
{
	struct vmemi_device_file *f = context;
	uint32_t n;

	pthread_mutex_lock(&f->q.lock);
	n = vmemi_requests_pop(&f->q, completions, max);
	vmemi_requests_tell(&f->q);
	pthread_mutex_unlock(&f->q.lock);
	return (int)n;
}

int vmemi_device_file_wait(void *context, uint64_t timeout_ns)
{
	struct vmemi_device_file *f = context;

	return vmemi_requests_wait(&f->q, f->q.event, timeout_ns);
}

int vmemi_device_file_event(void *context)
{
	struct vmemi_device_file *f = context;

	return f->q.event;
}

void vmemi_device_file_free(struct vmemi_device_file *f)
{
	struct vmem_allocator a = f->allocator;

	f->k->close(f->fd);
	vmemi_requests_destroy(&f->q, &a);
	vmemi_free(&a, f, sizeof(*f), _Alignof(struct vmemi_device_file));
}

int vmem_device_file_get_info(const struct vmem_device *device, struct vmem_device_file_info *info)
{
	const struct vmemi_device_file *f;

	if (!device ||
	    (device->ops != &vmemi_file_ring_ops && device->ops != &vmemi_file_threads_ops &&
	     device->ops != &vmemi_file_mapped_ops))
		return -VMEM_EINVAL;
	f = device->context;
	return vmemi_opts_give(info, &f->info, sizeof(f->info));
}
