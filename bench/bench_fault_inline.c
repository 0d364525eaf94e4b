/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-fault: pages served in the faulting thread.
 * zero    ours: SIGBUS, vmem_fault_sigbus(); peer: SIGBUS, one UFFDIO_COPY of a zero page
 * stored  ours: the same, the page comes out of the pool; peer: the kernel's swap-in from zram-lz4;
 *         limit: SIGBUS, LZ4_decompress_safe() of packed pages, one UFFDIO_COPY */
#include "bench_fault.h"
#include "bare_uffd.h"
#include "paged_memory.h"
#include "zram_peer.h"
#include <errno.h>
#include <lz4.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGES ((size_t)24576)

struct inline_bench {
	struct paged_memory ours;
	uint8_t *peer_memory;
	const uint8_t *pages; /* contents; NULL: zero */
	struct touch touch;
	uint32_t *order;
};

static int bare_uffd; /* for the signal handlers of the peer and of the limit */

/* What the limit's signal handler decodes: page after page, each where its start says. */
static struct bare_lz4 {
	uint8_t *memory; /* that the pages belong to */
	char *packed;
	uint32_t *starts; /* one more than pages */
} bare_lz4;

static void serve_bare(int number, siginfo_t *info, void *context)
{
	static const uint8_t zeros[4096];
	const uintptr_t page = (uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1);

	(void)number, (void)context;
	if (bare_uffd_copy(bare_uffd, (void *)page, zeros, PAGE) != 0)
		_exit(1);
}

static void serve_bare_lz4(int number, siginfo_t *info, void *context)
{
	static char page[4096];
	const size_t i = (size_t)((uint8_t *)info->si_addr - bare_lz4.memory) / PAGE;
	const uint32_t start = bare_lz4.starts[i];

	(void)number, (void)context;
	if (LZ4_decompress_safe(bare_lz4.packed + start, page,
				(int)(bare_lz4.starts[i + 1] - start), PAGE) != PAGE ||
	    bare_uffd_copy(bare_uffd, bare_lz4.memory + i * PAGE, page, PAGE) != 0)
		_exit(1);
}

static int make(struct inline_bench *state, size_t count)
{
	state->order = calloc(count, sizeof(*state->order));
	state->touch = (struct touch){ .order = state->order,
				       .count = count,
				       .write = state->pages == NULL,
				       .samples = calloc(count, sizeof(*state->touch.samples)) };
	state->peer_memory = machine_map(count * PAGE);
	if (!state->order || !state->touch.samples || !state->peer_memory)
		return -ENOMEM;
	machine_shuffle(state->order, count, 3);
	state->ours = (struct paged_memory){ .bytes = count * PAGE,
					     .fault_way = VMEM_FAULT_SIGBUS,
					     .fault_around_pages = 1,
					     .cpu = 1 };
	return paged_memory_new(&state->ours);
}

static void unmake(struct inline_bench *state)
{
	paged_memory_free(&state->ours);
	machine_unmap(state->peer_memory, state->touch.count * PAGE);
	free(state->order);
	free(state->touch.samples);
}

static int touch_timed(struct inline_bench *state, uint8_t *memory, double *values)
{
	state->touch.memory = memory;
	machine_pin(0);
	touch_pages(&state->touch);
	machine_unpin();
	touch_values(&state->touch, values);
	return touch_check(&state->touch, state->pages);
}

static int measure_zero_ours(void *context, double *values)
{
	struct inline_bench *state = context;
	int result = vmem_region_discard(state->ours.region, 0, state->ours.bytes, NULL);

	paged_memory_take_sigbus(&state->ours);
	return result != 0 ? result : touch_timed(state, state->ours.memory, values);
}

static int measure_zero_bare(void *context, double *values)
{
	const struct sigaction action = { .sa_sigaction = serve_bare, .sa_flags = SA_SIGINFO };
	struct inline_bench *state = context;

	if (madvise(state->peer_memory, state->ours.bytes, MADV_DONTNEED) != 0)
		return -errno;
	sigaction(SIGBUS, &action, NULL);
	return touch_timed(state, state->peer_memory, values);
}

