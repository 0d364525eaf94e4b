/* SPDX-License-Identifier: BSD-2-Clause */
/* See guest.h. A virtual processor waits for orders under its lock; the touch itself runs without. A
 * signal that the touch meets is recorded and left by siglongjmp(). */
#define _GNU_SOURCE
#include "linux/guest.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vmem/fault.h>
#include <vmem/huge.h>

static vmem_manager *_Atomic catching;          /* atomic */
static _Thread_local struct vmemt_cpu *current; /* the processor that this thread is */

static void fail(const char *what, const void *address)
{
	fprintf(stderr, "%s: %p\n", what, address);
	fflush(NULL);
	_exit(1); /* threads that wait for an answer cannot be joined */
}

/* --- A virtual processor --- */

/* Word by word, so that a fault is met by code of the test and not inside a function of libc. */
static void copy_words(volatile uint64_t *to, const volatile uint64_t *from, size_t words)
{
	for (size_t i = 0; i < words; i++)
		to[i] = from[i];
}

static void touch_once(struct vmemt_cpu *c)
{
	c->signal = 0;
	if (sigsetjmp(c->escape, 1))
		return;
	current = c;
	if (c->touch == VMEMT_READ)
		copy_words(c->data, c->address, c->words);
	else
		copy_words(c->address, c->data, c->words);
	current = NULL;
}

