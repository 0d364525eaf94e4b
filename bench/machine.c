/* SPDX-License-Identifier: BSD-2-Clause */
#include "machine.h"
#include "../examples/common/split_random.h"
#include "undo.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define ALIGNMENT ((size_t)2 << 20)
#define PAGEMAP_SWAPPED (UINT64_C(1) << 62)

static cpu_set_t all_cpus; /* that the bench was started with; empty: not asked yet */

static uint64_t read_clock(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

uint64_t machine_now_ns(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

uint64_t machine_thread_cpu_ns(void)
{
	return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

void machine_sleep_ms(unsigned ms)
{
	struct timespec time = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	while (nanosleep(&time, &time) != 0 && errno == EINTR)
		;
}

static void bind_to(const cpu_set_t *set)
{
	if (sched_setaffinity(0, sizeof(*set), set) != 0) {
		perror("bench: cannot bind to a processor");
		exit(1);
	}
}

unsigned machine_cpus(void)
{
	if (CPU_COUNT(&all_cpus) == 0 && sched_getaffinity(0, sizeof(all_cpus), &all_cpus) != 0) {
		perror("bench: which processors are there");
		exit(1);
	}
	return (unsigned)CPU_COUNT(&all_cpus);
}

void machine_pin(unsigned cpu)
{
	unsigned left = cpu % machine_cpus();
	cpu_set_t set;

	for (unsigned i = 0; i < CPU_SETSIZE; i++) {
		if (!CPU_ISSET(i, &all_cpus) || left-- > 0)
			continue;
		CPU_ZERO(&set);
		CPU_SET(i, &set);
		bind_to(&set);
		return;
	}
}

void machine_unpin(void)
{
	machine_cpus();
	bind_to(&all_cpus);
}

int machine_read(const char *path, char *text, size_t capacity)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return -1;
	got = read(fd, text, capacity - 1);
	close(fd);
	if (got < 0)
		return -1;
	text[got] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return 0;
}

int machine_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t put;

	if (fd < 0)
		return -1;
	put = write(fd, text, strlen(text));
	close(fd);
	return put < 0 ? -1 : 0;
}

int machine_set(const char *path, const char *text)
{
	char old[64];

	if (machine_read(path, old, sizeof(old)) != 0)
		return -1;
	undo_later("write %s %s", path, old);
	return machine_write(path, text);
}

uint8_t *machine_map(size_t bytes)
{
	uint8_t *memory = mmap(NULL, bytes + ALIGNMENT, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *start;

	if (memory == MAP_FAILED)
		return NULL;
	start = (uint8_t *)(((uintptr_t)memory + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1));
	if (start > memory)
		munmap(memory, (size_t)(start - memory));
	munmap(start + bytes, (size_t)(memory + ALIGNMENT - start));
	madvise(start, bytes, MADV_NOHUGEPAGE);
	return start;
}

void machine_unmap(void *memory, size_t bytes)
{
	if (memory)
		munmap(memory, bytes);
}

void machine_warm(size_t bytes)
{
	uint8_t *memory = machine_map(bytes);

	for (size_t at = 0; memory && at < bytes; at += PAGE)
		((volatile uint8_t *)memory)[at] = 1;
	machine_unmap(memory, bytes);
}

size_t machine_swapped_pages(const void *memory, size_t bytes)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	off_t at = (off_t)((uintptr_t)memory / PAGE * sizeof(uint64_t));
	uint64_t entries[512];
	size_t pages = bytes / PAGE, swapped = 0;

	while (fd >= 0 && pages > 0) {
		size_t part = pages < 512 ? pages : 512;
		ssize_t got = pread(fd, entries, part * sizeof(*entries), at);

		if (got <= 0)
			break;
		part = (size_t)got / sizeof(*entries);
		for (size_t i = 0; i < part; i++)
			swapped += (entries[i] & PAGEMAP_SWAPPED) != 0;
		pages -= part;
		at += got;
	}
	if (fd >= 0)
		close(fd);
	return swapped;
}

void machine_shuffle(uint32_t *order, size_t count, uint64_t seed)
{
	for (size_t i = 0; i < count; i++) {
		size_t other = (size_t)(random_next(&seed) % (i + 1));

		order[i] = order[other];
		order[other] = (uint32_t)i;
	}
}
