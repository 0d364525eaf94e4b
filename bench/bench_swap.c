/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-swap: pages that leave memory for a device, and come back.
 * ours   a store with all pages of all guests and a device on a file (vmem/device_file.h)
 * peer   bare io_uring on another part of the same file
 * Nothing else is in the file's folder: TMPDIR, else /var/tmp. */
#include "bench_swap.h"
#include "machine.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <vmem/device_file.h>

#define ALIGN ((uint64_t)2 << 20)
#define IDLE_TURNS 3 /* of background work, after which nothing more will leave */
#define WAIT_NS 100000000u

static int (*const cases[])(struct swap_bench *s) = {
	swap_compare_bytes,
	swap_compare_write,
	swap_compare_read,
	swap_compare_vswapper,
};

int swap_is_same(const uint8_t *page)
{
	return memcmp(page, page + 8, PAGE - 8) == 0;
}

/* --- The file --- */

static int unnamed_file(const char *folder)
{
	char path[4096];
	int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
		return fd;
	snprintf(path, sizeof(path), "%s/vmem-bench-XXXXXX", folder);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	return fd;
}

/* Past the page cache, if the file system can. */
static int go_direct(int fd, void *block)
{
	const int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_DIRECT) != 0)
		return 0;
	if (pread(fd, block, PAGE, 0) == (ssize_t)PAGE)
		return 1;
	fcntl(fd, F_SETFL, flags);
	return 0;
}

/* What was never written is cheaper to read and dearer to write. */
static int write_once(const struct swap_bench *s)
{
	for (uint64_t at = 0; at < 2 * s->half_bytes; at += ALIGN)
		if (pwrite(s->file, s->block, ALIGN, (off_t)at) != (ssize_t)ALIGN)
			return errno ? -errno : -EIO;
	return 0;
}

static int open_file(struct swap_bench *s)
{
	const char *folder = getenv("TMPDIR");
	int result;

	folder = folder && *folder ? folder : "/var/tmp";
	s->half_bytes = (s->guests.total * PAGE + ALIGN - 1) / ALIGN * ALIGN;
	s->file = unnamed_file(folder);
	if (s->file < 0) {
		fprintf(stderr, "bench: no file in %s: %s\n", folder, strerror(errno));
		return -errno;
	}
	result = posix_fallocate(s->file, 0, (off_t)(2 * s->half_bytes));
	if (result != 0) {
		fprintf(stderr, "bench: %llu MiB in %s: %s\n",
			(unsigned long long)(2 * s->half_bytes >> 20), folder, strerror(result));
		return -result;
	}
	if (!go_direct(s->file, s->block))
		bench_note(s->bench, "%s allows no O_DIRECT: both sides go through the page cache",
			   folder);
	return write_once(s);
}

/* --- A store with a device --- */

/* Both sides have pinned memory to read to, or neither. */
static void read_as_bare(const struct swap_bench *s, struct vmem_device *device)
{
	static struct vmem_device_ops ops;

	if (s->ring.is_fixed)
		return;
	ops = *device->ops;
	ops.register_buffers = NULL;
	device->ops = &ops;
}

int swap_add_device(struct swap_bench *s)
{
	const struct vmem_device_file_opts opts = {
		.size = sizeof(opts),
		.flags = VMEM_DEVICE_FILE_PREALLOCATE,
		.size_bytes = s->half_bytes,
	};
	struct vmem_device_file_info info = { .size = sizeof(info) };
	struct vmem_device *device;
	int result = vmem_device_file_adopt(&device, s->file, &opts);

	if (result != 0)
		return result;
	if (vmem_device_file_get_info(device, &info) == 0 && info.threads)
		bench_note(s->bench, "io_uring is refused: ours reads and writes by threads");
	read_as_bare(s, device);
	result = vmem_store_add_device(s->store.store, device, NULL, &s->device);
	if (result != 0)
		vmem_device_close(device);
	return result;
}

int swap_fill(struct swap_bench *s, const struct swap_form *form)
{
	int result;

	swap_empty(s);
	result = guest_store_new(&s->store, &s->guests, s->refs, form->flags, form->sharing);
	if (result == 0)
		result = swap_add_device(s); /* before the saves: what is stored then has its key */
	if (result == 0)
		result = guest_store_save(&s->store);
	if (result == 0 && form->work)
		guest_store_work(&s->store);
	return result;
}

void swap_empty(struct swap_bench *s)
{
	guest_store_free(&s->store);
}

int swap_device_stats(struct swap_bench *s, struct vmem_store_device_stats *stats)
{
	stats->size = sizeof(*stats);
	return vmem_store_get_device_stats(s->store.store, s->device, stats);
}

/* --- Writing --- */

