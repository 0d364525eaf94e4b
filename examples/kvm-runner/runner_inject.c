/* SPDX-License-Identifier: BSD-2-Clause */
/* See the header. The main thread. */
#define _GNU_SOURCE
#include "runner_inject.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "page_sum.h"
#include "runner_alloc.h"
#include "runner_print.h"
#include "runner_signals.h"
#include "common/split_random.h"

#define MARK_BYTES 16u
#define SCAN_PAGES 256u
#define STORE_TRIES 100u
#define STORE_PAUSE_NS UINT64_C(10000000)
#define PRESENT (UINT64_C(1) << 63) /* Documentation/admin-guide/mm/pagemap.rst */

int inject_drop_page(struct vm *vm)
{
	static const uint64_t zeros[GUEST_PAGE_WORDS];
	uint64_t zero_sum = page_sum(zeros);
	uint64_t pages = vm_pages(vm) - vm_first_page(vm);
	uint64_t start = vm->runner->options->seed * 7919 % pages;

	for (uint64_t i = 0; i < pages; i++) {
		uint64_t gfn = vm_first_page(vm) + (start + i) % pages;
		uint64_t gpa = gfn << GUEST_PAGE_SHIFT;
		int error;

		if (__atomic_load_n(&vm->truth[gfn].sum, __ATOMIC_RELAXED) == zero_sum ||
		    __atomic_load_n(&vm->truth[gfn].holder, __ATOMIC_RELAXED) > GUEST_HELD_BY_OWNER)
			continue;
		error = vmem_region_discard(vm->region, gpa, GUEST_PAGE_SIZE, NULL);
		if (error)
			print_error("Frame %#llx cannot be discarded: %s.", (unsigned long long)gfn,
				    vmem_strerror(error));
		else
			print_line(
				"Injected: frame %#llx of vm %u was discarded behind the guest's back.",
				(unsigned long long)gfn, vm->index);
		return error;
	}
	return -VMEM_ENOENT;
}

/* The search for the stored bytes. */
struct search {
	uint64_t mark[MARK_BYTES /
		      sizeof(uint64_t)]; /* bytes that are in the page and nowhere else */
	unsigned char *chunk;            /* SCAN_PAGES pages */
	int memory;                      /* /proc/self/mem */
	int pagemap;                     /* /proc/self/pagemap */
	uint32_t flipped;
};

/* Whether what was found is the search's own. */
static bool is_own(const struct search *s, uint64_t address)
{
	uint64_t mark = (uint64_t)(uintptr_t)s;
	uint64_t chunk = (uint64_t)(uintptr_t)s->chunk;

	return (address >= mark && address < mark + sizeof(*s)) ||
	       (address >= chunk && address < chunk + SCAN_PAGES * GUEST_PAGE_SIZE);
}

static void flip_in(struct search *s, uint64_t address, size_t bytes)
{
	unsigned char *at = s->chunk;

	while ((at = memmem(at, bytes - (size_t)(at - s->chunk), s->mark, MARK_BYTES)) != NULL) {
		uint64_t where = address + (uint64_t)(at - s->chunk);
		unsigned char flipped = *at ^ 0x10;

		if (!is_own(s, where) && pwrite(s->memory, &flipped, 1, (off_t)where) == 1)
			s->flipped++;
		at++;
	}
}

/* Only pages that are there: reading others could wait for a fault to be served. Runs of them are
 * read together, as the mark may lie across a border. */
static void search_range(struct search *s, uint64_t begin, uint64_t end)
{
	uint64_t address = begin;

	while (address < end) {
		uint64_t entry = 0;
		size_t pages = 0;

		while (pages < SCAN_PAGES && address + pages * GUEST_PAGE_SIZE < end &&
		       pread(s->pagemap, &entry, sizeof(entry),
			     (off_t)((address / GUEST_PAGE_SIZE + pages) * sizeof(entry))) ==
			       sizeof(entry) &&
		       entry & PRESENT)
			pages++;
		if (pages > 0 &&
		    pread(s->memory, s->chunk, pages * GUEST_PAGE_SIZE, (off_t)address) > 0)
			flip_in(s, address, pages * GUEST_PAGE_SIZE);
		address += (pages < 2 ? 1 : pages - 1) * GUEST_PAGE_SIZE;
	}
}

