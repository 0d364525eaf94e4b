/* SPDX-License-Identifier: BSD-2-Clause */
/* A device on a file whose system calls fail, are refused, or come to less than was asked for. */
#define _GNU_SOURCE
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "device/device_suite.h"
#include "linux/device/device_file.h"
#include "support/deadline.h"

#define BLOCK 4096ul
#define MIB (UINT64_C(1) << 20)

/* The real system calls, but for what a test sets. */
static struct {
	int setup, enter, probe; /* errors of io_uring's, 0: none */
	bool no_read;            /* of the operations it offers */
	int result;              /* of each transfer; 0: what it comes to */
	bool shorten;            /* each transfer is of one block */
	_Atomic int interrupted; /* so many of them are first */
	_Atomic long calls;      /* of all kinds that are counted */
	long fail_at;            /* this one of them fails; 0: none */
	bool unnamed;            /* there are no files without names */
} world;

static struct vmemi_kernel kernel;
static struct vmemi_device_file *watched; /* whose entries are changed before they are submitted */

static bool fails(void)
{
	return atomic_fetch_add(&world.calls, 1) + 1 == world.fail_at;
}

static int f_setup(unsigned entries, void *params)
{
	if (world.setup || fails())
		return world.setup ? world.setup : -EPERM;
	return vmemi_kernel_linux.ring_setup(entries, params);
}

/* What would be read or written is made less, or to fail. */
static void spoil(struct vmemi_ring *r)
{
	uint32_t head = __atomic_load_n(r->sq_head, __ATOMIC_ACQUIRE);

	for (; head != *r->sq_tail; head++) {
		struct io_uring_sqe *e = &r->entries[head & r->sq_mask];

		if (world.shorten && e->len > BLOCK && e->opcode != IORING_OP_FALLOCATE)
			e->len = BLOCK;
		if (world.result)
			e->fd = -1;
	}
}

static int f_enter(int ring, unsigned submit, unsigned least, unsigned flags)
{
	if (world.enter)
		return world.enter;
	if (atomic_load(&world.interrupted) > 0) {
		atomic_fetch_sub(&world.interrupted, 1);
		return -EINTR;
	}
	if (watched)
		spoil(&watched->by.ring.ring);
	return vmemi_kernel_linux.ring_enter(ring, submit, least, flags);
}

static int f_register(int ring, unsigned what, void *argument, unsigned count)
{
	int r = vmemi_kernel_linux.ring_register(ring, what, argument, count);
	struct io_uring_probe *p = argument;

	if (world.probe || fails())
		return world.probe ? world.probe : -EACCES;
	if (what == IORING_REGISTER_PROBE && world.no_read)
		p->ops[IORING_OP_READ].flags = 0;
	return r;
}

static ssize_t come_to(size_t *bytes)
{
	if (atomic_load(&world.interrupted) > 0) {
		atomic_fetch_sub(&world.interrupted, 1);
		return -EINTR;
	}
	if (world.shorten && *bytes > BLOCK)
		*bytes = BLOCK;
	return world.result;
}

static ssize_t f_pread(int fd, void *buffer, size_t bytes, off_t offset)
{
	ssize_t r = come_to(&bytes);

	return r ? r : vmemi_kernel_linux.pread(fd, buffer, bytes, offset);
}

static ssize_t f_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
	ssize_t r = come_to(&bytes);

	return r ? r : vmemi_kernel_linux.pwrite(fd, buffer, bytes, offset);
}

static int f_fdatasync(int fd)
{
	return world.result ? world.result : vmemi_kernel_linux.fdatasync(fd);
}

static int f_fallocate(int fd, int mode, off_t offset, off_t bytes)
{
	if (fails())
		return -EOPNOTSUPP;
	return world.result ? world.result : vmemi_kernel_linux.fallocate(fd, mode, offset, bytes);
}

static int f_create(const char *path, int flags, unsigned mode)
{
	if (fails())
		return -EMFILE;
	if (world.unnamed && (flags & O_TMPFILE) == O_TMPFILE)
		return -EOPNOTSUPP;
	return vmemi_kernel_linux.create(path, flags, mode);
}

static int f_fstat(int fd, struct stat *st)
{
	return fails() ? -EIO : vmemi_kernel_linux.fstat(fd, st);
}

static int f_fcntl(int fd, int command, int argument)
{
	return fails() ? -EINVAL : vmemi_kernel_linux.fcntl(fd, command, argument);
}

static int f_ftruncate(int fd, off_t bytes)
{
	return fails() ? -EFBIG : vmemi_kernel_linux.ftruncate(fd, bytes);
}

static int f_map_file(void **ret_memory, size_t bytes, int protection, int fd, off_t offset)
{
	return fails() ? -ENOMEM
		       : vmemi_kernel_linux.map_file(ret_memory, bytes, protection, fd, offset);
}

static int f_eventfd(unsigned initial, int flags)
{
	return fails() ? -EMFILE : vmemi_kernel_linux.eventfd(initial, flags);
}

