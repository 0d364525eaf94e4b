/* SPDX-License-Identifier: BSD-2-Clause */
/* Rounds of written pages where others map the memory too: what a second mapping and another process write is told, whatever
 * step of a round they write between; who comes late, grows, or is killed; and a copy that is kept up while all of
 * them write, which is equal elsewhere. */
#include "linux/failing_kernel.h"
#include "linux/kernel/uffd_abi.h"
#include "linux/peer_process.h"
#include "support/rng.h"
#include "support/slow.h"
#include <stdlib.h>
#include <vmem/grow.h>
#include <vmem/snapshot.h>
#include <vmem/source.h>

#define PAGE VMEM_PAGE_SIZE
#define GPA (UINT64_C(7) << 30)
#define FEW 64
#define FLAGS (VMEM_REGION_FILE | VMEM_REGION_DMA_PINNED)

static struct vmemt_cpu cpu, second_cpu;
static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base, *copy;
static struct vmemt_second second;
static struct vmemt_peer peer;

static void make(uint64_t budget, const struct vmem_region_opts *opts)
{
	struct vmem_manager_opts o = { .size = sizeof(o), .budget_bytes = budget };

	assert(!vmemi_manager_new(&manager, &o, &vmemt_kernel_table));
	assert(!vmem_region_alloc(&region, manager, opts));
	cpu.region = region;
	base = vmem_region_hva(region);
}

static void make_few(void)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .flags = FLAGS,
				      .gpa = GPA,
				      .bytes = FEW * PAGE,
				      .max_bytes = 2 * FEW * PAGE,
				      .fault_around_pages = 1 };

	vmemt_kernel_reset();
	make(0, &o);
}

static uint64_t gpa_of(uint64_t page)
{
	return GPA + page * PAGE;
}

/* Takes a page out. The kernel wakes who waits a moment before the library has booked it. */
static void take_out(uint64_t page, bool store)
{
	VMEMT_UNTIL(vmemt_state(region, page) != VMEM_PAGE_ARRIVING);
	if (store)
		vmemt_store(region, page, 1);
	else
		vmemt_stage(region, page, 1);
}

/* --- What a round tells --- */

static uint8_t told[2 * FEW];

static int note(void *context, uint64_t gpa, uint64_t bytes)
{
	(void)context;
	for (uint64_t page = (gpa - GPA) / PAGE; page < (gpa - GPA + bytes) / PAGE; page++)
		told[page]++;
	return 0;
}

/* A round tells the pages of @list, which ends with -1, and no others. */
static void tells(const int *list)
{
	uint64_t pages = 0, want = 0;

	memset(told, 0, sizeof(told));
	assert(!vmem_region_dirty_round(region, GPA, vmemi_region_bytes(region), note, NULL,
					&pages));
	for (; *list >= 0; list++, want++) {
		assert(told[*list] == 1);
		told[*list] = 0;
	}
	for (unsigned page = 0; page < 2 * FEW; page++)
		assert(!told[page]);
	assert(pages == want);
}

#define TELLS(...) tells((const int[]){ __VA_ARGS__, -1 })

static void put_second(uint64_t page, uint64_t version)
{
	vmemt_put(&second_cpu, second.memory, page, version);
}

static bool second_is(uint64_t page, uint64_t version)
{
	return vmemt_is(&second_cpu, second.memory, page, version);
}

/* The page is read everywhere, which is no write, and then written, by each in turn. */
static void by_each(uint64_t page, uint64_t version)
{
	assert(vmemt_peer_is(&peer, page, version));
	assert(second_is(page, version) && vmemt_is(&cpu, base, page, version));
	TELLS(-1);
	vmemt_peer_put(&peer, page, version + 1);
	TELLS((int)page);
	put_second(page, version + 1);
	TELLS((int)page);
	vmemt_put(&cpu, base, page, version + 1);
	TELLS((int)page);
	/* It is mapped everywhere by now. */
	vmemt_peer_put(&peer, page, version + 2);
	put_second(page, version + 2);
	TELLS((int)page);
	put_second(page, version + 3);
	TELLS((int)page);
	vmemt_peer_put(&peer, page, version + 4);
	TELLS((int)page);
	assert(vmemt_is(&cpu, base, page, version + 4) && second_is(page, version + 4));
	TELLS(-1);
}

