/* SPDX-License-Identifier: BSD-2-Clause */
/* One userfaultfd and its operations: see uffd.h. The kernel's partial results, and the ways in
 * which it says "again", are handled here and nowhere else. */
#include "linux/kernel/uffd.h"
#include "linux/kernel/uffd_abi.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

/* A fork, an unmapping or a discard by another thread makes the kernel answer EAGAIN until that
 * thread has run on. It is asked again this many times in a row before the caller hears of it. */
#define AGAIN_LIMIT 64
/* "There is a page" is believed when it was said this often. While another thread discards 2 MiB and more, and the
 * page table goes with them (6.14), the kernel says it of a hole. */
#define THERE_LIMIT 4

struct tries {
	unsigned again, there; /* EAGAIN and EEXIST, in a row */
};

static int open_fd(const struct vmemi_kernel *k, bool *ret_kernel_faults)
{
	int fd, dev;

	*ret_kernel_faults = true;
	dev = k->open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (dev >= 0) {
		fd = k->ioctl(dev, USERFAULTFD_IOC_NEW,
			      (void *)(uintptr_t)(O_CLOEXEC | O_NONBLOCK));
		k->close(dev);
		if (fd >= 0)
			return fd;
	}
	fd = k->userfaultfd(O_CLOEXEC | O_NONBLOCK);
	if (fd != -VMEM_EPERM)
		return fd;
	*ret_kernel_faults = false;
	return k->userfaultfd(O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
}

/* The kernel refuses features that it does not know, and one handshake is all a descriptor has: so a
 * first descriptor asks what there is. */
static int handshake(const struct vmemi_kernel *k, int fd, uint64_t features, uint64_t *ret_known)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int r = k->ioctl(fd, UFFDIO_API, &api);

	if (!r)
		*ret_known = api.features;
	return r;
}

static int open_error(int error)
{
	if (error == -VMEM_EPERM || error == -VMEM_ENOMEM)
		return error;
	return error == -ENOSYS || error == -VMEM_EINVAL ? -VMEM_ENODEV : -VMEM_EIO;
}

int vmemi_uffd_open(struct vmemi_uffd *u, const struct vmemi_kernel *k, uint64_t required,
		    uint64_t wanted)
{
	uint64_t known;
	bool kernel_faults;
	int fd, r;

	u->k = k;
	u->fd = -1;
	fd = open_fd(k, &kernel_faults);
	if (fd < 0)
		return open_error(fd);
	r = handshake(k, fd, 0, &known);
	k->close(fd);
	if (r)
		return -VMEM_EIO;
	if (required & ~known)
		return -VMEM_ENODEV;
	fd = open_fd(k, &kernel_faults);
	if (fd < 0)
		return open_error(fd);
	r = handshake(k, fd, required | (wanted & known), &known);
	if (r) {
		k->close(fd);
		return -VMEM_EIO;
	}
	u->fd = fd;
	u->features = required | (wanted & known);
	u->kernel_faults = kernel_faults;
	return 0;
}

void vmemi_uffd_close(struct vmemi_uffd *u)
{
	if (u->k && u->fd >= 0)
		u->k->close(u->fd);
	u->fd = -1;
}

/* /proc/self/fdinfo says it: "API:" and the API, the features of this one, what the kernel has. */
int vmemi_uffd_features(const struct vmemi_kernel *k, int fd, uint64_t *ret_features)
{
	unsigned long long api, features;
	char path[40], text[512];
	const char *line;
	ssize_t bytes;
	int info;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	info = k->open(path, O_RDONLY | O_CLOEXEC);
	if (info < 0)
		return -VMEM_EIO;
	bytes = k->read(info, text, sizeof(text) - 1);
	k->close(info);
	if (bytes < 0)
		return -VMEM_EIO;
	text[bytes] = 0;
	line = strstr(text, "\nAPI:");
	if (!line || sscanf(line, "\nAPI: %llx:%llx", &api, &features) != 2)
		return -VMEM_EINVAL;
	*ret_features = features;
	return 0;
}

