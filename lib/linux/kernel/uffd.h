/* SPDX-License-Identifier: BSD-2-Clause */
/* One userfaultfd and its operations. Each operation is made whole here (partial results are
 * continued), and returns 0 or a negative error number. Thread-safe: the kernel locks. */
#ifndef VMEMI_UFFD_H
#define VMEMI_UFFD_H
#include "linux/kernel/kernel.h"
#include <stdbool.h>

struct vmemi_uffd {
	const struct vmemi_kernel *k;
	int fd;             /* -1: none */
	uint64_t features;  /* that were granted */
	bool kernel_faults; /* faults from inside the kernel are delivered too */
	bool foreign; /* another process's: its removals may go on, so EAGAIN is told at once */
};

/* Opens a userfaultfd with @required features and those of @wanted that the kernel has.
 * Tries the device, then the system call, then the user-mode-only kind.
 * 0, -VMEM_EPERM, -VMEM_ENODEV (no userfaultfd, or @required is not there), -VMEM_EIO. */
int vmemi_uffd_open(struct vmemi_uffd *u, const struct vmemi_kernel *k, uint64_t required,
		    uint64_t wanted);
void vmemi_uffd_close(struct vmemi_uffd *u);

/* Takes a duplicate of somebody else's userfaultfd @fd. 0, -VMEM_EINVAL (it is none), -VMEM_ENOTSUP (it was opened with
 * features that would keep faults from us, or answer some without us), -VMEM_EIO. */
int vmemi_uffd_adopt(struct vmemi_uffd *u, const struct vmemi_kernel *k, int fd);
/* Whether @fd is a descriptor of the same userfaultfd. Before Linux 5.12 never, whatever it is. */
bool vmemi_uffd_is(const struct vmemi_uffd *u, int fd);
/* What the userfaultfd @fd was opened with: 0 before its handshake. 0, -VMEM_EINVAL (it is none), -VMEM_EIO. */
int vmemi_uffd_features(const struct vmemi_kernel *k, int fd, uint64_t *ret_features);
/* Reads messages of somebody else's, whose flags its owner may change at any time, and never waits. Bytes, or a
 * negative error. */
ssize_t vmemi_uffd_read(const struct vmemi_uffd *u, void *messages, size_t bytes);
/* Sees to it that a poll of it is not over at once for nothing. True if something was wrong. */
bool vmemi_uffd_mend(const struct vmemi_uffd *u);

/* Whether the kernel offers operation @nr (an _UFFDIO_* number) on a range it just registered. */
int vmemi_uffd_register(const struct vmemi_uffd *u, void *start, size_t bytes, bool wp,
			uint64_t *ret_ioctls);
/* The same for a shared mapping of a file in memory: missing and minor faults, write-protection. */
int vmemi_uffd_register_shared(const struct vmemi_uffd *u, void *start, size_t bytes);
int vmemi_uffd_unregister(const struct vmemi_uffd *u, void *start, size_t bytes);

/* Installs pages at @dst from @src; @wp: write-protected. @ret_done: bytes done, also on error. */
int vmemi_uffd_copy(const struct vmemi_uffd *u, void *dst, const void *src, size_t bytes, bool wp,
		    size_t *ret_done);
/* Maps pages that the file behind a shared mapping has. -VMEM_EEXIST: mapped already; -VMEM_EFAULT: it has
 * none. @ret_done as above. */
int vmemi_uffd_continue(const struct vmemi_uffd *u, void *start, size_t bytes, bool wp,
			size_t *ret_done);
int vmemi_uffd_zeropage(const struct vmemi_uffd *u, void *dst, size_t bytes);

/* Moves pages from @src into the hole at @dst, which @u has registered. Stops at the first page
 * that does not move: its error is returned, @ret_done says how far it came. -VMEM_EEXIST is in doubt: Linux 6.18
 * says it of pages that it has just moved, if somebody touched them meanwhile. */
int vmemi_uffd_move(const struct vmemi_uffd *u, void *dst, void *src, size_t bytes,
		    size_t *ret_done);

/* Write-protects, or makes writable again and wakes. */
int vmemi_uffd_protect(const struct vmemi_uffd *u, void *start, size_t bytes, bool protect);
int vmemi_uffd_wake(const struct vmemi_uffd *u, void *start, size_t bytes);
int vmemi_uffd_poison(const struct vmemi_uffd *u, void *start, size_t bytes);

#endif