static void who_writes(void)
{
	make_few();
	vmemt_peer_join(&peer, region);
	vmemt_second_join(&second, region);
	assert(!vmem_manager_thread_start(manager));
	for (uint64_t page = 0; page < 8; page++)
		vmemt_put(&cpu, base, page, 1);
	take_out(6, true);
	take_out(7, true);
	assert(!vmem_region_dirty_start(region));
	TELLS(0, 1, 2, 3, 4, 5, 6, 7);
	TELLS(-1);
	by_each(0, 1);
	take_out(1, false);
	by_each(1, 1);
	take_out(2, true);
	by_each(2, 1);
	by_each(7, 1);  /* stored before the first round */
	by_each(20, 0); /* absent */
	/* Nobody has touched it here before it is written there. */
	vmemt_peer_put(&peer, 21, 1);
	put_second(22, 1);
	TELLS(21, 22);
	take_out(3, false);
	take_out(4, true);
	vmemt_peer_put(&peer, 3, 2);
	put_second(4, 2);
	TELLS(3, 4);
	/* Written, and away by the time of the round. */
	vmemt_peer_put(&peer, 3, 3);
	put_second(5, 3);
	take_out(3, true);
	take_out(5, false);
	TELLS(3, 5);
	/* Clean, or not: each is written once. */
	assert(vmemt_peer_is(&peer, 3, 3) && second_is(5, 3));
	TELLS(-1);
	put_second(3, 4);
	vmemt_peer_put(&peer, 5, 4);
	TELLS(3, 5);
	/* Held, for somebody whom we do not know. */
	assert(!vmem_region_pin(region, gpa_of(4), PAGE));
	TELLS(4);
	TELLS(4);
	assert(!vmem_region_unpin(region, gpa_of(4), PAGE));
	TELLS(4);
	TELLS(-1);
	/* No longer tracked, and once more. */
	assert(!vmem_region_dirty_stop(region));
	vmemt_peer_put(&peer, 0, 9);
	put_second(1, 9);
	vmemt_put(&cpu, base, 2, 9);
	assert(!vmem_region_dirty_start(region));
	TELLS(0, 1, 2, 3, 4, 5, 6, 7, 20, 21, 22);
	put_second(0, 10);
	TELLS(0);
}

/* --- Who comes and goes between rounds --- */

static void come_and_go(void)
{
	struct vmemt_second late, more;
	struct vmemt_page p;

	/* Who has mapped a page before it was known can write to it no less seen. */
	vmemt_second_map(&late, region, 0, FEW);
	((volatile unsigned char *)late.memory)[1 * PAGE] = 1;
	vmemt_second_add(&late, NULL);
	vmemt_put(&second_cpu, late.memory, 1, 11);
	vmemt_put(&second_cpu, late.memory, 2, 11);
	TELLS(1, 2);
	vmemt_put(&second_cpu, late.memory, 1, 12);
	TELLS(1);
	/* The new part of a region that grows, of which each has a peer more. */
	assert(!vmem_region_grow(region, 2 * FEW * PAGE));
	vmemt_second_map(&more, region, FEW, FEW);
	vmemt_second_add(&more, &late);
	assert(!vmemt_touch(&second_cpu, VMEMT_READ, more.memory, &p, PAGE));
	TELLS(-1);
	assert(!vmemt_touch(&second_cpu, VMEMT_WRITE, more.memory, &p, PAGE));
	assert(!vmemt_touch(&second_cpu, VMEMT_WRITE, more.memory + 5 * PAGE, &p, PAGE));
	vmemt_put(&second_cpu, late.memory, 1, 13);
	TELLS(1, FEW, FEW + 5);
	assert(!vmemt_touch(&second_cpu, VMEMT_WRITE, more.memory, &p, PAGE));
	TELLS(FEW);
	vmemt_second_leave(&more);
	vmemt_put(&second_cpu, late.memory, 1, 14);
	vmemt_second_leave(&late); /* what it wrote is told all the same */
	TELLS(1);
	vmemt_peer_put(&peer, 0, 15);
	vmemt_peer_kill(&peer);
	put_second(2, 15);
	TELLS(0, 2);
	TELLS(-1);
	assert(vmemt_is(&cpu, base, 1, 14));
	vmemt_second_leave(&second);
	vmemt_peer_leave(&peer);
	vmemt_end(manager, region);
}

