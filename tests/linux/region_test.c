/* SPDX-License-Identifier: BSD-2-Clause */
/* What a region does with a page in each state: real memory, real faults, one virtual processor. */
#include "linux/guest.h"
#include <poll.h>
#include <sched.h>
#include <stdio.h>

#define PAGE VMEM_PAGE_SIZE
#define GPA UINT64_C(0x100000000)

static struct vmemt_cpu cpu;
static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;

static void make(uint64_t pages, uint64_t flags)
{
	manager = vmemt_manager(0);
	assert(!vmem_manager_thread_start(manager));
	cpu.region = region = vmemt_region(manager, GPA, pages, flags);
	base = vmem_region_hva(region);
}

static void put_all(uint64_t pages, uint64_t version)
{
	for (uint64_t i = 0; i < pages; i++)
		vmemt_put(&cpu, base, i, version);
}

static void expect_all(uint64_t pages, uint64_t version)
{
	for (uint64_t i = 0; i < pages; i++)
		assert(vmemt_is(&cpu, base, i, version));
}

static void expect_states(uint64_t first, uint64_t count, enum vmem_page_state state)
{
	for (uint64_t i = first; i < first + count; i++)
		assert(vmemt_state(region, i) == state);
}

static uint64_t gpa_of(uint64_t page)
{
	return GPA + page * PAGE;
}

static uint64_t word_at(uint64_t page)
{
	uint64_t word;

	assert(!vmemt_touch(&cpu, VMEMT_READ, base + page * PAGE, &word, 8));
	return word;
}

static void absent(void)
{
	struct vmem_region_metrics m;

	make(16, 0);
	expect_states(0, 16, VMEM_PAGE_ABSENT);
	assert(!vmemt_mapped(base));
	assert(vmemt_is(&cpu, base, 0, 0));
	vmemt_put(&cpu, base, 1, 7);
	assert(vmemt_is(&cpu, base, 1, 7));
	expect_states(0, 2, VMEM_PAGE_RESIDENT);
	expect_states(2, 14, VMEM_PAGE_ABSENT);
	vmemt_put(&cpu, base, 0, 8); /* read before, now written */
	assert(vmemt_is(&cpu, base, 0, 8));
	m = vmemt_metrics(region);
	assert(m.faults_zero == 2 && m.faults == 2 && m.fault_max_ns > 0);
	assert(m.fault_p50_ns <= m.fault_p99_ns && m.fault_p99_ns <= m.fault_max_ns);
	assert(m.pages[VMEM_PAGE_RESIDENT] == 2 && m.pages[VMEM_PAGE_ABSENT] == 14);
	vmemt_end(manager, region);
}

static void staged_in_a_run(void)
{
	struct vmem_region_metrics m;

	make(128, 0);
	put_all(128, 1);
	vmemt_stage(region, 0, 64);
	expect_states(0, 64, VMEM_PAGE_STAGED);
	for (uint64_t i = 0; i < 128; i++)
		assert(vmemt_mapped(base + i * PAGE) == (i >= 64));
	m = vmemt_metrics(region);
	assert((vmemt_on_files() ? m.taken_unmapped : m.taken_run) == 64);
	assert(m.taken_scattered == 0 && m.unmovable == 0);
	assert(vmemt_manager_metrics(manager).staging_bytes == 64 * PAGE);
	expect_all(128, 1);
	expect_states(0, 128, VMEM_PAGE_RESIDENT);
	assert(vmemt_metrics(region).faults_staged == 64);
	vmemt_stage(region, 32, 64);
	put_all(128, 2);
	expect_all(128, 2);
	VMEMT_UNTIL(!vmemt_metrics(region).staging_copies); /* the reclaim loop frees them */
	assert(!vmemt_manager_metrics(manager).staging_bytes);
	vmemt_end(manager, region);
}

