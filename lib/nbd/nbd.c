/* SPDX-License-Identifier: BSD-2-Clause */
/* A device on an NBD server: see <vmem/nbd.h>.
 *
 * libnbd has a lock of its own, within which it calls finished(), which takes q.lock: so libnbd is never called with
 * q.lock held. Whoever submits, completes or waits moves the connection forward, one thread at a time (pump); the
 * descriptor for others is an epoll that watches the connection for what libnbd wants next (watch). */
#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <vmem/nbd.h>
#include "base/alloc.h"
#include "base/opts.h"
#include "linux/device/requests.h"

#define BLOCK 4096u
#define DEPTH 64
#define DEPTH_MAX 1024
#define TIMEOUT_MS 30000
#define SIZE_BYTES (UINT64_C(1) << 40)
#define UNKNOWN_MAX_BYTES (32u << 20) /* that servers take which do not say */
#define TRIM_BYTES (UINT64_C(1) << 30)
#define TURNS 256
#define CLOSE_NS 1000000000 /* for what is in flight, before it is given up */

struct cookie {
	struct nbd *n;
	uint64_t started_ns; /* q.lock; 0: not in flight */
};

struct nbd {
	struct vmem_device device;
	struct vmem_allocator allocator;
	struct nbd_handle *h;
	struct vmemi_requests q;
	struct cookie *cookies;
	struct vmemi_request_list again; /* q.lock: discards of which more is to be done */
	uint64_t timeout_ns;             /* UINT64_MAX: none */
	int epoll;
	int connection; /* ours: libnbd may close its own at any time, and the number be somebody else's */
	bool can_flush;
	pthread_mutex_t pump;  /* who moves the connection */
	pthread_mutex_t watch; /* events, is_left */
	uint32_t events;       /* that the epoll watches the connection for */
	bool is_left;          /* the connection is not watched any more */
};

static int error_of(int error, uint32_t op)
{
	switch (error) {
	case 0: return 0;
	case ENOSPC:
	case EFBIG: return -VMEM_ENOSPC;
	case EPERM:
	case EACCES:
	case EROFS: return -VMEM_EPERM;
	case ENOMEM: return -VMEM_ENOMEM;
	case EPIPE:
	case ENOTCONN:
	case ESHUTDOWN:
	case ECONNRESET:
	case ECONNABORTED: return -VMEM_ENODEV;
	case EINVAL:
	case ENOTSUP: return op == VMEM_DEVICE_DISCARD ? -VMEM_ENOTSUP : -VMEM_EIO;
	default: return -VMEM_EIO;
	}
}

static bool is_gone(const struct nbd *n)
{
	return nbd_aio_is_dead(n->h) != 0 || nbd_aio_is_closed(n->h) != 0;
}

static void end(struct nbd *n, struct vmemi_request *s, int error)
{
	pthread_mutex_lock(&n->q.lock);
	n->cookies[vmemi_request_number(&n->q, s)].started_ns = 0;
	if (!error && s->done < s->r.bytes && s->r.op == VMEM_DEVICE_DISCARD)
		vmemi_request_append(&n->q, &n->again, s);
	else
		vmemi_requests_done(&n->q, s, error);
	n->q.more = n->again.first != VMEMI_REQUEST_NONE;
	vmemi_requests_tell(&n->q);
	pthread_mutex_unlock(&n->q.lock);
}

/* Called by libnbd, within its lock, once for each request. */
static int finished(void *context, int *error)
{
	struct cookie *c = context;
	struct vmemi_request *s = &c->n->q.slots[c - c->n->cookies];

	end(c->n, s, error_of(*error, s->r.op));
	return 1;
}

