/* SPDX-License-Identifier: BSD-2-Clause */
/* A table of system calls over the real ones, of which the n-th of a kind fails, which hides what newer
 * kernels have, and which knows what it mapped. Its state is global, because the table has no context:
 * one manager at a time. */
#ifndef VMEMT_FAILING_KERNEL_H
#define VMEMT_FAILING_KERNEL_H
#include <stdatomic.h>
#include <stdbool.h>
#include "linux/kernel/kernel.h"

enum vmemt_call {
	VMEMT_K_OPEN,
	VMEMT_K_READ,
	VMEMT_K_READ_NOW,
	VMEMT_K_PREAD,
	VMEMT_K_WRITE,
	VMEMT_K_PWRITE,
	VMEMT_K_LSEEK,
	VMEMT_K_FSTAT,
	VMEMT_K_FCNTL,
	VMEMT_K_MEMFD,
	VMEMT_K_FTRUNCATE,
	VMEMT_K_FALLOCATE,
	VMEMT_K_POLL,
	VMEMT_K_EVENTFD,
	VMEMT_K_EPOLL,
	VMEMT_K_EPOLL_WATCH,
	VMEMT_K_USERFAULTFD,
	VMEMT_K_MMAP,
	VMEMT_K_MAP_OVER,
	VMEMT_K_MAP_FILE,
	VMEMT_K_MPROTECT,
	VMEMT_K_MADVISE,
	VMEMT_K_COLLAPSE, /* MADV_COLLAPSE */
	VMEMT_K_MADVISE_VECTOR,
	VMEMT_K_FUTEX_WAIT,
	/* ioctl, by request */
	VMEMT_K_NEW,
	VMEMT_K_API,
	VMEMT_K_REGISTER,
	VMEMT_K_UNREGISTER,
	VMEMT_K_WAKE,
	VMEMT_K_COPY,
	VMEMT_K_ZEROPAGE,
	VMEMT_K_MOVE,
	VMEMT_K_PROTECT,
	VMEMT_K_POISON,
	VMEMT_K_CONTINUE,
	VMEMT_K_SCAN,
	VMEMT_K_CALLS
};

struct vmemt_failing_kernel {
	enum vmemt_call fail; /* this kind ... */
	long fail_after;      /* ... fails after this many calls, -1: never */
	int error;            /* ... with this, negative */
	uint64_t hide;        /* bits of userfaultfd's features that are not there */
	bool hide_vector;     /* process_madvise() of oneself */
	bool hide_scan;       /* PAGEMAP_SCAN */
	bool hide_collapse;   /* MADV_COLLAPSE */
	bool only_user_mode;  /* userfaultfd for faults in user mode alone */
	/* Called before each ioctl on a userfaultfd. True: it is done, with *ret_result. May be NULL. */
	bool (*before)(enum vmemt_call call, void *argument, int fd, int *ret_result);
	/* Called before each call that can be made to fail. May be NULL. */
	void (*at_call)(enum vmemt_call call);
	_Atomic long calls[VMEMT_K_CALLS];
	_Atomic long peer_reads;   /* of a peer's userfaultfd that had messages */
	_Atomic long failed;       /* calls that were made to fail */
	_Atomic long mapped_bytes; /* that the table mapped and has not unmapped */
};

extern struct vmemt_failing_kernel vmemt_kernel;
extern const struct vmemi_kernel vmemt_kernel_table;

/* Everything works, nothing was called. */
void vmemt_kernel_reset(void);
const char *vmemt_call_name(enum vmemt_call call);

#endif