static void staged_one_by_one(uint64_t flags)
{
	uint64_t gpas[40], taken = 0;
	struct vmem_region_metrics m;

	make(200, flags);
	put_all(200, 1);
	for (unsigned i = 0; i < 40; i++)
		gpas[i] = gpa_of(5 * i + 2);
	assert(!vmem_region_stage_pages(region, gpas, 40, &taken));
	assert(taken == 40);
	for (uint64_t i = 0; i < 200; i++) {
		assert(vmemt_state(region, i) ==
		       (i % 5 == 2 ? VMEM_PAGE_STAGED : VMEM_PAGE_RESIDENT));
		assert(vmemt_mapped(base + i * PAGE) == (i % 5 != 2));
	}
	m = vmemt_metrics(region);
	if (vmemt_on_files())
		assert(m.taken_unmapped == 40 && m.taken_run == 0 && m.taken_scattered == 0);
	else if (flags & VMEM_REGION_DMA_PINNED)
		assert(m.taken_scattered == 40 && m.taken_run == 0);
	else
		assert(m.taken_run == 40 && m.taken_scattered == 0);
	for (uint64_t i = 0; i < 200; i += 2)
		vmemt_put(&cpu, base, i, 2);
	for (uint64_t i = 0; i < 200; i++)
		assert(vmemt_is(&cpu, base, i, i % 2 ? 1 : 2));
	/* Pages between the victims were left writable. */
	assert(vmemt_metrics(region).faults_write == 0);

	gpas[1] = gpas[0];
	assert(vmem_region_stage_pages(region, gpas, 2, NULL) == -VMEM_EINVAL);
	gpas[0]++;
	assert(vmem_region_stage_pages(region, gpas, 1, NULL) == -VMEM_EINVAL);
	gpas[0] = gpa_of(200);
	assert(vmem_region_stage_pages(region, gpas, 1, NULL) == -VMEM_ERANGE);
	vmemt_end(manager, region);
}

static void stored(void)
{
	struct vmem_region_metrics m;
	struct vmem_store_account a;

	make(64, 0);
	put_all(64, 1);
	vmemt_store(region, 0, 64);
	expect_states(0, 64, VMEM_PAGE_STORED);
	a = vmemt_account(region);
	assert(a.pages == 64 && a.pages_compressed == 64 && a.physical_bytes < 64 * PAGE);
	VMEMT_UNTIL(!vmemt_manager_metrics(manager).staging_bytes);
	for (uint64_t i = 0; i < 32; i++)
		assert(vmemt_is(&cpu, base, i, 1));
	expect_states(0, 32, VMEM_PAGE_CLEAN);
	assert(vmemt_account(region).pages == 64); /* refs are kept */
	for (uint64_t i = 16; i < 48; i++)
		vmemt_put(&cpu, base, i, 2);
	expect_states(0, 16, VMEM_PAGE_CLEAN);
	expect_states(16, 32, VMEM_PAGE_RESIDENT);
	expect_states(48, 16, VMEM_PAGE_STORED);
	assert(vmemt_account(region).pages == 32);
	m = vmemt_metrics(region);
	assert(m.saved == 64 && m.faults_stored == 48 && m.faults_write == 16);

	/* What is clean leaves for nothing: no copy, no save. */
	vmemt_stage(region, 0, 16);
	expect_states(0, 16, VMEM_PAGE_STORED);
	assert(!vmemt_mapped(base));
	m = vmemt_metrics(region);
	assert(m.taken_clean == 16 && m.saved == 64 && m.pages[VMEM_PAGE_STAGED] == 0);
	for (uint64_t i = 0; i < 64; i++)
		assert(vmemt_is(&cpu, base, i, i >= 16 && i < 48 ? 2 : 1));
	vmemt_end(manager, region);
}

/* Neighbours of sequential faults come with them, from staging and from the store; and are right. */
static void fault_around(void)
{
	struct vmem_region_opts o = { .size = sizeof(o), .gpa = GPA, .bytes = 512 * PAGE };
	struct vmem_region_metrics m;

	manager = vmemt_manager(0);
	assert(!vmem_manager_thread_start(manager));
	o.fault_around_pages = 16;
	assert(!vmemt_alloc(&region, manager, &o));
	cpu.region = region;
	base = vmem_region_hva(region);
	for (uint64_t i = 0; i < 512; i += 2)
		vmemt_put(&cpu, base, i, 1);
	for (uint64_t i = 1; i < 512; i += 2)
		vmemt_put(&cpu, base, i, 1);
	vmemt_check(manager, region); /* neighbours come after the answer: all are there now */
	vmemt_stage(region, 0, 512);
	m = vmemt_metrics(region);
	expect_all(256, 1);
	vmemt_check(manager, region);
	assert(vmemt_metrics(region).prefetched - m.prefetched >= 200);
	assert(vmemt_metrics(region).faults_staged - m.faults_staged <= 56);
	assert(!vmem_region_store(region, gpa_of(256), 256 * PAGE, NULL));
	m = vmemt_metrics(region);
	expect_all(512, 1);
	vmemt_check(manager, region);
	assert(vmemt_metrics(region).prefetched - m.prefetched >= 200);
	m = vmemt_metrics(region);
	assert(m.faults_staged + m.faults_stored + m.faults_zero + m.prefetched == 2 * 512);
	vmemt_end(manager, region);
}

