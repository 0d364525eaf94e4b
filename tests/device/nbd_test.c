/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices on an NBD server, nbdkit: the suite over one; and servers that are killed, hang, fail, or claim much. */
#define _GNU_SOURCE
#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "device/device_suite.h"
#include "device/nbd_server.h"
#include "support/deadline.h"
#include "support/fail_alloc.h"

#define BLOCK 4096ul

static void start(const char *option, const char *parameter, const char *another)
{
	vmemt_nbd_start("8M", option, parameter, another);
}

static struct vmem_device *open_it(uint64_t timeout_ms)
{
	return vmemt_nbd_open(VMEMT_DEVICE_DEPTH, timeout_ms);
}

static struct vmem_device *open_kind(void *context)
{
	(void)context;
	return open_it(UINT64_MAX);
}

static void refuses(void)
{
	struct vmem_nbd_opts o = { .size = sizeof(o), .flags = 1 };
	struct vmem_device *d = NULL;
	struct vmemt_fail_alloc a;

	assert(vmem_nbd_open(&d, vmemt_nbd_uri(), &o) == -VMEM_EINVAL);
	o.flags = 0;
	o.size_bytes = 100;
	assert(vmem_nbd_open(&d, vmemt_nbd_uri(), &o) == -VMEM_EINVAL);
	o.size_bytes = 0;
	o.depth = 1025;
	assert(vmem_nbd_open(&d, vmemt_nbd_uri(), &o) == -VMEM_EINVAL);
	assert(vmem_nbd_open(&d, NULL, NULL) == -VMEM_EINVAL);
	assert(vmem_nbd_open(&d, "nbd+unix:///?socket=/nowhere/at-all", NULL) == -VMEM_ENODEV);
	o.depth = 0;
	o.allocator = &a.allocator;
	for (long n = 0;; n++) {
		int error;

		vmemt_fail_alloc_init(&a);
		a.fail_after = n;
		error = vmem_nbd_open(&d, vmemt_nbd_uri(), &o);
		if (!a.failed) {
			assert(!error);
			break;
		}
		assert(error == -VMEM_ENOMEM && !d && !a.live_bytes);
	}
	assert(d->flags & VMEM_DEVICE_OUTLIVES && d->depth == 64);
	vmem_device_close(d);
	assert(!a.live_bytes);
}

/* Of a connection that is gone nothing is heard any more: who waits for the descriptor does not spin. */
static void is_silent(struct vmem_device *d)
{
	struct pollfd p = { .fd = d->ops->fd(d->context), .events = POLLIN };
	struct vmem_device_completion c;

	VMEMT_UNTIL(!d->ops->complete(d->context, &c, 1));
	assert(!poll(&p, 1, 0));
}

/* Everything that is in flight completes, as it should or because the server is gone, and then nothing goes. */
static void ends_with_the_server(struct vmem_device *d, unsigned char *data, int taken)
{
	struct vmem_device_completion c;
	int lost = 0;

	for (int i = 0; i < taken; i++) {
		assert(vmemt_device_await(d, &c, 1) == 1);
		assert(!c.error || c.error == -VMEM_ENODEV);
		lost += c.error != 0;
	}
	printf("%d of %d requests were lost\n", lost, taken);
	assert(!d->ops->wait(d->context, VMEM_DEVICE_FOREVER));
	VMEMT_UNTIL(vmemt_device_do(d, VMEM_DEVICE_READ, 0, data, BLOCK) == -VMEM_ENODEV);
	is_silent(d);
	assert(vmemt_device_do(d, VMEM_DEVICE_WRITE, 0, data, BLOCK) == -VMEM_ENODEV);
	assert(vmemt_device_do(d, VMEM_DEVICE_FLUSH, 0, NULL, 0) == -VMEM_ENODEV);
	vmem_device_close(d);
}

static void requests(struct vmem_device_request *r, unsigned char *data)
{
	for (uint64_t i = 0; i < VMEMT_DEVICE_DEPTH; i++)
		r[i] = (struct vmem_device_request){ .op = i % 2 ? VMEM_DEVICE_WRITE
								 : VMEM_DEVICE_READ,
						     .offset = i * 64 * BLOCK,
						     .bytes = 64 * BLOCK,
						     .data = data + i * 64 * BLOCK,
						     .tag = i };
}

static void killed(void)
{
	unsigned char *data = vmemt_device_buffer(VMEMT_DEVICE_DEPTH * 64 * BLOCK);
	struct vmem_device_request r[VMEMT_DEVICE_DEPTH];
	struct vmem_device *d;
	int taken;

	requests(r, data);
	/* Before, and while requests are in flight. */
	for (int i = 0; i < 2; i++) {
		start(NULL, NULL, NULL);
		d = open_it(UINT64_MAX);
		assert(!vmemt_device_do(d, VMEM_DEVICE_WRITE, 0, data, BLOCK));
		if (!i)
			vmemt_nbd_stop();
		taken = d->ops->submit(d->context, r, VMEMT_DEVICE_DEPTH);
		vmemt_nbd_stop();
		assert(taken == (int)VMEMT_DEVICE_DEPTH || (!i && taken == -VMEM_ENODEV));
		ends_with_the_server(d, data, taken > 0 ? taken : 0);
	}
	free(data);
}

/* It does not answer, but keeps the connection. */
static void hangs(void)
{
	unsigned char *data = vmemt_device_buffer(VMEMT_DEVICE_DEPTH * 64 * BLOCK);
	struct vmem_device_request r[VMEMT_DEVICE_DEPTH];
	struct vmem_device *d;

	requests(r, data);
	for (int i = 0; i < 2; i++) {
		start(NULL, NULL, NULL);
		d = open_it(i ? UINT64_MAX : 200);
		vmemt_nbd_pause();
		assert(d->ops->submit(d->context, r, VMEMT_DEVICE_DEPTH) ==
		       (int)VMEMT_DEVICE_DEPTH);
		if (i) /* closing waits for nobody */
			vmem_device_close(d);
		else
			ends_with_the_server(d, data, (int)VMEMT_DEVICE_DEPTH);
		vmemt_nbd_stop();
	}
	free(data);
}

