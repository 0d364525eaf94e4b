/* SPDX-License-Identifier: BSD-2-Clause */
/* Swap devices that are slow, fail, never answer, are full, or are taken away: whoever touches a page that is there waits
 * or meets an error, and nobody else; what is given up leaves nothing behind; and who can do nothing is told. */
#include "linux/guest.h"
#include "linux/snapshot_tape.h"
#include "linux/stored.h"
#include "store/memory_device.h"
#include <pthread.h>
#include <sched.h>
#include "support/slow.h"
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <vmem/manager_device.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
#define PAGES (VMEMT_SANITIZED ? 2560 : 4096)
#define CPUS 3
#define KEPT 96 /* pages that are brought back: more than windows know of */
/* Of a guest that gets stuck: its budget, pages that compressed are about as much, and a device that has little room. */
#define TIGHT (7 * MIB)
#define MANY 4700
#define SCANT (2 * MIB)

static struct vmemt_memory_device device, second;
static struct vmemt_cpu cpu[CPUS];
static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;
static struct vmemt_losses told;

static void make_page(struct vmemt_page *p, uint64_t page)
{
	vmemt_make(p, page, 1);
}

static uint32_t timeout_ms; /* of the next device; 0: the default */

/* @bytes: of the device. */
static void make_with(const struct vmem_manager_opts *o, uint64_t deadline_ms, uint64_t pages,
		      uint64_t bytes)
{
	const struct vmem_store_device_opts d = { .size = sizeof(d), .timeout_ms = timeout_ms };
	struct vmem_region_opts r = {
		.size = sizeof(r),
		.flags = VMEM_REGION_DMA_PINNED,
		.bytes = pages * PAGE,
		.fault_around_pages = 1,
		.fault_deadline_ms = deadline_ms ? deadline_ms : 3600000,
		.context = &told,
		.on_lost = vmemt_on_lost,
	};

	atomic_store(&told.count, 0);
	manager = vmemt_manager_of(o);
	vmemt_catch_signals(manager);
	vmemt_memory_device_init(&device, bytes, VMEMT_DEVICE_DEPTH);
	assert(!vmem_manager_add_device(manager, &device.device, &d, NULL));
	assert(!vmemt_alloc(&region, manager, &r));
	base = vmem_region_hva(region);
	for (unsigned i = 0; i < CPUS; i++)
		cpu[i].region = region;
}

/* No budget but that of what is stored: everything is stored, and most of it out. */
static void make(bool threads, uint64_t deadline_ms)
{
	const struct vmem_manager_opts o = { .size = sizeof(o), .store_bytes = 2 * MIB };

	make_with(&o, deadline_ms, PAGES, 64 * MIB);
	vmemt_write_all(region, PAGES);
	vmemt_store(region, 0, PAGES);
	if (threads)
		assert(!vmem_manager_thread_start(manager));
}

/* The next page from @page on that is stored and not in memory. */
static uint64_t next_out(uint64_t page)
{
	static struct vmemt_page p;

	for (; page < PAGES; page++) {
		uint64_t word = vmemi_region_word(region, page);

		if (vmemi_page_state(word) == VMEM_PAGE_STORED &&
		    vmem_store_peek(manager->host.store, region->vm, 0, vmemi_page_ref(word), &p,
				    NULL) == -VMEM_EAGAIN)
			break;
	}
	assert(page < PAGES);
	return page;
}

static bool is_right(uint64_t page, const struct vmemt_page *got)
{
	struct vmemt_page want;

	make_page(&want, page);
	return !memcmp(got, &want, PAGE);
}

static bool reads_right(uint64_t page)
{
	struct vmemt_page got;

	assert(!vmem_region_read(region, page * PAGE, &got, PAGE));
	return is_right(page, &got);
}

static void read_begin(unsigned c, uint64_t page, struct vmemt_page *into)
{
	vmemt_touch_begin(&cpu[c], VMEMT_READ, base + page * PAGE, into, PAGE);
}