/* Hands a request to libnbd, or the next part of it. */
static void issue(struct nbd *n, struct vmemi_request *s)
{
	struct cookie *c = &n->cookies[vmemi_request_number(&n->q, s)];
	nbd_completion_callback done = { .callback = finished, .user_data = c };
	uint64_t offset = s->r.offset + s->done, bytes = s->r.bytes - s->done;
	uint32_t op = s->r.op;
	int64_t r;

	pthread_mutex_lock(&n->q.lock);
	c->started_ns = n->q.k->clock_ns();
	if (op == VMEM_DEVICE_DISCARD) {
		bytes = bytes < TRIM_BYTES ? bytes : TRIM_BYTES;
		s->done += bytes;
	}
	pthread_mutex_unlock(&n->q.lock);
	switch (op) {
	case VMEM_DEVICE_READ: r = nbd_aio_pread(n->h, s->r.data, bytes, offset, done, 0); break;
	case VMEM_DEVICE_WRITE: r = nbd_aio_pwrite(n->h, s->r.data, bytes, offset, done, 0); break;
	case VMEM_DEVICE_FLUSH: r = nbd_aio_flush(n->h, done, 0); break;
	default: r = nbd_aio_trim(n->h, bytes, offset, done, 0);
	}
	if (r < 0)
		end(n, s, is_gone(n) ? -VMEM_ENODEV : error_of(nbd_get_errno(), op));
}

/* The epoll watches for what libnbd wants next. A connection that libnbd has given up is ours alone: over for the
 * server too, and not watched, or it would be heard of for ever. */
static void watch(struct nbd *n)
{
	struct epoll_event e = { 0 };
	unsigned direction;

	pthread_mutex_lock(&n->watch);
	if (is_gone(n)) {
		if (!n->is_left) {
			epoll_ctl(n->epoll, EPOLL_CTL_DEL, n->connection, NULL);
			shutdown(n->connection, SHUT_RDWR);
		}
		n->is_left = true;
		pthread_mutex_unlock(&n->watch);
		return;
	}
	direction = nbd_aio_get_direction(n->h);
	if (direction & LIBNBD_AIO_DIRECTION_READ)
		e.events |= EPOLLIN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		e.events |= EPOLLOUT;
	if (e.events != n->events && !epoll_ctl(n->epoll, EPOLL_CTL_MOD, n->connection, &e))
		n->events = e.events;
	pthread_mutex_unlock(&n->watch);
}

/* One step, if it needs no waiting. */
static bool step(struct nbd *n)
{
	unsigned direction = nbd_aio_get_direction(n->h);
	struct pollfd p = { .fd = n->connection };

	if (is_gone(n))
		return false;
	if (direction & LIBNBD_AIO_DIRECTION_READ)
		p.events |= POLLIN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		p.events |= POLLOUT;
	if (poll(&p, 1, 0) <= 0)
		return false;
	if (direction & LIBNBD_AIO_DIRECTION_READ && p.revents & (POLLIN | POLLHUP | POLLERR))
		return nbd_aio_notify_read(n->h) == 0;
	return nbd_aio_notify_write(n->h) == 0;
}

static void pump(struct nbd *n)
{
	struct vmemi_request *s;

	if (pthread_mutex_trylock(&n->pump))
		return;
	for (int turn = 0; turn < TURNS && step(n); turn++)
		;
	do {
		pthread_mutex_lock(&n->q.lock);
		s = vmemi_request_first(&n->q, &n->again);
		n->q.more = n->again.first != VMEMI_REQUEST_NONE;
		pthread_mutex_unlock(&n->q.lock);
		if (s)
			issue(n, s);
	} while (s);
	pthread_mutex_unlock(&n->pump);
	watch(n);
}

/* Breaks the connection off if a request has taken too long. */
static void look_at_time(struct nbd *n)
{
	uint64_t now = n->q.k->clock_ns();
	bool is_late = false;

	if (n->timeout_ns == UINT64_MAX)
		return;
	pthread_mutex_lock(&n->q.lock);
	for (uint32_t i = 0; i < n->q.depth && n->q.in_flight && !is_late; i++) {
		uint64_t started = n->cookies[i].started_ns;

		is_late = started && now > started && now - started > n->timeout_ns;
	}
	pthread_mutex_unlock(&n->q.lock);
	if (is_late) {
		shutdown(n->connection, SHUT_RDWR);
		pump(n);
	}
}

