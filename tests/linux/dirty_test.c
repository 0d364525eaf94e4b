/* SPDX-License-Identifier: BSD-2-Clause */
/* Live migration: which pages a round tells; and a copy that is kept up while the guest writes, reclaim takes pages
 * out, and the VMM writes, discards, stages and stores: after the last round it is equal. */
#include "linux/guest.h"
#include "support/slow.h"
#include <sched.h>
#include <vmem/snapshot.h>
#include <vmem/source.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
#define GPA (UINT64_C(7) << 30)

static struct vmemt_cpu cpu;

/* --- One page after another --- */

#define FEW 128

static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;
static uint8_t told[FEW];
static unsigned stop_at; /* the call that fails; 0: none */

static int note(void *context, uint64_t gpa, uint64_t bytes)
{
	unsigned *calls = context;

	if (++*calls == stop_at)
		return -VMEM_EBUSY;
	for (uint64_t page = (gpa - GPA) / PAGE; page < (gpa - GPA + bytes) / PAGE; page++)
		told[page]++;
	return 0;
}

/* A round tells the pages of @list, which ends with -1, and no others. */
static void tells(const int *list)
{
	uint64_t pages = 0, want = 0;
	unsigned calls = 0;

	memset(told, 0, sizeof(told));
	assert(!vmem_region_dirty_round(region, GPA, FEW * PAGE, note, &calls, &pages));
	for (; *list >= 0; list++, want++) {
		assert(told[*list] == 1);
		told[*list] = 0;
	}
	for (unsigned page = 0; page < FEW; page++)
		assert(!told[page]);
	assert(pages == want);
}

#define TELLS(...) tells((const int[]){ __VA_ARGS__, -1 })

static void touch(enum vmemt_touch how, uint64_t page)
{
	uint64_t word = page;

	assert(!vmemt_touch_step(&cpu, how, base + page * PAGE, &word, 8, manager));
}

static uint64_t gpa_of(uint64_t page)
{
	return GPA + page * PAGE;
}

/* Pages that are written while others of their neighbourhood leave by copy and discard. */
static void beside_scattered(void)
{
	uint64_t gpas[8], pages = 0;

	for (unsigned i = 0; i < 8; i++)
		touch(VMEMT_WRITE, 64 + 5 * i);
	TELLS(64, 69, 74, 79, 84, 89, 94, 99);
	for (unsigned i = 0; i < 8; i += 2)
		gpas[i / 2] = gpa_of(64 + 5 * i);
	assert(!vmem_region_stage_pages(region, gpas, 4, &pages) && pages == 4);
	touch(VMEMT_WRITE, 69);
	touch(VMEMT_READ, 79);
	touch(VMEMT_READ, 84); /* which has left */
	TELLS(69);
	touch(VMEMT_WRITE, 84);
	touch(VMEMT_WRITE, 79);
	TELLS(79, 84);
}