/* One page in each state, for tests that do the same to all. */
enum { P_ABSENT, P_RESIDENT, P_CLEAN, P_STAGED, P_STORED, P_SAME, PAGES_OF_ALL };

static const enum vmem_page_state state_of_all[PAGES_OF_ALL] = {
	VMEM_PAGE_ABSENT, VMEM_PAGE_RESIDENT, VMEM_PAGE_CLEAN,
	VMEM_PAGE_STAGED, VMEM_PAGE_STORED,   VMEM_PAGE_STORED,
};

static void make_all(void)
{
	uint64_t same[PAGE / 8];

	make(64, VMEM_REGION_DMA_PINNED);
	for (unsigned i = P_RESIDENT; i < P_SAME; i++)
		vmemt_put(&cpu, base, i, 1);
	for (unsigned i = 0; i < PAGE / 8; i++)
		same[i] = UINT64_C(0x1234567812345678);
	assert(!vmemt_touch(&cpu, VMEMT_WRITE, base + P_SAME * PAGE, same, PAGE));
	vmemt_store(region, P_CLEAN, 1);
	vmemt_store(region, P_STORED, 2);
	vmemt_stage(region, P_STAGED, 1);
	assert(vmemt_is(&cpu, base, P_CLEAN, 1));
	for (unsigned i = 0; i < PAGES_OF_ALL; i++)
		assert(vmemt_state(region, i) == state_of_all[i]);
}

static void expect_contents_of_all(void)
{
	assert(vmemt_is(&cpu, base, P_ABSENT, 0));
	for (unsigned i = P_RESIDENT; i < P_SAME; i++)
		assert(vmemt_is(&cpu, base, i, 1));
	assert(word_at(P_SAME) == UINT64_C(0x1234567812345678));
}

static void discarded(void)
{
	uint64_t released = 0, stored;

	make_all();
	stored = vmemt_account(region).physical_bytes;
	/* Cut inwards: nothing but whole pages go. */
	assert(!vmem_region_discard(region, gpa_of(0) + 8, PAGE, &released));
	assert(!released);
	assert(!vmem_region_discard(region, gpa_of(0), PAGES_OF_ALL * PAGE, &released));
	assert(released == 3 * PAGE + stored); /* resident, clean, staged */
	expect_states(0, PAGES_OF_ALL, VMEM_PAGE_ABSENT);
	assert(!vmemt_account(region).pages);
	for (unsigned i = 0; i < PAGES_OF_ALL; i++) {
		assert(!vmemt_mapped(base + i * PAGE));
		assert(vmemt_is(&cpu, base, i, 0));
	}
	assert(vmemt_metrics(region).discarded == 5);
	VMEMT_UNTIL(!vmemt_manager_metrics(manager).staging_bytes);
	assert(vmem_region_discard(region, GPA, 65 * PAGE, NULL) == -VMEM_ERANGE);
	assert(vmem_region_discard(region, GPA - PAGE, PAGE, NULL) == -VMEM_ERANGE);
	vmemt_end(manager, region);
}

static void pinned(void)
{
	uint64_t pages = 99;

	make_all();
	assert(!vmem_region_pin(region, gpa_of(0) + 100, PAGES_OF_ALL * PAGE - 200));
	expect_states(0, PAGES_OF_ALL, VMEM_PAGE_RESIDENT);
	assert(vmemt_metrics(region).pinned_pages == PAGES_OF_ALL);
	for (unsigned i = 0; i < PAGES_OF_ALL; i++)
		assert(vmemt_mapped(base + i * PAGE));
	assert(!vmem_region_pin(region, gpa_of(1), 1)); /* twice */
	assert(!vmem_region_stage(region, GPA, PAGES_OF_ALL * PAGE, &pages));
	assert(!pages);
	assert(vmem_region_discard(region, GPA, PAGES_OF_ALL * PAGE, NULL) == -VMEM_EBUSY);
	expect_states(0, PAGES_OF_ALL, VMEM_PAGE_RESIDENT);
	expect_contents_of_all();
	assert(vmem_region_unpin(region, gpa_of(0), 7 * PAGE) == -VMEM_EINVAL); /* one too many */
	assert(!vmem_region_unpin(region, gpa_of(0), PAGES_OF_ALL * PAGE));
	assert(vmemt_metrics(region).pinned_pages == 1);
	assert(!vmem_region_stage(region, GPA, PAGES_OF_ALL * PAGE, &pages));
	assert(pages == PAGES_OF_ALL - 1);
	assert(vmemt_state(region, 1) == VMEM_PAGE_RESIDENT);
	assert(!vmem_region_unpin(region, gpa_of(1), 1));
	assert(vmem_region_unpin(region, gpa_of(1), 1) == -VMEM_EINVAL);
	vmemt_stage(region, 1, 1);
	expect_contents_of_all();

	/* A page takes 65535 pins; one more pins nothing of a range. */
	for (unsigned i = 0; i < 65535; i++)
		assert(!vmem_region_pin(region, gpa_of(9), PAGE));
	assert(vmem_region_pin(region, gpa_of(8), 2 * PAGE) == -VMEM_ENOSPC);
	assert(vmemt_metrics(region).pinned_pages == 1);
	for (unsigned i = 0; i < 65535; i++)
		assert(!vmem_region_unpin(region, gpa_of(9), PAGE));
	assert(!vmemt_metrics(region).pinned_pages);
	assert(vmem_region_pin(region, gpa_of(63), PAGE + 1) == -VMEM_ERANGE);
	vmemt_end(manager, region);
}

