/* SPDX-License-Identifier: BSD-2-Clause */
/* Regions whose pages come from a snapshot when they are touched: every byte, within the budget, while they are
 * used; and damage, which is an error to who touches that page, never zeros, and nothing to others. */
#include "linux/fault/serve.h"
#include "linux/guest.h"
#include "linux/snapshot_tape.h"
#include "support/slow.h"
#include <signal.h>
#include <stdlib.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
#define GPA (UINT64_C(5) << 30)
#define CPUS 3

static struct vmemt_cpu cpu[CPUS];
static struct vmemt_tape tape;
static _Atomic uint32_t reads; /* atomic; of pages */
static _Atomic uint32_t lost;  /* atomic; times that on_lost was called */
static _Atomic int lost_error; /* atomic */

static int read_source(void *context, uint64_t gpa, void *buffer)
{
	atomic_fetch_add(&reads, 1);
	return vmem_snapshot_read_page(context, gpa, buffer);
}

static void on_lost(void *context, uint64_t gpa, int error)
{
	(void)context, (void)gpa;
	atomic_store(&lost_error, error);
	atomic_fetch_add(&lost, 1);
}

/* Saves a region of some pages, one of which may be lost. */
static void save(uint64_t pages, uint64_t seed, uint64_t lost_page)
{
	vmem_manager *m = vmemt_manager(0);
	vmem_region *r = vmemt_region(m, GPA, pages, 0);

	vmemt_tape_init(&tape);
	vmemt_some_fill(r, pages, seed);
	if (lost_page < pages) {
		assert(!vmem_region_discard(r, GPA + lost_page * PAGE, PAGE, NULL));
		assert(vmemi_serve_lose(r, lost_page, -VMEM_EIO) == VMEMI_POISONED);
	}
	assert(!vmemt_tape_save(&tape, r, VMEM_SNAPSHOT_LOST_TOO, NULL));
	vmemt_end(m, r);
}

static vmem_region *attach(vmem_manager *m, vmem_snapshot *s, uint64_t pages, uint64_t flags,
			   uint32_t way)
{
	struct vmem_region_opts o = {
		.size = sizeof(o),
		.flags = flags,
		.gpa = GPA,
		.bytes = pages * PAGE,
		.fault_way = way,
		.fault_deadline_ms = 3600000,
		.on_lost = on_lost,
		.context = s,
		.read_source = read_source,
	};
	vmem_region *r;

	assert(!vmemt_alloc(&r, m, &o));
	for (unsigned i = 0; i < CPUS; i++)
		cpu[i].region = r;
	atomic_store(&reads, 0);
	atomic_store(&lost, 0);
	return r;
}

static void end(vmem_manager *m, vmem_region *r, vmem_snapshot *s)
{
	vmemt_check(m, r);
	for (unsigned i = 0; i < CPUS; i++)
		cpu[i].region = NULL;
	vmemt_end(m, r);
	vmem_snapshot_close(s);
	vmemt_tape_free(&tape);
}

static int read_page(unsigned c, vmem_region *r, uint64_t page, struct vmemt_page *got)
{
	return vmemt_touch(&cpu[c], VMEMT_READ, (unsigned char *)vmem_region_hva(r) + page * PAGE,
			   got, PAGE);
}

static void expect(unsigned c, vmem_region *r, uint64_t page, uint64_t seed)
{
	struct vmemt_page got, want;

	assert(!read_page(c, r, page, &got));
	vmemt_some_make(&want, page, seed);
	assert(!memcmp(&got, &want, PAGE));
}

/* All that was saved is there, and nothing is read that nobody asks for. */
static void comes_when_touched(uint64_t flags, uint32_t way)
{
	enum { PAGES = 600, LOST = 20 };
	vmem_manager *m = vmemt_manager(0);
	struct vmem_snapshot_info info = { .size = sizeof(info) };
	struct vmemt_page got;
	vmem_snapshot *s;
	vmem_region *r;

	save(PAGES, 3, LOST);
	assert(!vmemt_tape_open(&tape, &s));
	assert(!vmem_snapshot_get_info(s, &info) && info.gpa == GPA && info.bytes == PAGES * PAGE);
	/* Of 30 pages 12 have contents, 6 are words; the lost one was one with contents. */
	assert(info.pages_lost == 1 && info.pages_same == PAGES / 5 &&
	       info.pages == PAGES / 30 * 12 - 1);
	vmemt_catch_signals(m);
	assert(!vmem_manager_thread_start(m));
	r = attach(m, s, PAGES, flags, way);
	assert(!vmem_snapshot_restore(s, r));
	for (uint64_t page = 0; page < PAGES; page++)
		assert(vmemt_state(r, page) == (page == LOST ? VMEM_PAGE_POISONED
						: vmemt_some_kind(page) == VMEMT_PAGE_ZERO
							? VMEM_PAGE_ABSENT
							: VMEM_PAGE_SOURCE));
	assert(!atomic_load(&reads) && atomic_load(&lost) == 1);
	for (uint64_t page = 0; page < PAGES / 2; page++)
		if (page != LOST)
			expect((unsigned)(page % CPUS), r, page, 3);
	assert(atomic_load(&reads) == info.pages / 2 + info.pages_same / 2);
	assert(read_page(0, r, LOST, &got) == SIGBUS);
	for (uint64_t page = PAGES / 2; page < PAGES;
	     page += 2) /* whole pages, over what was there */
		vmemt_put(&cpu[1], vmem_region_hva(r), page, 5);
	for (uint64_t page = PAGES / 2; page < PAGES; page++)
		if (page % 2)
			expect(0, r, page, 3);
		else
			assert(vmemt_is(&cpu[0], vmem_region_hva(r), page, 5));
	/* It can be saved once more, touched or not. */
	vmemt_tape_free(&tape);
	assert(!vmemt_tape_save(&tape, r, VMEM_SNAPSHOT_LOST_TOO, NULL));
	end(m, r, s);
}

