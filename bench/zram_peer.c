/* SPDX-License-Identifier: BSD-2-Clause */
#include "zram_peer.h"
#include "machine.h"
#include "undo.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <unistd.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#define DEVICE "/dev/zram0"
#define SYS "/sys/block/zram0/"
#define ZSWAP "/sys/module/zswap/parameters/enabled"

static int started; /* by this bench */

const char *zram_missing(void)
{
	char text[256];

	if (started)
		return NULL;
	if (geteuid() != 0)
		return "setting up swap on zram needs root";
	if (access(DEVICE, R_OK | W_OK) != 0 ||
	    machine_read(SYS "comp_algorithm", text, sizeof(text)))
		return "there is no " DEVICE " (modprobe zram)";
	if (!strstr(text, "lz4"))
		return "this kernel's zram has no lz4";
	if (machine_read(SYS "disksize", text, sizeof(text)) != 0 || strcmp(text, "0") != 0)
		return DEVICE " is in use by somebody else";
	return NULL;
}

/* The header that mkswap(8) writes, version 1. */
static int format(size_t bytes)
{
	uint8_t header[4096] = { 0 };
	const uint32_t version = 1, last_page = (uint32_t)(bytes / PAGE - 1);
	int fd = open(DEVICE, O_WRONLY | O_CLOEXEC);
	int result = 0;

	if (fd < 0)
		return -errno;
	memcpy(header + 1024, &version, sizeof(version));
	memcpy(header + 1028, &last_page, sizeof(last_page));
	memcpy(header + PAGE - 10, "SWAPSPACE2", 10);
	if (write(fd, header, PAGE) != (ssize_t)PAGE || fsync(fd) != 0)
		result = -errno;
	close(fd);
	return result;
}

/* The algorithm between brackets in "lzo [lz4]". */
static void undo_algorithm(void)
{
	char text[256], *start;

	if (machine_read(SYS "comp_algorithm", text, sizeof(text)) == 0 &&
	    (start = strchr(text, '[')) != NULL) {
		start[strcspn(start, "]")] = '\0';
		undo_later("write " SYS "comp_algorithm %s", start + 1);
	}
}

/* Where it is on, pages are compressed by it and never reach zram. */
static int without_zswap(void)
{
	char text[8];

	if (machine_read(ZSWAP, text, sizeof(text)) != 0 || text[0] != 'Y')
		return 0;
	return machine_set(ZSWAP, "N");
}

int zram_start(void)
{
	const size_t bytes = ZRAM_PAGES * PAGE;
	char text[32];
	int result;

	if (started)
		return 0;
	undo_algorithm();
	undo_later("write " SYS "reset 1");
	snprintf(text, sizeof(text), "%zu", bytes);
	if (machine_write(SYS "comp_algorithm", "lz4") != 0 ||
	    machine_write(SYS "disksize", text) != 0)
		return -errno;
	result = format(bytes);
	if (result != 0)
		return result;
	undo_later("swapoff " DEVICE);
	if (without_zswap() != 0 || swapon(DEVICE, SWAP_FLAG_PREFER | SWAP_FLAG_PRIO_MASK) != 0 ||
	    machine_set("/proc/sys/vm/page-cluster", "0") != 0)
		return -errno;
	started = 1;
	return 0;
}

int zram_page_out(void *memory, size_t bytes)
{
	return madvise(memory, bytes, MADV_PAGEOUT) == 0 ? 0 : -errno;
}

int zram_page_out_rest(void *memory, size_t bytes, size_t *ret_late)
{
	const size_t pages = bytes / PAGE, first = pages - machine_swapped_pages(memory, bytes);
	cpu_set_t affinity;
	size_t left = first;

	sched_getaffinity(0, sizeof(affinity), &affinity);
	for (unsigned cpu = machine_cpus(); cpu-- > 0 && left > 0;) {
		machine_pin(cpu);
		zram_page_out(memory, bytes);
		left = pages - machine_swapped_pages(memory, bytes);
	}
	sched_setaffinity(0, sizeof(affinity), &affinity);
	if (ret_late)
		*ret_late = first;
	return left == 0 ? 0 : -EBUSY;
}

int zram_memory(struct zram_memory *ret_memory)
{
	struct zram_memory memory;
	uint64_t bytes;
	char text[256];

	if (machine_read(SYS "mm_stat", text, sizeof(text)) != 0)
		return -errno;
	if (sscanf(text, "%" SCNu64 " %" SCNu64 " %" SCNu64, &bytes, &memory.packed_bytes,
		   &memory.used_bytes) != 3)
		return -EINVAL;
	memory.pages = bytes / PAGE;
	*ret_memory = memory;
	return 0;
}

uint64_t zram_used(void)
{
	struct zram_memory memory;

	return zram_memory(&memory) == 0 ? memory.used_bytes : 0;
}

int zram_compact(void)
{
	return machine_write(SYS "compact", "1") == 0 ? 0 : -errno;
}
