/* SPDX-License-Identifier: BSD-2-Clause */
/* The budget holds: counted by the library, and seen from outside; what fits nowhere waits and is told;
 * nothing is lost either way. */
#include "linux/guest.h"
#include "store/store_internal.h"
#include "support/slow.h"
#include <sched.h>
#include <stdio.h>

#define MIB (UINT64_C(1) << 20)
#define PAGE VMEM_PAGE_SIZE
#define TOUCHERS 2
#define PAGES_EACH 8192
#define OPERATIONS (VMEMT_RACES_ONLY ? 10000u : 25000u)

/* A page of 128 random bytes, else of one word: LZ4 makes about 170 bytes of it. */
static void make_page(uint64_t *words, uint64_t page, uint64_t version)
{
	uint64_t state = page << 20 ^ version;

	for (unsigned i = 0; i < PAGE / 8; i++)
		words[i] = !version ? 0 : i < 16 ? vmemt_rand(&state) : version;
}

/* What the process really uses, in bytes. */
static uint64_t pss(void)
{
	unsigned long long kib = 0;
	FILE *f = fopen("/proc/self/smaps_rollup", "r");
	char line[256];

	assert(f);
	while (!kib && fgets(line, sizeof(line), f))
		if (sscanf(line, "Pss: %llu", &kib) != 1)
			kib = 0;
	fclose(f);
	return kib * 1024;
}

struct toucher {
	pthread_t thread;
	unsigned char *base; /* of its own pages */
	uint64_t first;      /* number of the first of them */
	uint64_t seed;
	_Atomic uint64_t done; /* atomic; operations */
	uint8_t version[PAGES_EACH];
};

static void *touch_randomly(void *argument)
{
	struct toucher *t = argument;
	uint64_t words[PAGE / 8], rng = t->seed;

	for (unsigned k = 0; k < OPERATIONS; k++) {
		uint64_t page = vmemt_rand(&rng) % PAGES_EACH, number = t->first + page;
		uint64_t *memory = (uint64_t *)(void *)(t->base + page * PAGE);

		make_page(words, number, t->version[page]);
		for (unsigned i = 0; i < PAGE / 8; i++)
			assert(memory[i] == words[i]);
		if (vmemt_rand(&rng) % 4) {
			make_page(words, number,
				  ++t->version[page] ? t->version[page] : ++t->version[page]);
			memcpy(memory, words, PAGE);
		}
		atomic_fetch_add(&t->done, 1);
	}
	return NULL;
}

static bool all_done(struct toucher *t)
{
	uint64_t done = 0;

	for (unsigned i = 0; i < TOUCHERS; i++)
		done += atomic_load(&t[i].done);
	return done == TOUCHERS * OPERATIONS;
}

/* Samples until the touchers are through; no operation for long fails. */
static void watch(vmem_manager *m, struct toucher *t, uint64_t budget, uint64_t base)
{
	uint64_t last = 0, deadline = 0, most = 0, most_pss = 0, samples = 0;

	while (!all_done(t)) {
		uint64_t used = vmemt_manager_metrics(m).used_bytes, done = 0;

		most = used > most ? used : most;
		if (samples++ % 64 == 0) {
			uint64_t now = pss();

			most_pss = now > most_pss ? now : most_pss;
		}
		for (unsigned i = 0; i < TOUCHERS; i++)
			done += atomic_load(&t[i].done);
		if (done != last || !deadline)
			deadline = vmemt_now_ms() + VMEMT_DEADLINE_MS;
		VMEMT_NOT_AFTER(deadline, "touches go on");
		last = done;
		sched_yield();
	}
	fprintf(stderr, "budget %llu KiB: at most used %llu KiB, seen from outside %llu KiB\n",
		(unsigned long long)budget / 1024, (unsigned long long)most / 1024,
		(unsigned long long)(most_pss - base) / 1024);
	assert(most > budget / 2);
	/* Frames are taken before they are asked about, and given back: one for each thread at it. */
	assert(most <= budget + 16 * PAGE);
	assert(VMEMT_SANITIZED || most_pss - base <= budget + budget / 20);
}

