/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-scan: what it costs to find all equal pages of two guests in one sharing domain.
 * ours   vmem_share_scan, until a pass has ended; who calls it would change page tables
 * peer   KSM, until it joins nothing more, which also changes page tables
 * limit  a plain read of the pages */
#include "harness.h"
#include "ksm_peer.h"
#include "machine.h"
#include "real_pages.h"
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vmem/share.h>

#define PAGES ((size_t)98304) /* of two guests of 192 MiB */
#define GUESTS 2
#define RUN ((size_t)512) /* pages that are taken together, if not all are */

enum { CPU_US, MERGED, INDEX_BYTES, METRICS };

struct scan_bench {
	size_t count;
	uint8_t *pages;     /* which ours scans and the limit reads */
	uint8_t *mergeable; /* a copy, for the peer */
	uint32_t *frame_of; /* of a shared object: the page whose frame it has got */
	uint32_t objects;
	volatile uint64_t sum;
};

/* --- Ours: a host whose page tables change by themselves --- */

static const void *page(void *context, uint64_t key)
{
	struct scan_bench *bench = context;

	return bench->pages + key * PAGE;
}

static const void *object(void *context, uint32_t id)
{
	struct scan_bench *bench = context;

	return bench->pages + bench->frame_of[id] * PAGE;
}

static int protect(void *context, uint64_t key)
{
	(void)context;
	(void)key;
	return 0;
}

static void unprotect(void *context, uint64_t key)
{
	(void)context;
	(void)key;
}

static int make(void *context, uint64_t key, uint32_t hash, uint32_t *ret_id)
{
	struct scan_bench *bench = context;

	(void)hash;
	*ret_id = ++bench->objects;
	bench->frame_of[*ret_id] = (uint32_t)key;
	return 0;
}

static int merge(void *context, uint64_t key, uint32_t id)
{
	(void)context;
	(void)key;
	(void)id;
	return 0;
}

static void release(void *context, uint32_t id)
{
	(void)context;
	(void)id;
}

static int scan_all(struct scan_bench *bench, vmem_share *share, struct vmem_share_stats *stats)
{
	int result = vmem_share_add_range(share, 0, bench->count, 1);

	while (result == 0 && stats->passes == 0) {
		vmem_share_scan(share, machine_now_ns(), UINT64_MAX, NULL);
		result = vmem_share_get_stats(share, stats);
	}
	return result;
}

static int measure_ours(void *context, double *values)
{
	struct scan_bench *bench = context;
	const struct vmem_share_opts opts = { .size = sizeof(opts),
					      .cpu = vmem_cpu_detect(),
					      .seed = 1,
					      .context = bench,
					      .page = page,
					      .object = object,
					      .protect = protect,
					      .unprotect = unprotect,
					      .make = make,
					      .merge = merge,
					      .release = release };
	struct vmem_share_stats stats = { .size = sizeof(stats) };
	const uint64_t start = machine_thread_cpu_ns();
	vmem_share *share;
	int result = vmem_share_new(&share, &opts);

	if (result != 0)
		return result;
	bench->objects = 0;
	result = scan_all(bench, share, &stats);
	values[CPU_US] = (double)(machine_thread_cpu_ns() - start) / (double)bench->count / 1e3;
	values[MERGED] = (double)stats.saved_pages;
	values[INDEX_BYTES] = (double)stats.bytes / (double)bench->count;
	vmem_share_free(share);
	return result;
}

/* --- The others --- */

static int measure_ksm(void *context, double *values)
{
	struct scan_bench *bench = context;
	struct ksm_result ksm;
	int result = ksm_run(bench->mergeable, bench->count * PAGE, &ksm);

	if (result != 0)
		return result;
	values[CPU_US] = (double)ksm.cpu_ns / (double)bench->count / 1e3;
	values[MERGED] = (double)ksm.merged;
	values[INDEX_BYTES] = ksm.index_bytes / (double)bench->count;
	return memcmp(bench->mergeable, bench->pages, bench->count * PAGE) == 0 ? 0 : -EBADMSG;
}

