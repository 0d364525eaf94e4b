/* SPDX-License-Identifier: BSD-2-Clause */
/* Regions saved and loaded: every byte and every place of a page, within the budget, while another guest runs;
 * errors of the caller at each call; damaged and hostile streams. */
#include "linux/fault/serve.h"
#include "linux/guest.h"
#include "linux/snapshot_tape.h"
#include "support/slow.h"
#include <sched.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
#define GPA (UINT64_C(5) << 30)

static struct vmemt_cpu cpu;

static void states_of(vmem_region *r, uint8_t *states)
{
	for (uint64_t page = 0; page < r->pages; page++)
		states[page] = (uint8_t)vmemt_state(r, page);
}

static struct vmem_snapshot_stats new_stats(void)
{
	return (struct vmem_snapshot_stats){ .size = sizeof(struct vmem_snapshot_stats) };
}

/* --- Whole --- */

#define SMALL 600 /* pages */

static void pages_and_places(void)
{
	vmem_manager *m = vmemt_manager(0), *other = vmemt_manager(0);
	vmem_region *r = vmemt_region(m, GPA, SMALL, 0), *copy = vmemt_region(other, GPA, SMALL, 0);
	struct vmem_snapshot_stats saved = new_stats(), loaded = new_stats();
	static uint8_t before[SMALL], after[SMALL];
	struct vmemt_tape tape, again;
	uint64_t lost = 1; /* in a run that was not touched */
	struct vmemt_page p;

	vmemt_tape_init(&tape);
	vmemt_tape_init(&again);
	vmemt_some_fill(r, SMALL, 7);
	/* Noise is refused by the store, and stays; what is staged comes back stored. */
	for (uint64_t page = 0; page < SMALL; page += 30) {
		vmemt_store(r, page + 9, 3);
		vmemt_stage(r, page + 12, 3);
		vmemt_store(r, page + 4, 1);
		vmemt_store(r, page + 8, 1);
	}
	assert(vmemi_serve_lose(r, lost, -VMEM_EIO) == VMEMI_POISONED);
	states_of(r, before);
	assert(vmemt_tape_save(&tape, r, 0, &saved) == -VMEM_EIO);
	assert(!vmemt_tape_save(&tape, r, VMEM_SNAPSHOT_LOST_TOO, &saved));
	states_of(r, after);
	assert(!memcmp(before, after, SMALL) && saved.stream_bytes == tape.size);
	assert(saved.pages_lost == 1 && saved.pages == SMALL / 30 * 12 &&
	       saved.pages_same == SMALL / 30 * 6);

	assert(!vmemt_tape_load(&tape, copy, &loaded));
	assert(loaded.pages_lost == 1 && loaded.pages == saved.pages &&
	       loaded.pages_same == saved.pages_same && loaded.stream_bytes == tape.size);
	assert(loaded.pages_in_place == saved.pages_in_place);
	assert(tape.size < saved.pages * (PAGE + 8) + (SMALL / 30 * 12 + 2) * 64);
	for (uint64_t page = 0; page < SMALL; page++) {
		unsigned want = before[page] == VMEM_PAGE_STAGED ? VMEM_PAGE_STORED : before[page];

		if (vmemt_some_kind(page) == VMEMT_PAGE_ZERO && page != lost)
			want = VMEM_PAGE_ABSENT;
		assert(vmemt_state(copy, page) == want);
	}
	assert(vmem_region_read(copy, GPA + lost * PAGE, &p, PAGE) == -VMEM_EIO);
	assert(vmemt_tape_load(&tape, copy, NULL) == -VMEM_EEXIST);
	/* Nothing is staged there: what comes out is what went in. */
	assert(!vmemt_tape_save(&again, copy, VMEM_SNAPSHOT_LOST_TOO, NULL));
	assert(!vmem_region_discard(copy, GPA, SMALL * PAGE, NULL));
	assert(!vmemt_tape_load(&again, copy, NULL));
	assert(!vmemt_tape_save(&tape, copy, VMEM_SNAPSHOT_LOST_TOO, NULL));
	assert(tape.size == again.size && !memcmp(tape.bytes, again.bytes, tape.size));

	assert(!vmem_region_discard(copy, GPA + lost * PAGE, PAGE, NULL));
	vmemt_some_compare(copy, SMALL, 7);
	vmemt_tape_free(&tape);
	vmemt_tape_free(&again);
	vmemt_end(other, copy);
	vmemt_end(m, r);
}

