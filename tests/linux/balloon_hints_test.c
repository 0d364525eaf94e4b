/* SPDX-License-Identifier: BSD-2-Clause */
/* Hinted pages of memory of no region: the caller's log of writes says which may go, as in the recipe of
 * <vmem/discard.h>: processors stopped, log fetched, buffers given, ranges discarded. */
#include "linux/balloon_rig.h"
#include "linux/discard/discard_memory.h"
#include <sys/mman.h>
#include <vmem/balloon_host.h>

#define WORDS (PAGES / 64 + 1)
#define LATE (5 * PAGE) /* a word of the log does not begin where the memory does */
#define MODERN (VMEM_VIRTIO_F_VERSION_1 | VMEM_BALLOON_F_FREE_PAGE_HINT)

/* A log of writes, as a hypervisor keeps it: word i is pages 64 i .. from GPA on. */
static struct {
	uint64_t bits[WORDS];
	int begun, ended, fail;
} writes;

static int log_begin(void *context)
{
	(void)context;
	memset(writes.bits, 0, sizeof(writes.bits));
	writes.begun += !writes.fail;
	return writes.fail;
}

static uint64_t log_unwritten(void *context, uint64_t first)
{
	uint64_t word = (first - GPA / PAGE) / 64;

	(void)context;
	assert(first % 64 == 0 && word < WORDS);
	return ~writes.bits[word];
}

static void log_end(void *context)
{
	(void)context;
	writes.ended++;
}

static const struct vmem_balloon_guard write_log = {
	.size = sizeof(write_log), .begin = log_begin, .unwritten = log_unwritten, .end = log_end
};
static vmem_discard *discarder;
static vmem_balloon *balloon;
static unsigned char *base;

/* The guest writes to a page. */
static void put(uint64_t page, unsigned char value)
{
	uint64_t bit = page + LATE / PAGE;

	memset(base + page * PAGE, value, PAGE);
	writes.bits[bit / 64] |= UINT64_C(1) << bit % 64;
}

static bool holds(uint64_t page, unsigned char value)
{
	return base[page * PAGE] == value &&
	       !memcmp(base + page * PAGE, base + page * PAGE + 1, PAGE - 1);
}

static uint64_t pin_of;

static uint64_t pinned(void *context, uint64_t gpa)
{
	uint64_t first = (gpa - GPA - LATE) / PAGE;

	(void)context;
	return pin_of - first < 64 ? UINT64_C(1) << (pin_of - first) : 0;
}

