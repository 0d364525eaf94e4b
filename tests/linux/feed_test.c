/* SPDX-License-Identifier: BSD-2-Clause */
/* Feeds: what they say of pages in place keeps those; a dirty log that lies, or fails, does no harm; and the
 * one of KVM says the truth. No thread of the library runs. */
#include "linux/guest.h"
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vmem/feed.h>

#define PAGE VMEM_PAGE_SIZE
#define PAGES UINT64_C(2050) /* not a multiple of 64 */
#define HALF UINT64_C(1025)

/* The context of the callback: what it says. */
struct log {
	vmem_manager *manager;
	vmem_region *region;
	uint64_t first, count; /* pages written */
	unsigned calls;
	int error;
	bool everything; /* also bits beyond the end */
};

static int dirty_log(void *context, uint64_t gpa, uint64_t bytes, uint64_t *bitmap)
{
	struct log *log = context;

	assert(gpa == 16 * PAGE && bytes == PAGES * PAGE);
	for (uint64_t i = 0; i < (PAGES + 63) / 64; i++) {
		assert(!bitmap[i]);
		if (log->everything)
			bitmap[i] = UINT64_MAX;
	}
	for (uint64_t page = log->first; page < log->first + log->count; page++)
		bitmap[page / 64] |= UINT64_C(1) << page % 64;
	log->calls++;
	return log->error;
}

static void make(struct log *log)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .gpa = 16 * PAGE,
				      .bytes = PAGES * PAGE,
				      .dirty_log = dirty_log,
				      .context = log };

	log->manager = vmemt_manager(0);
	assert(!vmem_region_alloc(&log->region, log->manager, &o));
	assert(vmem_region_feed(log->region) == VMEM_FEED_DIRTY_LOG);
	assert(!strcmp(vmem_region_feed_name(log->region), "dirty log"));
	for (uint64_t page = 0; page < PAGES; page++)
		assert(!vmem_region_resolve(log->region, (16 + page) * PAGE, 1));
}

static void end(struct log *log)
{
	vmemt_check(log->manager, log->region);
	vmemt_end(log->manager, log->region);
}

/* The end of a period, with the feed asked whatever it cost before. */
static void end_period(struct log *log)
{
	struct vmem_region *r = log->region;
	unsigned calls = log->calls;

	vmemi_reclaim_enter(log->manager->reclaim);
	r->feed.next_ns = 0;
	r->ages.period_ns = 0;
	vmemi_ages_tick(r, log->manager->host.k->clock_ns());
	vmemi_reclaim_leave(log->manager->reclaim);
	assert(log->calls == calls + 1);
}

static uint64_t take(struct log *log, uint64_t want)
{
	uint64_t taken;

	vmemi_reclaim_enter(log->manager->reclaim);
	vmemi_tidy(log->manager->reclaim, log->region, 0, PAGES);
	log->region->feed.next_ns = UINT64_MAX;
	vmemt_let_go(log->region);
	taken = vmemi_take_cold(log->manager->reclaim, log->region, want, false);
	vmemi_reclaim_leave(log->manager->reclaim);
	return taken;
}

static uint64_t in_place(const struct log *log, uint64_t first, uint64_t count)
{
	uint64_t n = 0;

	for (uint64_t page = first; page < first + count; page++)
		n += vmemt_state(log->region, page) == VMEM_PAGE_RESIDENT;
	return n;
}

static struct vmem_feed_info info(vmem_region *r, int feed)
{
	struct vmem_feed_info i = { .size = sizeof(i) };

	assert(!vmem_region_feed_info(r, feed, &i));
	return i;
}

static void written_pages_stay(void)
{
	struct log log = { .first = 0, .count = HALF };

	make(&log);
	for (unsigned i = 0; i < 4; i++)
		end_period(&log);
	assert(take(&log, PAGES - HALF) == PAGES - HALF);
	assert(in_place(&log, 0, HALF) == HALF);
	assert(in_place(&log, HALF, PAGES - HALF) == 0);
	assert(vmemt_metrics(log.region).feed_asked == 4);
	assert(vmemt_metrics(log.region).feed_pages == 4 * HALF);
	assert(info(log.region, VMEM_FEED_DIRTY_LOG).used);
	assert(info(log.region, VMEM_FEED_DIRTY_LOG).asked == 4);
	assert(info(log.region, VMEM_FEED_DIRTY_LOG).pages == 4 * HALF);
	assert(info(log.region, VMEM_FEED_DIRTY_LOG).sees & VMEM_FEED_SEES_IN_PLACE);
	assert(info(log.region, VMEM_FEED_FAULTS).used);
	end(&log);
}

