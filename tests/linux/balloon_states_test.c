/* SPDX-License-Identifier: BSD-2-Clause */
/* What a guest gives up leaves a region wherever it is: in place, staged, stored, with a source, poisoned. What is
 * pinned goes when it is not pinned any more, if the balloon has it still. And what a hostile guest makes of it. */
#include "linux/balloon_region.h"
#include "support/slow.h"
#include <vmem/balloon_host.h>
#include <vmem/source.h>

#define PAGES 512u

static vmem_balloon *balloon;

static int give(void *context, uint64_t gpa, void *buffer)
{
	(void)context;
	vmemt_make(buffer, gpa / PAGE, 1);
	return 0;
}

static void start(uint64_t features)
{
	uint32_t status;

	vmem_balloon_set_status(balloon, 0, NULL);
	vmem_balloon_set_status(balloon, 3, NULL);
	assert(!vmem_balloon_set_features(balloon, features));
	vmem_balloon_set_status(balloon, 3 | VMEM_VIRTIO_FEATURES_OK, NULL);
	vmem_balloon_set_status(balloon, 3 | VMEM_VIRTIO_FEATURES_OK | VMEM_VIRTIO_DRIVER_OK,
				&status);
	assert(status & VMEM_VIRTIO_DRIVER_OK);
}

#define TELL (VMEM_VIRTIO_F_VERSION_1 | VMEM_BALLOON_F_MUST_TELL_HOST)
#define FEATURES (TELL | VMEM_BALLOON_F_PAGE_REPORTING)

static void make(uint64_t budget)
{
	const struct vmem_balloon_opts bo = { .size = sizeof(bo), .features = FEATURES };
	struct vmem_region_opts o = { .size = sizeof(o),
				      .flags = VMEM_REGION_DMA_PINNED,
				      .bytes = PAGES * PAGE,
				      .fault_around_pages = 1,
				      .fault_deadline_ms = 3600000,
				      .read_source = give };

	manager = vmemt_manager(budget);
	assert(!vmemt_alloc(&region, manager, &o));
	assert(!vmem_manager_thread_start(manager));
	assert(!vmem_discard_new(&discard, NULL));
	join(0);
	assert(!vmem_balloon_new(&balloon, &bo));
	assert(!vmem_balloon_add_ram(balloon, 0, PAGES * PAGE, PAGE));
	start(FEATURES);
}

static void end(void)
{
	vmem_balloon_free(balloon);
	unmake();
}

/* What a device does with a buffer. The last error of what was carried out. */
static int tell(uint32_t queue, const uint32_t *gfns, size_t count)
{
	struct vmem_balloon_buffer b = {
		.size = sizeof(b), .queue = queue, .bytes = gfns, .count = count * sizeof(*gfns)
	};
	struct vmem_balloon_done done;
	int error = 0, got, drained;

	while ((got = vmem_balloon_give(balloon, &b)) == -VMEM_EAGAIN) {
		drained = vmem_discard_drain(discard, balloon);
		error = drained ? drained : error;
		while (vmem_balloon_take_done(balloon, &done))
			;
	}
	assert(!got);
	drained = vmem_discard_drain(discard, balloon);
	while (vmem_balloon_take_done(balloon, &done))
		;
	return drained ? drained : error;
}

static int inflate(uint32_t first, uint32_t count)
{
	uint32_t gfns[PAGES];

	for (uint32_t i = 0; i < count; i++)
		gfns[i] = first + i;
	return tell(VMEM_BALLOON_INFLATE, gfns, count);
}

static int report(uint64_t first, uint64_t count)
{
	const struct vmem_balloon_piece piece = { .gpa = first * PAGE, .bytes = count * PAGE };
	struct vmem_balloon_buffer b = {
		.size = sizeof(b), .queue = VMEM_BALLOON_REPORT, .pieces = &piece, .piece_count = 1
	};
	struct vmem_balloon_done done;
	int error;

	assert(!vmem_balloon_give(balloon, &b));
	error = vmem_discard_drain(discard, balloon);
	assert(vmem_balloon_take_done(balloon, &done));
	return error;
}

/* Eight pages in each state that a test can bring about, from @first on. */
static void bring_about(uint64_t first)
{
	for (uint64_t i = 0; i < 40; i++)
		vmemt_put(&cpu, base, first + i, 1);
	vmemt_stage(region, first + 8, 8);
	vmemt_store(region, first + 16, 16);
	for (uint64_t i = 24; i < 32; i++)
		assert(vmemt_is(&cpu, base, first + i, 1));
	/* Those from 32 on were away, and are in place with what they were stored as. */
	vmemt_store(region, first + 32, 8);
	vmemt_put(&cpu, base, first + 32, 2);
	assert(!vmem_region_set_source(region, (first + 40) * PAGE, 8 * PAGE));
}

