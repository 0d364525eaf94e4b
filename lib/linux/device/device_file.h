/* SPDX-License-Identifier: BSD-2-Clause */
/* A device on a file, as the ways in which it works know it: by a ring (file_ring.c), by threads (file_threads.c), and
 * mapped (file_mapped.c). */
#ifndef VMEMI_DEVICE_FILE_H
#define VMEMI_DEVICE_FILE_H
#include <vmem/device_file.h>
#include "linux/device/requests.h"
#include "linux/device/ring.h"

#define VMEMI_DEVICE_THREADS_MAX 64

struct vmemi_file_ring {
	struct vmemi_ring ring;
	int epoll;         /* of the ring and q.event */
	uint32_t entering; /* q.lock: threads that submit */
	bool is_dead;      /* q.lock: entering fails for good */
	uintptr_t fixed;   /* q.lock: registered memory, or 0 */
	uint64_t fixed_bytes;
};

struct vmemi_file_threads {
	pthread_cond_t work; /* q.lock */
	struct vmemi_request_list queue;
	bool stop;
	uint32_t count; /* that were started */
	pthread_t thread[VMEMI_DEVICE_THREADS_MAX];
};

struct vmemi_file_mapped {
	void *bytes;
	struct vmemi_request_list taken; /* q.lock */
};

struct vmemi_device_file {
	struct vmem_device device;
	const struct vmemi_kernel *k;
	struct vmem_allocator allocator;
	struct vmem_device_file_info info;
	struct vmemi_requests q;
	int fd;
	bool is_direct;
	bool may_shrink;      /* others can truncate it */
	uint64_t least_bytes; /* q.lock: to which it was seen truncated */
	union {
		struct vmemi_file_ring ring;
		struct vmemi_file_threads threads;
		struct vmemi_file_mapped mapped;
	} by;
};

/* Makes the device work one way: fills in device.ops and what it needs. 0, or an error number, the kernel's for a
 * ring; then nothing is left. */
int vmemi_file_ring_open(struct vmemi_device_file *f);
int vmemi_file_threads_open(struct vmemi_device_file *f, uint32_t count);
int vmemi_file_mapped_open(struct vmemi_device_file *f, bool is_ours);
extern const struct vmem_device_ops vmemi_file_ring_ops, vmemi_file_threads_ops,
	vmemi_file_mapped_ops;

/* Takes requests, as submit() is to. @start is called for each that is to be done, with q.lock held; leaves with
 * the lock held. */
int vmemi_device_file_take(struct vmemi_device_file *f, const struct vmem_device_request *requests,
			   uint32_t count,
			   void (*start)(struct vmemi_device_file *f, struct vmemi_request *s));

/* The functions of devices whose completions are all in q.done. */
int vmemi_device_file_complete(void *context, struct vmem_device_completion *completions,
			       uint32_t max);
int vmemi_device_file_wait(void *context, uint64_t timeout_ns);
int vmemi_device_file_event(void *context);

/* What a transfer came to: the bytes, or an error number of the kernel's, negated. 0: done; -VMEM_EAGAIN: more is to
 * be done, from s->done on; else the request's error. */
int vmemi_device_file_step(const struct vmemi_device_file *f, struct vmemi_request *s,
			   int64_t result);

/* Frees the device, when nothing works on it any more. */
void vmemi_device_file_free(struct vmemi_device_file *f);

/* As the public functions, over other system calls. */
int vmemi_device_file_open(struct vmem_device **ret_device, const char *path,
			   const struct vmem_device_file_opts *opts, const struct vmemi_kernel *k);
int vmemi_device_file_adopt(struct vmem_device **ret_device, int fd,
			    const struct vmem_device_file_opts *opts, const struct vmemi_kernel *k);

#endif
