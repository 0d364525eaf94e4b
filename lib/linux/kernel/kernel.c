/* SPDX-License-Identifier: BSD-2-Clause */
/* The real system calls: see kernel.h. No state. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux/kernel/kernel.h"
#include "linux/kernel/uffd_abi.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif
#ifndef PIDFD_SELF /* 6.14; older kernels answer EBADF, and the caller falls back */
#define PIDFD_SELF (-10000)
#endif

static int result(long r)
{
	return r < 0 ? -errno : (int)r;
}

static int k_open(const char *path, int flags)
{
	return result(open(path, flags));
}

static int k_create(const char *path, int flags, unsigned mode)
{
	return result(open(path, flags, mode));
}

static int k_unlink(const char *path)
{
	return result(unlink(path));
}

static int k_close(int fd)
{
	return result(close(fd));
}

static ssize_t k_read(int fd, void *buffer, size_t bytes)
{
	ssize_t r = read(fd, buffer, bytes);

	return r < 0 ? -errno : r;
}

static ssize_t k_read_now(int fd, void *buffer, size_t bytes)
{
	struct iovec range = { buffer, bytes };
	ssize_t r = preadv2(fd, &range, 1, -1, RWF_NOWAIT);

	return r < 0 ? -errno : r;
}

static ssize_t k_pread(int fd, void *buffer, size_t bytes, off_t offset)
{
	ssize_t r = pread(fd, buffer, bytes, offset);

	return r < 0 ? -errno : r;
}

static ssize_t k_write(int fd, const void *buffer, size_t bytes)
{
	ssize_t r = write(fd, buffer, bytes);

	return r < 0 ? -errno : r;
}

static ssize_t k_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
	ssize_t r = pwrite(fd, buffer, bytes, offset);

	return r < 0 ? -errno : r;
}

static off_t k_lseek(int fd, off_t offset, int whence)
{
	off_t r = lseek(fd, offset, whence);

	return r < 0 ? -errno : r;
}

static int k_fstat(int fd, struct stat *ret_stat)
{
	return result(fstat(fd, ret_stat));
}

static int k_fcntl(int fd, int command, int argument)
{
	return result(fcntl(fd, command, argument));
}

static int k_memfd(const char *name, unsigned flags)
{
	return result(memfd_create(name, flags));
}

static int k_ftruncate(int fd, off_t bytes)
{
	return result(ftruncate(fd, bytes));
}

static int k_fallocate(int fd, int mode, off_t offset, off_t bytes)
{
	return result(fallocate(fd, mode, offset, bytes));
}

static int k_fdatasync(int fd)
{
	return result(fdatasync(fd));
}

static int k_flock(int fd, int operation)
{
	return result(flock(fd, operation));
}

static int k_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	return result(poll(fds, count, timeout_ms));
}

static int k_eventfd(unsigned initial, int flags)
{
	return result(eventfd(initial, flags));
}

static int k_epoll(const int *fds, size_t count)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	if (epoll < 0)
		return -errno;
	for (size_t i = 0; i < count; i++) {
		struct epoll_event e = { .events = EPOLLIN };

		if (fds[i] >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &e)) {
			int error = -errno;

			close(epoll);
			return error;
		}
	}
	return epoll;
}

static int k_epoll_watch(int epoll, int fd, int watch)
{
	struct epoll_event e = { .events = EPOLLIN };

	return result(epoll_ctl(epoll, watch ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, fd, &e));
}

static int k_userfaultfd(int flags)
{
	return result(syscall(SYS_userfaultfd, flags));
}

static int k_ioctl(int fd, unsigned long request, void *argument)
{
	return result(ioctl(fd, request, argument));
}

static int k_mmap(void **ret_memory, size_t bytes, int protection, int flags)
{
	void *memory = mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	if (memory == MAP_FAILED)
		return -errno;
	*ret_memory = memory;
	return 0;
}

static int k_map_over(void *memory, size_t bytes, int protection, int flags)
{
	return mmap(memory, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | flags, -1,
		    0) == MAP_FAILED
		       ? -errno
		       : 0;
}

static int k_map_file(void **ret_memory, size_t bytes, int protection, int fd, off_t offset)
{
	void *memory = mmap(NULL, bytes, protection, MAP_SHARED | MAP_NORESERVE, fd, offset);

	if (memory == MAP_FAILED)
		return -errno;
	*ret_memory = memory;
	return 0;
}

