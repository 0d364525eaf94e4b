/* SPDX-License-Identifier: BSD-2-Clause */
/* A source that never answers: each page that somebody waits for is lost in its time, asked for or not. */
#include "linux/source_guest.h"
#include "linux/fault/source_load.h"
#include <signal.h>

static uint32_t times_asked(void)
{
	uint32_t count = 0;

	for (unsigned i = 0; i < PAGES_MAX; i++)
		count += atomic_load(&asked[i]);
	return count;
}

/* Pages that nobody has come to ask for are lost in their time, too, whoever waits for them. */
static void all_hang(uint32_t way, uint32_t source_threads)
{
	enum { WAITING = 12 };
	static struct vmemt_page got[WAITING];
	uint32_t lost_before;
	uint64_t pages;

	vmemt_source_make((struct vmemt_source){ .pages = 128,
						 .threads = true,
						 .way = way,
						 .deadline_ms = 100,
						 .source_threads = source_threads });
	assert(!vmem_region_discard(region, GPA + 100 * PAGE, 28 * PAGE, NULL));
	atomic_store(&hold, 1);
	/* One page for each thread, or more where it does not come to ask in time. */
	for (uint64_t page = 12; atomic_load(&held) < source_threads; page++) {
		assert(page < 96);
		vmemt_source_touch(0, page, &got[0]);
		assert(vmemt_touch_end(&cpu[0]) == SIGBUS && cpu[0].answer == -VMEM_EIO);
		assert(vmemt_state(region, page) == VMEM_PAGE_POISONED);
		page += page % 8 == 7; /* those are below */
	}
	assert(atomic_load(&held) == source_threads && times_asked() == source_threads);
	lost_before = atomic_load(&lost);
	for (unsigned i = 0; i < WAITING; i++)
		vmemt_source_touch(i, i * 8, &got[i]);
	for (unsigned i = 0; i < WAITING; i++) {
		assert(vmemt_touch_end(&cpu[i]) == SIGBUS && cpu[i].answer == -VMEM_EIO);
		assert(vmemt_state(region, i * 8) == VMEM_PAGE_POISONED);
	}
	assert(atomic_load(&lost) == lost_before + WAITING);
	assert(atomic_load(&lost_error) == -VMEM_EIO && times_asked() == source_threads);
	/* For calls as for guests. */
	assert(vmem_region_resolve(region, GPA + PAGE, 0) == -VMEM_EIO);
	assert(vmem_region_pin(region, GPA + 2 * PAGE, PAGE) == -VMEM_EIO);
	assert(!vmem_region_fetch(region, GPA + 3 * PAGE, 4 * PAGE, &pages) && !pages);
	assert(atomic_load(&lost) == lost_before + WAITING + 6);
	/* Nobody else suffers, and what was lost heals as ever. */
	vmemt_put(&cpu[0], base, 101, 4);
	assert(vmemt_is(&cpu[1], base, 101, 4));
	assert(!vmem_region_discard(region, GPA, 96 * PAGE, NULL));
	assert(vmemt_is(&cpu[0], base, 8, 0));
	assert(vmem_region_detach(region, VMEM_DETACH_RESTORE) == -VMEM_EIO);
	assert(vmemt_state(region, 96) == VMEM_PAGE_POISONED && !atomic_load(&asked[96]));
	atomic_store(&hold, 0);
	VMEMT_UNTIL(!atomic_load(&held));
	vmemt_source_touch(0, 99, &got[0]); /* in time, but for a slow machine */
	if (!vmemt_touch_end(&cpu[0]))
		assert(vmemt_is(&cpu[0], base, 99, 1));
	vmemt_source_end();
}

static uint64_t times_noted(void)
{
	uint64_t count;

	vmemi_lock(&manager->host.source_lock);
	count = region->source->waiting.count;
	vmemi_unlock(&manager->host.source_lock);
	return count;
}