static void holds(uint64_t seed)
{
	static struct toucher t[TOUCHERS];
	const uint64_t budget = 24 * MIB;
	uint64_t base = pss();
	vmem_manager *m = vmemt_manager(budget);
	struct vmem_manager_metrics mm;
	struct vmem_region_opts o = { .size = sizeof(o),
				      .flags = VMEM_REGION_DMA_PINNED,
				      .bytes = TOUCHERS * PAGES_EACH * PAGE };
	vmem_region *r;

	assert(!vmemt_alloc(&r, m, &o));
	assert(!vmem_manager_thread_start(m));
	for (unsigned i = 0; i < TOUCHERS; i++) {
		t[i].first = i * PAGES_EACH;
		t[i].base = (unsigned char *)vmem_region_hva(r) + t[i].first * PAGE;
		t[i].seed = seed + i;
		assert(!pthread_create(&t[i].thread, NULL, touch_randomly, &t[i]));
	}
	watch(m, t, budget, base);
	for (unsigned i = 0; i < TOUCHERS; i++)
		assert(!pthread_join(t[i].thread, NULL));
	mm = vmemt_manager_metrics(m);
	assert(mm.stuck == 0 && mm.reclaim_rounds > 0 && mm.reclaim_ns > 0);
	assert(vmemt_on_files() || mm.run_ns_per_page || mm.scattered_ns_per_page);
	assert(vmemt_metrics(r).saved > 1000 && !vmemt_metrics(r).lost);
	vmemt_end(m, r);
}

/* Marks that leave too little to work with are made larger: compressible data never gets stuck. */
static void small_marks(void)
{
	struct vmem_manager_opts o = {
		.size = sizeof(o), .budget_bytes = 6 * MIB, .reserve_bytes = 1, .staging_bytes = 1
	};
	uint64_t words[PAGE / 8], got[PAGE / 8];
	struct vmemt_cpu cpu;
	vmem_manager *m;
	vmem_region *r;
	unsigned char *base;

	assert(!vmem_manager_new(&m, &o));
	assert(!vmem_manager_thread_start(m));
	vmemt_cpu_start(&cpu);
	cpu.region = r = vmemt_region(m, 0, 4096, 0);
	base = vmem_region_hva(r);
	for (uint64_t i = 0; i < 4096; i++) {
		make_page(words, i, 1);
		assert(!vmemt_touch(&cpu, VMEMT_WRITE, base + i * PAGE, words, PAGE));
		assert(vmemt_manager_metrics(m).used_bytes <= 6 * MIB + 16 * PAGE);
	}
	for (uint64_t i = 0; i < 4096; i++) {
		make_page(words, i, 1);
		assert(!vmemt_touch(&cpu, VMEMT_READ, base + i * PAGE, got, PAGE));
		assert(!memcmp(words, got, PAGE));
	}
	assert(!vmemt_manager_metrics(m).stuck);
	vmemt_cpu_stop(&cpu);
	vmemt_end(m, r);
}

/* By far more than what reclaim keeps free: what is saved on the way down needs room first. */
static void lowered_at_once(bool threads)
{
	const uint64_t pages = 8192, budget = 8 * MIB;
	uint64_t words[PAGE / 8], got[PAGE / 8], most;
	vmem_manager *m = vmemt_manager(64 * MIB);
	vmem_region *r = vmemt_region(m, 0, pages, 0);

	for (uint64_t i = 0; i < pages; i++) {
		make_page(words, i, 1);
		assert(!vmem_region_write(r, i * PAGE, words, PAGE));
	}
	most = vmemt_manager_metrics(m).used_bytes;
	assert(most > 32 * MIB);
	if (threads)
		assert(!vmem_manager_thread_start(m));
	assert(!vmem_manager_set_budget(m, budget));
	VMEMT_UNTIL((threads || vmem_manager_step(m, 100, NULL) >= 0) &&
		    vmemt_manager_metrics(m).used_bytes <= budget);
	for (uint64_t i = 0; i < pages; i++) {
		make_page(words, i, 1);
		assert(!vmem_region_read(r, i * PAGE, got, PAGE));
		assert(!memcmp(words, got, PAGE));
	}
	vmemt_end(m, r);
}

