/* SPDX-License-Identifier: BSD-2-Clause */
/* region_inflate_bytes_per_s  page numbers of a guest in, by buffers of 256, and the pages of a region really given back
 *                             (vmem_discard_drain()); private memory, and a file in memory
 *   peer                      one call of the kernel for each number, on memory of no region
 *   limit                     one call for all of it */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "bench_balloon.h"
#include "machine.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vmem/discard.h>

#define PAGES ((size_t)1 << 15) /* 128 MiB */
#define BUFFER 256u             /* numbers */
#define FILL ((size_t)1 << 20)

struct region_bench {
	vmem_manager *manager;
	vmem_region *region;
	vmem_discard *discard;
	vmem_balloon *balloon;
	uint32_t *gfns;
	uint8_t *plain; /* the peer's */
	uint8_t *bytes; /* FILL of them */
	int fd;         /* of plain; -1: private */
};

static int start(vmem_balloon *b)
{
	const uint32_t ok = VMEM_VIRTIO_FEATURES_OK | VMEM_VIRTIO_DRIVER_OK;
	uint32_t status;

	vmem_balloon_set_status(b, 0, NULL);
	vmem_balloon_set_status(b, 3, NULL);
	(void)vmem_balloon_set_features(b, VMEM_VIRTIO_F_VERSION_1);
	vmem_balloon_set_status(b, VMEM_VIRTIO_FEATURES_OK, NULL);
	vmem_balloon_set_status(b, VMEM_VIRTIO_DRIVER_OK, &status);
	return (status & ok) == ok ? 0 : -EINVAL;
}

static int drain(struct region_bench *b)
{
	struct vmem_balloon_done done;
	int error = vmem_discard_drain(b->discard, b->balloon);

	while (vmem_balloon_take_done(b->balloon, &done))
		;
	return error;
}

static double rate(uint64_t started)
{
	return (double)(PAGES * PAGE) * 1e9 / (double)(machine_now_ns() - started);
}

static int measure_region(void *context, double *values)
{
	struct region_bench *b = context;
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer),
					      .count = BUFFER * sizeof(*b->gfns) };
	int error = start(b->balloon);
	uint64_t started;

	for (size_t at = 0; at < PAGES * PAGE && !error; at += FILL)
		error = vmem_region_write(b->region, at, b->bytes, FILL);
	started = machine_now_ns();
	for (size_t i = 0; i < PAGES && !error; i += BUFFER) {
		buffer.bytes = b->gfns + i;
		while ((error = vmem_balloon_give(b->balloon, &buffer)) == -VMEM_EAGAIN)
			if ((error = drain(b)) != 0)
				return error;
		error = error ? error : drain(b);
	}
	values[0] = rate(started);
	return error;
}

/* [page, page + count) of the memory of no region. */
static int release(const struct region_bench *b, size_t page, size_t count)
{
	int failed = b->fd < 0 ? madvise(b->plain + page * PAGE, count * PAGE, MADV_DONTNEED)
			       : fallocate(b->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					   (off_t)(page * PAGE), (off_t)(count * PAGE));

	return failed ? -errno : 0;
}

static void fill(const struct region_bench *b)
{
	for (size_t i = 0; i < PAGES; i++)
		b->plain[i * PAGE] = 1;
}

static int measure_each(void *context, double *values)
{
	struct region_bench *b = context;
	uint64_t started;
	int error = 0;

	fill(b);
	started = machine_now_ns();
	for (size_t i = 0; i < PAGES && !error; i++)
		error = release(b, b->gfns[i], 1);
	values[0] = rate(started);
	return error;
}

static int measure_bulk(void *context, double *values)
{
	struct region_bench *b = context;
	uint64_t started;
	int error;

	fill(b);
	started = machine_now_ns();
	error = release(b, 0, PAGES);
	values[0] = rate(started);
	return error;
}

static int compare(struct bench *bench, struct region_bench *b, const char *condition)
{
	const struct bench_metric metric = { "region_inflate_bytes_per_s", "B/s", condition, 1 };
	const struct bench_comparison comparison = {
		.metrics = &metric,
		.metric_count = 1,
		.context = b,
		.ours = { "libvmem", measure_region, NULL },
		.peer = { b->fd < 0 ? "madvise-per-pfn" : "fallocate-per-pfn", measure_each, NULL },
		.limit = { b->fd < 0 ? "bulk MADV_DONTNEED" : "bulk fallocate", measure_bulk,
			   NULL },
	};

	return bench_compare(bench, &comparison);
}

static int make(struct region_bench *b, int file)
{
	const struct vmem_manager_opts mo = { .size = sizeof(mo) };
	const struct vmem_balloon_opts bo = { .size = sizeof(bo),
					      .features = VMEM_VIRTIO_F_VERSION_1 };
	const struct vmem_region_opts ro = { .size = sizeof(ro),
					     .bytes = PAGES * PAGE,
					     .flags = VMEM_REGION_DMA_PINNED |
						      (file ? VMEM_REGION_FILE : 0) };
	struct vmem_discard_piece piece = { .size = sizeof(piece), .kind = VMEM_DISCARD_REGION };
	int error;

	b->fd = file ? memfd_create("bench", MFD_CLOEXEC) : -1;
	if (file && (b->fd < 0 || ftruncate(b->fd, (off_t)(PAGES * PAGE))))
		return -errno;
	b->plain = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
			file ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, b->fd, 0);
	b->bytes = malloc(FILL);
	b->gfns = malloc(PAGES * sizeof(*b->gfns));
	if (b->plain == MAP_FAILED || !b->bytes || !b->gfns)
		return -ENOMEM;
	madvise(b->plain, PAGES * PAGE, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < FILL; i++)
		b->bytes[i] = (uint8_t)(i >> 8);
	for (size_t i = 0; i < PAGES; i++)
		b->gfns[i] = (uint32_t)i;
	if ((error = vmem_manager_new(&b->manager, &mo)) != 0 ||
	    (error = vmem_region_alloc(&b->region, b->manager, &ro)) != 0 ||
	    (error = vmem_manager_thread_start(b->manager)) != 0 ||
	    (error = vmem_discard_new(&b->discard, NULL)) != 0 ||
	    (error = vmem_balloon_new(&b->balloon, &bo)) != 0)
		return error;
	piece.region = b->region;
	error = vmem_discard_add(b->discard, &piece);
	return error ? error : vmem_balloon_add_ram(b->balloon, 0, PAGES * PAGE, PAGE);
}

static int unmake(struct region_bench *b)
{
	int error;

	vmem_balloon_free(b->balloon);
	vmem_discard_free(b->discard);
	vmem_manager_thread_stop(b->manager);
	error = vmem_region_detach(b->region, VMEM_DETACH_DISCARD);
	error = error ? error : vmem_manager_free(b->manager);
	munmap(b->plain, PAGES * PAGE);
	free(b->bytes);
	free(b->gfns);
	if (b->fd >= 0)
		close(b->fd);
	return error;
}

int bench_balloon_region(struct bench *bench)
{
	static const char *const conditions[2][2] = { { "private, sequential",
							"private, shuffled" },
						      { "file, sequential", "file, shuffled" } };
	int error = 0;

	for (int file = 0; file < 2 && !error; file++) {
		struct region_bench b = { .fd = -1 };

		if ((error = make(&b, file)) != 0 ||
		    (error = compare(bench, &b, conditions[file][0])) != 0)
			return error;
		machine_shuffle(b.gfns, PAGES, 11);
		error = compare(bench, &b, conditions[file][1]);
		error = error ? error : unmake(&b);
	}
	return error;
}