static bool is_guest(const struct runner *runner, uint64_t address)
{
	for (uint32_t i = 0; i < runner->options->vms; i++) {
		uint64_t hva = (uint64_t)(uintptr_t)runner->vms[i].hva;

		if (address >= hva && address < hva + runner->options->mem_bytes)
			return true;
	}
	return false;
}

/* All writable memory of this process but the guests'. */
static void search_all(struct search *s, const struct runner *runner)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];

	while (maps && fgets(line, sizeof(line), maps)) {
		unsigned long long begin;
		unsigned long long end;
		char mode[5];

		if (sscanf(line, "%llx-%llx %4s", &begin, &end, mode) == 3 && mode[0] == 'r' &&
		    mode[1] == 'w' && !is_guest(runner, begin))
			search_range(s, begin, end);
	}
	if (maps)
		fclose(maps);
}

/* Half of it random, which no codec can make smaller, so that it is stored as it is; half zeros, so
 * that the page as a whole compresses and is stored at all. */
static int store_marked_page(struct vm *vm, uint64_t gfn, struct search *s)
{
	uint64_t *page = alloc_pages(GUEST_PAGE_SIZE);
	uint64_t seed = vm->runner->options->seed ^ UINT64_C(0x6d61726b);
	uint64_t gpa = gfn << GUEST_PAGE_SHIFT;
	int error;

	if (!page)
		return -VMEM_ENOMEM;
	memset(page, 0, GUEST_PAGE_SIZE);
	for (uint32_t i = 0; i < GUEST_PAGE_WORDS / 2; i++)
		page[i] = random_next(&seed);
	memcpy(s->mark, page + GUEST_PAGE_WORDS / 4, MARK_BYTES);
	vm->truth[gfn].sum = page_sum(page);
	error = vmem_region_write(vm->region, gpa, page, GUEST_PAGE_SIZE);
	explicit_bzero(page, GUEST_PAGE_SIZE);
	alloc_free(page);
	/* The library may be working on it, too. */
	for (uint32_t i = 0; !error && i < STORE_TRIES; i++) {
		error = vmem_region_stage(vm->region, gpa, GUEST_PAGE_SIZE, NULL);
		if (!error)
			error = vmem_region_store(vm->region, gpa, GUEST_PAGE_SIZE, NULL);
		if (!error && vmem_region_page_state(vm->region, gpa) == VMEM_PAGE_STORED)
			return 0;
		signals_wait(STORE_PAUSE_NS);
	}
	return error ? error : -VMEM_EAGAIN;
}

/* One that is stored already, if there is any: the library leaves pages alone for a while that it
 * could not compress. */
static uint64_t choose_page(struct vm *vm)
{
	uint64_t middle = (vm_first_page(vm) + vm_pages(vm)) / 2;
	uint64_t gfn = middle;

	while (gfn < vm_pages(vm) &&
	       vmem_region_page_state(vm->region, gfn << GUEST_PAGE_SHIFT) != VMEM_PAGE_STORED)
		gfn++;
	return gfn < vm_pages(vm) ? gfn : middle;
}

int inject_corrupt_page(struct vm *vm)
{
	uint64_t gfn = choose_page(vm);
	struct search s = { .memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC),
			    .pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC),
			    .chunk = alloc_pages(SCAN_PAGES * GUEST_PAGE_SIZE) };
	int error = s.chunk && s.memory >= 0 && s.pagemap >= 0 ? 0 : -VMEM_ENOMEM;

	if (!error)
		error = store_marked_page(vm, gfn, &s);
	if (!error) {
		search_all(&s, vm->runner);
		error = s.flipped ? 0 : -VMEM_ENOENT;
	}
	if (error)
		print_error("A stored page of vm %u cannot be changed: %s.", vm->index,
			    vmem_strerror(error));
	else
		print_line(
			"Injected: a bit of frame %#llx of vm %u was flipped where it is stored.",
			(unsigned long long)gfn, vm->index);
	if (s.memory >= 0)
		close(s.memory);
	if (s.pagemap >= 0)
		close(s.pagemap);
	alloc_free(s.chunk);
	return error;
}