/* --- Errors --- */

#define FEW 60 /* pages; two of each run of kinds */

static void each_call_fails_once(void)
{
	vmem_manager *m = vmemt_manager(0);
	vmem_region *r = vmemt_region(m, GPA, FEW, 0), *copy = vmemt_region(m, GPA, FEW, 0);
	struct vmem_snapshot_stats stats = new_stats();
	uint64_t metadata = 0;
	struct vmemt_tape tape;
	long n;

	vmemt_tape_init(&tape);
	vmemt_some_fill(r, FEW, 9);
	vmemt_store(r, 39, 3);
	tape.error = -4711;
	for (n = 0;; n++) {
		int error;

		tape.fail_after = n;
		error = vmemt_tape_save(&tape, r, 0, &stats);
		if (!error)
			break;
		assert(error == -4711 && !stats.stream_bytes);
		if (!metadata)
			metadata = vmemt_manager_metrics(m).metadata_bytes;
		assert(vmemt_manager_metrics(m).metadata_bytes == metadata);
	}
	assert(n > 8);
	for (unsigned cut = 0; cut < 2; cut++) { /* an error, or the end */
		uint64_t before = vmemt_manager_metrics(m).metadata_bytes;

		tape.error = cut ? 0 : -4711;
		for (n = 0;; n++) {
			int error;

			stats = new_stats();
			tape.fail_after = n;
			error = vmemt_tape_load(&tape, copy, &stats);
			if (error)
				assert(error == (cut ? -VMEM_EBADMSG : -4711) &&
				       !stats.stream_bytes);
			else
				vmemt_some_compare(copy, FEW, 9);
			vmemt_check(m, copy);
			assert(!vmem_region_discard(copy, GPA, FEW * PAGE, NULL));
			assert(vmemt_manager_metrics(m).metadata_bytes < before + 65536);
			if (!error)
				break;
		}
		assert(n > 8);
	}
	vmemt_tape_free(&tape);
	assert(!vmem_region_detach(copy, VMEM_DETACH_DISCARD));
	vmemt_end(m, r);
}

static int never(void *context, const void *bytes, size_t count)
{
	(void)context, (void)bytes, (void)count;
	return 0;
}

static int cancel(void *context, uint64_t done, uint64_t all)
{
	uint64_t *last = context;

	assert(done > *last && done <= all && all == 3000 * PAGE);
	*last = done;
	return done > 2000 * PAGE ? -VMEM_EBUSY : 0;
}

static int count_progress(void *context, uint64_t done, uint64_t all)
{
	uint64_t *last = context;

	assert(done > *last && done <= all);
	*last = done;
	return 0;
}