static int k_map_sync(void **ret_memory, size_t bytes, int protection, int fd, off_t offset)
{
	void *memory = mmap(NULL, bytes, protection, MAP_SHARED_VALIDATE | MAP_SYNC, fd, offset);

	if (memory == MAP_FAILED)
		return -errno;
	*ret_memory = memory;
	return 0;
}

static long k_fs_type(int fd)
{
	struct statfs s;

	return fstatfs(fd, &s) ? -errno : (long)s.f_type;
}

static int k_ring_setup(unsigned entries, void *params)
{
	return result(syscall(SYS_io_uring_setup, entries, params));
}

static int k_ring_enter(int ring, unsigned submit, unsigned least, unsigned flags)
{
	return result(syscall(SYS_io_uring_enter, ring, submit, least, flags, NULL, 0));
}

static int k_ring_register(int ring, unsigned what, void *argument, unsigned count)
{
	return result(syscall(SYS_io_uring_register, ring, what, argument, count));
}

static int k_munmap(void *memory, size_t bytes)
{
	return result(munmap(memory, bytes));
}

static int k_mprotect(void *memory, size_t bytes, int protection)
{
	return result(mprotect(memory, bytes, protection));
}

static int k_madvise(void *memory, size_t bytes, int advice)
{
	return result(madvise(memory, bytes, advice));
}

static ssize_t k_madvise_vector(const struct iovec *ranges, size_t count, int advice)
{
	long r = syscall(SYS_process_madvise, PIDFD_SELF, ranges, count, advice, 0u);

	return r < 0 ? -errno : r;
}

static int k_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
	struct timespec t = { .tv_sec = (time_t)(timeout_ns / 1000000000u),
			      .tv_nsec = (long)(timeout_ns % 1000000000u) };

	return result(syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, &t, NULL, 0));
}

static int k_futex_wake(_Atomic uint32_t *word, int waiters)
{
	return result(syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, waiters, NULL, NULL, 0));
}

static long k_page_size(void)
{
	return sysconf(_SC_PAGESIZE);
}

static long k_processors(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? -errno : CPU_COUNT(&set);
}

/* struct sched_attr, which the C library does not have everywhere. */
struct attributes {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

/* Linux before 6.12 takes it and does nothing. */
static int k_time_slice(uint64_t ns)
{
	struct attributes a = { .size = sizeof(a) };
	int error = result(syscall(SYS_sched_getattr, 0, &a, sizeof(a), 0));

	if (error)
		return error;
	if (a.policy != SCHED_OTHER) /* what the caller's threads have is his choice */
		return -EINVAL;
	a.size = sizeof(a);
	a.runtime = ns;
	return result(syscall(SYS_sched_setattr, 0, &a, 0));
}

static uint64_t clock_of(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t k_clock_ns(void)
{
	return clock_of(CLOCK_MONOTONIC);
}

static uint64_t k_cpu_clock_ns(void)
{
	return clock_of(CLOCK_THREAD_CPUTIME_ID);
}

const struct vmemi_kernel vmemi_kernel_linux = {
	.open = k_open,
	.create = k_create,
	.unlink = k_unlink,
	.close = k_close,
	.read = k_read,
	.read_now = k_read_now,
	.pread = k_pread,
	.write = k_write,
	.pwrite = k_pwrite,
	.lseek = k_lseek,
	.fstat = k_fstat,
	.fcntl = k_fcntl,
	.memfd = k_memfd,
	.ftruncate = k_ftruncate,
	.fallocate = k_fallocate,
	.fdatasync = k_fdatasync,
	.flock = k_flock,
	.poll = k_poll,
	.eventfd = k_eventfd,
	.epoll = k_epoll,
	.epoll_watch = k_epoll_watch,
	.userfaultfd = k_userfaultfd,
	.ioctl = k_ioctl,
	.mmap = k_mmap,
	.map_over = k_map_over,
	.map_file = k_map_file,
	.map_sync = k_map_sync,
	.fs_type = k_fs_type,
	.ring_setup = k_ring_setup,
	.ring_enter = k_ring_enter,
	.ring_register = k_ring_register,
	.munmap = k_munmap,
	.mprotect = k_mprotect,
	.madvise = k_madvise,
	.madvise_vector = k_madvise_vector,
	.futex_wait = k_futex_wait,
	.futex_wake = k_futex_wake,
	.page_size = k_page_size,
	.processors = k_processors,
	.time_slice = k_time_slice,
	.clock_ns = k_clock_ns,
	.cpu_clock_ns = k_cpu_clock_ns,
};