/* A source that is slow, but gives a page each time that it is noted what is wanted, is waited for. */
static void slow_is_not_late(void)
{
	enum { WAITING = 8 };
	static struct vmemt_page got[WAITING];

	vmemt_source_make((struct vmemt_source){
		.pages = 1024, .threads = true, .deadline_ms = 200, .source_threads = 1 });
	atomic_store(&hold, 1);
	for (unsigned i = 0; i < WAITING; i++)
		vmemt_source_touch(i, i * 100, &got[i]);
	for (uint32_t i = 1; i < WAITING; i++) {
		uint64_t began;

		VMEMT_UNTIL(times_asked() == i);
		began = times_noted();
		VMEMT_UNTIL(times_noted() > began);
		atomic_store(&let_go, 1);
	}
	VMEMT_UNTIL(times_asked() == WAITING);
	atomic_store(&hold, 0);
	for (unsigned i = 0; i < WAITING; i++) /* in time, but for a slow machine */
		assert(!vmemt_touch_end(&cpu[i]) || atomic_load(&lost));
	vmemt_source_end();
}

/* Who waits for a frame waits, whatever the deadline. */
static void starving_is_not_late(void)
{
	const uint64_t pages = 2048;
	static struct vmemt_page got[2];
	uint64_t pinned = 0, began;

	vmemt_source_make((struct vmemt_source){
		.budget = 4 * MIB, .pages = pages, .threads = true, .deadline_ms = 600 });
	assert(!vmem_region_discard(region, GPA, pages / 2 * PAGE, NULL));
	while (pinned < pages / 2 && !vmem_region_pin(region, GPA + pinned * PAGE, PAGE))
		pinned++;
	assert(pinned && pinned < pages / 2); /* there is no frame left */
	vmemt_source_touch(0, pages - 1, &got[0]);
	vmemt_source_touch(1, pages - 70, &got[1]);
	VMEMT_UNTIL(atomic_load(&region->source->stalled_ns));
	began = times_noted();
	VMEMT_UNTIL(times_noted() >= began + 4);
	assert(!atomic_load(&lost) && !atomic_load(&asked[pages - 1]));
	assert(!vmem_region_unpin(region, GPA, pinned * PAGE));
	/* In time, but for a slow machine. */
	assert(!vmemt_touch_end(&cpu[0]) || atomic_load(&lost));
	assert(!vmemt_touch_end(&cpu[1]) || atomic_load(&lost));
	assert(atomic_load(&asked[pages - 1]) || atomic_load(&lost));
	vmemt_source_end();
}

static void *read_held(void *got)
{
	held_alone = true;
	assert(vmem_region_read(region, GPA + 5 * PAGE, got, PAGE) == -VMEM_EIO);
	return NULL;
}

/* Whose source hangs while he reads a page without making it resident keeps nobody from that page. */
static void reader_hangs(void)
{
	static struct vmemt_page got[2];
	pthread_t reader;

	vmemt_source_make(
		(struct vmemt_source){ .pages = 16, .threads = true, .deadline_ms = 300 });
	atomic_store(&hold_one, 1);
	assert(!pthread_create(&reader, NULL, read_held, &got[0]));
	VMEMT_UNTIL(atomic_load(&held) == 1);
	vmemt_source_touch(0, 5, &got[1]);
	assert(!vmemt_touch_end(&cpu[0]) || atomic_load(&lost));
	assert((atomic_load(&held) == 1 && atomic_load(&asked[5]) == 2) || atomic_load(&lost));
	atomic_store(&hold_one, 0);
	assert(!pthread_join(reader, NULL));
	assert(atomic_load(&lost) || vmemt_is(&cpu[0], base, 5, 1));
	vmemt_source_end();
}

int main(void)
{
	vmemt_source_begin();
	all_hang(VMEM_FAULT_THREAD, 1);
	all_hang(VMEM_FAULT_THREAD, 3);
	all_hang(VMEM_FAULT_SIGBUS, 1);
	slow_is_not_late();
	starving_is_not_late();
	reader_hangs();
	vmemt_source_over();
	return 0;
}
