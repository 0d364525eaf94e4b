/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests in flight: see requests.h. */
#include "linux/device/requests.h"
#include "base/alloc.h"
#include <errno.h>
#include <limits.h>
#include <sys/eventfd.h>

int vmemi_requests_init(struct vmemi_requests *q, const struct vmemi_kernel *k,
			const struct vmem_allocator *a, uint32_t depth)
{
	*q = (struct vmemi_requests){
		.k = k,
		.depth = depth,
		.done = { VMEMI_REQUEST_NONE, VMEMI_REQUEST_NONE },
		.event = -1,
	};
	q->slots = vmemi_zalloc(a, depth * sizeof(*q->slots), _Alignof(struct vmemi_request));
	if (!q->slots)
		return -VMEM_ENOMEM;
	for (uint32_t i = 0; i < depth; i++)
		q->slots[i].next = i + 1 < depth ? i + 1 : VMEMI_REQUEST_NONE;
	q->event = k->eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (q->event < 0 || pthread_mutex_init(&q->lock, NULL)) {
		if (q->event >= 0)
			k->close(q->event);
		vmemi_free(a, q->slots, depth * sizeof(*q->slots), _Alignof(struct vmemi_request));
		return -VMEM_EIO;
	}
	return 0;
}

void vmemi_requests_destroy(struct vmemi_requests *q, const struct vmem_allocator *a)
{
	q->k->close(q->event);
	pthread_mutex_destroy(&q->lock);
	vmemi_free(a, q->slots, q->depth * sizeof(*q->slots), _Alignof(struct vmemi_request));
}

void vmemi_request_append(struct vmemi_requests *q, struct vmemi_request_list *list,
			  struct vmemi_request *s)
{
	uint32_t number = vmemi_request_number(q, s);

	s->next = VMEMI_REQUEST_NONE;
	if (list->first == VMEMI_REQUEST_NONE)
		list->first = number;
	else
		q->slots[list->last].next = number;
	list->last = number;
}

struct vmemi_request *vmemi_request_first(struct vmemi_requests *q, struct vmemi_request_list *list)
{
	struct vmemi_request *s;

	if (list->first == VMEMI_REQUEST_NONE)
		return NULL;
	s = &q->slots[list->first];
	list->first = s->next;
	return s;
}

struct vmemi_request *vmemi_requests_take(struct vmemi_requests *q,
					  const struct vmem_device_request *r)
{
	struct vmemi_request *s;

	if (q->free == VMEMI_REQUEST_NONE)
		return NULL;
	s = &q->slots[q->free];
	q->free = s->next;
	q->in_flight++;
	*s = (struct vmemi_request){ .r = *r, .next = VMEMI_REQUEST_NONE };
	return s;
}

void vmemi_requests_done(struct vmemi_requests *q, struct vmemi_request *s, int error)
{
	s->error = error;
	vmemi_request_append(q, &q->done, s);
}

void vmemi_requests_give(struct vmemi_requests *q, struct vmemi_request *s,
			 struct vmem_device_completion *out)
{
	*out = (struct vmem_device_completion){ .tag = s->r.tag, .error = s->error };
	s->next = q->free;
	q->free = vmemi_request_number(q, s);
	q->in_flight--;
}

uint32_t vmemi_requests_pop(struct vmemi_requests *q, struct vmem_device_completion *out,
			    uint32_t max)
{
	struct vmemi_request *s;
	uint32_t n = 0;

	while (n < max && (s = vmemi_request_first(q, &q->done)) != NULL)
		vmemi_requests_give(q, s, &out[n++]);
	return n;
}

/* Who waits although nothing is in flight any more, because another has had it, must wake up too. */
void vmemi_requests_tell(struct vmemi_requests *q)
{
	bool want = q->done.first != VMEMI_REQUEST_NONE || q->more || (q->waiters && !q->in_flight);
	uint64_t count = 1;

	if (want == q->event_is_set)
		return;
	/* Neither waits, nor fails: the count is 0 or 1. */
	if (want)
		q->k->write(q->event, &count, sizeof(count));
	else
		q->k->read(q->event, &count, sizeof(count));
	q->event_is_set = want;
}

static int milliseconds(uint64_t ns)
{
	uint64_t ms = ns / 1000000 + (ns % 1000000 != 0);

	return ms > INT_MAX ? INT_MAX : (int)ms;
}

static int poll_until(const struct vmemi_kernel *k, int fd, uint64_t timeout_ns)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	uint64_t start = k->clock_ns();

	for (;;) {
		uint64_t passed = k->clock_ns() - start;
		int ms = -1, r;

		if (timeout_ns != VMEM_DEVICE_FOREVER)
			ms = passed < timeout_ns ? milliseconds(timeout_ns - passed) : 0;
		r = k->poll(&p, 1, ms);
		if (r != -EINTR)
			return r < 0 ? -VMEM_EIO : 0;
	}
}

int vmemi_requests_wait(struct vmemi_requests *q, int fd, uint64_t timeout_ns)
{
	int error = 0;

	pthread_mutex_lock(&q->lock);
	if (q->in_flight && q->done.first == VMEMI_REQUEST_NONE && !q->more) {
		q->waiters++;
		pthread_mutex_unlock(&q->lock);
		error = poll_until(q->k, fd, timeout_ns);
		pthread_mutex_lock(&q->lock);
		q->waiters--;
		vmemi_requests_tell(q);
	}
	pthread_mutex_unlock(&q->lock);
	return error;
}