static bool same_inode(const struct vmemi_kernel *k, int fd, int other)
{
	struct stat a, b;

	return !k->fstat(fd, &a) && !k->fstat(other, &b) && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

/* Before Linux 6.10 by the inode; but before 5.12 all files of such kinds had one and the same: then it cannot be
 * known. */
bool vmemi_uffd_is(const struct vmemi_uffd *u, int fd)
{
	int same = u->k->fcntl(u->fd, VMEMI_F_DUPFD_QUERY, fd), other;

	if (same != -VMEM_EINVAL)
		return same == 1;
	if (!same_inode(u->k, u->fd, fd))
		return false;
	other = u->k->eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (other < 0)
		return true;
	same = !same_inode(u->k, u->fd, other);
	u->k->close(other);
	return same;
}

int vmemi_uffd_adopt(struct vmemi_uffd *u, const struct vmemi_kernel *k, int fd)
{
	const uint64_t keep_from_us =
		VMEMI_UFFD_FEATURE_EVENTS | VMEMI_UFFD_FEATURE_SIGBUS | VMEMI_UFFD_FEATURE_WP_ASYNC;
	uint64_t ignored;
	int error;

	u->k = k;
	u->fd = k->fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (u->fd < 0)
		return u->fd == -EBADF ? -VMEM_EINVAL : -VMEM_EIO;
	/* If it fails its owner has done it; what it asked for then stays so. */
	handshake(k, u->fd,
		  VMEMI_UFFD_FEATURE_WP | VMEMI_UFFD_FEATURE_MINOR_SHMEM |
			  VMEMI_UFFD_FEATURE_WP_SHMEM,
		  &ignored);
	error = vmemi_uffd_features(k, u->fd, &u->features);
	if (!error && (u->features & keep_from_us))
		error = -VMEM_ENOTSUP;
	if (error)
		vmemi_uffd_close(u);
	else
		vmemi_uffd_mend(u);
	return error;
}

bool vmemi_uffd_mend(const struct vmemi_uffd *u)
{
	struct pollfd p = { .fd = u->fd, .events = POLLIN };
	int flags;

	if (u->k->poll(&p, 1, 0) != 1 || !(p.revents & POLLERR))
		return false;
	flags = u->k->fcntl(u->fd, F_GETFL, 0);
	if (flags >= 0)
		u->k->fcntl(u->fd, F_SETFL, flags | O_NONBLOCK);
	return true;
}

ssize_t vmemi_uffd_read(const struct vmemi_uffd *u, void *messages, size_t bytes)
{
	ssize_t r = u->k->read_now(u->fd, messages, bytes);
	struct pollfd p = { .fd = u->fd, .events = POLLIN };

	if (r != -EOPNOTSUPP && r != -ENOSYS)
		return r;
	/* An older kernel: then its owner is trusted not to make it wait between these two. */
	if (u->k->poll(&p, 1, 0) != 1 || !(p.revents & POLLIN))
		return -VMEM_EAGAIN;
	return u->k->read(u->fd, messages, bytes);
}

int vmemi_uffd_register(const struct vmemi_uffd *u, void *start, size_t bytes, bool wp,
			uint64_t *ret_ioctls)
{
	struct uffdio_register reg = {
		.range = { (uintptr_t)start, bytes },
		.mode = UFFDIO_REGISTER_MODE_MISSING | (wp ? UFFDIO_REGISTER_MODE_WP : 0u),
	};
	int r = u->k->ioctl(u->fd, UFFDIO_REGISTER, &reg);

	if (!r)
		*ret_ioctls = reg.ioctls;
	return r;
}

int vmemi_uffd_register_shared(const struct vmemi_uffd *u, void *start, size_t bytes)
{
	struct uffdio_register reg = {
		.range = { (uintptr_t)start, bytes },
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR |
			UFFDIO_REGISTER_MODE_WP,
	};

	return u->k->ioctl(u->fd, UFFDIO_REGISTER, &reg);
}

int vmemi_uffd_unregister(const struct vmemi_uffd *u, void *start, size_t bytes)
{
	struct uffdio_range range = { (uintptr_t)start, bytes };

	return u->k->ioctl(u->fd, UFFDIO_UNREGISTER, &range);
}

/* Books the progress @moved of one call. True if the caller should try again at once. */
static bool go_on(const struct vmemi_uffd *u, int r, int64_t moved, size_t *done,
		  struct tries *tries)
{
	if (moved > 0) {
		*done += (size_t)moved;
		*tries = (struct tries){ 0 };
		return r == 0 || r == -VMEM_EAGAIN;
	}
	if (r == -VMEM_EEXIST)
		return ++tries->there < THERE_LIMIT;
	return r == -VMEM_EAGAIN && !u->foreign && ++tries->again < AGAIN_LIMIT;
}

int vmemi_uffd_copy(const struct vmemi_uffd *u, void *dst, const void *src, size_t bytes, bool wp,
		    size_t *ret_done)
{
	uint64_t dont_wake =
		u->features & VMEMI_UFFD_FEATURE_SIGBUS ? UFFDIO_COPY_MODE_DONTWAKE : 0u;
	struct tries tries = { 0 };
	size_t done = 0;
	int r = 0;

	while (done < bytes) {
		struct uffdio_copy c = {
			.dst = (uintptr_t)dst + done,
			.src = (uintptr_t)src + done,
			.len = bytes - done,
			.mode = (wp ? UFFDIO_COPY_MODE_WP : 0u) | dont_wake,
		};

		r = u->k->ioctl(u->fd, UFFDIO_COPY, &c);
		if (!go_on(u, r, c.copy, &done, &tries))
			break;
	}
	*ret_done = done;
	return done == bytes ? 0 : r;
}

int vmemi_uffd_continue(const struct vmemi_uffd *u, void *start, size_t bytes, bool wp,
			size_t *ret_done)
{
	uint64_t dont_wake = u->features & VMEMI_UFFD_FEATURE_SIGBUS ? VMEMI_CONTINUE_DONTWAKE : 0u;
	struct tries tries = { 0 };
	size_t done = 0;
	int r = 0;

	while (done < bytes) {
		struct vmemi_uffdio_continue c = {
			.range = { (uintptr_t)start + done, bytes - done },
			.mode = (wp ? VMEMI_CONTINUE_WP : 0u) | dont_wake,
		};

		r = u->k->ioctl(u->fd, VMEMI_UFFDIO_CONTINUE, &c);
		if (!go_on(u, r, c.mapped, &done, &tries))
			break;
	}
	*ret_done = done;
	return done == bytes ? 0 : r;
}

int vmemi_uffd_zeropage(const struct vmemi_uffd *u, void *dst, size_t bytes)
{
	struct tries tries = { 0 };
	size_t done = 0;
	int r = 0;

	while (done < bytes) {
		struct uffdio_zeropage z = {
			.range = { (uintptr_t)dst + done, bytes - done },
		};

		r = u->k->ioctl(u->fd, UFFDIO_ZEROPAGE, &z);
		if (!go_on(u, r, z.zeropage, &done, &tries))
			break;
	}
	return done == bytes ? 0 : r;
}

int vmemi_uffd_move(const struct vmemi_uffd *u, void *dst, void *src, size_t bytes,
		    size_t *ret_done)
{
	unsigned again = 0;
	size_t done = 0;
	int r = 0;

	/* A hole, a pinned or a poisoned page ends a call with EAGAIN and the bytes before it; only a
	 * call for that page alone tells its error. */
	while (done < bytes) {
		struct vmemi_uffdio_move m = {
			.dst = (uintptr_t)dst + done,
			.src = (uintptr_t)src + done,
			.len = again ? VMEM_PAGE_SIZE : bytes - done,
		};

		r = u->k->ioctl(u->fd, VMEMI_UFFDIO_MOVE, &m);
		if (m.move > 0) {
			done += (size_t)m.move;
			again = 0;
		} else if (!r || r == -VMEM_EAGAIN) {
			r = -VMEM_EAGAIN;
			if (++again >= AGAIN_LIMIT)
				break;
		} else if (m.len == VMEM_PAGE_SIZE) {
			break;
		} else {
			again = 1;
		}
	}
	*ret_done = done;
	return done == bytes ? 0 : r;
}

int vmemi_uffd_protect(const struct vmemi_uffd *u, void *start, size_t bytes, bool protect)
{
	struct uffdio_writeprotect wp = {
		.range = { (uintptr_t)start, bytes },
		.mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0u,
	};
	unsigned again = 0;
	int r;

	do {
		r = u->k->ioctl(u->fd, UFFDIO_WRITEPROTECT, &wp);
	} while (r == -VMEM_EAGAIN && ++again < AGAIN_LIMIT);
	return r;
}

int vmemi_uffd_wake(const struct vmemi_uffd *u, void *start, size_t bytes)
{
	struct uffdio_range range = { (uintptr_t)start, bytes };

	if (u->features & VMEMI_UFFD_FEATURE_SIGBUS) /* nobody waits */
		return 0;
	return u->k->ioctl(u->fd, UFFDIO_WAKE, &range);
}

int vmemi_uffd_poison(const struct vmemi_uffd *u, void *start, size_t bytes)
{
	struct vmemi_uffdio_poison p = { .range = { (uintptr_t)start, bytes } };
	struct tries tries = { 0 };
	size_t done = 0;
	int r;

	do {
		r = u->k->ioctl(u->fd, VMEMI_UFFDIO_POISON, &p);
	} while (r && go_on(u, r, 0, &done, &tries));
	return r;
}
