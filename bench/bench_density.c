/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-density: what a stored page takes, of all pages of all guests, with everything that belongs to it.
 * ours   what the anonymous memory of a process that has nothing but a store grows by: all pages are saved,
 *        and background work is done until none is left
 * peer   zram-lz4, mem_used_total after page-out of the same pages
 *        bench_churn.c: what is lost beside the stored bytes while pages come and go
 * Every page is read back and compared, behind the measurement, on both sides. */
#include "bench_density.h"
#include "guest_store.h"
#include "machine.h"
#include "undo.h"
#include "zram_peer.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 1 /* it does not depend on the time */
#define AGREE 0.02

struct found {
	int result;
	uint64_t bytes; /* that the process grew by */
	struct vmem_store_account account;
};

struct density_bench {
	struct guest_pages guests;
	uint32_t sharing;
	vmem_store_ref *refs;
	struct found *found; /* shared with the process that measures */
};

/* --- Ours --- */

/* Anonymous memory of this process, in swap too. 0: unknown */
static uint64_t own_bytes(void)
{
	unsigned long long kib, sum = 0;
	FILE *file = fopen("/proc/self/smaps_rollup", "re");
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "Anonymous: %llu", &kib) == 1 ||
		    sscanf(line, "Swap: %llu", &kib) == 1)
			sum += kib << 10;
	if (file)
		fclose(file);
	return sum;
}

/* In a process of its own. */
static int fill_store(struct density_bench *bench)
{
	struct found *found = bench->found;
	uint64_t before = own_bytes();
	struct guest_store store;
	int result = guest_store_new(&store, &bench->guests, bench->refs, 0, bench->sharing);

	if (result != 0 || (result = guest_store_save(&store)) != 0)
		return result;
	guest_store_work(&store);
	found->bytes = own_bytes() - before;
	found->account.size = sizeof(found->account);
	result = vmem_store_total_account(store.store, &found->account);
	if (result == 0)
		result = guest_store_check(&store);
	guest_store_free(&store);
	return result;
}

/* What the accounts say is what there is. */
static int check_account(const struct density_bench *bench)
{
	const struct vmem_store_account *account = &bench->found->account;
	const double told = (double)(account->segment_bytes + account->metadata_bytes);
	const double real = (double)bench->found->bytes;

	if (account->pages == bench->guests.total && fabs(told - real) <= AGREE * real)
		return 0;
	fprintf(stderr, "bench: %.0f bytes of memory, but %.0f by the account\n", real, told);
	return -EBADMSG;
}

static int measure_ours(void *context, double *values)
{
	struct density_bench *bench = context;
	pid_t child;
	int status;

	bench->found->result = -ECHILD;
	fflush(NULL);
	child = undo_fork();
	if (child == 0) {
		bench->found->result = fill_store(bench);
		_exit(0);
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		return -errno;
	if (bench->found->result != 0)
		return bench->found->result;
	values[0] = (double)bench->found->bytes / (double)bench->guests.total;
	return check_account(bench);
}

/* --- The peer --- */

static int measure_zram(void *context, double *values)
{
	struct density_bench *bench = context;
	const size_t bytes = bench->guests.total * PAGE;
	uint8_t *paged = machine_map(bytes);
	const uint64_t before = zram_used();
	int result;

	if (!paged)
		return -ENOMEM;
	guest_pages_copy(&bench->guests, paged);
	result = zram_page_out(paged, bytes);
	if (result == 0)
		result = zram_page_out_rest(paged, bytes, NULL);
	values[0] = (double)(zram_used() - before) / (double)bench->guests.total;
	if (result == 0 && !guest_pages_equal(&bench->guests, paged))
		result = -EBADMSG;
	machine_unmap(paged, bytes);
	return result;
}

/* --- Rows --- */

static void note(struct bench *bench, const struct density_bench *state, const char *condition)
{
	const struct vmem_store_account *a = &state->found->account;
	const double pages = (double)a->pages;

	bench_note(bench,
		   "%s: by the account %.0f B a page: objects %.0f, the rest of their segments "
		   "%.1f, metadata %.1f",
		   condition, (double)(a->segment_bytes + a->metadata_bytes) / pages,
		   (double)a->physical_bytes / pages,
		   (double)(a->segment_bytes - a->physical_bytes) / pages,
		   (double)a->metadata_bytes / pages);
	bench_note(bench,
		   "%s: of 100 pages %.1f same-filled, %.1f equal to another, %.1f delta, %.1f "
		   "zstd, %.1f lz4, %.1f raw",
		   condition, 100 * (double)a->pages_same / pages,
		   100 * (double)a->pages_equal / pages, 100 * (double)a->pages_delta / pages,
		   100 * (double)a->pages_zstd / pages, 100 * (double)a->pages_lz4 / pages,
		   100 * (double)a->pages_raw / pages);
}

static int compare(struct bench *bench, struct density_bench *state, const char *condition,
		   const char *zram_reason)
{
	const struct bench_metric metric = { "bytes_per_page", "B", condition, 0 };
	const struct bench_comparison comparison = {
		.metrics = &metric,
		.metric_count = 1,
		.rounds = ROUNDS,
		.context = state,
		.ours = { "libvmem", measure_ours, NULL },
		.peer = { "zram-lz4", measure_zram, zram_reason },
	};
	int result = bench_compare(bench, &comparison);

	if (result == 0)
		note(bench, state, condition);
	return result;
}

static int body(struct bench *bench)
{
	static struct density_bench state;
	const char *zram_reason = zram_missing();
	size_t refs_bytes;
	int result = guest_pages_load(&state.guests, bench_images(bench), bench_quick(bench));

	if (result != 0 || (!zram_reason && (result = zram_start()) != 0))
		return result;
	refs_bytes = state.guests.total * sizeof(*state.refs);
	state.refs = (vmem_store_ref *)(void *)machine_map(refs_bytes);
	state.found = mmap(NULL, sizeof(*state.found), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!state.refs || state.found == MAP_FAILED)
		return -ENOMEM;
	memset(state.refs, 0xff, refs_bytes); /* they are there before a store grows */
	machine_pin(1);
	state.sharing = VMEM_STORE_SHARE_VM;
	result = compare(bench, &state, "domain=vm", zram_reason);
	if (result != 0)
		return result;
	state.sharing = VMEM_STORE_SHARE_GROUP;
	result = compare(bench, &state, "domain=group", zram_reason);
	return result != 0 ? result
			   : density_compare_churn(bench, &state.guests, state.refs, zram_reason);
}

int main(int argc, char **argv)
{
	return bench_main(argc, argv, "density", body);
}