static void resolved(void)
{
	make_all();
	for (unsigned i = 0; i < PAGES_OF_ALL; i++)
		assert(!vmem_region_resolve(region, gpa_of(i) + 17, 0));
	expect_states(0, 2, VMEM_PAGE_RESIDENT);
	assert(vmemt_state(region, P_STORED) == VMEM_PAGE_CLEAN);
	assert(vmemt_state(region, P_STAGED) == VMEM_PAGE_RESIDENT);
	for (unsigned i = 0; i < PAGES_OF_ALL; i++)
		assert(!vmem_region_resolve(region, gpa_of(i), 1));
	expect_states(0, PAGES_OF_ALL, VMEM_PAGE_RESIDENT);
	expect_contents_of_all();
	assert(!vmemt_account(region).pages);
	assert(vmem_region_resolve(region, gpa_of(64), 0) == -VMEM_ERANGE);
	vmemt_end(manager, region);
}

static void read_without_faults(void)
{
	struct vmemt_page p[PAGES_OF_ALL], want;
	uint64_t faults;

	make_all();
	faults = vmemt_metrics(region).faults;
	assert(!vmem_region_read(region, GPA, p, sizeof(p)));
	for (unsigned i = 0; i < PAGES_OF_ALL; i++) {
		assert(vmemt_state(region, i) == state_of_all[i]);
		vmemt_make(&want, i, i != P_ABSENT);
		assert(i == P_SAME || !memcmp(&p[i], &want, PAGE));
	}
	vmem_page_fill(&want, UINT64_C(0x1234567812345678));
	assert(!memcmp(&p[P_SAME], &want, PAGE));
	assert(vmemt_metrics(region).faults == faults);
	assert(vmem_region_read(region, GPA + 8, p, PAGE) == -VMEM_EINVAL);
	assert(vmem_region_read(region, GPA, p, 8) == -VMEM_EINVAL);
	assert(vmem_region_read(region, gpa_of(64), p, PAGE) == -VMEM_ERANGE);
	expect_contents_of_all();
	vmemt_end(manager, region);
}

static void written_without_faults(void)
{
	static struct vmemt_page p[40];
	uint64_t faults;

	make_all();
	for (unsigned i = 0; i < 40; i++)
		vmemt_make(&p[i], i, 5);
	faults = vmemt_metrics(region).faults_zero;
	assert(!vmem_region_write(region, GPA, p, sizeof(p)));
	expect_states(0, 40, VMEM_PAGE_RESIDENT);
	assert(vmemt_metrics(region).faults_zero == faults);
	assert(!vmemt_account(region).pages);
	assert(!vmemt_metrics(region).pinned_pages);
	expect_all(40, 5);
	expect_states(40, 24, VMEM_PAGE_ABSENT);
	assert(vmem_region_write(region, GPA + 8, p, PAGE) == -VMEM_EINVAL);
	assert(vmem_region_write(region, gpa_of(63), p, 2 * PAGE) == -VMEM_ERANGE);
	vmemt_end(manager, region);
}