/* The kernel has no memory to protect this with; NULL: it has. */
static _Atomic(unsigned char *) refused;

static bool refuse_to_protect(enum vmemt_call call, void *argument, int fd, int *ret_result)
{
	const struct uffdio_writeprotect *wp = argument;

	(void)fd;
	if (call != VMEMT_K_PROTECT || !(wp->mode & UFFDIO_WRITEPROTECT_MODE_WP) ||
	    (uintptr_t)atomic_load(&refused) - wp->range.start >= wp->range.len)
		return false;
	*ret_result = -VMEM_ENOMEM;
	return true;
}

/* A page that can be written without a fault is told in each round, none of which is held up; others once. */
static void cannot_be_protected(void)
{
	unsigned char *one;

	make_few();
	vmemt_second_join(&second, region);
	vmemt_kernel.before = refuse_to_protect; /* before threads read it */
	assert(!vmem_manager_thread_start(manager));
	for (uint64_t page = 1; page < 8; page += 2) {
		vmemt_put(&cpu, base, page, 1);
		put_second(page, 1);
	}
	assert(!vmem_region_dirty_start(region));
	atomic_store(&refused, second.memory + 3 * PAGE);
	TELLS(1, 3, 5, 7);
	atomic_store(&refused, NULL);
	TELLS(3);
	TELLS(-1);
	for (one = base + 5 * PAGE;; one = second.memory + 5 * PAGE) {
		vmemt_put(&cpu, base, 1, 2);
		put_second(5, 2);
		atomic_store(&refused, one);
		TELLS(1, 5);
		put_second(5, 3); /* without a fault */
		vmemt_put(&cpu, base, 5, 4);
		TELLS(5);
		TELLS(5);
		atomic_store(&refused, NULL);
		TELLS(5);
		TELLS(-1);
		if (one != base + 5 * PAGE)
			break;
	}
	vmem_manager_thread_stop(manager);
	vmemt_kernel.before = NULL;
	vmemt_second_leave(&second);
	vmemt_end(manager, region);
}

static int give(void *context, uint64_t gpa, void *buffer)
{
	(void)context;
	memset(buffer, (int)(gpa / PAGE % 100 + 1), PAGE);
	return 0;
}

/* What a region grows by is with the source: no copy has it yet. */
static void grown_from_source(void)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .flags = VMEM_REGION_FROM_SOURCE,
				      .gpa = GPA,
				      .bytes = 4 * PAGE,
				      .max_bytes = 8 * PAGE,
				      .read_source = give };

	vmemt_kernel_reset();
	make(0, &o);
	assert(!vmem_region_dirty_start(region));
	TELLS(0, 1, 2, 3);
	assert(!vmem_region_grow(region, 7 * PAGE));
	TELLS(4, 5, 6);
	TELLS(-1);
	vmemt_end(manager, region);
}

/* --- Between any two steps --- */

static struct {
	long at;    /* before this call */
	long calls; /* so far */
	bool fired; /* it has happened */
	enum { PEER_WRITES, SECOND_WRITES, PEER_DIES } what;
	uint64_t page;
	struct vmemt_page data;
} strike;

/* In a library that has no threads of its own: whoever writes has done it, or has met a fault that nobody reads. */
static void strike_at(enum vmemt_call call)
{
	(void)call;
	if (strike.calls++ != strike.at)
		return;
	strike.fired = true;
	if (strike.what == PEER_DIES) {
		vmemt_peer_kill(&peer);
	} else if (strike.what == PEER_WRITES) {
		vmemt_peer_begin(&peer, VMEMT_WRITE, strike.page, 3);
		VMEMT_UNTIL(vmemt_peer_over(&peer) || vmemt_peer_pending(&peer));
	} else {
		vmemt_make(&strike.data, strike.page, 3);
		vmemt_touch_begin(&second_cpu, VMEMT_WRITE, second.memory + strike.page * PAGE,
				  &strike.data, PAGE);
		VMEMT_UNTIL(vmemt_touch_over(&second_cpu) || vmemt_second_pending(&second));
	}
}

