/* SPDX-License-Identifier: BSD-2-Clause */
/* A device on a file, by threads that read and write: where io_uring is refused. Guard: q.lock. */
#include "linux/device/device_file.h"
#include "linux/kernel/thread.h"
#include <linux/falloc.h>

static int64_t transfer(const struct vmemi_device_file *f, const struct vmemi_request *s)
{
	off_t offset = (off_t)(s->r.offset + s->done);
	size_t bytes = s->r.bytes - s->done;
	unsigned char *data = s->r.data;

	switch (s->r.op) {
	case VMEM_DEVICE_READ: return f->k->pread(f->fd, data + s->done, bytes, offset);
	case VMEM_DEVICE_WRITE: return f->k->pwrite(f->fd, data + s->done, bytes, offset);
	case VMEM_DEVICE_FLUSH: return f->k->fdatasync(f->fd);
	default:
		return f->k->fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
				       (off_t)bytes);
	}
}

static void *work(void *context)
{
	struct vmemi_device_file *f = context;
	struct vmemi_file_threads *b = &f->by.threads;
	struct vmemi_request *s;
	int error;

	pthread_mutex_lock(&f->q.lock);
	for (;;) {
		while (!(s = vmemi_request_first(&f->q, &b->queue)) && !b->stop)
			pthread_cond_wait(&b->work, &f->q.lock);
		if (!s)
			break;
		pthread_mutex_unlock(&f->q.lock);
		do
			error = vmemi_device_file_step(f, s, transfer(f, s));
		while (error == -VMEM_EAGAIN);
		pthread_mutex_lock(&f->q.lock);
		vmemi_requests_done(&f->q, s, error);
		vmemi_requests_tell(&f->q);
	}
	pthread_mutex_unlock(&f->q.lock);
	return NULL;
}

static void start(struct vmemi_device_file *f, struct vmemi_request *s)
{
	vmemi_request_append(&f->q, &f->by.threads.queue, s);
	pthread_cond_signal(&f->by.threads.work);
}

static int threads_submit(void *context, const struct vmem_device_request *requests, uint32_t count)
{
	struct vmemi_device_file *f = context;
	int result = vmemi_device_file_take(f, requests, count, start);

	vmemi_requests_tell(&f->q);
	pthread_mutex_unlock(&f->q.lock);
	return result;
}

/* Whatever is queued is done first. */
static void end_threads(struct vmemi_device_file *f)
{
	struct vmemi_file_threads *b = &f->by.threads;

	pthread_mutex_lock(&f->q.lock);
	b->stop = true;
	pthread_cond_broadcast(&b->work);
	pthread_mutex_unlock(&f->q.lock);
	while (b->count)
		pthread_join(b->thread[--b->count], NULL);
	pthread_cond_destroy(&b->work);
}

static void threads_close(void *context)
{
	end_threads(context);
	vmemi_device_file_free(context);
}

const struct vmem_device_ops vmemi_file_threads_ops = {
	.size = sizeof(struct vmem_device_ops),
	.submit = threads_submit,
	.complete = vmemi_device_file_complete,
	.wait = vmemi_device_file_wait,
	.fd = vmemi_device_file_event,
	.close = threads_close,
};

int vmemi_file_threads_open(struct vmemi_device_file *f, uint32_t count)
{
	struct vmemi_file_threads *b = &f->by.threads;

	*b = (struct vmemi_file_threads){
		.queue = { VMEMI_REQUEST_NONE, VMEMI_REQUEST_NONE },
	};
	if (pthread_cond_init(&b->work, NULL))
		return -VMEM_ENOMEM;
	for (; b->count < count; b->count++) {
		if (vmemi_thread_start(&b->thread[b->count], work, f)) {
			end_threads(f);
			return -VMEM_ENOMEM;
		}
	}
	f->info.threads = count;
	f->device.ops = &vmemi_file_threads_ops;
	return 0;
}