static int server_submit(void *context, const struct vmem_device_request *requests, uint32_t count)
{
	struct nbd *n = context;
	uint32_t taken = 0;
	int error = is_gone(n) ? -VMEM_ENODEV : 0;

	for (; taken < count && !error; taken++) {
		const struct vmem_device_request *r = &requests[taken];
		struct vmemi_request *s;

		error = vmem_device_check_request(&n->device, r);
		if (error)
			break;
		pthread_mutex_lock(&n->q.lock);
		s = vmemi_requests_take(&n->q, r);
		vmemi_requests_tell(&n->q);
		pthread_mutex_unlock(&n->q.lock);
		if (!s)
			break;
		if (r->op == VMEM_DEVICE_FLUSH && !n->can_flush)
			end(n, s, 0);
		else
			issue(n, s);
	}
	if (taken)
		watch(n);
	return taken ? (int)taken : error;
}

static int server_complete(void *context, struct vmem_device_completion *completions, uint32_t max)
{
	struct nbd *n = context;
	uint32_t done;

	pump(n);
	pthread_mutex_lock(&n->q.lock);
	done = vmemi_requests_pop(&n->q, completions, max);
	vmemi_requests_tell(&n->q);
	pthread_mutex_unlock(&n->q.lock);
	if (!done)
		look_at_time(n);
	return (int)done;
}

static int server_wait(void *context, uint64_t timeout_ns)
{
	struct nbd *n = context;
	uint64_t look_ns = n->timeout_ns == UINT64_MAX ? UINT64_MAX : n->timeout_ns / 4;

	return vmemi_requests_wait(&n->q, n->epoll, timeout_ns < look_ns ? timeout_ns : look_ns);
}

static int server_fd(void *context)
{
	const struct nbd *n = context;

	return n->epoll;
}

/* A connection that is broken off is hard on some servers: what is in flight has a while. */
static void drain(struct nbd *n)
{
	struct vmem_device_completion rest[16];
	uint64_t start = n->q.k->clock_ns(), passed = 0;

	while (n->q.in_flight && passed < CLOSE_NS) {
		if (!server_complete(n, rest, 16))
			server_wait(n, CLOSE_NS - passed);
		passed = n->q.k->clock_ns() - start;
	}
}

static void server_close(void *context)
{
	struct nbd *n = context;
	struct vmem_allocator a = n->allocator;
	uint32_t depth = n->q.depth;

	drain(n);
	if (n->epoll >= 0)
		n->q.k->close(n->epoll);
	/* First: where libnbd has started the server, it waits for it, and that for the end of the connection. */
	if (n->connection >= 0)
		n->q.k->close(n->connection);
	nbd_close(n->h);
	pthread_mutex_destroy(&n->pump);
	pthread_mutex_destroy(&n->watch);
	vmemi_requests_destroy(&n->q, &a);
	vmemi_free(&a, n->cookies, depth * sizeof(*n->cookies), _Alignof(struct cookie));
	vmemi_free(&a, n, sizeof(*n), _Alignof(struct nbd));
}

static const struct vmem_device_ops server_ops = {
	.size = sizeof(struct vmem_device_ops),
	.submit = server_submit,
	.complete = server_complete,
	.wait = server_wait,
	.fd = server_fd,
	.close = server_close,
};

/* What the server is like, of which at most @limit bytes are used. */
static int describe(struct nbd *n, uint64_t limit)
{
	int64_t size = nbd_get_size(n->h);
	int64_t least = nbd_get_block_size(n->h, LIBNBD_SIZE_MINIMUM);
	int64_t most = nbd_get_block_size(n->h, LIBNBD_SIZE_MAXIMUM);

	if (size < 0 || least < 0 || most < 0)
		return -VMEM_EIO;
	if (nbd_is_read_only(n->h) != 0)
		return -VMEM_EPERM;
	if (!most || most > UNKNOWN_MAX_BYTES)
		most = UNKNOWN_MAX_BYTES;
	n->device = (struct vmem_device){
		.size = sizeof(n->device),
		.ops = &server_ops,
		.context = n,
		.size_bytes = (uint64_t)size < limit ? (uint64_t)size / BLOCK * BLOCK : limit,
		.block_bytes = BLOCK,
		.max_bytes = (uint32_t)most / BLOCK * BLOCK,
		.depth = n->q.depth,
		.flags = VMEM_DEVICE_OUTLIVES,
	};
	if (least > BLOCK || most < VMEM_DEVICE_BYTES_LEAST || !n->device.size_bytes)
		return -VMEM_ENOTSUP;
	n->can_flush = nbd_can_flush(n->h) == 1;
	if (nbd_can_trim(n->h) == 1)
		n->device.flags |= VMEM_DEVICE_CAN_DISCARD;
	return 0;
}