static void put_all_ways(uint64_t page, uint64_t version)
{
	struct vmemt_page p;

	vmemt_make(&p, page, version);
	assert(!vmemt_touch_step(&cpu, VMEMT_WRITE, base + page * PAGE, &p, PAGE, manager));
	assert(!vmemt_touch_step(&second_cpu, VMEMT_WRITE, second.memory + page * PAGE, &p, PAGE,
				 manager));
	vmemt_peer_begin(&peer, VMEMT_WRITE, page, version);
	VMEMT_STEP_UNTIL(manager, vmemt_peer_over(&peer));
	assert(!vmemt_peer_finish(&peer, NULL));
}

static void finish_strike(void)
{
	if (!strike.fired || strike.what == PEER_DIES)
		return;
	if (strike.what == PEER_WRITES) {
		VMEMT_STEP_UNTIL(manager, vmemt_peer_over(&peer));
		assert(!vmemt_peer_finish(&peer, NULL));
	} else {
		VMEMT_STEP_UNTIL(manager, vmemt_touch_over(&second_cpu));
		assert(!vmemt_touch_end(&second_cpu));
	}
}

static int send(void *context, uint64_t gpa, uint64_t bytes)
{
	int error = vmem_region_read(region, gpa, copy + (gpa - GPA), bytes);

	(void)context;
	if (vmemt_kernel.at_call) /* when it has just been sent */
		vmemt_kernel.at_call(VMEMT_K_CALLS);
	return error;
}

static void round_of(void)
{
	assert(!vmem_region_dirty_round(region, GPA, vmemi_region_bytes(region), send, NULL, NULL));
}

/* A round of a page that all have mapped and written, and the strike before one of its calls; @away: it has left
 * since. False: there are no more calls. */
static bool round_with_strike(uint64_t page, bool away)
{
	struct vmemt_page want;

	put_all_ways(page, 1);
	round_of();
	put_all_ways(page, 2);
	if (away)
		take_out(page, false);
	strike.page = page;
	strike.calls = 0;
	strike.fired = false;
	vmemt_kernel.at_call = strike_at;
	round_of();
	vmemt_kernel.at_call = NULL;
	finish_strike();
	round_of();
	vmemt_make(&want, page, strike.fired && strike.what != PEER_DIES ? 3 : 2);
	assert(!memcmp(copy + page * PAGE, &want, PAGE));
	return strike.fired;
}

static void at_each_step(bool away)
{
	make_few();
	copy = calloc(FEW, PAGE);
	assert(copy);
	vmemt_peer_join(&peer, region);
	vmemt_second_join(&second, region);
	assert(!vmem_region_dirty_start(region));
	for (strike.what = PEER_WRITES; strike.what <= PEER_DIES; strike.what++) {
		for (strike.at = 0; round_with_strike((uint64_t)strike.at % FEW, away);
		     strike.at++) {
			if (strike.what != PEER_DIES)
				continue;
			vmemt_peer_leave(&peer);
			vmemt_peer_join(&peer, region);
		}
		assert(strike.at > 0);
	}
	free(copy);
	vmemt_second_leave(&second);
	vmemt_peer_leave(&peer);
	vmemt_end(manager, region);
}

/* --- A copy that is kept up --- */

#define PAGES 3072u
#define COUNTS (VMEMT_SLOW ? 2000 : 12000)

struct counting {
	pthread_t thread;
	struct vmemt_count count;
	unsigned char *memory;
	uint64_t wrong;
};

static _Atomic uint32_t counted; /* threads that are done */

static void *count_up(void *argument)
{
	struct counting *c = argument;

	c->wrong = vmemt_count_up(&c->count, c->memory, PAGES);
	atomic_fetch_add(&counted, 1);
	return NULL;
}

