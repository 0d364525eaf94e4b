/* SPDX-License-Identifier: BSD-2-Clause */
/* The rows of bench-store about all pages of all guests, same-filled and equal ones included.
 * Saving: ours as it comes (lz4-all), or with background work until none is left (recompressed), all guests
 * in one group; the peer pages out the same pages in the same order.
 * Loading: what became zstd or a delta by then, in random order. The peer has all pages in zram too. */
#include "bench_store.h"
#include "guest_store.h"
#include "machine.h"
#include "undo.h"
#include "zram_peer.h"
#include <errno.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vmem/similar.h>

#define ROUNDS 3 /* a round takes 15 s */

enum form { FORM_OTHER, FORM_ZSTD, FORM_DELTA };

/* A page that is loaded. */
struct sample {
	const uint8_t *page;
	uint32_t number;
	uint32_t vm;
	vmem_store_ref ref;
	/* The limit's: a reference in LZ4, or as it is, if it is a delta; and the page behind it. */
	uint32_t packed_at;
	uint16_t reference_bytes;
	uint16_t bytes;
};

struct all_bench {
	struct guest_pages guests;
	struct guest_store store;
	uint64_t flags; /* of the store */
	vmem_store_ref *refs;
	uint8_t *paged;  /* a copy of all pages, which the peer pages out */
	uint8_t *form;   /* of each page; shared with the process that finds out */
	uint32_t *order; /* all pages, shuffled */
	struct sample *samples;
	uint32_t *times;
	size_t sample_count, samples_most;
	enum form form_measured;
	const struct vmem_codec *codec;
	void *codec_context;
	uint8_t *packed;
	size_t packed_bytes;
	volatile int sum;
	uint8_t page[4096] __attribute__((aligned(64)));
	uint8_t bounce[4096] __attribute__((aligned(64)));
	uint8_t reference[4096] __attribute__((aligned(64)));
};

/* --- Saving --- */

static double cpu_us_per_page(const struct all_bench *all, uint64_t since, size_t pages_less)
{
	return (double)(machine_thread_cpu_ns() - since) /
	       (double)(all->guests.total - pages_less) / 1e3;
}

static int save_ours(void *context, double *values)
{
	struct all_bench *all = context;
	uint64_t cpu_start;
	int result;

	guest_store_free(&all->store);
	cpu_start = machine_thread_cpu_ns();
	result = guest_store_new(&all->store, &all->guests, all->refs, all->flags,
				 VMEM_STORE_SHARE_GROUP);
	if (result == 0)
		result = guest_store_save(&all->store);
	if (result == 0 && !(all->flags & VMEM_STORE_AS_SAVED))
		guest_store_work(&all->store);
	values[0] = cpu_us_per_page(all, cpu_start, 0);
	return result != 0 ? result : guest_store_check(&all->store);
}

static int page_out(const struct all_bench *all, size_t *ret_late)
{
	const size_t bytes = all->guests.total * PAGE;
	int result = zram_page_out(all->paged, bytes);

	return result != 0 ? result : zram_page_out_rest(all->paged, bytes, ret_late);
}

static int save_zram(void *context, double *values)
{
	struct all_bench *all = context;
	const size_t bytes = all->guests.total * PAGE;
	uint64_t cpu_start;
	size_t late = 0;
	int result;

	guest_pages_copy(&all->guests, all->paged);
	cpu_start = machine_thread_cpu_ns();
	result = zram_page_out(all->paged, bytes);
	values[0] = cpu_us_per_page(all, cpu_start, 0);
	if (result == 0)
		result = zram_page_out_rest(all->paged, bytes, &late);
	values[0] *= (double)all->guests.total / (double)(all->guests.total - late);
	if (result == 0 && !guest_pages_equal(&all->guests, all->paged))
		result = -EBADMSG;
	return result;
}