static void two_regions_of_a_vm(void)
{
	struct vmem_region_opts o = {
		.size = sizeof(o), .gpa = 0, .bytes = 32 * PAGE, .fault_around_pages = 1
	};
	vmem_region *other, *stranger;
	unsigned char *other_base;

	make(32, 0);
	o.same_vm_as = region;
	assert(!vmemt_alloc(&other, manager, &o));
	o.same_vm_as = NULL; /* another VM: the same addresses are fine */
	assert(!vmemt_alloc(&stranger, manager, &o));
	other_base = vmem_region_hva(other);
	put_all(32, 1);
	cpu.region = other;
	for (uint64_t i = 0; i < 32; i++)
		vmemt_put(&cpu, other_base, i, 2);
	vmemt_store(region, 0, 32);
	vmemt_store(other, 0, 32);
	assert(vmemt_account(region).pages == 64 && vmemt_account(other).pages == 64);
	assert(!vmemt_account(stranger).pages);
	assert(vmem_manager_free(manager) == -VMEM_EBUSY);
	assert(!vmem_region_detach(region, VMEM_DETACH_RESTORE));
	assert(vmemt_account(other).pages == 32);
	expect_all(32, 1); /* its own memory now */
	for (uint64_t i = 0; i < 32; i++)
		assert(vmemt_is(&cpu, other_base, i, 2));
	assert(!vmem_region_detach(stranger, VMEM_DETACH_DISCARD));
	vmemt_end(manager, other);
}

/* While nobody serves faults, who touches a page that is away waits; it is never zeros. */
static void stopped(void)
{
	const unsigned pages[] = { P_ABSENT, P_CLEAN, P_STAGED, P_STORED };
	struct vmemt_page p, want;

	make_all();
	for (unsigned i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		struct pollfd fd = { .fd = vmem_manager_fd(manager), .events = POLLIN };
		bool write = pages[i] == P_CLEAN;
		unsigned char *memory = base + pages[i] * PAGE;

		vmem_manager_thread_stop(manager);
		while (vmem_manager_step(manager, 100, NULL))
			;
		assert(poll(&fd, 1, 0) == 0);
		vmemt_make(&p, pages[i], 2);
		vmemt_touch_begin(&cpu, write ? VMEMT_WRITE : VMEMT_READ, memory, &p, PAGE);
		vmemt_until_readable(fd.fd); /* it has come to wait */
		for (unsigned k = 0; k < 1000; k++)
			sched_yield();
		assert(!vmemt_touch_over(&cpu));
		assert(vmemt_state(region, pages[i]) == state_of_all[pages[i]]);
		assert(!vmem_manager_thread_start(manager));
		assert(!vmemt_touch_end(&cpu));
		vmemt_make(&want, pages[i], write ? 2 : pages[i] != P_ABSENT);
		assert(!memcmp(&p, &want, PAGE) &&
		       vmemt_is(&cpu, base, pages[i], write ? 2 : pages[i] != P_ABSENT));
	}
	vmemt_end(manager, region);
}

static void metrics_add_up(void)
{
	struct vmem_manager_metrics mm;
	struct vmem_region_metrics m;
	uint64_t sum = 0;

	make_all();
	VMEMT_UNTIL(!vmemt_metrics(region).staging_copies);
	vmem_manager_thread_stop(manager);
	m = vmemt_metrics(region);
	mm = vmemt_manager_metrics(manager);
	for (unsigned s = 0; s < VMEM_PAGE_STATES; s++)
		sum += m.pages[s];
	assert(sum == 64 && m.bytes == 64 * PAGE);
	assert(m.faults == m.faults_zero + m.faults_staged + m.faults_stored + m.faults_write +
				   m.faults_redundant + m.faults_mapped);
	assert(mm.resident_bytes ==
	       (m.pages[VMEM_PAGE_RESIDENT] + m.pages[VMEM_PAGE_CLEAN]) * PAGE);
	assert(mm.staging_bytes == m.pages[VMEM_PAGE_STAGED] * PAGE);
	assert(mm.used_bytes ==
	       mm.resident_bytes + mm.staging_bytes + mm.pool_bytes + mm.metadata_bytes);
	assert(mm.pool_bytes > 0 && mm.metadata_bytes > 64 * 11 && !mm.budget_bytes);
	assert(m.saved == 3 && m.taken_run + m.taken_scattered + m.taken_unmapped == 4);
	vmemt_end(manager, region);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_KERNEL_FAULTS);
	vmemt_cpu_start(&cpu);
	absent();
	staged_in_a_run();
	staged_one_by_one(0);
	staged_one_by_one(VMEM_REGION_DMA_PINNED);
	stored();
	fault_around();
	discarded();
	pinned();
	resolved();
	read_without_faults();
	written_without_faults();
	two_regions_of_a_vm();
	stopped();
	metrics_add_up();
	vmemt_cpu_stop(&cpu);
	return 0;
}