static void nothing_is_left(uint64_t first, uint64_t count)
{
	for (uint64_t i = first; i < first + count; i++) {
		assert(vmemt_state(region, i) == VMEM_PAGE_ABSENT);
		assert(!vmemt_mapped(base + i * PAGE));
	}
}

/* Nothing of them stays: not in place, not staged, not in the store. */
static void all_states(bool reported)
{
	struct vmem_discard_metrics d;

	make(0);
	bring_about(0);
	if (reported)
		assert(!report(0, 56));
	else
		assert(!inflate(0, 56)); /* with eight that were never there */
	nothing_is_left(0, 56);
	d = metrics();
	assert((reported ? d.reported : d.inflated).asked == 56 * PAGE);
	assert((reported ? d.reported : d.inflated).released > 24 * PAGE);
	assert(!d.inflated.failed && !d.reported.failed);
	VMEMT_UNTIL(!vmemt_manager_metrics(manager).staging_bytes);
	VMEMT_UNTIL(!vmemt_account(region).pages);
	for (uint64_t i = 0; i < 56; i++)
		assert(vmemt_is(&cpu, base, i, 0));
	end();
}

/* What a region releases is what its budget is relieved of, pages that were only read among it. */
static void only_read(void)
{
	uint64_t used;

	make(0);
	for (uint64_t i = 0; i < 8; i++)
		assert(vmemt_is(&cpu, base, i, 0));
	used = vmemt_manager_metrics(manager).resident_bytes;
	assert(!inflate(0, 16) && metrics().inflated.released == 8 * PAGE);
	assert(vmemt_manager_metrics(manager).resident_bytes == used - 8 * PAGE);
	end();
}

/* --- What is pinned --- */

static void pinned(void)
{
	const uint32_t back[] = { 3, 4 };
	uint32_t held = 0;

	make(0);
	for (uint64_t i = 0; i < 16; i++)
		vmemt_put(&cpu, base, i, 1);
	assert(!vmem_region_pin(region, 2 * PAGE, 4 * PAGE)); /* 2 to 5 */
	assert(inflate(0, 8) == -VMEM_EBUSY);
	assert(metrics().inflated.pinned == 4 * PAGE && metrics().inflated.released == 4 * PAGE);
	for (uint64_t i = 2; i < 6; i++)
		assert(vmemt_is(&cpu, base, i, 1));
	assert(vmem_discard_retry(discard, balloon) == -VMEM_EAGAIN);
	assert(metrics().retried.pinned == 4 * PAGE && !metrics().retried.released);

	/* Two come back out of the balloon: they are the guest's, and so is what is in them. */
	assert(!tell(VMEM_BALLOON_DEFLATE, back, 2));
	assert(!vmem_region_unpin(region, 2 * PAGE, 3 * PAGE)); /* 5 is pinned still */
	assert(vmem_discard_retry(discard, balloon) == -VMEM_EAGAIN);
	assert(metrics().retried.released == PAGE);
	nothing_is_left(0, 3);
	for (uint64_t i = 3; i < 6; i++)
		assert(vmemt_is(&cpu, base, i, 1));
	assert(!vmem_region_unpin(region, 5 * PAGE, PAGE));
	assert(!vmem_discard_retry(discard, balloon));
	nothing_is_left(5, 3);
	assert(vmemt_is(&cpu, base, 3, 1) && vmemt_is(&cpu, base, 4, 1));
	assert(!vmem_discard_retry(discard, balloon) && metrics().retried.released == 2 * PAGE);

	/* A driver that may use pages before it tells is not asked to bear that. */
	assert(!vmem_region_pin(region, 10 * PAGE, PAGE));
	start(VMEM_VIRTIO_F_VERSION_1);
	held = 10;
	assert(tell(VMEM_BALLOON_INFLATE, &held, 1) == -VMEM_EBUSY);
	assert(!vmem_region_unpin(region, 10 * PAGE, PAGE));
	assert(vmem_discard_retry(discard, balloon) == -VMEM_EPERM);
	assert(vmemt_is(&cpu, base, 10, 1));
	/* After a reset nothing is in the balloon, and nothing is discarded. */
	start(FEATURES);
	assert(!vmem_discard_retry(discard, balloon) && vmemt_is(&cpu, base, 10, 1));
	end();
}

