/* SPDX-License-Identifier: BSD-2-Clause */
/* The rows of bench-store about whole VMs: all pages of all guests, as they were saved.
 * drop_vm_ns_per_page  one VM after the other ends; the peer discards the same pages, which are in zram
 * save_pages_per_s     each thread saves the pages of VMs of its own; the limit is LZ4 in as many threads */
#include "bench_store.h"
#include "guest_store.h"
#include "machine.h"
#include "zram_peer.h"
#include <errno.h>
#include <lz4.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#define ROUNDS 3
#define THREADS_MAX 2

struct vms_bench {
	const struct guest_pages *guests;
	vmem_store_ref *refs;
	uint8_t *paged;
	uint32_t sharing; /* of the VMs that are dropped */
	unsigned threads;
	vmem_store *store;
	uint32_t vm[GUESTS_MAX];
};

/* --- Ending a VM --- */

static int drop_ours(void *context, double *values)
{
	struct vms_bench *b = context;
	struct guest_store s;
	uint64_t start;
	int result = guest_store_new(&s, b->guests, b->refs, VMEM_STORE_AS_SAVED, b->sharing);

	if (result != 0)
		return result;
	result = guest_store_save(&s);
	start = machine_now_ns();
	for (size_t i = 0; i < b->guests->guests && result == 0; i++)
		result = vmem_store_drop_vm(s.store, s.vm[i]);
	values[0] = (double)(machine_now_ns() - start) / (double)b->guests->total;
	guest_store_free(&s);
	return result;
}

static int drop_zram(void *context, double *values)
{
	struct vms_bench *b = context;
	const size_t bytes = b->guests->total * PAGE;
	uint64_t start;
	int result;

	guest_pages_copy(b->guests, b->paged);
	result = zram_page_out(b->paged, bytes);
	if (result == 0)
		result = zram_page_out_rest(b->paged, bytes, NULL);
	start = machine_now_ns();
	if (result == 0 && madvise(b->paged, bytes, MADV_DONTNEED) != 0)
		result = -errno;
	values[0] = (double)(machine_now_ns() - start) / (double)b->guests->total;
	return result;
}

/* --- Saving by more than one thread --- */

struct saver {
	struct vms_bench *bench;
	int (*save)(struct vms_bench *bench, size_t guest);
	unsigned number;
	pthread_t thread;
	int result;
};

static void *run_saver(void *context)
{
	struct saver *s = context;

	machine_pin(s->number);
	for (size_t i = s->number; i < s->bench->guests->guests && s->result == 0;
	     i += s->bench->threads)
		s->result = s->save(s->bench, i);
	return NULL;
}

/* All guests' pages, by the wall's clock. */
static int run_savers(struct vms_bench *b, int (*save)(struct vms_bench *, size_t), double *values)
{
	struct saver savers[THREADS_MAX];
	const uint64_t start = machine_now_ns();
	unsigned started = 0;
	int result = 0;

	for (; started < b->threads && result == 0; started += result == 0) {
		savers[started] = (struct saver){ .bench = b, .save = save, .number = started };
		result =
			-pthread_create(&savers[started].thread, NULL, run_saver, &savers[started]);
	}
	while (started > 0) {
		pthread_join(savers[--started].thread, NULL);
		if (result == 0)
			result = savers[started].result;
	}
	values[0] = (double)b->guests->total * 1e9 / (double)(machine_now_ns() - start);
	return result;
}

static int save_guest(struct vms_bench *b, size_t guest)
{
	vmem_store_ref *refs = b->refs;
	int result = 0;

	for (size_t i = 0; i < guest; i++)
		refs += b->guests->count[i];
	for (size_t i = 0; i < b->guests->count[guest] && result == 0; i++)
		result = vmem_store_save(b->store, b->vm[guest], i,
					 b->guests->pages[guest] + i * PAGE, &refs[i]);
	return result;
}

static int save_ours(void *context, double *values)
{
	const struct vmem_store_opts opts = { .size = sizeof(opts),
					      .flags = VMEM_STORE_AS_SAVED,
					      .cpu = vmem_cpu_detect(),
					      .seed = 1 };
	struct vms_bench *b = context;
	int result = vmem_store_new(&b->store, &opts);

	if (result != 0)
		return result;
	for (size_t i = 0; i < b->guests->guests && result == 0; i++)
		result = vmem_store_add_vm(b->store, NULL, &b->vm[i]);
	if (result == 0)
		result = run_savers(b, save_guest, values);
	vmem_store_free(b->store);
	return result;
}

static int pack_guest(struct vms_bench *b, size_t guest)
{
	char packed[LZ4_COMPRESSBOUND(PAGE)];

	for (size_t i = 0; i < b->guests->count[guest]; i++) {
		const uint8_t *page = b->guests->pages[guest] + i * PAGE;

		if (memcmp(page, page + 8, PAGE - 8) != 0 &&
		    LZ4_compress_fast((const char *)page, packed, (int)PAGE, sizeof(packed), 1) <=
			    0)
			return -EIO;
	}
	return 0;
}

static int save_limit(void *context, double *values)
{
	return run_savers(context, pack_guest, values);
}

/* --- All --- */

static int compare(struct bench *bench, struct vms_bench *state, const struct bench_metric *metric,
		   struct bench_side ours, struct bench_side peer, struct bench_side limit)
{
	const struct bench_comparison comparison = { .metrics = metric,
						     .metric_count = 1,
						     .rounds = ROUNDS,
						     .context = state,
						     .ours = ours,
						     .peer = peer,
						     .limit = limit };

	return bench_compare(bench, &comparison);
}

int store_compare_vms(struct bench *bench, const struct guest_pages *guests, vmem_store_ref *refs,
		      uint8_t *paged, const char *zram_reason)
{
	static const struct {
		struct bench_metric metric;
		uint32_t sharing;
	} drops[] = { { { "drop_vm_ns_per_page", "ns", "vm", 0 }, VMEM_STORE_SHARE_VM },
		      { { "drop_vm_ns_per_page", "ns", "group", 0 }, VMEM_STORE_SHARE_GROUP } };
	static const struct bench_metric saves[THREADS_MAX] = {
		{ "save_pages_per_s", "pages/s", "threads=1", 1 },
		{ "save_pages_per_s", "pages/s", "threads=2", 1 }
	};
	const struct bench_side none = { 0 }, drop = { "libvmem", drop_ours, NULL },
				discard = { "zram-lz4", drop_zram, zram_reason },
				save = { "libvmem", save_ours, NULL },
				pack = { "bare-lz4", save_limit, NULL };
	struct vms_bench state = { .guests = guests, .refs = refs, .paged = paged };
	int result = 0;

	for (size_t i = 0; i < 2 && result == 0; i++) {
		state.sharing = drops[i].sharing;
		result = compare(bench, &state, &drops[i].metric, drop, discard, none);
	}
	for (unsigned i = 0; i < THREADS_MAX && i < machine_cpus() && result == 0; i++) {
		state.threads = i + 1;
		result = compare(bench, &state, &saves[i], save, none, pack);
	}
	return result;
}
