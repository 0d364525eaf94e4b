/* SPDX-License-Identifier: BSD-2-Clause */
/* What a guest does: operations on pages, in an order that is given. Shared by guest and host. */
#ifndef BENCH_GUEST_CODE_H
#define BENCH_GUEST_CODE_H
#include <stdint.h>

#define GUEST_DONE_PORT 0x10 /* written when the work is over */

/* Lies in memory that both see. Addresses are the guest's. */
struct guest_box {
	volatile uint64_t operations; /* done so far; set by the guest */
	volatile uint64_t stop;       /* set by the host; the operation that runs ends */
	uint64_t repeat;              /* 0: to the end of the order, once */
	uint64_t position;            /* in the order, where it goes on */
	uint64_t ram;
	uint64_t order; /* uint32_t page numbers */
	uint64_t order_count;
	uint64_t words; /* of 8 bytes that an operation reads from its page, 0..512 */
	uint64_t
		write_every; /* every so many operations one word of the page is written; 0: never */
	uint64_t sum;        /* of all that was read, so that it has to be read */
};

/* Hidden: calls between them stay relative, so that they run wherever they are copied. */
#define GUEST_CODE __attribute__((visibility("hidden")))

/* Entry in the guest: works, writes to the port, and so on. */
GUEST_CODE void guest_entry(struct guest_box *box);
/* The same work on a thread: returns when it is over. */
GUEST_CODE void guest_work(struct guest_box *box);

/* The section that holds this code; the linker sets the names. */
GUEST_CODE extern const uint8_t __start_guest_code[], __stop_guest_code[];

#endif