static void expect_read(unsigned c, uint64_t page, const struct vmemt_page *got)
{
	assert(!vmemt_touch_end(&cpu[c]));
	assert(is_right(page, got));
}

static uint32_t loads(void)
{
	return atomic_load(&manager->host.loads.under_way);
}

/* Nothing may be left of loads. */
static void end(void)
{
	VMEMT_UNTIL(!loads());
	vmem_manager_thread_stop(manager);
	assert(!atomic_load(&manager->host.buffer_busy));
	assert(!atomic_load(&device.wrong));
	vmemt_check(manager, region);
	vmemt_end(manager, region);
	assert(atomic_load(&device.closed));
}

/* Others go on while the device does not answer. */
static void slow(void)
{
	static struct vmemt_page got[2];
	uint64_t a, b;

	make(true, 0);
	a = next_out(0);
	b = next_out(a + 100);
	atomic_store(&device.hold, 1);
	read_begin(0, a, &got[0]);
	read_begin(1, b, &got[1]);
	VMEMT_UNTIL(loads() == 2);
	vmemt_put(&cpu[2], base, PAGES - 1, 1);
	vmemt_stage(region, PAGES - 1, 1);
	assert(vmemt_is(&cpu[2], base, PAGES - 1, 1));
	assert(!vmem_region_discard(region, 0, a * PAGE, NULL));
	assert(!vmemt_touch_over(&cpu[0]) && !vmemt_touch_over(&cpu[1]));
	atomic_store(&device.hold, 0);
	expect_read(0, a, &got[0]);
	expect_read(1, b, &got[1]);
	assert(!atomic_load(&told.count));
	end();
}

/* A read error is the end of the page for who touches it; who only looks may look again. */
static void failing(void)
{
	static struct vmemt_page got;
	struct vmem_store_out_stats s = { .size = sizeof(s) };
	uint64_t a, b, c;

	make(true, 0);
	a = next_out(0);
	b = next_out(a + 1);
	c = next_out(b + 1);
	atomic_store(&device.read_error, -VMEM_EIO);
	assert(vmem_region_read(region, a * PAGE, &got, PAGE) == -VMEM_EIO);
	assert(vmemt_state(region, a) == VMEM_PAGE_STORED && !atomic_load(&told.count));
	read_begin(0, b, &got);
	assert(vmemt_touch_end(&cpu[0]) == SIGBUS);
	assert(atomic_load(&told.count) == 1 && atomic_load(&told.error) == -VMEM_EIO);
	assert(vmemt_state(region, b) == VMEM_PAGE_POISONED);
	assert(vmem_region_pin(region, c * PAGE, PAGE) == -VMEM_EIO);
	assert(atomic_load(&told.count) == 2 && vmemt_metrics(region).lost == 2);
	atomic_store(&device.read_error, 0);
	atomic_store(&device.corrupt, 1);
	assert(vmem_region_read(region, a * PAGE, &got, PAGE) == -VMEM_EIO);
	atomic_store(&device.corrupt, 0);
	assert(reads_right(a));
	assert(!vmem_region_discard(region, b * PAGE, PAGE, NULL));
	assert(vmemt_is(&cpu[0], base, b, 0));
	assert(!vmem_manager_get_out_stats(manager, &s) && s.lost >= 3);
	assert(!vmem_region_discard(region, c * PAGE, PAGE, NULL));
	end();
}

/* On a busy machine the time of some may be up: that is told, and others are read. */
static bool reads_in_time(uint64_t page)
{
	uint32_t before = atomic_load(&told.count);
	struct vmemt_page got;
	int error = vmem_region_read(region, page * PAGE, &got, PAGE);

	assert(error ? error == -VMEM_EIO && atomic_load(&told.count) > before
		     : is_right(page, &got));
	return !error;
}