static int connect_to(struct nbd *n, const char *uri, uint64_t limit)
{
	struct epoll_event e = { 0 };
	int error;

	if (nbd_connect_uri(n->h, uri))
		return nbd_get_errno() == EINVAL ? -VMEM_EINVAL : -VMEM_ENODEV;
	error = describe(n, limit);
	if (error)
		return error;
	n->connection = n->q.k->fcntl(nbd_aio_get_fd(n->h), F_DUPFD_CLOEXEC, 0);
	n->epoll = n->q.k->epoll(&n->q.event, 1);
	if (n->connection < 0 || n->epoll < 0 ||
	    epoll_ctl(n->epoll, EPOLL_CTL_ADD, n->connection, &e))
		return -VMEM_EIO;
	watch(n);
	return 0;
}

static int take_opts(struct vmem_nbd_opts *o, const struct vmem_nbd_opts *given)
{
	int error = vmemi_opts_take(o, sizeof(*o), given);

	if (error)
		return error;
	if (!o->timeout_ms)
		o->timeout_ms = TIMEOUT_MS;
	if (!o->depth)
		o->depth = DEPTH;
	if (!o->size_bytes)
		o->size_bytes = SIZE_BYTES;
	return o->flags || o->reserved || o->depth > DEPTH_MAX || o->size_bytes % BLOCK
		       ? -VMEM_EINVAL
		       : 0;
}

static struct nbd *make(const struct vmem_nbd_opts *o, const struct vmem_allocator *a)
{
	struct nbd *n = vmemi_zalloc(a, sizeof(*n), _Alignof(struct nbd));
	size_t bytes = o->depth * sizeof(*n->cookies);

	if (!n)
		return NULL;
	n->cookies = vmemi_zalloc(a, bytes, _Alignof(struct cookie));
	n->h = nbd_create();
	if (!n->cookies || !n->h || vmemi_requests_init(&n->q, &vmemi_kernel_linux, a, o->depth)) {
		nbd_close(n->h);
		vmemi_free(a, n->cookies, bytes, _Alignof(struct cookie));
		vmemi_free(a, n, sizeof(*n), _Alignof(struct nbd));
		return NULL;
	}
	for (uint32_t i = 0; i < o->depth; i++)
		n->cookies[i].n = n;
	n->allocator = *a;
	n->epoll = -1;
	n->connection = -1;
	n->again = (struct vmemi_request_list){ VMEMI_REQUEST_NONE, VMEMI_REQUEST_NONE };
	n->timeout_ns = o->timeout_ms > UINT64_MAX / 1000000 ? UINT64_MAX : o->timeout_ms * 1000000;
	pthread_mutex_init(&n->pump, NULL);
	pthread_mutex_init(&n->watch, NULL);
	return n;
}

int vmem_nbd_open(struct vmem_device **ret_device, const char *uri,
		  const struct vmem_nbd_opts *opts)
{
	struct vmem_nbd_opts o;
	struct vmem_allocator a;
	struct nbd *n;
	int error = take_opts(&o, opts);

	if (!error && !uri)
		error = -VMEM_EINVAL;
	if (!error)
		error = vmemi_alloc_take(&a, o.allocator);
	if (error)
		return error;
	n = make(&o, &a);
	if (!n)
		return -VMEM_ENOMEM;
	error = connect_to(n, uri, o.size_bytes);
	if (error) {
		server_close(n);
		return error;
	}
	*ret_device = &n->device;
	return 0;
}
