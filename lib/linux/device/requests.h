/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests of a device that are in flight: a fixed number of slots, those that are done in a list, and a
 * descriptor that can be read while there is something to hand out.
 * Guard: all fields but depth, slots and event by lock, which is held for no I/O. */
#ifndef VMEMI_REQUESTS_H
#define VMEMI_REQUESTS_H
#include <pthread.h>
#include <stdbool.h>
#include <vmem/allocator.h>
#include <vmem/device.h>
#include "linux/kernel/kernel.h"

#define VMEMI_REQUEST_NONE UINT32_MAX

struct vmemi_request {
	struct vmem_device_request r;
	uint64_t done; /* bytes so far */
	int32_t error;
	uint32_t next;  /* in the list that it is in */
	uint32_t tries; /* that came to nothing */
};

struct vmemi_request_list {
	uint32_t first, last;
};

struct vmemi_requests {
	const struct vmemi_kernel *k;
	pthread_mutex_t lock;
	struct vmemi_request *slots;
	uint32_t depth;
	uint32_t free; /* list of slots */
	uint32_t in_flight;
	uint32_t waiters; /* threads within vmemi_requests_wait() */
	struct vmemi_request_list done;
	bool more; /* complete() has something to do besides */
	int event; /* eventfd */
	bool event_is_set;
};

/* 0, -VMEM_ENOMEM, -VMEM_EIO. */
int vmemi_requests_init(struct vmemi_requests *q, const struct vmemi_kernel *k,
			const struct vmem_allocator *a, uint32_t depth);
void vmemi_requests_destroy(struct vmemi_requests *q, const struct vmem_allocator *a);

/* With the lock held: */
struct vmemi_request *vmemi_requests_take(struct vmemi_requests *q,
					  const struct vmem_device_request *r); /* NULL: full */
void vmemi_requests_done(struct vmemi_requests *q, struct vmemi_request *s, int error);
/* Hands out what is done; or @s, which is in no list. */
uint32_t vmemi_requests_pop(struct vmemi_requests *q, struct vmem_device_completion *out,
			    uint32_t max);
void vmemi_requests_give(struct vmemi_requests *q, struct vmemi_request *s,
			 struct vmem_device_completion *out);
/* Makes the descriptor tell what is so; after each change, before unlocking. */
void vmemi_requests_tell(struct vmemi_requests *q);

void vmemi_request_append(struct vmemi_requests *q, struct vmemi_request_list *list,
			  struct vmemi_request *s);
/* NULL: empty */
struct vmemi_request *vmemi_request_first(struct vmemi_requests *q,
					  struct vmemi_request_list *list);

static inline uint32_t vmemi_request_number(const struct vmemi_requests *q,
					    const struct vmemi_request *s)
{
	return (uint32_t)(s - q->slots);
}

/* Without the lock: what vmem_device_ops.wait is to do, on @fd, which can be read when q->event can. */
int vmemi_requests_wait(struct vmemi_requests *q, int fd, uint64_t timeout_ns);

#endif