/* Bits of pages that are away, and beyond the end, say nothing. */
static void a_log_that_lies(void)
{
	struct log log = { .everything = true };

	make(&log);
	for (unsigned i = 0; i < 4; i++)
		end_period(&log);
	assert(vmemt_metrics(log.region).feed_pages == 4 * PAGES);
	vmemt_stage(log.region, 0, HALF);
	end_period(&log);
	assert(vmemt_metrics(log.region).feed_pages == 4 * PAGES + PAGES - HALF);
	assert(in_place(&log, 0, HALF) == 0);
	vmemt_check(log.manager, log.region);
	/* All in use: something goes all the same, in the end. */
	for (unsigned i = 0; i < 10 && in_place(&log, HALF, PAGES - HALF) == PAGES - HALF; i++)
		take(&log, 16);
	assert(in_place(&log, HALF, PAGES - HALF) < PAGES - HALF);
	end(&log);
}

static void a_log_that_fails(void)
{
	struct log log = { .first = 0, .count = PAGES, .error = -VMEM_EIO };

	make(&log);
	for (unsigned i = 0; i < 4; i++)
		end_period(&log);
	assert(vmemt_metrics(log.region).feed_failed == 4);
	assert(vmemt_metrics(log.region).feed_pages == 0);
	assert(take(&log, HALF) == HALF);
	end(&log);
}

/* It is not asked again before it has paid for the last time. */
static void a_log_that_is_slow(void)
{
	struct log log = { .count = 0 };
	struct vmem_region *r;
	uint64_t now;

	make(&log);
	end_period(&log);
	r = log.region;
	now = log.manager->host.k->clock_ns();
	r->feed.next_ns = now + UINT64_C(3600) * 1000000000;
	vmemi_reclaim_enter(log.manager->reclaim);
	r->ages.period_ns = 0;
	vmemi_ages_tick(r, now);
	vmemi_reclaim_leave(log.manager->reclaim);
	assert(log.calls == 1);
	end(&log);
}

/* A region without a log knows what comes back, and its memory says which kind of fault that is. */
static void without(bool file)
{
	const int own = file ? VMEM_FEED_MINOR_FAULTS : VMEM_FEED_FAULTS;
	const char *name = file ? "minor faults" : "faults";
	struct vmem_region_opts o = {
		.size = sizeof(o),
		.flags = file ? VMEM_REGION_FILE | VMEM_REGION_DMA_PINNED : 0,
		.bytes = 64 * PAGE,
	};
	vmem_manager *m = vmemt_manager(0);
	struct vmem_feed_info i = { .size = sizeof(i) };
	vmem_region *r;
	uint32_t age, state;

	if (file && !(vmemt_manager_metrics(m).kernel_features & VMEM_KERNEL_FILES)) {
		assert(!vmem_manager_free(m));
		return;
	}
	assert(!vmem_region_alloc(&r, m, &o));
	if (!info(r, VMEM_FEED_IDLE_BITS).used) /* which few kernels have */
		assert(vmem_region_feed(r) == own && !strcmp(vmem_region_feed_name(r), name));
	assert(vmem_region_feed_info(r, 99, &i) == -VMEM_EINVAL && !i.name);
	assert(info(r, VMEM_FEED_DIRTY_LOG).error == -VMEM_ENOTSUP);
	assert(!info(r, VMEM_FEED_DIRTY_LOG).used);
	i = info(r, file ? VMEM_FEED_FAULTS : VMEM_FEED_MINOR_FAULTS);
	assert(i.error == -VMEM_ENOTSUP && !i.used && !i.pages);
	for (uint64_t page = 0; page < 64; page++)
		assert(!vmem_region_resolve(r, page * PAGE, 1));
	vmemt_stage(r, 0, 32);
	vmemi_reclaim_enter(m->reclaim);
	vmemi_ages_harvest(r);
	for (unsigned k = 0; k < 5; k++)
		vmemi_ages_hurry(r, m->host.k->clock_ns());
	vmemi_reclaim_leave(m->reclaim);
	assert(!info(r, own).pages);
	for (uint64_t page = 0; page < 8; page++)
		assert(!vmem_region_resolve(r, page * PAGE, 0));
	i = info(r, own);
	assert(i.used && !i.error && !strcmp(i.name, name) && i.pages == 8 && !i.asked);
	assert(i.sees == (VMEM_FEED_SEES_READS | VMEM_FEED_SEES_WRITES));
	vmemi_reclaim_enter(m->reclaim);
	vmemi_ages_harvest(r);
	vmemi_reclaim_leave(m->reclaim);
	for (uint64_t page = 0; page < 64; page++) {
		assert(!vmem_track_page(r->ages.track, page, &age, &state));
		assert(age == (page < 8 ? 0 : 5));
		assert(!(state & VMEMI_AGES_PROVEN) == (page >= 8));
	}
	vmemt_check(m, r);
	vmemt_end(m, r);
}

