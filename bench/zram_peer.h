/* SPDX-License-Identifier: BSD-2-Clause */
/* The kernel's own way, as a peer: swap on zram with lz4. */
#ifndef BENCH_ZRAM_PEER_H
#define BENCH_ZRAM_PEER_H
#include <stddef.h>
#include <stdint.h>

#define ZRAM_PAGES ((size_t)524288) /* that it can hold, but for a few */

/* Why this machine cannot do it, or NULL. */
const char *zram_missing(void);
/* Make it the preferred swap, without readahead; undone when the bench ends. Once is enough: a
 * second call does nothing. @return 0, -errno */
int zram_start(void);
/* Send the pages of a range there: one system call, to be timed. Those that a processor touched last wait
 * in a list of its own, from where only a call on that processor takes them. @return 0, -errno */
int zram_page_out(void *memory, size_t bytes);
/* To be called behind the clock: makes sure that all are there, from the other processors too.
 * @param[out] ret_late  pages that the timed call had left; may be NULL
 * @return 0, -EBUSY: some would not go */
int zram_page_out_rest(void *memory, size_t bytes, size_t *ret_late);

struct zram_memory {
	uint64_t pages;        /* that it has */
	uint64_t packed_bytes; /* what they are compressed to */
	uint64_t used_bytes;   /* physical memory */
};
/* @return 0, -errno */
int zram_memory(struct zram_memory *ret_memory);
/* used_bytes alone, 0 if it cannot be told. */
uint64_t zram_used(void);
/* Let the kernel compact it. @return 0, -errno */
int zram_compact(void);

#endif