static struct vmem_device *breaking_off;
static int others[8][2];

/* In place of libc's, as libvmem-nbd calls it when a request has taken too long: in between another thread sees the
 * server go, libnbd closes its descriptor, and somebody else gets the number. */
int shutdown(int fd, int how)
{
	struct vmem_device *d = breaking_off;
	struct vmem_device_request r = { .op = VMEM_DEVICE_FLUSH };

	breaking_off = NULL;
	if (d) {
		vmemt_nbd_stop();
		assert(!d->ops->complete(d->context, NULL, 0));
		assert(d->ops->submit(d->context, &r, 1) == -VMEM_ENODEV);
		for (int i = 0; i < 8; i++)
			assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, others[i]));
	}
	return (int)syscall(SYS_shutdown, fd, how);
}

static void breaks_off_only_its_own(void)
{
	unsigned char *data = vmemt_device_buffer(VMEMT_DEVICE_DEPTH * 64 * BLOCK);
	struct vmem_device_request r[VMEMT_DEVICE_DEPTH];
	struct vmem_device *d;
	char byte = 0;

	requests(r, data);
	start(NULL, NULL, NULL);
	d = open_it(200);
	vmemt_nbd_pause();
	breaking_off = d;
	assert(d->ops->submit(d->context, r, VMEMT_DEVICE_DEPTH) == (int)VMEMT_DEVICE_DEPTH);
	ends_with_the_server(d, data, (int)VMEMT_DEVICE_DEPTH);
	assert(!breaking_off);
	for (int i = 0; i < 8; i++) {
		for (int end = 0; end < 2; end++) {
			assert(send(others[i][end], &byte, 1, MSG_NOSIGNAL) == 1);
			assert(recv(others[i][!end], &byte, 1, 0) == 1);
		}
		close(others[i][0]);
		close(others[i][1]);
	}
	free(data);
}

/* What a server says it has costs memory where it is kept account of. */
static void claims_much(void)
{
	unsigned char *data = vmemt_device_buffer(BLOCK);
	struct vmem_nbd_opts o = { .size = sizeof(o), .size_bytes = 64 * BLOCK };
	struct vmem_device *d;

	vmemt_nbd_start("1E", NULL, NULL, NULL);
	d = open_it(UINT64_MAX);
	assert(d->size_bytes == UINT64_C(1) << 40);
	vmem_device_close(d);
	assert(!vmem_nbd_open(&d, vmemt_nbd_uri(), &o));
	assert(d->size_bytes == 64 * BLOCK);
	assert(!vmemt_device_do(d, VMEM_DEVICE_WRITE, 63 * BLOCK, data, BLOCK));
	assert(vmemt_device_do(d, VMEM_DEVICE_WRITE, 64 * BLOCK, data, BLOCK) == -VMEM_ERANGE);
	vmem_device_close(d);
	o.size_bytes = UINT64_C(1) << 50; /* more, if one asks for it */
	assert(!vmem_nbd_open(&d, vmemt_nbd_uri(), &o));
	assert(d->size_bytes == UINT64_C(1) << 50);
	vmem_device_close(d);
	vmemt_nbd_stop();
	start(NULL, NULL, NULL);
	VMEMT_UNTIL(!vmem_nbd_open(&d, vmemt_nbd_uri(), &o));
	assert(d->size_bytes == VMEMT_DEVICE_BYTES);
	vmem_device_close(d);
	vmemt_nbd_stop();
	free(data);
}

static void fails(void)
{
	unsigned char *data = vmemt_device_buffer(BLOCK);
	struct vmem_device *d;

	start("--filter=error", "error-pwrite=ENOSPC", "error-pwrite-rate=100%");
	d = open_it(UINT64_MAX);
	assert(vmemt_device_do(d, VMEM_DEVICE_WRITE, 0, data, BLOCK) == -VMEM_ENOSPC);
	assert(!vmemt_device_do(d, VMEM_DEVICE_READ, 0, data, BLOCK));
	vmem_device_close(d);
	vmemt_nbd_stop();
	start("--filter=error", "error-pread=EIO", "error-pread-rate=100%");
	d = open_it(UINT64_MAX);
	assert(vmemt_device_do(d, VMEM_DEVICE_READ, 0, data, BLOCK) == -VMEM_EIO);
	assert(!vmemt_device_do(d, VMEM_DEVICE_WRITE, 0, data, BLOCK));
	vmem_device_close(d);
	vmemt_nbd_stop();
	start("-r", NULL, NULL);
	VMEMT_UNTIL(vmem_nbd_open(&d, vmemt_nbd_uri(), NULL) == -VMEM_EPERM);
	vmemt_nbd_stop();
	free(data);
}

int main(void)
{
	struct vmemt_device_kind kind = { "nbdkit", open_kind, NULL };

	if (!vmemt_nbd_init()) {
		printf("nbdkit is not installed\n");
		return 77;
	}
	start(NULL, NULL, NULL);
	assert(vmemt_device_conforms(&kind));
	/* A connection that is closed while it is busy may be too much for nbdkit. */
	vmemt_nbd_stop();
	start(NULL, NULL, NULL);
	vmem_device_close(open_it(UINT64_MAX));
	refuses();
	vmemt_nbd_stop();
	killed();
	hangs();
	breaks_off_only_its_own();
	claims_much();
	fails();
	vmemt_nbd_end();
	return 0;
}