static _Atomic uint32_t events[3]; /* atomic; by enum vmem_manager_event */

static void on_event(void *context, enum vmem_manager_event event, uint64_t a, uint64_t b)
{
	assert(context == events && event <= VMEM_MANAGER_UNSTUCK);
	assert(b == 8 * MIB || event == VMEM_MANAGER_UNSTUCK);
	assert(a > 0);
	atomic_fetch_add(&events[event], 1);
}

/* Noise fits nowhere: the one who brings too much of it waits, and goes on when there is room. */
static void stuck(bool threads)
{
	struct vmem_manager_opts o = {
		.size = sizeof(o), .budget_bytes = 8 * MIB, .on_event = on_event, .context = events
	};
	struct vmemt_page p, got;
	struct vmemt_cpu cpu;
	vmem_manager *m;
	vmem_region *r;
	unsigned char *base;
	uint64_t i;

	atomic_store(&events[VMEM_MANAGER_STUCK], 0);
	atomic_store(&events[VMEM_MANAGER_UNSTUCK], 0);
	assert(!vmem_manager_new(&m, &o));
	if (threads)
		assert(!vmem_manager_thread_start(m));
	vmemt_cpu_start(&cpu);
	cpu.region = r = vmemt_region(m, 0, 3072, 0);
	base = vmem_region_hva(r);
	for (i = 0; i < 3072 && !atomic_load(&events[VMEM_MANAGER_STUCK]); i++) {
		vmemt_page_make(&p, VMEMT_PAGE_NOISE, i);
		vmemt_touch_begin(&cpu, VMEMT_WRITE, base + i * PAGE, &p, PAGE);
		VMEMT_UNTIL((threads || vmem_manager_step(m, 100, NULL) >= 0) &&
			    (vmemt_touch_over(&cpu) || atomic_load(&events[VMEM_MANAGER_STUCK])));
		if (vmemt_touch_over(&cpu))
			assert(!vmemt_touch_end(&cpu));
	}
	assert(i > 512 && i < 2048);
	/* The one who waits is not forgotten, and the VMM is not told again and again. */
	for (unsigned k = 0; k < 300 && !threads; k++)
		assert(vmem_manager_step(m, 100, NULL) >= 0);
	assert(atomic_load(&events[VMEM_MANAGER_STUCK]) == 1);
	assert(!atomic_load(&events[VMEM_MANAGER_UNSTUCK]));
	if (vmemt_touch_over(&cpu)) { /* the last page found room: the next does not */
		assert(!vmemt_touch_end(&cpu));
		vmemt_page_make(&p, VMEMT_PAGE_NOISE, i);
		vmemt_touch_begin(&cpu, VMEMT_WRITE, base + i++ * PAGE, &p, PAGE);
		for (unsigned k = 0; k < 300 && !threads; k++)
			assert(vmem_manager_step(m, 100, NULL) >= 0);
	}
	VMEMT_UNTIL(vmemt_metrics(r).stalls);
	assert(!vmemt_touch_over(&cpu));
	assert(!vmem_manager_set_budget(m, 16 * MIB));
	VMEMT_UNTIL((threads || vmem_manager_step(m, 100, NULL) >= 0) && vmemt_touch_over(&cpu));
	assert(!vmemt_touch_end(&cpu));
	VMEMT_UNTIL((threads || vmem_manager_step(m, 100, NULL) >= 0) &&
		    atomic_load(&events[VMEM_MANAGER_UNSTUCK]));
	assert(!threads || vmemt_manager_metrics(m).stuck == 1);
	VMEMT_UNTIL((threads || vmem_manager_step(m, 100, NULL) >= 0) && vmemt_metrics(r).stall_ns);
	assert(vmemt_metrics(r).rejected > 0);
	while (i-- > 0) {
		vmemt_touch_begin(&cpu, VMEMT_READ, base + i * PAGE, &got, PAGE);
		VMEMT_UNTIL((threads || vmem_manager_step(m, 100, NULL) >= 0) &&
			    vmemt_touch_over(&cpu));
		assert(!vmemt_touch_end(&cpu));
		assert(vmemt_page_is(&got, VMEMT_PAGE_NOISE, i));
	}
	vmemt_cpu_stop(&cpu);
	vmemt_end(m, r);
}

