/* SPDX-License-Identifier: BSD-2-Clause */
/* The table, and what to make of it, for people. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/units.h"
#include "estimate.h"
#include "estimate_progress.h"

#define NAME_WIDTH 20

#define PAGES(pages) UNITS_BYTES((pages)*VMEM_PAGE_SIZE)

static double percent(uint64_t part, uint64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

static void print_row(const char *name, const struct tally *t, const struct options *o)
{
	double share = tally_stored_share(t);

	printf("%-*.*s %9s", NAME_WIDTH, NAME_WIDTH, name, PAGES(t->pages));
	for (int k = 0; k < KINDS; k++)
		printf(" %5.1f%%", percent(t->kind[k], t->pages));
	printf(" %9s %6.1f%% %6.2f\n", UNITS_BYTES(t->stored_bytes + t->metadata_bytes),
	       100 * share, 1 / tally_need(t, o));
}

static void print_rows(const struct estimate *e)
{
	const struct options *o = e->options;

	printf("%-*s %9s %6s %6s %6s %6s %6s %6s %6s %9s %7s %6s\n", NAME_WIDTH, "", "memory",
	       "zero", "same", "equal", "alike", "zstd", "lz4", "incomp", "stored", "of all",
	       "safe");
	for (uint32_t i = 0; i < o->vm_count; i++)
		print_row(e->vms[i].name, &e->vms[i].tally, o);
	if (o->vm_count < 2)
		return;
	print_row("all, each for itself", &e->total, o);
	print_row("all, sharing", &e->shared, o);
}

/* What of a process is not in the table. */
static void print_left_out(const struct estimate *e)
{
	for (uint32_t i = 0; i < e->options->vm_count; i++) {
		const struct vm *vm = &e->vms[i];

		if (vm->untouched_pages || vm->swapped_pages || vm->unreadable_pages)
			printf("%s: of %s, left out are %s never touched, %s on swap, %s not readable.\n",
			       vm->name, PAGES(vm->memory_pages), PAGES(vm->untouched_pages),
			       PAGES(vm->swapped_pages), PAGES(vm->unreadable_pages));
	}
}

static void print_findings(const struct estimate *e)
{
	const struct probe *p = &e->probe;
	const struct tally *t = &e->total;
	double bytes = (double)p->pages * VMEM_PAGE_SIZE;
	double others = (double)(t->pages - t->kind[KIND_ZERO] - t->kind[KIND_SAME]);

	if (p->pages)
		printf("A page that is not one word, alone: LZ4 makes it %.2f times smaller, Zstandard "
		       "%.2f times.\n",
		       bytes / (double)p->lz4_bytes, bytes / (double)p->zstd_bytes);
	if (others > 0)
		printf("Processor time for such a page: %.1f us when it is saved, %.1f us until it is as "
		       "small as it gets.\n",
		       (double)t->cpu_save_ns / 1e3 / others,
		       (double)t->cpu_work_ns / 1e3 / others);
	if (e->options->vm_count > 1)
		printf("Equal only across VMs: %s, %.1f %% of all; shared, all take %s instead of %s.\n",
		       PAGES(estimate_equal_across(e)),
		       percent(estimate_equal_across(e), e->total.pages),
		       UNITS_BYTES(e->shared.stored_bytes + e->shared.metadata_bytes),
		       UNITS_BYTES(e->total.stored_bytes + e->total.metadata_bytes));
	if (e->options->sample_percent < 100)
		printf("This is a sample of %g %%, seed %llu: equal and alike pages are more in fact.\n",
		       e->options->sample_percent, (unsigned long long)e->options->seed);
}

static void print_advice(const struct estimate *e)
{
	uint32_t resident = e->options->resident_percent;
	double share = 100 * tally_stored_share(&e->total);
	double need = 100 * tally_need(&e->total, e->options);

	printf("Suggested: %.2f bytes of VM memory for each byte of the host.\n", 100 / need);
	printf("    %5.1f %%  stays resident (--resident)\n", (double)resident);
	printf("  + %5.1f %%  the other %u %%, stored in %.1f %% of their size\n",
	       (100 - resident) * share / 100, 100 - resident, share);
	printf("  + %5.1f %%  kept free for change\n", (double)ESTIMATE_CHANGE_PERCENT);
	printf("  = %5.1f %%  of VM memory that the host must have%s\n", need,
	       need < 100 ? "" : ", at the most: overcommit saves nothing here");
	if (e->options->vm_count > 1)
		printf("As one sharing group, of VMs that trust each other: %.2f.\n",
		       1 / tally_need(&e->shared, e->options));
}

int table_print(const struct estimate *e)
{
	print_rows(e);
	putchar('\n');
	print_left_out(e);
	print_findings(e);
	putchar('\n');
	print_advice(e);
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	say_error("The table cannot be written: %s.", strerror(errno));
	return -1;
}