/* Each page that is not same-filled, once. */
static int save_limit(void *context, double *values)
{
	struct all_bench *all = context;
	const uint64_t cpu_start = machine_thread_cpu_ns();

	for (size_t i = 0; i < all->guests.guests; i++) {
		for (size_t n = 0; n < all->guests.count[i]; n++) {
			const uint8_t *page = all->guests.pages[i] + n * PAGE;

			if (memcmp(page, page + 8, PAGE - 8) != 0)
				all->sum =
					LZ4_compress_fast((const char *)page, (char *)all->bounce,
							  (int)PAGE, (int)PAGE - 1, 1);
		}
	}
	values[0] = cpu_us_per_page(all, cpu_start, 0);
	return 0;
}

static int compare_saving(struct bench *bench, struct all_bench *all, uint64_t flags,
			  const char *condition, const char *zram_reason)
{
	const struct bench_metric metric = { "save_cpu_us_per_page", "us", condition, 0 };
	const struct bench_comparison comparison = {
		.metrics = &metric,
		.metric_count = 1,
		.rounds = ROUNDS,
		.context = all,
		.ours = { "libvmem", save_ours, NULL },
		.peer = { "zram-lz4", save_zram, zram_reason },
		.limit = { "bare-lz4", save_limit, NULL },
	};

	all->flags = flags;
	return bench_compare(bench, &comparison);
}

/* --- Which form a page has --- */

/* Saves one page so often that there are more pages than objects for as long as there are objects: the
 * accounts then tell the number of objects of each form. */
static int add_ballast(struct all_bench *all)
{
	vmem_store_ref ref;
	uint64_t word;
	size_t number = 0;
	int result = 0;

	while (number < all->guests.total - 1 &&
	       vmem_page_same_filled(guest_page(&all->guests, number), &word))
		number++;
	for (size_t i = 0; i < all->guests.total && result == 0; i++)
		result = vmem_store_save(all->store.store, all->store.vm[0], number,
					 guest_page(&all->guests, number), &ref);
	return result;
}

/* A page had the form of which there is one less without it. In a process that has a copy of the store;
 * of equal pages only the last is told, which does not matter. All deltas are found, as each is some page's,
 * but perhaps the ballast. */
static int drop_and_see(struct all_bench *all)
{
	struct vmem_store_account before = { .size = sizeof(before) }, after = before;
	int result = add_ballast(all);
	uint64_t deltas = 0, found = 0;

	if (result == 0)
		result = vmem_store_total_account(all->store.store, &before);
	deltas = before.pages_delta;
	for (size_t n = 0; n < all->guests.total && result == 0; n++) {
		const uint32_t number = all->order[n];

		result = vmem_store_drop(all->store.store, guest_store_vm(&all->store, number),
					 all->refs[number]);
		if (result == 0)
			result = vmem_store_total_account(all->store.store, &after);
		if (after.pages_delta < before.pages_delta) {
			all->form[number] = FORM_DELTA;
			found++;
		} else if (after.pages_zstd < before.pages_zstd) {
			all->form[number] = FORM_ZSTD;
		}
		before = after;
	}
	if (result == 0 && (found > deltas || found + 1 < deltas))
		result = -EBADMSG;
	return result;
}

static int find_forms(struct all_bench *all)
{
	int status;
	pid_t child = undo_fork();

	if (child == 0)
		_exit(drop_and_see(all) != 0);
	if (child < 0 || waitpid(child, &status, 0) != child)
		return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -ECHILD;
}

/* Pages of a form. Not one twice: the peer's would be there the second time. */
static void take_samples(struct all_bench *all)
{
	all->sample_count = 0;
	for (size_t n = 0; n < all->guests.total && all->sample_count < all->samples_most; n++) {
		const uint32_t number = all->order[n];

		if (all->form[number] != all->form_measured)
			continue;
		all->samples[all->sample_count++] = (struct sample){
			.page = guest_page(&all->guests, number),
			.number = number,
			.vm = guest_store_vm(&all->store, number),
			.ref = all->refs[number],
		};
	}
}

/* --- Loading --- */

static void set_percentiles(struct all_bench *all, double *values)
{
	values[0] = bench_percentile(all->times, all->sample_count, 500);
	values[1] = bench_percentile(all->times, all->sample_count, 990);
}