static int measure_limit(void *context, double *values)
{
	struct scan_bench *bench = context;
	const uint64_t *words = (const uint64_t *)(void *)bench->pages;
	const uint64_t start = machine_thread_cpu_ns();
	uint64_t sums[4] = { 0 };

	for (size_t i = 0; i < bench->count * PAGE / sizeof(*words); i += 4)
		for (size_t n = 0; n < 4; n++)
			sums[n] += words[i + n];
	bench->sum = sums[0] + sums[1] + sums[2] + sums[3];
	values[CPU_US] = (double)(machine_thread_cpu_ns() - start) / (double)bench->count / 1e3;
	return 0;
}

/* --- The pages --- */

/* @count pages of an image, in runs from all over it. */
static int load_image(const char *path, uint8_t *to, size_t count)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), result = 0;
	struct stat status = { .st_size = 0 };
	size_t runs = (count + RUN - 1) / RUN, in_image;

	if (fd < 0 || fstat(fd, &status) != 0 || status.st_size < (off_t)(count * PAGE)) {
		fprintf(stderr, "bench: cannot use %s: there must be %zu MiB in it\n", path,
			count * PAGE >> 20);
		result = -EINVAL;
	}
	in_image = (size_t)status.st_size / PAGE / RUN;
	for (size_t run = 0; run < runs && result == 0; run++) {
		const size_t at = run * RUN, pages = count - at < RUN ? count - at : RUN;

		if (pread(fd, to + at * PAGE, pages * PAGE,
			  (off_t)(run * in_image / runs * RUN * PAGE)) != (ssize_t)(pages * PAGE))
			result = -EIO;
	}
	if (fd >= 0)
		close(fd);
	return result;
}

/* The first images of the folder, which are of the same workload. */
static int load_guests(struct scan_bench *bench, const char *folder)
{
	const size_t of_each = bench->count / GUESTS;
	char pattern[4096];
	int result = 0;
	glob_t found;

	snprintf(pattern, sizeof(pattern), "%s/*.img", folder);
	if (glob(pattern, 0, NULL, &found) != 0 || found.gl_pathc < GUESTS) {
		fprintf(stderr, "bench: scan needs two *.img in %s\n", folder);
		return -ENOENT;
	}
	for (size_t i = 0; i < GUESTS && result == 0; i++)
		result = load_image(found.gl_pathv[i], bench->pages + i * of_each * PAGE, of_each);
	globfree(&found);
	return result;
}

static int load_pages(struct scan_bench *bench, const char *images)
{
	struct real_pages pages;
	int result;

	if (images)
		return load_guests(bench, images);
	result = real_pages_load(&pages, bench->count, NULL);
	if (result == 0)
		real_pages_mix(&pages, bench->pages, bench->count);
	return result;
}

static int body(struct bench *bench)
{
	static const struct bench_metric metrics[METRICS] = {
		[CPU_US] = { "cpu_us_per_page", "us", NULL, 0 },
		[MERGED] = { "merged_pages", "pages", NULL, 1 },
		[INDEX_BYTES] = { "index_bytes_per_page", "bytes", NULL, 0 },
	};
	static struct scan_bench state;
	const char *reason = ksm_missing();
	const struct bench_comparison comparison = {
		.metrics = metrics,
		.metric_count = METRICS,
		.context = &state,
		.ours = { "libvmem", measure_ours, NULL },
		.peer = { "ksm", measure_ksm, reason },
		.limit = { "plain-read", measure_limit, NULL },
	};
	int result;

	machine_pin(1);
	state.count = bench_quick(bench) ? PAGES / 3 : PAGES;
	machine_warm(4 * state.count * PAGE);
	state.pages = machine_map(state.count * PAGE);
	state.mergeable = machine_map(state.count * PAGE);
	state.frame_of = calloc(state.count + 1, sizeof(*state.frame_of));
	if (!state.pages || !state.mergeable || !state.frame_of)
		return -ENOMEM;
	if ((result = load_pages(&state, bench_images(bench))) != 0 ||
	    (!reason && (result = ksm_start()) != 0))
		return result;
	memcpy(state.mergeable, state.pages, state.count * PAGE);
	return bench_compare(bench, &comparison);
}

int main(int argc, char **argv)
{
	return bench_main(argc, argv, "scan", body);
}