static void options_and_cancel(void)
{
	vmem_manager *m = vmemt_manager(0);
	vmem_region *r = vmemt_region(m, GPA, 3000, 0);
	struct vmem_snapshot_save_opts o = { .size = sizeof(o), .write = never };
	struct vmem_snapshot_load_opts l = { .size = sizeof(l) };
	struct vmemt_tape tape;
	uint64_t last = 0;

	assert(vmem_snapshot_save(NULL, &o, NULL) == -VMEM_EINVAL);
	assert(vmem_snapshot_save(r, NULL, NULL) == -VMEM_EINVAL);
	assert(vmem_snapshot_load(r, &l, NULL) == -VMEM_EINVAL);
	o.flags = 1u << 5;
	assert(vmem_snapshot_save(r, &o, NULL) == -VMEM_EINVAL);
	o = (struct vmem_snapshot_save_opts){ .size = sizeof(o) };
	assert(vmem_snapshot_save(r, &o, NULL) == -VMEM_EINVAL);
	o.write = never;
	o.progress = cancel;
	o.context = &last;
	assert(vmem_snapshot_save(r, &o, NULL) == -VMEM_EBUSY && last == 2048 * PAGE);
	last = 0;
	o.progress = count_progress;
	assert(!vmem_snapshot_save(r, &o, NULL) && last == 3000 * PAGE);
	/* Of another place, of another size. */
	vmemt_tape_init(&tape);
	assert(!vmemt_tape_save(&tape, r, 0, NULL));
	assert(!vmem_region_detach(r, VMEM_DETACH_DISCARD));
	r = vmemt_region(m, GPA, 2999, 0);
	assert(vmemt_tape_load(&tape, r, NULL) == -VMEM_ERANGE);
	assert(!vmem_region_detach(r, VMEM_DETACH_DISCARD));
	r = vmemt_region(m, GPA + PAGE, 3000, 0);
	assert(vmemt_tape_load(&tape, r, NULL) == -VMEM_ERANGE);
	vmemt_tape_free(&tape);
	vmemt_end(m, r);
}

/* --- Damage --- */

static void any_damage_is_found(void)
{
	uint64_t rng = vmemt_seed("any_damage_is_found");
	vmem_manager *m = vmemt_manager(0);
	vmem_region *r = vmemt_region(m, GPA, FEW, 0);
	struct vmemt_tape tape;
	unsigned tries = VMEMT_SLOW ? 200 : 2000;

	vmemt_tape_init(&tape);
	vmemt_some_fill(r, FEW, 11);
	vmemt_store(r, 39, 3);
	assert(!vmemt_tape_save(&tape, r, 0, NULL));
	assert(!vmem_region_discard(r, GPA, FEW * PAGE, NULL));
	for (unsigned k = 0; k < 2 * tries; k++) {
		/* Half of them where the first parts are: header, head of 'W', head of 'P'. */
		size_t at = vmemt_rand(&rng) % (k < tries ? tape.size : 300);
		unsigned char was = tape.bytes[at];
		int error;

		tape.bytes[at] ^= (unsigned char)(1u << vmemt_rand(&rng) % 8);
		error = vmemt_tape_load(&tape, r, NULL);
		assert(error == -VMEM_EBADMSG);
		tape.bytes[at] = was;
		assert(!vmem_region_discard(r, GPA, FEW * PAGE, NULL));
	}
	for (unsigned k = 0; k < tries; k++) { /* cut short */
		size_t size = tape.size;

		tape.size = vmemt_rand(&rng) % size;
		assert(vmemt_tape_load(&tape, r, NULL) == -VMEM_EBADMSG);
		tape.size = size;
		assert(!vmem_region_discard(r, GPA, FEW * PAGE, NULL));
	}
	assert(!vmemt_tape_load(&tape, r, NULL));
	vmemt_some_compare(r, FEW, 11);
	vmemt_tape_free(&tape);
	vmemt_end(m, r);
}