/* When its time is up a page is lost, for who touches it and for who reads it; the late answer finds nobody. */
static void never(bool threads)
{
	static struct vmemt_page got;
	uint64_t a, b;

	make(threads, 30);
	a = next_out(0);
	b = next_out(a + 1);
	atomic_store(&device.hold, 1);
	assert(vmem_region_read(region, a * PAGE, &got, PAGE) == -VMEM_EIO);
	assert(vmemt_state(region, a) == VMEM_PAGE_POISONED && atomic_load(&told.count) == 1);
	read_begin(0, b, &got);
	if (!threads)
		VMEMT_STEP_UNTIL(manager, vmemt_touch_over(&cpu[0]));
	assert(vmemt_touch_end(&cpu[0]) == SIGBUS);
	assert(vmemt_state(region, b) == VMEM_PAGE_POISONED && atomic_load(&told.count) == 2);
	assert(loads() == 2 && vmemt_metrics(region).lost == 2);
	assert(!vmem_region_discard(region, a * PAGE, PAGE, NULL)); /* before the end of its load */
	atomic_store(&device.hold, 0);
	if (!threads)
		VMEMT_STEP_UNTIL(manager, !loads());
	VMEMT_UNTIL(!loads() && !atomic_load(&manager->host.buffer_busy));
	assert(atomic_load(&told.count) == 2);
	assert(!vmem_region_discard(region, b * PAGE, PAGE, NULL));
	VMEMT_UNTIL(reads_in_time(b = next_out(b + 1)));
	end();
}

#define READERS (VMEMT_RACES_ONLY ? 80u : 160u) /* more than the library has buffers */

static struct reader {
	pthread_t thread;
	uint64_t page;
} reader[READERS];
static _Atomic unsigned readers_begun; /* atomic */

static void *read_one(void *context)
{
	const struct reader *r = context;

	atomic_fetch_add(&readers_begun, 1);
	assert(reads_right(r->page));
	return NULL;
}

static unsigned buffers_held(void)
{
	return (unsigned)__builtin_popcountll(atomic_load(&manager->host.buffer_busy));
}

/* They wait for the device, each for a page of its own; or for one of them, because it is the same page: then the others
 * hold no buffer for longer than a look at the page. */
static void many_readers(bool same)
{
	uint64_t page;

	make(true, 0);
	page = next_out(0);
	for (unsigned i = 0; i < READERS; i++) {
		reader[i].page = page;
		page = same ? page : next_out(page + 1);
	}
	atomic_store(&readers_begun, 0);
	atomic_store(&device.hold, 1);
	for (unsigned i = 0; i < READERS; i++)
		assert(!pthread_create(&reader[i].thread, NULL, read_one, &reader[i]));
	VMEMT_UNTIL(atomic_load(&readers_begun) == READERS);
	VMEMT_UNTIL(same ? loads() == 1 && buffers_held() < VMEMI_BUFFERS / 2
			 : loads() >= VMEMI_BUFFERS / 2);
	atomic_store(&device.hold, 0);
	for (unsigned i = 0; i < READERS; i++)
		assert(!pthread_join(reader[i].thread, NULL));
	end();
}

/* A region goes away under a load, and under who waits for it. */
static void detached(void)
{
	static struct vmemt_page got;
	struct vmem_store_account a = { .size = sizeof(a) };
	struct vmemt_detaching d;

	make(true, 0);
	atomic_store(&device.hold, 1);
	read_begin(0, next_out(0), &got);
	VMEMT_UNTIL(loads() == 1);
	cpu[0].region = NULL;
	vmemt_detach_begin(&d, region);
	VMEMT_UNTIL(!atomic_load(&manager->host.regions[0]));
	assert(!atomic_load(&d.over));
	atomic_store(&device.hold, 0);
	vmemt_detach_end(&d);
	assert(vmemt_touch_end(&cpu[0]) == SIGSEGV);
	assert(!atomic_load(&manager->host.buffer_busy));
	assert(!vmem_manager_get_account(manager, &a) && !a.pages);
	assert(!vmem_manager_free(manager) && atomic_load(&device.closed));
}