static void make(void)
{
	const struct vmem_discard_opts o = { .size = sizeof(o),
					     .guard = &write_log,
					     .pinned = pinned };
	struct vmem_discard_piece p = { .size = sizeof(p),
					.gpa = GPA + LATE,
					.bytes = PAGES * PAGE,
					.kind = VMEM_DISCARD_PRIVATE };
	struct vmem_balloon_guard guard = { .size = sizeof(guard) };
	const struct vmem_balloon_opts bo = { .size = sizeof(bo),
					      .features = MODERN,
					      .guard = &guard };
	uint32_t status;

	memset(&writes, 0, sizeof(writes));
	pin_of = UINT64_MAX;
	p.hva = base = mapped(PAGES, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert(!vmem_discard_new(&discarder, &o) && !vmem_discard_add(discarder, &p));
	assert(!vmem_discard_get_guard(discarder, &guard));
	assert(!vmem_balloon_new(&balloon, &bo));
	assert(!vmem_balloon_add_ram(balloon, GPA + LATE, PAGES * PAGE, PAGE));
	vmem_balloon_set_status(balloon, 3, NULL);
	assert(!vmem_balloon_set_features(balloon, MODERN));
	vmem_balloon_set_status(balloon, VMEM_VIRTIO_FEATURES_OK, NULL);
	vmem_balloon_set_status(balloon, VMEM_VIRTIO_DRIVER_OK, &status);
	assert(status & VMEM_VIRTIO_DRIVER_OK);
	for (uint64_t i = 0; i < PAGES; i++)
		put(i, 1);
}

static void unmake(void)
{
	vmem_balloon_free(balloon);
	vmem_discard_free(discarder);
	assert(!munmap(base, PAGES * PAGE));
	assert(writes.begun == writes.ended);
}

static int give(const void *bytes, uint64_t first, uint64_t pages)
{
	const struct vmem_balloon_piece piece = { .gpa = GPA + LATE + first * PAGE,
						  .bytes = pages * PAGE };
	const struct vmem_balloon_buffer buffer = { .size = sizeof(buffer),
						    .queue = VMEM_BALLOON_HINT,
						    .bytes = bytes,
						    .count = bytes ? sizeof(uint32_t) : 0,
						    .pieces = &piece,
						    .piece_count = pages != 0 };

	return vmem_balloon_give(balloon, &buffer);
}

static void start_hints(void)
{
	uint32_t id;

	assert(!vmem_balloon_hint_start(balloon));
	assert(!vmem_balloon_config_read(balloon, VMEM_BALLOON_CONFIG_HINT_ID, &id, sizeof(id)));
	assert(!give(&id, 0, 0));
}

/* What was written before it was hinted stays; so does what is written until it is discarded, and what is pinned. */
static void hints(void)
{
	const uint64_t stay[] = { 3, 9, 20, 70, PAGES - 1 }; /* 9 late, 20 pinned */
	const uint64_t stays = sizeof(stay) / sizeof(*stay);
	struct vmem_discard_counts c;
	uint64_t n = 0;

	make();
	start_hints();
	put(3, 2);
	put(70, 2);
	put(PAGES - 1, 2);
	assert(!give(NULL, 0, PAGES));
	put(9, 2);
	pin_of = 20;
	assert(vmem_discard_drain(discarder, balloon) == -VMEM_EBUSY);
	for (uint64_t i = 0; i < PAGES; i++) {
		if (n < stays && stay[n] == i)
			assert(holds(i, stay[n++] == 20 ? 1 : 2));
		else
			assert(is_zero(base + i * PAGE));
	}
	c = metrics(discarder).hinted;
	assert(c.asked == (PAGES - 3) * PAGE && c.written == PAGE && c.pinned == PAGE);
	assert(c.released == (PAGES - stays) * PAGE && !c.failed && !c.outside);
	vmem_balloon_hint_stop(balloon);
	assert(writes.ended == 1);
	unmake();
}

/* Pages that were used again are not free, and without hints none is. */
static void used_again(void)
{
	const struct vmem_balloon_range r = { .gpa = GPA + LATE,
					      .bytes = PAGES * PAGE,
					      .operation = VMEM_BALLOON_DISCARD_HINTED };

	make();
	assert(!vmem_discard_ranges(discarder, &r, 1, NULL) && holds(0, 1));
	assert(metrics(discarder).hinted.written == PAGES * PAGE);
	start_hints();
	assert(!give(NULL, 0, 100) && !vmem_discard_drain(discarder, balloon));
	assert(present(base, PAGES) == PAGES - 100);
	put(50, 3);
	assert(!give(NULL, 0, 101) && !vmem_discard_drain(discarder, balloon));
	assert(holds(50, 3) && present(base, PAGES) == PAGES - 100);
	unmake(); /* while they run: the log is told */
}

/* Parts of any length, and where they begin and end in the words of the log. */
static void parts(void)
{
	const struct vmemi_piece *p;

	make();
	start_hints();
	p = &discarder->piece[0];
	put(100, 2);
	assert(vmemi_discard_is_unwritten(discarder, p, 0, 100 * PAGE));
	assert(!vmemi_discard_is_unwritten(discarder, p, 0, 101 * PAGE));
	assert(!vmemi_discard_is_unwritten(discarder, p, 100 * PAGE, PAGE));
	assert(vmemi_discard_is_unwritten(discarder, p, 101 * PAGE, (PAGES - 101) * PAGE));
	unmake();
}

/* Without a log hinting does not begin; with one that fails neither, and then nothing is watched. */
static void refused(void)
{
	vmem_manager *manager = vmemt_manager(0);
	vmem_region *region = vmemt_region(manager, 64 * PAGE, PAGES, VMEM_REGION_DMA_PINNED);
	struct vmem_balloon_guard guard = { .size = sizeof(guard) }, half = write_log;
	const struct vmem_discard_opts o = { .size = sizeof(o), .guard = &half };
	vmem_discard *d;

	half.end = NULL;
	assert(vmem_discard_new(&d, &o) == -VMEM_EINVAL);
	d = made(NULL);
	base = mapped(PAGES, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	add(d,
	    &(struct vmem_discard_piece){
		    .gpa = GPA, .bytes = PAGES * PAGE, .kind = VMEM_DISCARD_PRIVATE, .hva = base });
	assert(!vmem_discard_get_guard(d, &guard));
	assert(guard.begin(guard.context) == -VMEM_ENOTSUP);
	vmem_discard_free(d);
	assert(!munmap(base, PAGES * PAGE));

	make();
	add(discarder,
	    &(struct vmem_discard_piece){ .kind = VMEM_DISCARD_REGION, .region = region });
	writes.fail = -VMEM_ENOSPC;
	assert(vmem_balloon_hint_start(balloon) == -VMEM_ENOSPC);
	writes.fail = 0;
	assert(!vmem_balloon_hint_start(balloon) && writes.begun == 1);
	vmem_balloon_hint_stop(balloon);
	unmake();
	vmemt_end(manager, region);
}

int main(void)
{
	hints();
	used_again();
	parts();
	refused();
	return 0;
}
