/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-swap, how much is written: all pages of all guests are evicted, and all that is stored written out.
 * ours   bytes written to the device, and those of what stays in segments that are not full, as if written too,
 *        by the bytes of the pages
 * peer   the kernel's swap, which writes each page as it is
 * written_per_byte_not_same: by the bytes of those pages only that are not one repeated word, which take no place on a
 * device. */
#include "bench_swap.h"
#include "machine.h"
#include <string.h>

#define KERNEL 1.0 /* bytes written a byte of what leaves */

struct bytes_case {
	struct swap_bench *swap;
	struct swap_form form;
};

static size_t count_zeros(const struct guest_pages *guests)
{
	static const uint8_t zeros[PAGE];
	size_t count = 0;

	for (size_t i = 0; i < guests->total; i++)
		count += memcmp(guest_page(guests, i), zeros, PAGE) == 0;
	return count;
}

static int measure_ours(void *context, double *values)
{
	struct bytes_case *c = context;
	struct vmem_store_account a = { .size = sizeof(a) };
	struct swap_cost cost = { .bytes = 0 };
	int result = swap_fill(c->swap, &c->form);

	if (result == 0)
		result = swap_write_out(c->swap, UINT32_MAX, &cost);
	if (result == 0)
		result = vmem_store_total_account(c->swap->store.store, &a);
	if (result != 0)
		return result;
	values[0] = (double)(cost.bytes + a.physical_bytes) / (double)a.logical_bytes;
	values[1] = values[0] * (double)a.pages / (double)(a.pages - a.pages_same);
	return 0;
}

static int kernel_writes(void *context, double *values)
{
	(void)context;
	values[0] = values[1] = KERNEL;
	return 0;
}

static int compare(struct swap_bench *s, const char *condition, const struct swap_form *form)
{
	const struct bench_metric metrics[] = {
		{ "bytes_written_per_logical_byte", "B", condition, 0 },
		{ "written_per_byte_not_same", "B", condition, 0 },
	};
	struct bytes_case c = { .swap = s, .form = *form };
	const struct bench_comparison comparison = {
		.metrics = metrics,
		.metric_count = 2,
		.rounds = 1, /* it does not depend on the time */
		.context = &c,
		.ours = { "libvmem", measure_ours, NULL },
		.peer = { "kernel-swap", kernel_writes, NULL },
	};

	return bench_compare(s->bench, &comparison);
}

int swap_compare_bytes(struct swap_bench *s)
{
	static const struct {
		const char *condition;
		struct swap_form form;
	} rows[] = {
		{ "domain=vm lz4", { VMEM_STORE_AS_SAVED, VMEM_STORE_SHARE_VM, 0 } },
		{ "domain=vm recompressed", { 0, VMEM_STORE_SHARE_VM, 1 } },
		{ "domain=group lz4", { VMEM_STORE_AS_SAVED, VMEM_STORE_SHARE_GROUP, 0 } },
		{ "domain=group recompressed", { 0, VMEM_STORE_SHARE_GROUP, 1 } },
	};
	int result = 0;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]) && result == 0; i++)
		result = compare(s, rows[i].condition, &rows[i].form);
	bench_note(
		s->bench,
		"kernel-swap is 1 by definition; Linux since 6.12 does not write pages of zeros, "
		"%.0f %% of these",
		100 * (double)count_zeros(&s->guests) / (double)s->guests.total);
	return result;
}