static int load_ours(void *context, double *values)
{
	struct all_bench *all = context;
	int result = 0;

	for (size_t n = 0; n < all->sample_count && result == 0; n++) {
		const struct sample *sample = &all->samples[n];
		const uint64_t start = machine_now_ns();

		result = vmem_store_load(all->store.store, sample->vm, sample->number, sample->ref,
					 all->page, NULL);
		all->times[n] = (uint32_t)(machine_now_ns() - start);
		if (result == 0 && memcmp(all->page, sample->page, PAGE) != 0)
			result = -EBADMSG;
	}
	set_percentiles(all, values);
	return result;
}

static int load_zram(void *context, double *values)
{
	struct all_bench *all = context;
	int result = page_out(all, NULL);

	for (size_t n = 0; n < all->sample_count && result == 0; n++) {
		const volatile uint8_t *page = all->paged + all->samples[n].number * PAGE;
		const uint64_t start = machine_now_ns();

		(void)*page;
		all->times[n] = (uint32_t)(machine_now_ns() - start);
		if (memcmp((const uint8_t *)page, all->samples[n].page, PAGE) != 0)
			result = -EBADMSG;
	}
	set_percentiles(all, values);
	return result;
}

static int load_limit(void *context, double *values)
{
	struct all_bench *all = context;
	const struct vmem_codec *lz4 = vmem_codec_lz4();
	int result = 0;

	for (size_t n = 0; n < all->sample_count && result == 0; n++) {
		const struct sample *sample = &all->samples[n];
		const uint8_t *from = all->packed + sample->packed_at, *reference = NULL;
		const uint64_t start = machine_now_ns();

		if (sample->reference_bytes == PAGE) {
			reference = from;
		} else if (sample->reference_bytes) {
			reference = all->reference;
			result = lz4->decode(NULL, all->reference, from, sample->reference_bytes,
					     NULL);
		}
		if (result == 0)
			result = all->codec->decode(all->codec_context, all->bounce,
						    from + sample->reference_bytes, sample->bytes,
						    reference);
		memcpy(all->page, all->bounce, PAGE);
		all->times[n] = (uint32_t)(machine_now_ns() - start);
		if (result == 0 && memcmp(all->page, sample->page, PAGE) != 0)
			result = -EBADMSG;
	}
	set_percentiles(all, values);
	return result;
}

/* --- What the limit decodes --- */

static int make_codec(struct all_bench *all, const struct vmem_codec *codec)
{
	const size_t bytes = (codec->context_bytes + 63) / 64 * 64;

	all->codec = codec;
	all->codec_context = aligned_alloc(64, bytes);
	if (!all->codec_context)
		return -ENOMEM;
	memset(all->codec_context, 0, bytes);
	return codec->context_init ? codec->context_init(all->codec_context) : 0;
}

static void end_codec(struct all_bench *all)
{
	if (all->codec->context_end && all->codec_context)
		all->codec->context_end(all->codec_context);
	free(all->codec_context);
	all->codec_context = NULL;
}

/* @param reference  or NULL. @return 0, -EFBIG: it is no smaller than the page, and nothing was packed */
static int pack(struct all_bench *all, struct sample *sample, const uint8_t *reference)
{
	uint8_t *to = all->packed + all->packed_bytes;
	int bytes = 0;

	sample->packed_at = (uint32_t)all->packed_bytes;
	if (reference) {
		bytes = LZ4_compress_fast((const char *)reference, (char *)to, (int)PAGE,
					  (int)PAGE - 1, 1);
		if (bytes == 0)
			memcpy(to, reference, PAGE);
		sample->reference_bytes = (uint16_t)(bytes ? bytes : (int)PAGE);
	}
	sample->bytes = (uint16_t)all->codec->encode(
		all->codec_context, to + sample->reference_bytes, PAGE, sample->page, reference);
	all->packed_bytes += sample->reference_bytes + sample->bytes;
	return sample->bytes ? 0 : -EFBIG;
}

