/* SPDX-License-Identifier: BSD-2-Clause */
/* Compiled freestanding, position-independent and without vector registers: the section is copied
 * into the guest as it is. It calls nothing outside itself. */
#include "guest_code.h"

#define IN_GUEST __attribute__((section("guest_code"), used))

IN_GUEST void guest_entry(struct guest_box *box)
{
	for (;;) {
		guest_work(box);
		__asm__ volatile("outb %b0, %w1" : : "a"(0), "d"(GUEST_DONE_PORT) : "memory");
	}
}

/* A chain of multiplications, so that the time of an operation is work and not only memory. */
static inline __attribute__((always_inline)) uint64_t read_page(const uint64_t *page,
								uint64_t words)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < words; i++)
		sum = (sum ^ page[i]) * UINT64_C(0x9e3779b97f4a7c15);
	return sum;
}

IN_GUEST void guest_work(struct guest_box *box)
{
	const uint32_t *order = (const uint32_t *)(uintptr_t)box->order;
	uint64_t to_write = box->write_every, i = box->position;

	do {
		for (; i < box->order_count && !box->stop; i++) {
			volatile uint64_t *page =
				(volatile uint64_t *)(uintptr_t)(box->ram +
								 order[i] * UINT64_C(4096));

			/* A store comes first: a load would bring the zero page, and fault twice. */
			if (to_write && --to_write == 0) {
				page[511] = box->operations;
				to_write = box->write_every;
			} else if (box->words == 0) {
				box->sum += page[511];
			}
			box->sum += read_page((const uint64_t *)page, box->words);
			box->operations++;
		}
		if (i >= box->order_count)
			i = 0;
	} while (box->repeat && !box->stop);
	box->position = i;
}
