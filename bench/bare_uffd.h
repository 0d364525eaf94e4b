/* SPDX-License-Identifier: BSD-2-Clause */
/* userfaultfd with nothing around it, as a peer and as the limit: no states, no budget, no errors
 * handled but by stopping. */
#ifndef BENCH_BARE_UFFD_H
#define BENCH_BARE_UFFD_H
#include <linux/userfaultfd.h>
#include <stddef.h>
#include <stdint.h>

#ifndef UFFD_FEATURE_MOVE /* Linux 6.8 */
#define UFFD_FEATURE_MOVE (1 << 16)
#endif

/* Whether this process may serve faults of the kernel as well: KVM guests need that. */
int bare_uffd_serves_kernel(void);
/* @param features  UFFD_FEATURE_*
 *  @return a descriptor, without right for it one for faults of user code only, -errno */
int bare_uffd_open(uint64_t features);
/* Faults on missing pages. @return 0, -errno */
int bare_uffd_register(int uffd, void *memory, size_t bytes);
int bare_uffd_copy(int uffd, void *to, const void *from, size_t bytes);
int bare_uffd_move(int uffd, void *to, void *from, size_t bytes);

/* A thread that reads a fault and answers it with UFFDIO_COPY, one at a time. When there is none it
 * looks again for spin_us before it sleeps in poll(). */
struct bare_handler {
	int uffd;
	uint8_t *memory;
	size_t bytes;
	const uint8_t *source; /* pages in the same order; NULL: every page is zero */
	unsigned spin_us;
	int cpu; /* -1: any */
	struct bare_handler_thread *thread;
};
int bare_handler_start(struct bare_handler *handler);
void bare_handler_stop(struct bare_handler *handler);

#endif