/* All is stored, and what is free is less than the floor, which has room for the segments that the pool keeps spare: but
 * those it has. So the guest goes on, nothing is told, and when there is more room the floor is whole again. */
static void all_stored(bool threads)
{
	const struct vmem_manager_opts o = { .size = sizeof(o),
					     .budget_bytes = 32 * MIB,
					     .cold_after_ms = 3600000 };
	const uint64_t pages = 2048, spare = 2 * VMEM_POOL_SEGMENT_BYTES;
	vmem_manager *m = vmemt_manager_of(&o);
	struct vmemt_page p, got;
	struct vmemt_cpu cpu;
	vmem_region *r = vmemt_region(m, 0, pages, 0);
	unsigned char *base = vmem_region_hva(r);

	vmemt_cpu_start(&cpu);
	cpu.region = r;
	for (uint64_t i = 0; i < pages; i++) {
		vmemt_make(&p, i, 1);
		assert(!vmem_region_write(r, i * PAGE, &p, PAGE));
	}
	vmemt_store(r, 0, pages);
	VMEMT_UNTIL(vmem_manager_step(m, 100, NULL) >= 0 && !m->reclaim->store_has_work &&
		    vmemi_pool_spare_bytes(m->host.store->pool) == spare);
	assert(vmemt_metrics(r).pages[VMEM_PAGE_STORED] == pages);
	assert(!vmem_manager_set_budget(m, vmemt_manager_metrics(m).used_bytes + m->floor_bytes -
						   16 * PAGE));
	assert(vmemi_frames_free(&m->host.frames) < atomic_load(&m->host.frames.floor_bytes));
	if (threads)
		assert(!vmem_manager_thread_start(m));
	for (uint64_t i = 0; i < pages; i++) {
		uint64_t at = i * 37 % pages;

		vmemt_make(&p, at, 1);
		vmemt_touch_begin(&cpu, VMEMT_READ, base + at * PAGE, &got, PAGE);
		VMEMT_UNTIL((threads || vmem_manager_step(m, 100, NULL) >= 0) &&
			    vmemt_touch_over(&cpu));
		assert(!vmemt_touch_end(&cpu) && !memcmp(&p, &got, PAGE));
	}
	assert(!vmemt_manager_metrics(m).stuck);
	assert(!vmem_manager_set_budget(m, 32 * MIB));
	assert(atomic_load(&m->host.frames.floor_bytes) == m->floor_bytes);
	vmemt_cpu_stop(&cpu);
	vmemt_end(m, r);
}

static vmem_manager *raised;
static vmem_region *raised_region;
static _Atomic uint32_t raises; /* atomic */
static bool raised_by_threads;
static _Atomic bool raised_over; /* atomic; nobody touches any more */

static void raise_budget(void *context, enum vmem_manager_event event, uint64_t a, uint64_t b)
{
	uint64_t stalls;

	assert(context == &raised && a > 0);
	if (event != VMEM_MANAGER_STUCK)
		return;
	atomic_fetch_add(&raises, 1);
	stalls = vmemt_metrics(raised_region).stalls;
	assert(!vmem_manager_set_budget(raised, b + MIB));
	assert(vmemt_manager_metrics(raised).budget_bytes == b + MIB);
	/* What was added is used up before reclaim looks again: it must be told again. */
	if (raised_by_threads)
		VMEMT_UNTIL(vmemt_metrics(raised_region).stalls > stalls ||
			    atomic_load(&raised_over));
}