static void *run(void *argument)
{
	struct vmemt_cpu *c = argument;

	pthread_mutex_lock(&c->lock);
	while (c->state != VMEMT_QUIT) {
		if (c->state == VMEMT_IDLE) {
			pthread_cond_wait(&c->changed, &c->lock);
			continue;
		}
		pthread_mutex_unlock(&c->lock);
		touch_once(c);
		pthread_mutex_lock(&c->lock);
		c->state = VMEMT_IDLE;
		pthread_cond_broadcast(&c->changed);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

void vmemt_cpu_start(struct vmemt_cpu *c)
{
	pthread_condattr_t attributes;

	memset(c, 0, sizeof(*c));
	assert(!pthread_mutex_init(&c->lock, NULL));
	assert(!pthread_condattr_init(&attributes));
	assert(!pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC));
	assert(!pthread_cond_init(&c->changed, &attributes));
	pthread_condattr_destroy(&attributes);
	assert(!pthread_create(&c->thread, NULL, run, c));
}

void vmemt_cpu_stop(struct vmemt_cpu *c)
{
	pthread_mutex_lock(&c->lock);
	assert(c->state == VMEMT_IDLE);
	c->state = VMEMT_QUIT;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	assert(!pthread_join(c->thread, NULL));
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
}

void vmemt_touch_begin(struct vmemt_cpu *c, enum vmemt_touch touch, void *memory, void *data,
		       size_t bytes)
{
	pthread_mutex_lock(&c->lock);
	assert(c->state == VMEMT_IDLE && bytes % 8 == 0);
	c->touch = touch;
	c->address = memory;
	c->data = data;
	c->words = bytes / 8;
	c->state = VMEMT_BUSY;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

bool vmemt_touch_over(struct vmemt_cpu *c)
{
	bool over;

	pthread_mutex_lock(&c->lock);
	over = c->state != VMEMT_BUSY;
	pthread_mutex_unlock(&c->lock);
	return over;
}

static void wait_until_booked(struct vmemt_cpu *c)
{
	struct vmem_region *r = c->region;
	uint64_t offset = r ? (uintptr_t)c->address - (uintptr_t)r->base : 0;

	if (r && offset < vmemi_region_bytes(r))
		VMEMT_UNTIL(vmemt_state(r, offset / VMEM_PAGE_SIZE) != VMEM_PAGE_ARRIVING);
}

int vmemt_touch_end(struct vmemt_cpu *c)
{
	uint64_t end = vmemt_now_ms() + VMEMT_DEADLINE_MS;
	struct timespec until = { .tv_sec = (time_t)(end / 1000),
				  .tv_nsec = (long)(end % 1000) * 1000000 };
	int signal;

	pthread_mutex_lock(&c->lock);
	while (c->state == VMEMT_BUSY)
		if (pthread_cond_timedwait(&c->changed, &c->lock, &until) == ETIMEDOUT &&
		    c->state == VMEMT_BUSY)
			vmemt_timed_out("an answer to a touch", __FILE__, __LINE__, __func__);
	signal = c->signal;
	pthread_mutex_unlock(&c->lock);
	wait_until_booked(c);
	return signal;
}

int vmemt_touch(struct vmemt_cpu *c, enum vmemt_touch touch, void *memory, void *data, size_t bytes)
{
	vmemt_touch_begin(c, touch, memory, data, bytes);
	return vmemt_touch_end(c);
}

int vmemt_touch_step(struct vmemt_cpu *c, enum vmemt_touch touch, void *memory, void *data,
		     size_t bytes, vmem_manager *manager)
{
	uint64_t end = vmemt_now_ms() + VMEMT_DEADLINE_MS;

	vmemt_touch_begin(c, touch, memory, data, bytes);
	while (!vmemt_touch_over(c)) {
		assert(vmem_manager_step(manager, 100, NULL) >= 0);
		VMEMT_NOT_AFTER(end, "an answer to a touch, by steps");
		sched_yield();
	}
	return vmemt_touch_end(c);
}

static void on_signal(int number, siginfo_t *info, void *ucontext)
{
	vmem_manager *manager = atomic_load(&catching);
	struct vmemt_cpu *c = current;
	uint64_t gpa = UINT64_MAX;
	int answer = -VMEM_ENOENT;

	if (number == SIGBUS && manager) {
		answer = vmem_fault_sigbus(manager, info->si_addr, ucontext, &gpa);
		if (!answer)
			return;
	}
	if (!c)
		fail(number == SIGBUS ? "SIGBUS" : "SIGSEGV", info->si_addr);
	c->signal = number;
	c->code = info->si_code;
	c->answer = answer;
	c->gpa = gpa;
	current = NULL;
	siglongjmp(c->escape, 1);
}

void vmemt_catch_signals(vmem_manager *manager)
{
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };

	atomic_store(&catching, manager);
	sigemptyset(&action.sa_mask);
	assert(!sigaction(SIGBUS, &action, NULL));
	assert(!sigaction(SIGSEGV, &action, NULL));
}

/* --- Contents --- */

void vmemt_make(struct vmemt_page *p, uint64_t page, uint64_t version)
{
	vmemt_page_make(p, version ? VMEMT_PAGE_TEXT : VMEMT_PAGE_ZERO, page << 32 ^ version);
}

void vmemt_put(struct vmemt_cpu *c, unsigned char *base, uint64_t page, uint64_t version)
{
	struct vmemt_page p;

	vmemt_make(&p, page, version);
	assert(!vmemt_touch(c, VMEMT_WRITE, base + page * VMEM_PAGE_SIZE, &p, sizeof(p)));
}

bool vmemt_is(struct vmemt_cpu *c, unsigned char *base, uint64_t page, uint64_t version)
{
	struct vmemt_page p, want;

	vmemt_make(&want, page, version);
	assert(!vmemt_touch(c, VMEMT_READ, base + page * VMEM_PAGE_SIZE, &p, sizeof(p)));
	return !memcmp(&p, &want, sizeof(p));
}

void vmemt_write_all(vmem_region *r, uint64_t pages)
{
	for (uint64_t i = 0; i < pages; i++) {
		struct vmemt_page p;

		vmemt_make(&p, i, 1);
		assert(!vmem_region_write(r, i * VMEM_PAGE_SIZE, &p, sizeof(p)));
	}
}

void vmemt_read_all(vmem_region *r, uint64_t pages)
{
	for (uint64_t i = 0; i < pages; i++) {
		struct vmemt_page p, want;

		if (i % 2)
			assert(!vmem_region_resolve(r, i * VMEM_PAGE_SIZE, 0));
		assert(!vmem_region_read(r, i * VMEM_PAGE_SIZE, &p, sizeof(p)));
		vmemt_make(&want, i, 1);
		assert(!memcmp(&p, &want, sizeof(p)));
	}
}

void vmemt_on_lost(void *context, uint64_t gpa, int error)
{
	struct vmemt_losses *l = context;

	(void)gpa;
	atomic_store(&l->error, error);
	atomic_fetch_add(&l->count, 1);
}

bool vmemt_mapped(const void *address)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry;

	assert(fd >= 0);
	assert(pread(fd, &entry, 8, (off_t)((uintptr_t)address / VMEM_PAGE_SIZE * 8)) == 8);
	close(fd);
	/* What was write-protected and left a file stays marked, as what is swapped out is. */
	return entry >> (vmemt_on_files() ? 63 : 62);
}