/* Without threads, and the device never answers: the load is over in time all the same. */
static void detached_from_silent(void)
{
	static struct vmemt_page got;
	struct vmemt_detaching d;

	timeout_ms = 50;
	make(false, 0);
	timeout_ms = 0;
	atomic_store(&device.hold, 1);
	read_begin(0, next_out(0), &got);
	VMEMT_STEP_UNTIL(manager, loads() == 1);
	cpu[0].region = NULL;
	vmemt_detach_begin(&d, region);
	VMEMT_UNTIL(atomic_load(&d.over));
	vmemt_detach_end(&d);
	assert(vmemt_touch_end(&cpu[0]));
	assert(!loads() && !atomic_load(&manager->host.buffer_busy));
	assert(!vmem_manager_free(manager) && atomic_load(&device.closed));
}

/* The manager goes away while segments are being written. */
static void freed_while_writing(void)
{
	const struct vmem_manager_opts o = { .size = sizeof(o) };
	struct vmem_store_out_stats s = { .size = sizeof(s) };

	make_with(&o, 0, PAGES, 64 * MIB);
	vmemt_write_all(region, PAGES);
	vmemt_store(region, 0, PAGES);
	atomic_store(&device.hold, 1);
	vmem_store_write_out(manager->host.store, MIB);
	assert(vmem_manager_step(manager, 1000, NULL) >= 0);
	assert(!vmem_manager_get_out_stats(manager, &s) && s.writing > 0);
	assert(!vmem_region_detach(region, VMEM_DETACH_DISCARD));
	assert(!vmem_manager_free(manager));
	assert(atomic_load(&device.closed));
}

/* A guest that stands still is read as a whole, without a frame more; and comes back as a whole. */
static void whole(bool threads)
{
	struct vmemt_tape tape;
	uint64_t there, fetched;

	make(threads, 0);
	there = vmemt_metrics(region).pages[VMEM_PAGE_RESIDENT];
	assert(!vmem_region_quiesce(region));
	for (uint64_t i = 0; i < PAGES; i++)
		assert(reads_right(i));
	assert(vmemt_metrics(region).pages[VMEM_PAGE_RESIDENT] == there);
	vmemt_tape_init(&tape);
	assert(!vmemt_tape_save(&tape, region, 0, NULL));
	assert(!vmem_region_resume(region));
	assert(!vmem_region_fetch(region, 0, PAGES * PAGE, &fetched) && fetched == PAGES - there);
	assert(vmemt_metrics(region).pages[VMEM_PAGE_RESIDENT] +
		       vmemt_metrics(region).pages[VMEM_PAGE_CLEAN] ==
	       PAGES);
	end();
	make_with(&(struct vmem_manager_opts){ .size = sizeof(struct vmem_manager_opts),
					       .budget_bytes = 10 * MIB },
		  0, PAGES, 64 * MIB);
	assert(!vmemt_tape_load(&tape, region, NULL));
	for (uint64_t i = 0; i < PAGES; i++)
		assert(reads_right(i));
	assert(vmemt_manager_metrics(manager).used_bytes <= 10 * MIB + 16 * PAGE);
	end();
	vmemt_tape_free(&tape);
}

static int remove_device(uint32_t number)
{
	int error = vmem_manager_remove_device(manager, number);

	assert(!error || error == -VMEM_EBUSY);
	return error;
}

