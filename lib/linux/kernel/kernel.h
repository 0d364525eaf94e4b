/* SPDX-License-Identifier: BSD-2-Clause */
/* Every system call of the library goes through one table of functions, so that tests can make each
 * of them fail, and fake the clock. Each returns what the call returns, or a negative error number
 * (Linux's, which are VMEM_E* by value); errno is never used. */
#ifndef VMEMI_KERNEL_H
#define VMEMI_KERNEL_H
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <vmem/common.h>

struct vmemi_kernel {
	int (*open)(const char *path, int flags);
	int (*create)(const char *path, int flags,
		      unsigned mode); /* open() with O_CREAT or O_TMPFILE */
	int (*unlink)(const char *path);
	int (*close)(int fd);
	ssize_t (*read)(int fd, void *buffer, size_t bytes);
	/* the same without waiting, whatever the descriptor's flags; -EOPNOTSUPP: not from this one */
	ssize_t (*read_now)(int fd, void *buffer, size_t bytes);
	ssize_t (*pread)(int fd, void *buffer, size_t bytes, off_t offset);
	ssize_t (*write)(int fd, const void *buffer, size_t bytes);
	ssize_t (*pwrite)(int fd, const void *buffer, size_t bytes, off_t offset);
	off_t (*lseek)(int fd, off_t offset, int whence);
	int (*fstat)(int fd, struct stat *ret_stat);
	int (*fcntl)(int fd, int command, int argument);
	int (*memfd)(const char *name, unsigned flags);
	int (*ftruncate)(int fd, off_t bytes);
	int (*fallocate)(int fd, int mode, off_t offset, off_t bytes);
	int (*fdatasync)(int fd);
	int (*flock)(int fd, int operation);
	int (*poll)(struct pollfd *fds, nfds_t count, int timeout_ms);
	int (*eventfd)(unsigned initial, int flags);
	int (*epoll)(const int *fds,
		     size_t count); /* an epoll descriptor that watches them for input */
	int (*epoll_watch)(int epoll, int fd, int watch); /* from now on, or no longer */
	int (*userfaultfd)(int flags);
	int (*ioctl)(int fd, unsigned long request, void *argument);
	int (*mmap)(void **ret_memory, size_t bytes, int protection, int flags); /* anonymous */
	/* the same, in the place of what is mapped at @memory */
	int (*map_over)(void *memory, size_t bytes, int protection, int flags);
	int (*map_file)(void **ret_memory, size_t bytes, int protection, int fd,
			off_t offset); /* shared */
	/* the same, but only of persistent memory (MAP_SYNC) */
	int (*map_sync)(void **ret_memory, size_t bytes, int protection, int fd, off_t offset);
	long (*fs_type)(int fd); /* of the file system, a number of linux/magic.h */
	/* io_uring; @params: struct io_uring_params; @argument, @count: by @what */
	int (*ring_setup)(unsigned entries, void *params);
	int (*ring_enter)(int ring, unsigned submit, unsigned least, unsigned flags);
	int (*ring_register)(int ring, unsigned what, void *argument, unsigned count);
	int (*munmap)(void *memory, size_t bytes);
	int (*mprotect)(void *memory, size_t bytes, int protection);
	int (*madvise)(void *memory, size_t bytes, int advice);
	ssize_t (*madvise_vector)(const struct iovec *ranges, size_t count,
				  int advice); /* of this process */
	int (*futex_wait)(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns);
	int (*futex_wake)(_Atomic uint32_t *word, int waiters);
	long (*page_size)(void);
	long (*processors)(void); /* that this thread may use */
	/* How long the calling thread runs in a piece where others want its core: short ones come sooner. */
	int (*time_slice)(uint64_t ns);
	uint64_t (*clock_ns)(void);     /* CLOCK_MONOTONIC */
	uint64_t (*cpu_clock_ns)(void); /* CPU time of the calling thread */
};

extern const struct vmemi_kernel vmemi_kernel_linux;

#endif