/* A stream with right sums that says what it likes, in any 8 bytes that are not contents. */
static void malice_does_no_harm(void)
{
	static const uint64_t odd[] = { 0,
					1,
					15,
					16,
					17,
					FEW - 1,
					FEW,
					FEW + 1,
					UINT32_MAX,
					UINT64_C(1) << 32,
					UINT64_MAX - 1,
					UINT64_MAX,
					'P',
					'W',
					'L',
					'E',
					VMEM_PAGE_STORED,
					VMEM_PAGE_SHARED,
					PAGE };
	uint64_t rng = vmemt_seed("malice_does_no_harm");
	vmem_manager *m = vmemt_manager(0);
	vmem_region *r = vmemt_region(m, GPA, FEW, 0);
	struct vmemt_tape tape, bad;
	struct vmemt_page p;
	unsigned tries = VMEMT_SLOW ? 300 : 3000, loaded = 0;

	vmemt_tape_init(&tape);
	vmemt_tape_init(&bad);
	vmemt_some_fill(r, FEW, 13);
	vmemt_page_make(&p, VMEMT_PAGE_NOISE, 1);
	assert(!vmem_region_write(r, GPA + (FEW - 1) * PAGE, &p, PAGE)); /* the last part, alone */
	vmemt_store(r, 39, 3);
	assert(!vmemt_tape_save(&tape, r, 0, NULL));
	assert(!vmem_region_discard(r, GPA, FEW * PAGE, NULL));
	vmemt_tape_write(&bad, tape.bytes, tape.size / 2);
	vmemt_tape_write(&bad, tape.bytes, tape.size - tape.size / 2);
	for (unsigned k = 0; k < tries; k++) {
		uint64_t value = odd[vmemt_rand(&rng) % (sizeof(odd) / sizeof(odd[0]))];
		size_t at = vmemt_rand(&rng) % 40 * 4, bytes = vmemt_rand(&rng) % 2 ? 4 : 8;
		int error;

		memcpy(bad.bytes, tape.bytes, tape.size);
		if (vmemt_rand(&rng) % 2) /* or the last part */
			at = tape.size - 40 + at % 32;
		memcpy(bad.bytes + at, &value, bytes);
		vmemt_tape_mend(bad.bytes, bad.size);
		error = vmemt_tape_load(&bad, r, NULL);
		assert(!error || error == -VMEM_EBADMSG || error == -VMEM_ERANGE ||
		       error == -VMEM_ENOTSUP);
		loaded += !error;
		if (k % 64 == 0)
			vmemt_check(m, r);
		assert(!vmem_region_discard(r, GPA, FEW * PAGE, NULL));
	}
	/* A part that is missing, and all sums right. */
	memcpy(bad.bytes, tape.bytes, tape.size - 40 - (PAGE + 48));
	memcpy(bad.bytes + tape.size - 40 - (PAGE + 48), tape.bytes + tape.size - 40, 40);
	bad.size = tape.size - (PAGE + 48);
	vmemt_tape_mend(bad.bytes, bad.size);
	assert(vmemt_tape_load(&bad, r, NULL) == -VMEM_EBADMSG);
	assert(bad.at == bad.size); /* all but its numbers was right */
	assert(!vmem_region_discard(r, GPA, FEW * PAGE, NULL));
	assert(loaded && loaded < tries); /* sums are mended, and not all is harmless */
	vmemt_tape_free(&tape);
	vmemt_tape_free(&bad);
	vmemt_end(m, r);
}

/* --- Under load --- */

#define BIG (VMEMT_SLOW ? 2400u : 6000u) /* pages */
#define BUSY 6144

static _Atomic uint32_t stop;
static _Atomic uint64_t rewritten; /* pages */

static void *busy_guest(void *base)
{
	uint64_t rounds[BUSY] = { 0 };

	for (uint64_t page = 0; !atomic_load(&stop); page = (page + 7) % BUSY) {
		volatile uint64_t *words =
			(volatile uint64_t *)(void *)((unsigned char *)base + page * PAGE);

		for (unsigned i = 0; i < 64; i++) {
			assert(words[i] == (rounds[page] ? page * 1000003 + rounds[page] + i : 0));
			words[i] = page * 1000003 + rounds[page] + 1 + i;
		}
		rounds[page]++;
		atomic_fetch_add(&rewritten, 1);
	}
	return NULL;
}

struct watch {
	vmem_manager *manager;
	uint64_t most; /* bytes used */
};

static void watch_budget(void *context)
{
	struct watch *w = context;
	uint64_t used = vmemt_manager_metrics(w->manager).used_bytes;

	if (used > w->most)
		w->most = used;
}