/* What is on one device goes to another, while it is used. */
static void removed(bool threads)
{
	struct vmem_store_device_stats s = { .size = sizeof(s) };
	struct {
		struct vmem_device device;
		uint64_t unknown;
	} newer = { .unknown = 1 };
	uint32_t number;

	make(threads, 0);
	vmemt_memory_device_init(&second, 64 * MIB, VMEMT_DEVICE_DEPTH);
	assert(!vmem_manager_add_device(manager, &second.device, NULL, &number) && number == 1);
	assert(vmem_manager_add_device(NULL, &second.device, NULL, NULL) == -VMEM_EINVAL);
	assert(vmem_manager_add_device(manager, NULL, NULL, NULL) == -VMEM_EINVAL);
	newer.device = second.device;
	newer.device.size = sizeof(newer);
	assert(vmem_device_check(&newer.device) == -VMEM_E2BIG);
	assert(vmem_manager_add_device(manager, &newer.device, NULL, NULL) == -VMEM_E2BIG);
	assert(vmem_manager_remove_device(manager, 9) == -VMEM_ENOENT);
	assert(vmem_manager_remove_device(NULL, 0) == -VMEM_EINVAL);
	VMEMT_UNTIL(!remove_device(0));
	assert(atomic_load(&device.closed));
	assert(vmem_manager_get_device_stats(manager, 0, &s) == -VMEM_ENOENT);
	assert(!vmem_manager_get_device_stats(manager, 1, &s) && s.taken_bytes > MIB);
	for (uint64_t i = 0; i < PAGES; i++)
		assert(reads_right(i));
	assert(atomic_load(&manager->host.devices.count) == 1);
	end();
	assert(atomic_load(&second.closed));
}

/* One that cannot be read is let go of, with what is lost with it. */
static void abandoned(void)
{
	static struct vmemt_page got;
	uint64_t a;

	make(true, 0);
	a = next_out(0);
	atomic_store(&device.read_error, -VMEM_EIO);
	VMEMT_UNTIL(vmem_manager_abandon_device(manager, 0) == 0);
	assert(atomic_load(&device.closed));
	read_begin(0, a, &got);
	assert(vmemt_touch_end(&cpu[0]) == SIGBUS);
	assert(vmemt_state(region, a) == VMEM_PAGE_POISONED && atomic_load(&told.count) == 1);
	end();
}

static void *remove_first(void *context)
{
	(void)context;
	VMEMT_UNTIL(!remove_device(0));
	return NULL;
}

/* A device whose close() does not return holds up who removes it, and nobody else; another takes its place. */
static void closed_slowly(void)
{
	static struct vmemt_memory_device third;
	uint32_t number;
	pthread_t remover;

	make(true, 0);
	vmemt_memory_device_init(&second, 64 * MIB, VMEMT_DEVICE_DEPTH);
	assert(!vmem_manager_add_device(manager, &second.device, NULL, &number) && number == 1);
	atomic_store(&device.hold_close, 1);
	assert(!pthread_create(&remover, NULL, remove_first, NULL));
	VMEMT_UNTIL(atomic_load(&device.closing));
	assert(vmem_manager_remove_device(manager, 0) == -VMEM_ENOENT);
	vmemt_memory_device_init(&third, 64 * MIB, VMEMT_DEVICE_DEPTH);
	assert(!vmem_manager_add_device(manager, &third.device, NULL, &number) && number == 2);
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_is(&cpu[0], base, i, 1));
	assert(!vmem_region_evict_all(region, NULL));
	VMEMT_UNTIL(!remove_device(1));
	for (uint64_t i = 0; i < PAGES; i++)
		assert(reads_right(i));
	assert(!atomic_load(&device.closed) && atomic_load(&second.closed));
	atomic_store(&device.hold_close, 0);
	assert(!pthread_join(remover, NULL));
	end();
	assert(atomic_load(&third.closed));
}

enum failure { GONE, UNREADABLE, CORRUPT, SILENT, ABANDONED };

/* The device fails, and a load of @page has told the store. */
static void fail(enum failure how, uint64_t page)
{
	static struct vmemt_page got;

	switch (how) {
	case GONE: atomic_store(&device.submit_error, -VMEM_ENODEV); break;
	case UNREADABLE: atomic_store(&device.read_error, -VMEM_EIO); break;
	case CORRUPT: atomic_store(&device.corrupt, 1); break;
	case SILENT: atomic_store(&device.hold, 1); break;
	case ABANDONED: /* until nothing is there, or it is given up */
		atomic_store(&device.read_error, -VMEM_EIO);
		VMEMT_UNTIL(vmem_manager_abandon_device(manager, 0) == 0);
	}
	assert(vmem_region_read(region, page * PAGE, &got, PAGE) == -VMEM_EIO);
}