static int f_epoll(const int *fds, size_t count)
{
	return fails() ? -EMFILE : vmemi_kernel_linux.epoll(fds, count);
}

static void reset(void)
{
	memset(&world, 0, sizeof(world));
	watched = NULL;
	kernel = vmemi_kernel_linux;
	kernel.ring_setup = f_setup;
	kernel.ring_enter = f_enter;
	kernel.ring_register = f_register;
	kernel.pread = f_pread;
	kernel.pwrite = f_pwrite;
	kernel.fdatasync = f_fdatasync;
	kernel.fallocate = f_fallocate;
	kernel.create = f_create;
	kernel.fstat = f_fstat;
	kernel.fcntl = f_fcntl;
	kernel.ftruncate = f_ftruncate;
	kernel.map_file = f_map_file;
	kernel.eventfd = f_eventfd;
	kernel.epoll = f_epoll;
}

static int try_open(struct vmem_device **ret, uint64_t flags)
{
	struct vmem_device_file_opts o = {
		.size = sizeof(o), .size_bytes = MIB, .depth = VMEMT_DEVICE_DEPTH, .flags = flags
	};

	return vmemi_device_file_open(ret, "/tmp", &o, &kernel);
}

static struct vmem_device *open_one(uint64_t flags)
{
	struct vmem_device *d = NULL;

	assert(!try_open(&d, flags));
	return d;
}

static bool has_ring(void)
{
	struct vmem_device_file_info i = { .size = sizeof(i) };
	struct vmem_device *d;

	reset();
	d = open_one(0);
	assert(!vmem_device_file_get_info(d, &i));
	vmem_device_close(d);
	return !i.ring_error;
}

static void is_by_threads(int error)
{
	struct vmem_device_file_info i = { .size = sizeof(i) };
	unsigned char *data = vmemt_device_buffer(BLOCK);
	struct vmem_device *d = open_one(0);

	assert(!vmem_device_file_get_info(d, &i));
	assert(i.ring_error == error && i.threads == 4);
	vmemt_device_fill(data, BLOCK, 1);
	assert(!vmemt_device_do(d, VMEM_DEVICE_WRITE, BLOCK, data, BLOCK));
	memset(data, 0, BLOCK);
	assert(!vmemt_device_do(d, VMEM_DEVICE_READ, BLOCK, data, BLOCK));
	assert(vmemt_device_is_filled(data, BLOCK, 1));
	vmem_device_close(d);
	free(data);
}

static void rings_are_refused(void)
{
	static const int errors[] = { -EPERM, -ENOSYS, -ENOMEM, -EMFILE };

	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		reset();
		world.setup = errors[i];
		is_by_threads(errors[i]);
	}
	if (!has_ring())
		return;
	reset();
	world.enter = -EPERM;
	is_by_threads(-EPERM);
	reset();
	world.probe = -EACCES;
	is_by_threads(-EACCES);
	reset();
	world.no_read = true;
	is_by_threads(-EOPNOTSUPP);
}

static void watch(struct vmem_device *d, uint64_t flags)
{
	watched = flags & VMEM_DEVICE_FILE_THREADS ? NULL : d->context;
}

static void short_transfers_go_on(uint64_t flags)
{
	unsigned char *data = vmemt_device_buffer(32 * BLOCK);
	struct vmem_device *d;

	reset();
	d = open_one(flags);
	watch(d, flags);
	world.shorten = true;
	world.interrupted = 5;
	vmemt_device_fill(data, 32 * BLOCK, 3);
	assert(!vmemt_device_do(d, VMEM_DEVICE_WRITE, 7 * BLOCK, data, 32 * BLOCK));
	memset(data, 0, 32 * BLOCK);
	world.interrupted = 5;
	assert(!vmemt_device_do(d, VMEM_DEVICE_READ, 7 * BLOCK, data, 32 * BLOCK));
	assert(vmemt_device_is_filled(data, 32 * BLOCK, 3));
	vmem_device_close(d);
	free(data);
}

static void errors_are_told(uint64_t flags)
{
	static const struct {
		int of_kernel, of_device;
	} errors[] = {
		{ -EIO, -VMEM_EIO },       { -ENOSPC, -VMEM_ENOSPC }, { -EDQUOT, -VMEM_ENOSPC },
		{ -ENXIO, -VMEM_ENODEV },  { -ENODEV, -VMEM_ENODEV }, { -ENOMEM, -VMEM_ENOMEM },
		{ -EFAULT, -VMEM_EFAULT }, { -EPERM, -VMEM_EPERM },   { -EAGAIN, -VMEM_EIO },
		{ -EINVAL, -VMEM_EIO },
	};
	bool is_ring = !(flags & VMEM_DEVICE_FILE_THREADS);
	unsigned char *data = vmemt_device_buffer(BLOCK);
	struct vmem_device *d;

	reset();
	d = open_one(flags);
	watch(d, flags);
	for (size_t i = 0; i < (is_ring ? 1 : sizeof(errors) / sizeof(errors[0])); i++) {
		int error = errors[i].of_device;

		world.result = errors[i].of_kernel;
		assert(vmemt_device_do(d, VMEM_DEVICE_READ, 0, data, BLOCK) == error);
		assert(vmemt_device_do(d, VMEM_DEVICE_WRITE, 0, data, BLOCK) == error);
		assert(vmemt_device_do(d, VMEM_DEVICE_FLUSH, 0, NULL, 0) == error);
		world.result = 0;
		assert(!vmemt_device_do(d, VMEM_DEVICE_WRITE, 0, data, BLOCK));
	}
	world.result = -EOPNOTSUPP;
	if (!is_ring && d->flags & VMEM_DEVICE_CAN_DISCARD)
		assert(vmemt_device_do(d, VMEM_DEVICE_DISCARD, 0, NULL, BLOCK) == -VMEM_ENOTSUP);
	vmem_device_close(d);
	free(data);
}