uint64_t swap_cpu_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void begin(struct swap_cost *cost)
{
	cost->ns -= machine_now_ns();
	cost->cpu_ns -= swap_cpu_ns();
}

static void end(struct swap_cost *cost)
{
	cost->cpu_ns += swap_cpu_ns();
	cost->ns += machine_now_ns();
}

/* As whoever has nothing else to do would. */
static int work_until_written(struct swap_bench *s)
{
	struct vmem_store_out_stats out = { .size = sizeof(out) };
	int result = 0;

	for (int idle = 0; idle < IDLE_TURNS && result == 0; idle++) {
		vmem_store_work(s->store.store, 0, s->store.now_ns);
		result = vmem_store_get_out_stats(s->store.store, &out);
		if (!out.writing)
			continue;
		idle = -1;
		vmem_store_wait(s->store.store, WAIT_NS);
	}
	return result;
}

int swap_write_out(struct swap_bench *s, uint64_t segments, struct swap_cost *cost)
{
	struct vmem_store_device_stats before, after;
	int result = swap_device_stats(s, &before);

	if (result != 0)
		return result;
	begin(cost);
	vmem_store_write_out(s->store.store, segments * SWAP_SEGMENT);
	result = work_until_written(s);
	end(cost);
	vmem_store_write_out(s->store.store, 0);
	if (result == 0)
		result = swap_device_stats(s, &after);
	if (result == 0 && after.write_errors != 0)
		result = -EIO;
	if (result == 0)
		cost->bytes += after.written_bytes - before.written_bytes;
	return result;
}

static uint32_t queue_bare(struct swap_bench *s, uint64_t at, uint64_t bytes)
{
	const uint64_t left = bytes - at;
	const uint32_t length = (uint32_t)(left < SWAP_SEGMENT ? left : SWAP_SEGMENT);

	s->bare_at = s->bare_at + SWAP_SEGMENT > s->half_bytes ? 0 : s->bare_at;
	s->block_at = s->block_at + SWAP_SEGMENT > SWAP_BLOCK_BYTES ? 0 : s->block_at;
	bare_ring_write(&s->ring, s->block + s->block_at, length, s->half_bytes + s->bare_at,
			length);
	s->bare_at += SWAP_SEGMENT;
	s->block_at += SWAP_SEGMENT;
	return length;
}

int swap_write_bare(struct swap_bench *s, uint64_t bytes, struct swap_cost *cost)
{
	uint32_t in_flight = 0, number;
	uint64_t at = 0;
	int result = 0;
	int32_t written;

	begin(cost);
	while ((at < bytes || in_flight) && result == 0) {
		for (; at < bytes && in_flight < BARE_RING_DEPTH; in_flight++)
			at += queue_bare(s, at, bytes);
		result = bare_ring_enter(&s->ring, 1);
		for (; bare_ring_pop(&s->ring, &number, &written); in_flight--)
			if (written != (int32_t)number)
				result = written < 0 ? written : -EIO;
	}
	end(cost);
	cost->bytes += bytes;
	return result;
}

/* --- All --- */

/* The bare side writes what the guests have, too. */
static void fill_block(struct swap_bench *s)
{
	for (size_t at = 0; at < SWAP_BLOCK_BYTES; at += PAGE)
		memcpy(s->block + at, guest_page(&s->guests, at / PAGE % s->guests.total), PAGE);
}

static int open_ring(struct swap_bench *s)
{
	int result = bare_ring_open(&s->ring, s->file);

	if (result == 0 &&
	    bare_ring_fix(&s->ring, s->block, SWAP_BLOCK_BYTES + SWAP_READ_PAGES * PAGE) != 0)
		bench_note(s->bench, "io_uring registers no memory: neither side's is");
	return result;
}

static int body(struct bench *bench)
{
	static struct swap_bench s;
	int result = guest_pages_load(&s.guests, bench_images(bench), bench_quick(bench));

	s.bench = bench;
	if (result != 0)
		return result;
	s.refs = (vmem_store_ref *)(void *)machine_map(s.guests.total * sizeof(*s.refs));
	s.block = machine_map(SWAP_BLOCK_BYTES + SWAP_READ_PAGES * PAGE);
	if (!s.refs || !s.block)
		return -ENOMEM;
	s.read_block = s.block + SWAP_BLOCK_BYTES;
	fill_block(&s);
	machine_warm(s.guests.total * PAGE / 2);
	result = open_file(&s);
	if (result == 0)
		result = open_ring(&s);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]) && result == 0; i++)
		result = cases[i](&s);
	swap_empty(&s);
	return result;
}

int main(int argc, char **argv)
{
	return bench_main(argc, argv, "swap", body);
}