int bench_fault_inline_zero(struct bench *bench)
{
	static const struct bench_metric metrics[] = { { "inline_zero_p50_ns", "ns", NULL, 0 },
						       { "inline_zero_p99_ns", "ns", NULL, 0 } };
	struct inline_bench state = { .pages = NULL };
	const struct bench_comparison comparison = {
		.metrics = metrics,
		.metric_count = 2,
		.context = &state,
		.ours = { "libvmem", measure_zero_ours, NULL },
		.peer = { "bare-sigbus", measure_zero_bare, NULL },
	};
	int result = make(&state, bench_quick(bench) ? PAGES / 3 : PAGES);

	bare_uffd = bare_uffd_open(UFFD_FEATURE_SIGBUS);
	if (result == 0)
		result = bare_uffd < 0 ? bare_uffd
				       : bare_uffd_register(bare_uffd, state.peer_memory,
							    state.ours.bytes);
	if (result == 0)
		result = bench_compare(bench, &comparison);
	if (bare_uffd >= 0)
		close(bare_uffd);
	unmake(&state);
	return result;
}

static int measure_stored_ours(void *context, double *values)
{
	struct inline_bench *state = context;
	int result = paged_memory_store_all(&state->ours);

	if (result != 0)
		return result;
	paged_memory_take_sigbus(&state->ours);
	return touch_timed(state, state->ours.memory, values);
}

static int measure_stored_zram(void *context, double *values)
{
	struct inline_bench *state = context;
	int result = zram_page_out_rest(state->peer_memory, state->ours.bytes, NULL);

	return result != 0 ? result : touch_timed(state, state->peer_memory, values);
}

static int measure_stored_bare(void *context, double *values)
{
	const struct sigaction action = { .sa_sigaction = serve_bare_lz4, .sa_flags = SA_SIGINFO };
	struct inline_bench *state = context;

	if (madvise(bare_lz4.memory, state->ours.bytes, MADV_DONTNEED) != 0)
		return -errno;
	sigaction(SIGBUS, &action, NULL);
	return touch_timed(state, bare_lz4.memory, values);
}

static int make_bare_lz4(const uint8_t *pages, size_t count)
{
	const size_t room = count * (size_t)LZ4_COMPRESSBOUND(4096);
	uint32_t end = 0;

	bare_lz4.memory = machine_map(count * PAGE);
	bare_lz4.packed = (char *)machine_map(room);
	bare_lz4.starts = calloc(count + 1, sizeof(*bare_lz4.starts));
	if (!bare_lz4.memory || !bare_lz4.packed || !bare_lz4.starts)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		end += (uint32_t)LZ4_compress_fast((const char *)pages + i * PAGE,
						   bare_lz4.packed + end, PAGE,
						   LZ4_COMPRESSBOUND(4096), 1);
		bare_lz4.starts[i + 1] = end;
	}
	bare_uffd = bare_uffd_open(UFFD_FEATURE_SIGBUS);
	return bare_uffd < 0 ? bare_uffd
			     : bare_uffd_register(bare_uffd, bare_lz4.memory, count * PAGE);
}

static void unmake_bare_lz4(size_t count)
{
	if (bare_uffd >= 0)
		close(bare_uffd);
	machine_unmap(bare_lz4.memory, count * PAGE);
	machine_unmap(bare_lz4.packed, count * (size_t)LZ4_COMPRESSBOUND(4096));
	free(bare_lz4.starts);
}

int bench_fault_inline_stored(struct bench *bench, const struct real_pages *pages)
{
	static const struct bench_metric metrics[] = { { "inline_stored_p50_ns", "ns", NULL, 0 },
						       { "inline_stored_p99_ns", "ns", NULL, 0 } };
	const size_t count = bench_quick(bench) ? PAGES / 3 : PAGES;
	struct inline_bench state = { .pages = machine_map(count * PAGE) };
	const struct bench_comparison comparison = {
		.metrics = metrics,
		.metric_count = 2,
		.context = &state,
		.ours = { "libvmem", measure_stored_ours, NULL },
		.peer = { "zram-lz4", measure_stored_zram, zram_missing() },
		.limit = { "bare-sigbus-lz4", measure_stored_bare, NULL },
	};
	int result = -ENOMEM;

	bare_uffd = -1;
	if (state.pages) {
		real_pages_pick(pages, PAGE_COMPRESSIBLE, (uint8_t *)(uintptr_t)state.pages, count);
		result = make(&state, count);
	}
	if (result == 0)
		result = make_bare_lz4(state.pages, count);
	if (result == 0)
		result = vmem_region_write(state.ours.region, 0, state.pages, state.ours.bytes);
	if (result == 0)
		memcpy(state.peer_memory, state.pages, state.ours.bytes);
	if (result == 0 && !comparison.peer.missing)
		result = zram_start();
	if (result == 0)
		result = bench_compare(bench, &comparison);
	unmake(&state);
	unmake_bare_lz4(count);
	machine_unmap((void *)(uintptr_t)state.pages, count * PAGE);
	return result;
}