/* What was only reported may be in use again, and is not tried again: nor is what went, because of it. */
static void reported_and_pinned(void)
{
	make(0);
	for (uint64_t i = 0; i < 16; i++)
		vmemt_put(&cpu, base, i, 1);
	assert(!inflate(4, 1));
	assert(!vmem_region_pin(region, 2 * PAGE, PAGE));
	assert(!vmem_region_pin(region, 6 * PAGE, PAGE));
	assert(report(0, 8) == -VMEM_EBUSY && metrics().reported.pinned == 2 * PAGE);
	assert(!vmem_discard_retry(discard, balloon) && !metrics().retried.asked);
	assert(!vmem_region_unpin(region, 2 * PAGE, PAGE));
	assert(!vmem_region_unpin(region, 6 * PAGE, PAGE));
	end();
}

/* --- A hostile guest, beside one that works --- */

static _Atomic int stop; /* atomic */
static _Atomic uint64_t rounds;

/* Uses the upper half of the pages, of which the driver gives up none; all must stay what they are. */
static void *worker(void *context)
{
	uint64_t number[PAGES] = { 0 }, seed = *(uint64_t *)context;

	while (!atomic_load(&stop)) {
		uint64_t page = PAGES / 2 + vmemt_rand(&seed) % (PAGES / 2);
		_Atomic uint64_t *word = (_Atomic uint64_t *)(void *)(base + page * PAGE);

		assert(atomic_load(word) == number[page]);
		atomic_store(word, number[page] = vmemt_rand(&seed));
		atomic_fetch_add(&rounds, 1);
	}
	return NULL;
}

/* Any page number, but those of the worker. */
static uint32_t any(uint64_t *seed)
{
	uint32_t n = (uint32_t)vmemt_rand(seed);

	switch (n % 4) {
	case 0: return (n >> 8) % PAGES % (PAGES / 2);
	case 1: return PAGES + (n >> 8) % 64;
	case 2: return UINT32_MAX - (n >> 8) % 64;
	default: return (n >> 8) % 40;
	}
}

static void one_step(uint64_t *seed)
{
	uint32_t gfns[64];
	uint64_t page = vmemt_rand(seed) % (PAGES / 2), count = 1 + vmemt_rand(seed) % 16;

	switch (vmemt_rand(seed) % 8) {
	case 0:
	case 1:
	case 2:
	case 3:
		for (unsigned i = 0; i < 64; i++)
			gfns[i] = any(seed);
		tell(vmemt_rand(seed) % 3 ? VMEM_BALLOON_INFLATE : VMEM_BALLOON_DEFLATE, gfns,
		     1 + vmemt_rand(seed) % 64);
		return;
	case 4: assert(!report(page, count < PAGES / 2 - page ? count : 1)); return;
	case 5:
		if (!vmem_region_pin(region, page * PAGE, PAGE)) {
			for (unsigned i = 0; i < 64; i++)
				gfns[i] = (uint32_t)page;
			tell(VMEM_BALLOON_INFLATE, gfns, 64);
			assert(!vmem_region_unpin(region, page * PAGE, PAGE));
		}
		return;
	case 6:
		assert(vmem_discard_retry(discard, balloon) != -VMEM_EPERM);
		if (vmemt_rand(seed) % 16 == 0)
			start(FEATURES);
		return;
	default:
		vmem_region_stage(region, page * PAGE, count * PAGE, NULL);
		vmem_region_store(region, page * PAGE, count * PAGE, NULL);
		vmemt_touch(&cpu, VMEMT_WRITE, base + page * PAGE, &page, sizeof(page));
	}
}

static void hostile(void)
{
	uint64_t seed = vmemt_seed("balloon_states"), mine = seed + 1;
	struct vmem_balloon_counters c = { .size = sizeof(c) };
	pthread_t thread;

	make(0);
	assert(!pthread_create(&thread, NULL, worker, &mine));
	for (unsigned i = 0; i < (VMEMT_SLOW ? 300 : 3000); i++)
		one_step(&seed);
	VMEMT_UNTIL(atomic_load(&rounds) > 100);
	atomic_store(&stop, 1);
	assert(!pthread_join(thread, NULL));
	assert(!vmem_balloon_get_counters(balloon, &c));
	assert(c.outside && c.inflated_twice && c.not_inflated);
	assert(metrics().inflated.released && metrics().inflated.pinned);
	/* All that the balloon has is gone, once nothing is pinned. */
	assert(!vmem_discard_retry(discard, balloon));
	end();
}

int main(void)
{
	vmemt_need(0);
	vmemt_cpu_start(&cpu);
	all_states(false);
	all_states(true);
	only_read();
	pinned();
	reported_and_pinned();
	hostile();
	vmemt_cpu_stop(&cpu);
	return 0;
}