/* For each page the first before it that is like it, in @param like; NULL: none. */
static int find_references(const struct all_bench *all, const uint8_t **like)
{
	const struct vmem_similar_opts opts = { .size = sizeof(opts) };
	uint32_t ids[VMEM_SIMILAR_CANDIDATES];
	struct vmem_similar_sketch sketch;
	vmem_similar *similar;
	int result = vmem_similar_new(&similar, &opts);

	for (size_t i = 0; i < all->guests.total && result == 0; i++) {
		const uint8_t *page = guest_page(&all->guests, i);

		vmem_similar_sketch(page, &sketch);
		if (vmem_similar_find(similar, &sketch, ids) > 0)
			like[i] = guest_page(&all->guests, ids[0]);
		else
			vmem_similar_add(similar, &sketch, (uint32_t)i);
	}
	if (result == 0)
		vmem_similar_free(similar);
	return result;
}

/* Pages for which no reference is found, or the found one does not serve, are left out. */
static int pack_samples(struct all_bench *all)
{
	const int is_delta = all->form_measured == FORM_DELTA;
	const uint8_t **like = calloc(all->guests.total, sizeof(*like));
	int result = like ? 0 : -ENOMEM;
	size_t kept = 0;

	if (result == 0 && is_delta)
		result = find_references(all, like);
	all->packed_bytes = 0;
	for (size_t n = 0; n < all->sample_count && result == 0; n++) {
		struct sample sample = all->samples[n];
		const uint8_t *reference = like[sample.number];

		if ((!is_delta || reference) && pack(all, &sample, reference) == 0)
			all->samples[kept++] = sample;
	}
	free(like);
	all->sample_count = kept;
	return result;
}

static int compare_loading(struct bench *bench, struct all_bench *all,
			   const struct vmem_codec *codec, const char *condition,
			   const char *zram_reason)
{
	const struct bench_metric metrics[] = { { "load_p50_ns", "ns", condition, 0 },
						{ "load_p99_ns", "ns", condition, 0 } };
	const struct bench_comparison comparison = {
		.metrics = metrics,
		.metric_count = sizeof(metrics) / sizeof(*metrics),
		.context = all,
		.ours = { "libvmem", load_ours, NULL },
		.peer = { "zram-lz4", load_zram, zram_reason },
		.limit = { "bare-decode", load_limit, NULL },
	};
	int result;

	take_samples(all);
	result = make_codec(all, codec);
	if (result == 0)
		result = pack_samples(all);
	bench_note(bench, "%s: %zu pages", condition, all->sample_count);
	if (result == 0 && all->sample_count > 0)
		result = bench_compare(bench, &comparison);
	end_codec(all);
	return result;
}

/* --- All --- */

static int make_all(struct all_bench *all, size_t count)
{
	const size_t total = all->guests.total;

	all->samples_most = count;
	all->refs = (vmem_store_ref *)(void *)machine_map(total * sizeof(*all->refs));
	all->paged = machine_map(total * PAGE);
	all->form = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	all->order = calloc(total, sizeof(*all->order));
	all->samples = calloc(count, sizeof(*all->samples));
	all->times = calloc(count, sizeof(*all->times));
	all->packed = machine_map(2 * (count + 1) * PAGE);
	if (!all->refs || !all->paged || all->form == MAP_FAILED || !all->order || !all->samples ||
	    !all->times || !all->packed)
		return -ENOMEM;
	machine_shuffle(all->order, total, 1);
	return 0;
}

int store_compare_all(struct bench *bench, size_t count, const char *zram_reason)
{
	static struct all_bench all;
	int result = guest_pages_load(&all.guests, bench_images(bench), bench_quick(bench));

	if (result == 0)
		result = make_all(&all, count);
	if (result != 0)
		return result;
	machine_warm(2 * all.guests.total * PAGE);
	result = compare_saving(bench, &all, VMEM_STORE_AS_SAVED, "lz4-all", zram_reason);
	if (result == 0)
		result = compare_saving(bench, &all, 0, "recompressed", zram_reason);
	if (result == 0)
		result = find_forms(&all);
	all.form_measured = FORM_ZSTD;
	if (result == 0)
		result = compare_loading(bench, &all, vmem_codec_zstd(1), "zstd", zram_reason);
	all.form_measured = FORM_DELTA;
	if (result == 0)
		result = compare_loading(bench, &all, vmem_codec_delta(1), "delta", zram_reason);
	guest_store_free(&all.store);
	if (result == 0)
		result = store_compare_vms(bench, &all.guests, all.refs, all.paged, zram_reason);
	return result;
}