static void within_the_budget(bool threads)
{
	vmem_manager *m = vmemt_manager(16 * MIB), *other = vmemt_manager(10 * MIB);
	vmem_region *r = vmemt_region(m, GPA, BIG, 0), *busy = vmemt_region(m, 0, BUSY, 0);
	vmem_region *copy = vmemt_region(other, GPA, BIG, 0);
	struct vmem_snapshot_stats saved = new_stats(), loaded = new_stats();
	struct watch watch = { .manager = m };
	uint8_t *states = malloc(2 * BIG);
	uint64_t until;
	struct vmemt_tape tape;
	pthread_t thread;

	assert(states);
	vmemt_tape_init(&tape);
	assert(!vmem_manager_thread_start(m));
	vmemt_some_fill(r, BIG, 17);
	atomic_store(&stop, 0);
	assert(!pthread_create(&thread, NULL, busy_guest, vmem_region_hva(busy)));
	vmemt_until_more(&rewritten, BUSY);

	assert(!vmem_region_quiesce(r));
	states_of(r, states);
	tape.each = watch_budget;
	tape.context = &watch;
	until = atomic_load(&rewritten);
	assert(!vmemt_tape_save(&tape, r, 0, &saved));
	states_of(r, states + BIG);
	assert(!memcmp(states, states + BIG, BIG));
	assert(!vmem_region_resume(r));
	VMEMT_UNTIL(atomic_load(&rewritten) > until);
	/* A sum of figures that change meanwhile. */
	assert(watch.most && watch.most <= 16 * MIB + 64 * PAGE);

	watch = (struct watch){ .manager = other };
	if (threads)
		assert(!vmem_manager_thread_start(other));
	assert(!vmemt_tape_load(&tape, copy, &loaded));
	assert(watch.most && watch.most <= 10 * MIB + 64 * PAGE);
	assert(vmemt_manager_metrics(other).used_bytes <= 10 * MIB);
	assert(loaded.pages == saved.pages && loaded.pages_same == saved.pages_same);
	assert(vmemt_metrics(copy).pages[VMEM_PAGE_STORED]);
	assert(vmemt_metrics(copy).pages[VMEM_PAGE_RESIDENT]);
	vmemt_some_compare(copy, BIG, 17);
	atomic_store(&stop, 1);
	assert(!pthread_join(thread, NULL));
	vmemt_some_compare(r, BIG, 17);
	vmemt_tape_free(&tape);
	free(states);
	vmemt_check(m, busy);
	assert(!vmem_region_detach(busy, VMEM_DETACH_DISCARD));
	vmemt_end(other, copy);
	vmemt_end(m, r);
}

static void what_does_not_fit(void)
{
	vmem_manager *m = vmemt_manager(0), *other = vmemt_manager(4 * MIB);
	vmem_region *r = vmemt_region(m, GPA, 2048, 0), *copy = vmemt_region(other, GPA, 2048, 0);
	struct vmemt_tape tape;
	struct vmemt_page p;

	vmemt_tape_init(&tape);
	for (uint64_t page = 0; page < 2048; page++) {
		vmemt_page_make(&p, VMEMT_PAGE_NOISE, page);
		assert(!vmem_region_write(r, GPA + page * PAGE, &p, PAGE));
	}
	assert(!vmemt_tape_save(&tape, r, 0, NULL));
	assert(!vmem_manager_thread_start(other));
	assert(vmemt_tape_load(&tape, copy, NULL) == -VMEM_ENOSPC);
	assert(vmemt_manager_metrics(other).used_bytes <= 4 * MIB);
	vmemt_tape_free(&tape);
	vmemt_end(other, copy);
	vmemt_end(m, r);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_POISON);
	vmemt_cpu_start(&cpu);
	pages_and_places();
	each_call_fails_once();
	options_and_cancel();
	any_damage_is_found();
	malice_does_no_harm();
	within_the_budget(true);
	within_the_budget(false);
	what_does_not_fit();
	vmemt_cpu_stop(&cpu);
	return 0;
}