/* Elsewhere: another guest reads what was sent, and it is what this one has. */
static void is_equal_elsewhere(void)
{
	vmem_manager *there = vmemt_manager(0);
	vmem_region *r = vmemt_region(there, GPA, PAGES, 0);
	struct vmemt_page mine, its;

	assert(!vmem_region_write(r, GPA, copy, PAGES * PAGE));
	cpu.region = r;
	for (uint64_t page = 0; page < PAGES; page++) {
		assert(!vmem_region_read(region, gpa_of(page), &mine, PAGE));
		assert(!vmemt_touch(&cpu, VMEMT_READ,
				    (unsigned char *)vmem_region_hva(r) + page * PAGE, &its, PAGE));
		assert(!memcmp(&mine, &its, PAGE));
	}
	cpu.region = region;
	vmemt_end(there, r);
}

static bool all_counted(void)
{
	return atomic_load(&counted) == 2 && vmemt_peer_over(&peer);
}

/* All of them write, with room for a part of it, while rounds are sent: one more when a fault has been served, as
 * rounds without a pause would keep who serves them from a core. */
static void sent_under_load(uint64_t *seed)
{
	struct vmem_region_opts o = {
		.size = sizeof(o), .flags = FLAGS, .gpa = GPA, .bytes = PAGES * PAGE
	};
	struct vmemt_count of_peer = { .seed = vmemt_rand(seed), .rounds = COUNTS, .word = 7 };
	struct counting c[2];
	uint64_t pages;

	make(8 << 20, &o);
	copy = calloc(PAGES, PAGE);
	assert(copy);
	vmemt_peer_join(&peer, region);
	vmemt_second_join(&second, region);
	assert(!vmem_manager_thread_start(manager) && !vmem_region_dirty_start(region));
	atomic_store(&counted, 0);
	vmemt_peer_count_begin(&peer, &of_peer);
	for (unsigned i = 0; i < 2; i++) {
		c[i] = (struct counting){ .memory = i ? second.memory : base };
		c[i].count = (struct vmemt_count){ vmemt_rand(seed), COUNTS, 100 + i };
		assert(!pthread_create(&c[i].thread, NULL, count_up, &c[i]));
	}
	do {
		uint64_t first = vmemt_rand(seed) % (PAGES - 64);
		uint64_t before = vmemt_metrics(region).faults;

		round_of();
		assert(!vmem_region_stage(region, gpa_of(first), 64 * PAGE, NULL));
		VMEMT_UNTIL(vmemt_metrics(region).faults != before || all_counted());
	} while (!all_counted());
	for (unsigned i = 0; i < 2; i++)
		assert(!pthread_join(c[i].thread, NULL) && !c[i].wrong);
	assert(!vmemt_peer_count_end(&peer));
	assert(!vmem_region_quiesce(region));
	round_of();
	is_equal_elsewhere();
	assert(!vmem_region_dirty_round(region, GPA, PAGES * PAGE, send, NULL, &pages) && !pages);
	assert(!vmem_region_resume(region) && !vmem_region_dirty_stop(region));
	free(copy);
	vmem_manager_thread_stop(manager);
	vmemt_second_leave(&second);
	vmemt_peer_leave(&peer);
	vmemt_end(manager, region);
}

/* Linux before 6.4 cannot map a page of a file protected. */
static bool refuse_protected(enum vmemt_call call, void *argument, int fd, int *ret_result)
{
	const struct vmemi_uffdio_continue *c = argument;

	(void)fd;
	if (call != VMEMT_K_CONTINUE || !(c->mode & VMEMI_CONTINUE_WP))
		return false;
	*ret_result = -VMEM_EINVAL;
	return true;
}

int main(void)
{
	uint64_t seed = vmemt_seed("dirty_peer");

	vmemt_peers_prepare();
	vmemt_need(VMEM_KERNEL_FILES | VMEM_KERNEL_POISON | VMEM_KERNEL_KERNEL_FAULTS);
	vmemt_cpu_start(&cpu);
	vmemt_cpu_start(&second_cpu);
	who_writes();
	come_and_go();
	cannot_be_protected();
	grown_from_source();
	at_each_step(false);
	at_each_step(true);
	vmemt_kernel_reset();
	sent_under_load(&seed);
	vmemt_kernel.before = refuse_protected;
	sent_under_load(&seed);
	vmemt_cpu_stop(&cpu);
	vmemt_cpu_stop(&second_cpu);
	vmemt_peers_end();
	return 0;
}