/* Saved before anything is touched: the same stream but for where its pages were. */
static void saved_again(void)
{
	enum { PAGES = 300 };
	vmem_manager *m = vmemt_manager(0);
	struct vmemt_tape again;
	vmem_snapshot *s, *copy;
	struct vmemt_page got, want;
	vmem_region *r;

	save(PAGES, 6, PAGES);
	assert(!vmemt_tape_open(&tape, &s));
	r = attach(m, s, PAGES, 0, VMEM_FAULT_THREAD);
	assert(!vmem_snapshot_restore(s, r));
	vmemt_tape_init(&again);
	assert(!vmemt_tape_save(&again, r, 0, NULL));
	assert(again.size == tape.size);
	assert(!vmemt_tape_open(&again, &copy));
	for (uint64_t page = 0; page < PAGES; page++) {
		vmemt_some_make(&want, page, 6);
		assert(!vmem_snapshot_read_page(copy, GPA + page * PAGE, &got));
		assert(!memcmp(&got, &want, PAGE));
	}
	vmem_snapshot_close(copy);
	vmemt_tape_free(&again);
	end(m, r, s);
}

/* --- Damage --- */

/* Where the contents of a page lie: they are in the stream once. */
static size_t find_page(uint64_t page, uint64_t seed)
{
	struct vmemt_page p;

	vmemt_some_make(&p, page, seed);
	for (size_t at = 0; at + PAGE <= tape.size; at += 8)
		if (!memcmp(tape.bytes + at, &p, PAGE))
			return at;
	assert(false && "it is not there");
	return 0;
}

/* Of a snapshot that is open: one page, and the head of a frame. */
static void damage_is_an_error(uint32_t way)
{
	enum { PAGES = 60, BAD = 12, NEXT = 13, HEADLESS = 40 };
	vmem_manager *m = vmemt_manager(0);
	struct vmemt_page got;
	vmem_snapshot *s;
	vmem_region *r;
	size_t head;

	save(PAGES, 8, PAGES);
	assert(!vmemt_tape_open(&tape, &s));
	tape.bytes[find_page(BAD, 8) + 77] ^= 4;
	/* Pages 39 to 50 are one frame, of 12. */
	head = find_page(39, 8) - 12 * 8 - 40;
	assert(tape.bytes[head] == 'P' && tape.bytes[head + 8] == 39 &&
	       tape.bytes[head + 16] == 12);
	tape.bytes[head + 40] ^= 1;
	vmemt_catch_signals(m);
	assert(!vmem_manager_thread_start(m));
	r = attach(m, s, PAGES, 0, way);
	assert(!vmem_snapshot_restore(s, r));
	assert(read_page(0, r, BAD, &got) == SIGBUS);
	assert(atomic_load(&lost) == 1 && atomic_load(&lost_error) == -VMEM_EBADMSG);
	assert(vmemt_state(r, BAD) == VMEM_PAGE_POISONED);
	assert(read_page(1, r, HEADLESS, &got) == SIGBUS);
	assert(atomic_load(&lost) == 2);
	for (uint64_t page = 0; page < PAGES; page++)
		if (page != BAD && (page < 39 || page > 50))
			expect(2, r, page, 8);
	assert(atomic_load(&lost) == 2);
	/* The guest may have the page again, as one that it has freed. */
	assert(!vmem_region_discard(r, GPA + BAD * PAGE, PAGE, NULL));
	assert(vmemt_is(&cpu[0], vmem_region_hva(r), BAD, 0));
	/* It becomes shorter: what is gone is gone. */
	tape.bytes[head + 40] ^= 1;
	tape.size = find_page(45, 8) + 100;
	assert(!vmem_snapshot_read_page(s, GPA + 44 * PAGE, &got));
	assert(vmem_snapshot_read_page(s, GPA + 45 * PAGE, &got) == -VMEM_EBADMSG);
	end(m, r, s);
}