/* The obvious thing to do when the VMM is told: it may call back. */
static void raised_when_told(bool threads)
{
	struct vmem_manager_opts o = { .size = sizeof(o),
				       .budget_bytes = 8 * MIB,
				       .on_event = raise_budget,
				       .context = &raised };
	const uint64_t pages = 2048;
	struct vmemt_page p, got;
	struct vmemt_cpu cpu;
	unsigned char *base;
	vmem_region *r;

	atomic_store(&raises, 0);
	atomic_store(&raised_over, false);
	raised_by_threads = threads;
	assert(!vmem_manager_new(&raised, &o));
	raised_region = r = vmemt_region(raised, 0, pages, 0);
	if (threads)
		assert(!vmem_manager_thread_start(raised));
	vmemt_cpu_start(&cpu);
	cpu.region = r;
	base = vmem_region_hva(r);
	for (uint64_t i = 0; i < 2 * pages; i++) {
		uint64_t at = i % pages;

		vmemt_page_make(&p, VMEMT_PAGE_NOISE, at);
		vmemt_touch_begin(&cpu, i < pages ? VMEMT_WRITE : VMEMT_READ, base + at * PAGE,
				  i < pages ? &p : &got, PAGE);
		VMEMT_UNTIL((threads || vmem_manager_step(raised, 100, NULL) >= 0) &&
			    vmemt_touch_over(&cpu));
		assert(!vmemt_touch_end(&cpu));
		assert(i < pages || !memcmp(&p, &got, PAGE));
	}
	assert(atomic_load(&raises));
	atomic_store(&raised_over, true);
	vmemt_cpu_stop(&cpu);
	vmemt_end(raised, r);
}

/* The same through a call: it ends with an error, not in waiting, and what was written is there. */
static void write_too_much(bool threads)
{
	const uint64_t pages = 4096;
	struct vmemt_page p, got;
	vmem_manager *m = vmemt_manager(8 * MIB);
	vmem_region *r = vmemt_region(m, 0, pages, 0);
	uint64_t i, written;
	int error = 0;

	if (threads)
		assert(!vmem_manager_thread_start(m));
	for (i = 0; i < pages && !error; i++) {
		vmemt_page_make(&p, VMEMT_PAGE_NOISE, i);
		error = vmem_region_write(r, i * PAGE, &p, PAGE);
	}
	written = i - 1;
	assert(error == -VMEM_ENOSPC && written > 1024 && written < 2048);
	assert(vmemt_manager_metrics(m).used_bytes <= 8 * MIB + 16 * PAGE);
	for (i = 0; i < written; i++) {
		assert(!vmem_region_read(r, i * PAGE, &got, PAGE));
		assert(vmemt_page_is(&got, VMEMT_PAGE_NOISE, i));
	}
	/* When some of it is given up, there is room again, for much more if that compresses. */
	assert(!vmem_region_discard(r, 0, 256 * PAGE, NULL));
	for (i = 3000; i < 3600; i++) {
		vmemt_page_make(&p, VMEMT_PAGE_SAME, i);
		assert(!vmem_region_write(r, i * PAGE, &p, PAGE));
	}
	for (i = 3000; i < 3600; i++) {
		assert(!vmem_region_read(r, i * PAGE, &got, PAGE));
		assert(vmemt_page_is(&got, VMEMT_PAGE_SAME, i));
	}
	vmemt_end(m, r);
}

int main(void)
{
	uint64_t seed = vmemt_seed("budget");

	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_KERNEL_FAULTS);
	holds(seed);
	small_marks();
	all_stored(false);
	all_stored(true);
	stuck(false);
	stuck(true);
	raised_when_told(true);
	raised_when_told(false);
	lowered_at_once(false);
	lowered_at_once(true);
	write_too_much(false);
	write_too_much(true);
	return 0;
}