/* What was brought back from a device, and only read, is not lost with that device. */
static void kept(enum failure how)
{
	uint64_t pages[KEPT];
	unsigned clean = 0;

	timeout_ms = how == SILENT ? 200 : 0;
	make(true, 0);
	timeout_ms = 0;
	for (unsigned i = 0; i < KEPT; i++) {
		pages[i] = next_out(i ? pages[i - 1] + 12 : 0);
		assert(vmemt_is(&cpu[0], base, pages[i], 1));
		clean += vmemt_state(region, pages[i]) == VMEM_PAGE_CLEAN;
	}
	assert(clean > KEPT / 2);
	fail(how, next_out(pages[KEPT - 1] + 12));
	vmemt_memory_device_init(&second, 64 * MIB, VMEMT_DEVICE_DEPTH);
	assert(!vmem_manager_add_device(manager, &second.device, NULL, NULL));
	for (unsigned i = 0; i < KEPT; i++) {
		vmemt_stage(region, pages[i], 1);
		assert(!vmem_region_store(region, pages[i] * PAGE, PAGE, NULL));
	}
	for (unsigned i = 0; i < KEPT; i++)
		assert(vmemt_is(&cpu[0], base, pages[i], 1));
	assert(vmemt_metrics(region).lost == 0);
	atomic_store(&device.hold, 0);
	end();
	assert(atomic_load(&second.closed));
}

/* Writes that never end, or find no room, keep nobody from what memory there is; when that is used up it is told, and
 * room on a device ends it. */
static void stuck(bool hung)
{
	const struct vmem_manager_opts o = { .size = sizeof(o), .budget_bytes = TIGHT };
	bool helped = false;
	struct vmemt_page p;

	make_with(&o, 0, MANY, hung ? 64 * MIB : SCANT);
	atomic_store(&device.hold, hung);
	assert(!vmem_manager_thread_start(manager));
	for (uint64_t i = 0; i < MANY; i++) {
		make_page(&p, i);
		vmemt_touch_begin(&cpu[0], VMEMT_WRITE, base + i * PAGE, &p, PAGE);
		VMEMT_UNTIL(vmemt_touch_over(&cpu[0]) ||
			    (!helped && atomic_load(&manager->host.stuck)));
		if (!vmemt_touch_over(&cpu[0])) {
			/* More than its share: a quarter of the budget. */
			assert(vmemt_manager_metrics(manager).pool_bytes > TIGHT / 4 + MIB);
			atomic_store(&device.hold, 0);
			vmemt_memory_device_init(&second, 64 * MIB, VMEMT_DEVICE_DEPTH);
			assert(!vmem_manager_add_device(manager, &second.device, NULL, NULL));
			helped = true;
		}
		assert(!vmemt_touch_end(&cpu[0]));
	}
	assert(helped);
	for (uint64_t i = 0; i < MANY; i += VMEMT_RACES_ONLY ? 4 : 1)
		assert(vmemt_is(&cpu[0], base, i, 1));
	assert(vmemt_manager_metrics(manager).used_bytes <= TIGHT + 16 * PAGE);
	end();
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_POISON | VMEM_KERNEL_SIGBUS | VMEM_KERNEL_MOVE | VMEM_KERNEL_WP |
		   VMEM_KERNEL_KERNEL_FAULTS);
	for (unsigned i = 0; i < CPUS; i++)
		vmemt_cpu_start(&cpu[i]);
	slow();
	failing();
	never(true);
	never(false);
	many_readers(false);
	many_readers(true);
	detached();
	detached_from_silent();
	freed_while_writing();
	whole(true);
	removed(true);
	if (!VMEMT_RACES_ONLY) { /* with one thread there are none */
		whole(false);
		removed(false);
	}
	abandoned();
	closed_slowly();
	for (unsigned how = GONE; how <= ABANDONED; how++)
		kept((enum failure)how);
	stuck(false);
	stuck(true);
	for (unsigned i = 0; i < CPUS; i++)
		vmemt_cpu_stop(&cpu[i]);
	return 0;
}