/* --- KVM's --- */

static int vm_fd;

static int kvm_log(void *context, uint64_t gpa, uint64_t bytes, uint64_t *bitmap)
{
	struct kvm_dirty_log get = { .slot = 0, .dirty_bitmap = bitmap };

	(void)context;
	assert(!gpa && bytes == 64 * PAGE);
	return ioctl(vm_fd, KVM_GET_DIRTY_LOG, &get) ? -VMEM_EIO : 0;
}

/* A guest in real mode writes pages 3 and 5, and reads page 7. */
static const unsigned char code[] = {
	0xc6, 0x06, 0x00, 0x30, 0x01, /* movb $1, (0x3000) */
	0xc6, 0x06, 0x00, 0x50, 0x01, /* movb $1, (0x5000) */
	0xa0, 0x00, 0x70,             /* movb (0x7000), %al */
	0xf4                          /* hlt */
};

static void run_guest(int kvm, int cpu)
{
	int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	struct kvm_run *run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
	struct kvm_regs regs = { .rip = 0x1000, .rflags = 2 };
	struct kvm_sregs sregs;

	assert(run != MAP_FAILED);
	assert(!ioctl(cpu, KVM_GET_SREGS, &sregs));
	sregs.cs.base = sregs.cs.selector = 0;
	assert(!ioctl(cpu, KVM_SET_SREGS, &sregs) && !ioctl(cpu, KVM_SET_REGS, &regs));
	assert(!ioctl(cpu, KVM_RUN, 0));
	assert(run->exit_reason == KVM_EXIT_HLT);
	munmap(run, (size_t)size);
}

/* Pages age while nobody uses them; then those that the guest writes are young. */
static void kvm_says_what_was_written(void)
{
	struct vmem_region_opts o = { .size = sizeof(o), .bytes = 64 * PAGE, .dirty_log = kvm_log };
	struct kvm_userspace_memory_region slot = { .flags = KVM_MEM_LOG_DIRTY_PAGES,
						    .memory_size = 64 * PAGE };
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), cpu;
	vmem_manager *m;
	vmem_region *r;
	uint32_t age, state;

	if (kvm < 0 || (vm_fd = ioctl(kvm, KVM_CREATE_VM, 0)) < 0) {
		fprintf(stderr, "no KVM: its dirty log is not tested\n");
		return;
	}
	m = vmemt_manager(0);
	assert(!vmem_region_alloc(&r, m, &o));
	for (uint64_t page = 0; page < 64; page++)
		assert(!vmem_region_resolve(r, page * PAGE, 1));
	memcpy((char *)vmem_region_hva(r) + PAGE, code, sizeof(code));
	slot.userspace_addr = (uintptr_t)vmem_region_hva(r);
	assert(!ioctl(vm_fd, KVM_SET_USER_MEMORY_REGION, &slot));
	cpu = ioctl(vm_fd, KVM_CREATE_VCPU, 0);
	assert(cpu >= 0);
	vmemi_reclaim_enter(m->reclaim);
	vmemi_ages_harvest(r);
	for (unsigned i = 0; i < 5; i++)
		vmemi_ages_hurry(r, m->host.k->clock_ns());
	run_guest(kvm, cpu);
	vmemi_feed_ask(r);
	vmemi_reclaim_leave(m->reclaim);
	for (uint64_t page = 0; page < 64; page++) {
		assert(!vmem_track_page(r->ages.track, page, &age, &state));
		assert(age == (page == 3 || page == 5 ? 0 : 5));
	}
	close(cpu);
	close(vm_fd);
	close(kvm);
	vmemt_end(m, r);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE);
	without(false);
	without(true);
	written_pages_stay();
	a_log_that_lies();
	a_log_that_fails();
	a_log_that_is_slow();
	kvm_says_what_was_written();
	return 0;
}