/* The kernel has no memory for requests for a while. */
static void rings_wait_for_memory(void)
{
	unsigned char *data = vmemt_device_buffer(BLOCK);
	struct vmem_device_request r = { .bytes = BLOCK, .data = data, .tag = 3 };
	struct vmem_device_completion c;
	struct vmem_device *d;

	reset();
	d = open_one(0);
	world.enter = -EAGAIN;
	assert(d->ops->submit(d->context, &r, 1) == 1);
	/* Who watches the descriptor alone is led to try again. */
	vmemt_until_readable(d->ops->fd(d->context));
	assert(d->ops->complete(d->context, &c, 1) == 0);
	assert(!d->ops->wait(d->context, VMEM_DEVICE_FOREVER));
	assert(vmemt_is_readable(d->ops->fd(d->context)));
	world.enter = 0;
	assert(vmemt_device_await(d, &c, 1) == 1 && c.tag == 3 && !c.error);
	assert(!vmemt_is_readable(d->ops->fd(d->context)));
	vmem_device_close(d);
	free(data);
}

/* A filter closes behind an open device: what is in flight fails, and nothing hangs. */
static void rings_are_refused_later(void)
{
	unsigned char *data = vmemt_device_buffer(VMEMT_DEVICE_DEPTH * BLOCK);
	struct vmem_device_request r[VMEMT_DEVICE_DEPTH];
	struct vmem_device_completion c;
	struct vmem_device *d;

	for (uint64_t i = 0; i < VMEMT_DEVICE_DEPTH; i++)
		r[i] = (struct vmem_device_request){
			.bytes = BLOCK, .offset = i * BLOCK, .data = data + i * BLOCK, .tag = i
		};
	reset();
	d = open_one(0);
	assert(d->ops->submit(d->context, r, 3) == 3);
	world.enter = -EPERM;
	assert(d->ops->submit(d->context, r + 3, 5) == 5);
	for (int i = 0; i < 8; i++) {
		assert(vmemt_device_await(d, &c, 1) == 1);
		assert(c.tag < 8 && c.error == (c.tag < 3 ? 0 : -VMEM_EIO));
	}
	assert(vmemt_device_do(d, VMEM_DEVICE_READ, 0, data, BLOCK) == -VMEM_EIO);
	assert(d->ops->submit(d->context, r, 5) == 5);
	vmem_device_close(d);
	free(data);
}

static unsigned open_descriptors(void)
{
	unsigned count = 0;

	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* Each call that opening makes fails once: it is opened all the same, or nothing is left of it. */
static void each_call_fails(uint64_t flags)
{
	unsigned before = open_descriptors();
	unsigned char *data = vmemt_device_buffer(BLOCK);
	long refused = 0;

	for (long n = 1;; n++) {
		struct vmem_device *d = NULL;
		bool is_over;
		int error;

		reset();
		world.fail_at = n;
		error = try_open(&d, flags);
		is_over = atomic_load(&world.calls) < n;
		world.fail_at = 0;
		assert(!error == !!d);
		refused += error != 0;
		if (d) {
			assert(!vmem_device_check(d));
			assert(!vmemt_device_do(d, VMEM_DEVICE_WRITE, 0, data, BLOCK));
			vmem_device_close(d);
		}
		assert(open_descriptors() == before);
		if (is_over)
			break;
	}
	assert(refused >= 3);
	free(data);
}

static void folders_without_unnamed_files(void)
{
	struct vmem_device *d;

	reset();
	world.unnamed = true;
	d = open_one(0);
	assert(!(d->flags & VMEM_DEVICE_OUTLIVES));
	vmem_device_close(d);
}

int main(void)
{
	rings_are_refused();
	for (int i = 0; i < 4; i++) {
		uint64_t flags = (i & 1 ? VMEM_DEVICE_FILE_THREADS : 0) |
				 (i & 2 ? VMEM_DEVICE_FILE_CACHED : 0);

		if (!(i & 1) && !has_ring())
			continue;
		short_transfers_go_on(flags);
		errors_are_told(flags);
		each_call_fails(flags);
	}
	folders_without_unnamed_files();
	if (!has_ring()) {
		printf("no io_uring here: only threads were tried\n");
		return 77;
	}
	rings_wait_for_memory();
	rings_are_refused_later();
	return 0;
}