static void opening_fails(void)
{
	enum { PAGES = 60 };
	uint64_t rng = vmemt_seed("opening_fails");
	unsigned tries = VMEMT_SLOW ? 200 : 2000, opened = 0;
	vmem_snapshot *s = NULL;
	size_t size;
	long n;

	save(PAGES, 9, 20);
	tape.error = -4711;
	for (n = 0;; n++) {
		int error;

		tape.fail_after = n;
		error = vmemt_tape_open(&tape, &s);
		if (!error)
			break;
		assert(error == -4711 && !s);
	}
	assert(n > 8);
	vmem_snapshot_close(s);
	tape.fail_after = -1;
	size = tape.size;
	for (tape.size = 0; tape.size < size; tape.size += 1 + tape.size % 97)
		assert(vmemt_tape_open(&tape, &s) == -VMEM_EBADMSG);
	tape.size = size;
	/* It opens where only contents are damaged, and then that page is. */
	for (unsigned k = 0; k < tries; k++) {
		size_t at = vmemt_rand(&rng) % (k % 2 ? size : 300);
		unsigned bad = 0;

		tape.bytes[at] ^= (unsigned char)(1u << k % 8);
		if (!vmemt_tape_open(&tape, &s)) {
			for (uint64_t page = 0; page < PAGES; page++) {
				struct vmemt_page got, want;
				int error = vmem_snapshot_read_page(s, GPA + page * PAGE, &got);

				vmemt_some_make(&want, page, 9);
				if (page == 20)
					assert(error == -VMEM_EIO);
				else if (error)
					bad++;
				else
					assert(!memcmp(&got, &want, PAGE));
			}
			assert(bad == 1);
			opened++;
			vmem_snapshot_close(s);
		}
		tape.bytes[at] ^= (unsigned char)(1u << k % 8);
	}
	assert(opened && opened < tries);
	for (size_t at = size - 40 + 16; at < size - 40 + 32;
	     at += 8) { /* numbers at the end, sums right */
		tape.bytes[at] ^= 1;
		vmemt_tape_mend(tape.bytes, size);
		assert(vmemt_tape_open(&tape, &s) == -VMEM_EBADMSG);
		tape.bytes[at] ^= 1;
	}
	vmemt_tape_free(&tape);
}

static void *alloc_some(void *context, size_t bytes, size_t align)
{
	unsigned *left = context;

	if (!*left)
		return NULL;
	--*left;
	return aligned_alloc(align, (bytes + align - 1) / align * align);
}

static void free_some(void *context, void *memory, size_t bytes, size_t align)
{
	(void)context, (void)bytes, (void)align;
	free(memory);
}

static void refused(void)
{
	enum { PAGES = 6000 };
	unsigned left = 0, most;
	struct vmem_allocator a = {
		.size = sizeof(a), .context = &left, .alloc = alloc_some, .free = free_some
	};
	struct vmem_snapshot_open_opts o = { .size = sizeof(o),
					     .read_at = vmemt_tape_read_at,
					     .context = &tape };
	struct vmem_snapshot_info info = { .size = sizeof(info) };
	vmem_manager *m = vmemt_manager(0);
	vmem_region *r, *plain, *other;
	vmem_snapshot *s = NULL;
	struct vmemt_page p;

	save(PAGES, 2, PAGES);
	assert(vmem_snapshot_open(NULL, &o) == -VMEM_EINVAL);
	assert(vmem_snapshot_open(&s, NULL) == -VMEM_EINVAL);
	o.flags = 1;
	assert(vmem_snapshot_open(&s, &o) == -VMEM_EINVAL);
	o.flags = 0;
	o.read_at = NULL;
	assert(vmem_snapshot_open(&s, &o) == -VMEM_EINVAL && !s);
	o.read_at = vmemt_tape_read_at;
	o.allocator = &a;
	for (most = 0;; most++) {
		int error;

		left = most;
		error = vmem_snapshot_open(&s, &o);
		if (!error)
			break;
		assert(error == -VMEM_ENOMEM && !s);
	}
	assert(most > 3);
	vmem_snapshot_close(NULL);
	assert(vmem_snapshot_get_info(s, NULL) == -VMEM_EINVAL);
	assert(vmem_snapshot_read_page(s, GPA + 1, &p) == -VMEM_EINVAL);
	assert(vmem_snapshot_read_page(s, GPA - PAGE, &p) == -VMEM_ERANGE);
	assert(vmem_snapshot_read_page(s, GPA + PAGES * PAGE, &p) == -VMEM_ERANGE);
	assert(!vmem_snapshot_get_info(s, &info) && info.frames);
	plain = vmemt_region(m, GPA, PAGES, 0);
	assert(vmem_snapshot_restore(s, plain) == -VMEM_EINVAL);
	assert(!vmem_region_detach(plain, VMEM_DETACH_DISCARD));
	other = attach(m, s, PAGES - 1, 0, VMEM_FAULT_THREAD);
	assert(vmem_snapshot_restore(s, other) == -VMEM_ERANGE);
	assert(!vmem_region_detach(other, VMEM_DETACH_DISCARD));
	r = attach(m, s, PAGES, VMEM_REGION_FROM_SOURCE, VMEM_FAULT_THREAD);
	assert(vmem_snapshot_restore(s, r) == -VMEM_EEXIST);
	/* But it comes all the same. */
	vmemt_some_compare(r, PAGES, 2);
	end(m, r, s);
}

