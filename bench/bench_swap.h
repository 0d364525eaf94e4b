/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-swap: what its sources share. All cases write to one file without a name, past the page cache where that is
 * possible; its space is taken and written once before. The first half of it is the store's device, the second is
 * for the bare side. */
#ifndef BENCH_SWAP_H
#define BENCH_SWAP_H
#include "bare_ring.h"
#include "guest_store.h"
#include "harness.h"
#include <vmem/store_device.h>

#define SWAP_SEGMENT ((uint64_t)256 << 10) /* what the store writes at once */

struct swap_bench {
	struct bench *bench;
	struct guest_pages guests;
	vmem_store_ref *refs; /* of all pages */
	int file;
	uint64_t half_bytes;        /* of the file */
	struct bare_ring ring;      /* on it */
	uint8_t *block;             /* real pages, aligned, for the bare side to write */
	uint8_t *read_block;        /* SWAP_READ_PAGES behind it, for the bare side to read to */
	uint64_t block_at, bare_at; /* where it goes on, there and in the second half */
	struct guest_store store;   /* of swap_fill() */
	uint32_t device;            /* its device */
};

#define SWAP_BLOCK_BYTES ((size_t)64 << 20)
#define SWAP_READ_PAGES 64u

/* How pages are stored before they leave. */
struct swap_form {
	uint64_t flags;   /* of the store */
	uint32_t sharing; /* enum vmem_store_sharing */
	int work;         /* 1: background work is done first until none is left */
};

/* What some writing took. */
struct swap_cost {
	uint64_t bytes; /* written */
	uint64_t ns;
	uint64_t cpu_ns; /* swap_cpu_ns() */
};

/* A new store with all pages of all guests, stored while it had a device, as a manager's are; nothing is on that
 * before swap_write_out(). One at a time. @return 0, or an error */
int swap_fill(struct swap_bench *s, const struct swap_form *form);
void swap_empty(struct swap_bench *s);
/* A device with nothing on it, for s->store. */
int swap_add_device(struct swap_bench *s);

/* Have so many of the oldest segments written out, and wait for that; fewer if the store has no more.
 * @param cost  is added to. @return 0, or an error */
int swap_write_out(struct swap_bench *s, uint64_t segments, struct swap_cost *cost);
/* The same bytes by bare writes of SWAP_SEGMENT, BARE_RING_DEPTH in flight, one behind the other from where the last
 * ones ended. */
int swap_write_bare(struct swap_bench *s, uint64_t bytes, struct swap_cost *cost);

/* Processor time of this process, with what the kernel does for it. */
uint64_t swap_cpu_ns(void);
int swap_device_stats(struct swap_bench *s, struct vmem_store_device_stats *stats);
/* One 64-bit word repeated: such pages are on no device. */
int swap_is_same(const uint8_t *page);

/* The cases; each adds its rows. */
int swap_compare_write(struct swap_bench *s);
int swap_compare_bytes(struct swap_bench *s);
int swap_compare_read(struct swap_bench *s);
int swap_compare_vswapper(struct swap_bench *s);

#endif