/* --- Managers and regions --- */

void vmemt_skip(const char *why)
{
	printf("skipped: %s\n", why);
	exit(77);
}

void vmemt_need(uint64_t features)
{
	vmem_manager *m;
	uint64_t have;
	int error = vmem_manager_new(&m, NULL);

	if (vmemt_on_files())
		features |= VMEM_KERNEL_FILES;
	if (error == -VMEM_ENODEV)
		vmemt_skip("this kernel has no userfaultfd");
	if (error == -VMEM_EPERM)
		vmemt_skip("no right to use userfaultfd");
	if (error == -VMEM_ENOTSUP)
		vmemt_skip("pages are not of 4 KiB");
	assert(!error);
	have = vmemt_manager_metrics(m).kernel_features;
	assert(!vmem_manager_free(m));
	if (features & ~have & VMEM_KERNEL_KERNEL_FAULTS)
		vmemt_skip("no right to serve the kernel's faults (vm.unprivileged_userfaultfd)");
	if (features & ~have) {
		char why[64];

		snprintf(why, sizeof(why), "this kernel lacks VMEM_KERNEL features %#llx",
			 (unsigned long long)(features & ~have));
		vmemt_skip(why);
	}
}

vmem_manager *vmemt_manager_of(const struct vmem_manager_opts *opts)
{
	const char *threads = getenv("VMEM_TEST_FAULT_THREADS");
	struct vmem_manager_opts o = *opts;
	vmem_manager *m;

	if (threads)
		o.fault_threads = (uint32_t)atoi(threads);
	if (getenv("VMEM_TEST_ASYNC_WP"))
		o.flags |= VMEM_MANAGER_ASYNC_WP;
	assert(!vmem_manager_new(&m, &o));
	return m;
}

vmem_manager *vmemt_manager(uint64_t budget)
{
	return vmemt_manager_of(&(struct vmem_manager_opts){
		.size = sizeof(struct vmem_manager_opts), .budget_bytes = budget });
}

bool vmemt_on_files(void)
{
	return getenv("VMEM_TEST_FILES") != NULL;
}

int vmemt_alloc(vmem_region **ret_region, vmem_manager *m, const struct vmem_region_opts *opts)
{
	struct vmem_region_opts o = *opts;

	if (vmemt_on_files())
		o.flags |= VMEM_REGION_FILE | VMEM_REGION_DMA_PINNED;
	if (getenv("VMEM_TEST_HUGE") && !*vmem_region_huge_why(m, &o))
		o.flags |= VMEM_REGION_HUGE;
	return vmem_region_alloc(ret_region, m, &o);
}

vmem_region *vmemt_region(vmem_manager *m, uint64_t gpa, uint64_t pages, uint64_t flags)
{
	struct vmem_region_opts o = {
		.size = sizeof(o),
		.flags = flags,
		.gpa = gpa,
		.bytes = pages * VMEM_PAGE_SIZE,
		.fault_around_pages = 1,
	};
	vmem_region *r;

	assert(!vmemt_alloc(&r, m, &o));
	return r;
}

struct vmem_region_metrics vmemt_metrics(vmem_region *r)
{
	struct vmem_region_metrics m = { .size = sizeof(m) };

	assert(!vmem_region_get_metrics(r, &m));
	return m;
}

struct vmem_manager_metrics vmemt_manager_metrics(vmem_manager *manager)
{
	struct vmem_manager_metrics m = { .size = sizeof(m) };

	assert(!vmem_manager_get_metrics(manager, &m));
	return m;
}

struct vmem_store_account vmemt_account(vmem_region *r)
{
	struct vmemi_reclaim *rc = ((struct vmem_manager *)r->host)->reclaim;
	struct vmem_store_account a = { .size = sizeof(a) };