/* --- Under load --- */

#define BIG (VMEMT_SLOW ? 3000u : 9000u)     /* pages: 12 or 35 MiB */
#define BUDGET ((VMEMT_SLOW ? 7 : 18) * MIB) /* a tenth does not compress */

struct guest {
	pthread_t thread;
	unsigned index;
	vmem_region *r;
	uint64_t seed;
	uint64_t most; /* bytes used, as far as it has looked */
};

static void watch_budget(struct guest *g)
{
	uint64_t used = vmemt_manager_metrics((vmem_manager *)g->r->host).used_bytes;

	g->most = used > g->most ? used : g->most;
}

/* Pages of its own, read and written. */
static void *use_pages(void *argument)
{
	struct guest *g = argument;
	unsigned char *base = vmem_region_hva(g->r);
	uint8_t *version = calloc(BIG, 1);

	assert(version);
	for (unsigned k = 0; k < BIG; k++) {
		uint64_t page = vmemt_rand(&g->seed) % BIG / CPUS * CPUS + g->index;

		if (page >= BIG)
			continue;
		if (version[page])
			assert(vmemt_is(&cpu[g->index], base, page, version[page]));
		else
			expect(g->index, g->r, page, 4);
		if (k % 4 == 0 && version[page] < 100)
			vmemt_put(&cpu[g->index], base, page, ++version[page]);
		if (k % 16 == 0)
			watch_budget(g);
	}
	for (uint64_t page = g->index; page < BIG; page += CPUS)
		if (version[page])
			assert(vmemt_is(&cpu[g->index], base, page, version[page]));
		else
			expect(g->index, g->r, page, 4);
	free(version);
	return NULL;
}

static void within_the_budget(uint64_t flags)
{
	uint64_t rng = vmemt_seed("within_the_budget"), most = 0;
	struct vmem_manager_opts mo = { .size = sizeof(mo),
					.budget_bytes = BUDGET,
					.source_threads = 2 };
	struct guest g[CPUS];
	vmem_manager *m;
	vmem_snapshot *s;
	vmem_region *r;

	save(BIG, 4, BIG);
	assert(!vmemt_tape_open(&tape, &s));
	assert(!vmem_manager_new(&m, &mo));
	vmemt_catch_signals(m);
	assert(!vmem_manager_thread_start(m));
	r = attach(m, s, BIG, flags, VMEM_FAULT_THREAD);
	assert(!vmem_snapshot_restore(s, r));
	for (unsigned i = 0; i < CPUS; i++) {
		g[i] = (struct guest){ .index = i, .r = r, .seed = vmemt_rand(&rng) };
		assert(!pthread_create(&g[i].thread, NULL, use_pages, &g[i]));
	}
	for (unsigned i = 0; i < CPUS; i++) {
		assert(!pthread_join(g[i].thread, NULL));
		most = g[i].most > most ? g[i].most : most;
	}
	/* A sum of figures that change meanwhile. */
	assert(most && most <= BUDGET + 64 * PAGE);
	assert(!atomic_load(&lost));
	end(m, r, s);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_POISON | VMEM_KERNEL_SIGBUS);
	for (unsigned i = 0; i < CPUS; i++)
		vmemt_cpu_start(&cpu[i]);
	comes_when_touched(0, VMEM_FAULT_THREAD);
	comes_when_touched(VMEM_REGION_SOURCE_STAYS, VMEM_FAULT_THREAD);
	comes_when_touched(0, VMEM_FAULT_SIGBUS);
	saved_again();
	damage_is_an_error(VMEM_FAULT_THREAD);
	damage_is_an_error(VMEM_FAULT_SIGBUS);
	opening_fails();
	refused();
	within_the_budget(0);
	within_the_budget(VMEM_REGION_SOURCE_STAYS);
	for (unsigned i = 0; i < CPUS; i++)
		vmemt_cpu_stop(&cpu[i]);
	return 0;
}