static void what_a_round_tells(uint64_t flags)
{
	struct vmemt_page p;
	unsigned calls = 0;
	uint64_t pages = 77;

	manager = vmemt_manager(0);
	region = vmemt_region(manager, GPA, FEW, flags);
	base = vmem_region_hva(region);
	cpu.region = region;
	assert(vmem_region_dirty_round(region, GPA, PAGE, note, &calls, NULL) == -VMEM_EINVAL);
	assert(vmem_region_dirty_mark(region, GPA, PAGE) == -VMEM_EINVAL);
	assert(vmem_region_dirty_stop(region) == -VMEM_EINVAL);
	for (uint64_t page = 0; page < 10; page++)
		vmemt_make(&p, page, 1), assert(!vmem_region_write(region, gpa_of(page), &p, PAGE));
	vmemt_store(region, 9, 1);
	assert(!vmem_region_dirty_start(region));
	assert(vmem_region_dirty_start(region) == -VMEM_EBUSY);
	TELLS(0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
	TELLS(-1);
	touch(VMEMT_READ, 2);
	touch(VMEMT_WRITE, 3);
	touch(VMEMT_READ, 20);
	touch(VMEMT_WRITE, 21);
	TELLS(3, 21);
	/* What came by a read comes protected, from wherever. */
	touch(VMEMT_WRITE, 20);
	vmemt_stage(region, 4, 2);
	vmemt_store(region, 6, 2);
	touch(VMEMT_READ, 4);
	touch(VMEMT_READ, 6);
	TELLS(20);
	for (uint64_t page = 4; page < 8; page++)
		touch(VMEMT_WRITE, page);
	TELLS(4, 5, 6, 7);
	/* Away, and changed before that. */
	touch(VMEMT_WRITE, 4);
	vmemt_store(region, 4, 1);
	TELLS(4);
	/* By the VMM. */
	assert(!vmem_region_discard(region, gpa_of(8), PAGE, NULL));
	assert(!vmem_region_write(region, gpa_of(0), &p, PAGE));
	assert(!vmem_region_write(region, gpa_of(4), &p, PAGE));
	assert(!vmem_region_write(region, gpa_of(30), &p, PAGE));
	assert(!vmem_region_dirty_mark(region, gpa_of(40), 1));
	TELLS(0, 4, 8, 30, 40);
	assert(!vmem_region_resolve(region, gpa_of(1), 1));
	((volatile unsigned char *)base)[1 * PAGE] = 1; /* nobody serves a fault now */
	assert(!vmem_region_pin(region, gpa_of(2), PAGE));
	((volatile unsigned char *)base)[2 * PAGE] = 1;
	TELLS(1, 2);
	((volatile unsigned char *)base)[2 * PAGE] = 2;
	TELLS(2);
	assert(!vmem_region_unpin(region, gpa_of(2), PAGE));
	TELLS(2);
	TELLS(-1);
	/* Fetched: it comes writable. Forgotten: it reads as zero from then on. */
	assert(vmemt_state(region, 9) == VMEM_PAGE_STORED);
	assert(!vmem_region_fetch(region, gpa_of(9), PAGE, NULL));
	((volatile unsigned char *)base)[9 * PAGE] = 1;
	TELLS(9);
	vmemt_store(region, 9, 1);
	TELLS(-1);
	assert(!vmem_region_will_overwrite(region, gpa_of(9), PAGE, NULL));
	TELLS(9);
	beside_scattered();
	/* What was not taken over stays. */
	touch(VMEMT_WRITE, 3);
	touch(VMEMT_WRITE, 5);
	touch(VMEMT_WRITE, 6);
	stop_at = 2;
	assert(vmem_region_dirty_round(region, GPA, FEW * PAGE, note, &calls, &pages) ==
		       -VMEM_EBUSY &&
	       pages == 77);
	stop_at = 0;
	TELLS(5, 6);
	/* A part of the region. */
	touch(VMEMT_WRITE, 3);
	touch(VMEMT_WRITE, 70);
	memset(told, 0, sizeof(told));
	assert(!vmem_region_dirty_round(region, gpa_of(66), 10 * PAGE, note, &calls, &pages));
	assert(pages == 1 && told[70] == 1);
	TELLS(3);
	/* Tracked no longer: nobody serves a fault, and none is needed. */
	assert(!vmem_region_dirty_stop(region));
	for (uint64_t page = 5; page < 8; page++)
		((volatile unsigned char *)base)[page * PAGE] = 3;
	assert(!vmem_region_dirty_start(region));
	assert(!vmem_region_dirty_stop(region));
	vmemt_end(manager, region);
}

static int give(void *context, uint64_t gpa, void *buffer)
{
	(void)context;
	memset(buffer, (int)(gpa / PAGE % 128), PAGE);
	return 0;
}

/* It was absent, and told as that; now it has other bytes. */
static void what_goes_to_its_source(void)
{
	struct vmem_region_opts o = {
		.size = sizeof(o), .gpa = GPA, .bytes = FEW * PAGE, .read_source = give
	};

	manager = vmemt_manager(0);
	assert(!vmemt_alloc(&region, manager, &o));
	base = vmem_region_hva(region);
	cpu.region = region;
	assert(!vmem_region_dirty_start(region));
	touch(VMEMT_WRITE, 3);
	TELLS(3);
	assert(!vmem_region_discard(region, gpa_of(3), PAGE, NULL));
	TELLS(3);
	TELLS(-1);
	assert(!vmem_region_set_source(region, gpa_of(3), PAGE));
	TELLS(3);
	assert(!vmem_region_dirty_stop(region));
	vmemt_end(manager, region);
}

/* --- A copy that is kept up --- */

#define PAGES 3072u
#define OTHERS 512u /* of them the VMM's own */

static unsigned char *copy;
static _Atomic uint32_t stop;
static _Atomic uint64_t writes;

/* Without ThreadSanitizer's eyes: that pages are read while they are written is the matter of the test. */
__attribute__((no_sanitize("thread"))) static void stamp(uint64_t page, uint64_t value)
{
	volatile uint64_t *words = (volatile uint64_t *)(void *)(base + page * PAGE);

	/* Some do not compress: the store refuses them, and they are put back. Few, as they must all fit. */
	bool noise = page % 8 == 0 && value % 2;
	uint64_t rng = value;

	for (unsigned i = 0; i < PAGE / 8; i += noise ? 1 : 7)
		words[i] = noise ? vmemt_rand(&rng) : value + i;
}

static void *guest(void *argument)
{
	uint64_t rng = *(uint64_t *)argument;

	while (!atomic_load(&stop)) {
		uint64_t dice = vmemt_rand(&rng);
		uint64_t page = dice % 4 ? dice / 4 % 64 : dice / 4 % (PAGES - OTHERS);

		stamp(page, dice);
		atomic_fetch_add(&writes, 1);
	}
	return NULL;
}

static void *vmm(void *argument)
{
	uint64_t rng = *(uint64_t *)argument + 1;

	while (!atomic_load(&stop)) {
		uint64_t dice = vmemt_rand(&rng), page = dice / 8 % PAGES;
		uint64_t own = PAGES - OTHERS + dice / 8 % OTHERS, n = 1 + dice / 65536 % 48;
		struct vmemt_page p;

		n = n < PAGES - page ? n : PAGES - page;
		switch (dice % 8) {
		case 0: assert(!vmem_region_discard(region, gpa_of(own), PAGE, NULL)); break;
		case 1:
			vmemt_page_make(&p, VMEMT_PAGE_TEXT, dice);
			assert(!vmem_region_write(region, gpa_of(own), &p, PAGE));
			break;
		case 2:
			if (!vmem_region_pin(region, gpa_of(own), PAGE)) {
				memset(base + own * PAGE, (int)(dice >> 40), PAGE);
				assert(!vmem_region_unpin(region, gpa_of(own), PAGE));
			}
			break;
		case 3:
			assert(!vmem_region_stage(region, gpa_of(page), n * PAGE, NULL));
			assert(!vmem_region_store(region, gpa_of(page), n * PAGE, NULL));
			break;
		case 4: assert(!vmem_region_resolve(region, gpa_of(own), 0)); break;
		default: assert(!vmem_region_stage(region, gpa_of(page), n * PAGE, NULL)); break;
		}
	}
	return NULL;
}

static int send(void *context, uint64_t gpa, uint64_t bytes)
{
	(void)context;
	return vmem_region_read(region, gpa, copy + (gpa - GPA), bytes);
}

static void a_copy_is_kept_up(uint64_t flags, uint64_t seed)
{
	struct vmem_region_opts o = {
		.size = sizeof(o), .flags = flags, .gpa = GPA, .bytes = PAGES * PAGE
	};
	pthread_t threads[3];
	struct vmemt_page p;
	uint64_t pages, seeds[2] = { seed, seed * 3 };

	manager = vmemt_manager(8 * MIB);
	assert(!vmemt_alloc(&region, manager, &o));
	base = vmem_region_hva(region);
	copy = calloc(PAGES, PAGE);
	assert(copy && !vmem_manager_thread_start(manager));
	atomic_store(&stop, 0);
	assert(!pthread_create(&threads[0], NULL, guest, &seeds[0]));
	assert(!pthread_create(&threads[1], NULL, guest, &seeds[1]));
	assert(!vmem_region_dirty_start(region));
	assert(!pthread_create(&threads[2], NULL, vmm, &seeds[0]));
	for (unsigned round = 0; round < (VMEMT_SLOW ? 10 : 30); round++) {
		assert(!vmem_region_dirty_round(region, GPA, PAGES * PAGE, send, NULL, &pages));
		vmemt_until_more(&writes, 200);
	}
	atomic_store(&stop, 1);
	for (unsigned i = 0; i < 3; i++)
		assert(!pthread_join(threads[i], NULL));
	assert(!vmem_region_quiesce(region));
	assert(!vmem_region_dirty_round(region, GPA, PAGES * PAGE, send, NULL, &pages));
	for (uint64_t page = 0; page < PAGES; page++) {
		assert(!vmem_region_read(region, gpa_of(page), &p, PAGE));
		assert(!memcmp(&p, copy + page * PAGE, PAGE));
	}
	assert(!vmem_region_dirty_round(region, GPA, PAGES * PAGE, send, NULL, &pages) && !pages);
	assert(!vmem_region_resume(region));
	assert(!vmem_region_dirty_stop(region));
	free(copy);
	vmemt_end(manager, region);
}

int main(void)
{
	uint64_t seed = vmemt_seed("dirty");

	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP);
	vmemt_cpu_start(&cpu);
	what_a_round_tells(0);
	what_a_round_tells(VMEM_REGION_DMA_PINNED);
	what_goes_to_its_source();
	a_copy_is_kept_up(0, seed);
	a_copy_is_kept_up(VMEM_REGION_DMA_PINNED, seed);
	vmemt_cpu_stop(&cpu);
	return 0;
}