	vmemi_reclaim_enter(rc);
	vmemi_tidy(rc, r, 0, r->pages);
	vmemi_reclaim_leave(rc);
	assert(!vmem_region_get_account(r, &a));
	return a;
}

uint32_t vmemt_age(vmem_region *r, uint64_t page)
{
	uint32_t age, state;

	assert(!vmem_track_page(r->ages.track, page, &age, &state));
	return age;
}

bool vmemt_kept(vmem_region *r, uint64_t page)
{
	struct vmemi_reclaim *rc = ((struct vmem_manager *)r->host)->reclaim;
	uint32_t age, state;

	vmemi_reclaim_enter(rc); /* who guards the tracker */
	vmemi_ages_harvest(r);
	assert(!vmem_track_page(r->ages.track, page, &age, &state));
	vmemi_reclaim_leave(rc);
	return state & VMEM_TRACK_KEPT;
}

void vmemt_let_go(vmem_region *r)
{
	vmemi_ages_harvest(r);
	memset(r->ages.fresh, 0, sizeof(r->ages.fresh));
}

enum vmem_page_state vmemt_state(vmem_region *r, uint64_t page)
{
	int state = vmem_region_page_state(r, r->opts.gpa + page * VMEM_PAGE_SIZE);

	assert(state >= 0 && state < VMEM_PAGE_STATES);
	return (enum vmem_page_state)state;
}

void vmemt_check(vmem_manager *m, vmem_region *r)
{
	bool running = m->running;
	uint64_t wrong;

	vmem_manager_thread_stop(m);
	wrong = vmemi_region_check(r);
	if (wrong)
		fprintf(stderr, "%llu pages or counters are wrong\n", (unsigned long long)wrong);
	assert(!wrong);
	wrong = vmemi_ages_check(r);
	if (wrong)
		fprintf(stderr, "the tracker is wrong about %llu pages\n",
			(unsigned long long)wrong);
	assert(!wrong);
	if (running)
		assert(!vmem_manager_thread_start(m));
}

void vmemt_stage(vmem_region *r, uint64_t first, uint64_t count)
{
	uint64_t pages, all = 0;

	/* The kernel may refuse to move a page now and then. */
	VMEMT_UNTIL(!vmem_region_stage(r, r->opts.gpa + first * VMEM_PAGE_SIZE,
				       count * VMEM_PAGE_SIZE, &pages) &&
		    (all += pages) >= count);
	assert(all == count);
}

void vmemt_store(vmem_region *r, uint64_t first, uint64_t count)
{
	uint64_t pages = 0;

	vmemt_stage(r, first, count);
	assert(!vmem_region_store(r, r->opts.gpa + first * VMEM_PAGE_SIZE, count * VMEM_PAGE_SIZE,
				  &pages));
	assert(pages == count);
}

void vmemt_restore(vmem_region *r, uint64_t pages)
{
	unsigned char *base = vmem_region_hva(r);

	assert(!vmem_region_detach(r, VMEM_DETACH_RESTORE));
	for (uint64_t i = 0; i < pages; i++) {
		struct vmemt_page want;

		vmemt_make(&want, i, 1);
		assert(!memcmp(base + i * VMEM_PAGE_SIZE, &want, sizeof(want)));
	}
	munmap(base, pages * VMEM_PAGE_SIZE);
}

void vmemt_end(vmem_manager *m, vmem_region *r)
{
	vmemt_check(m, r);
	assert(!(atomic_load(&r->pressure.now) >> 48)); /* who was blocked no longer is */
	assert(!vmem_region_detach(r, VMEM_DETACH_DISCARD));
	assert(!vmem_manager_free(m));
}

static void *detach(void *argument)
{
	struct vmemt_detaching *d = argument;

	assert(!vmem_region_detach(d->region, VMEM_DETACH_DISCARD));
	atomic_store(&d->over, 1);
	return NULL;
}

void vmemt_detach_begin(struct vmemt_detaching *d, vmem_region *r)
{
	d->region = r;
	atomic_store(&d->over, 0);
	assert(!pthread_create(&d->thread, NULL, detach, d));
}

void vmemt_detach_end(struct vmemt_detaching *d)
{
	VMEMT_UNTIL(atomic_load(&d->over));
	assert(!pthread_join(d->thread, NULL));
}

unsigned vmemt_open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}
