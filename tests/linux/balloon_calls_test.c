/* SPDX-License-Identifier: BSD-2-Clause */
/* Each system call of a discard fails once, in turn: what could not be given back is as it was, is counted, and goes the
 * next time; nothing leaks. And kernels that lack this or that. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux/discard/discard_memory.h"
#include "linux/failing_kernel.h"
#include "linux/guest.h"
#include "linux/kernel/uffd_abi.h"
#include "support/fail_alloc.h"
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE ((uint64_t)VMEM_PAGE_SIZE)
#define PAGES 48u /* of each piece */
#define KINDS 3u

struct failure {
	enum vmemt_call call;
	int error;
	bool hide_scan;
};

struct plain {
	int fd;
	unsigned char *base[KINDS]; /* private, a file, an image */
	vmem_discard *d;
};

static void map(struct plain *p)
{
	p->fd = memfd_create("balloon", MFD_CLOEXEC);
	assert(p->fd >= 0 && !ftruncate(p->fd, (off_t)(2 * PAGES * PAGE)));
	for (unsigned i = 0; i < KINDS; i++) {
		p->base[i] = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
				  i == 1   ? MAP_SHARED
				  : i == 2 ? MAP_PRIVATE
					   : MAP_PRIVATE | MAP_ANONYMOUS,
				  i ? p->fd : -1, i == 2 ? (off_t)(PAGES * PAGE) : 0);
		assert(p->base[i] != MAP_FAILED);
		for (unsigned page = 0; page < PAGES; page++)
			p->base[i][page * PAGE] = (unsigned char)(page + 1);
	}
}

static void unmap(struct plain *p)
{
	for (unsigned i = 0; i < KINDS; i++)
		assert(!munmap(p->base[i], PAGES * PAGE));
	assert(!close(p->fd));
}

/* An object with the three pieces; what fails is tried a second time, and must work then. */
static void open_all(struct plain *p, const struct vmem_allocator *allocator)
{
	const struct vmem_discard_opts o = { .size = sizeof(o), .allocator = allocator };

	if (vmemi_discard_new(&p->d, &o, &vmemt_kernel_table))
		assert(!vmemi_discard_new(&p->d, &o, &vmemt_kernel_table));
	for (unsigned i = 0; i < KINDS; i++) {
		const struct vmem_discard_piece piece = { .size = sizeof(piece),
							  .gpa = i * PAGES * PAGE,
							  .bytes = PAGES * PAGE,
							  .kind = VMEM_DISCARD_PRIVATE + i,
							  .fd = p->fd,
							  .hva = p->base[i] };

		if (vmem_discard_add(p->d, &piece))
			assert(!vmem_discard_add(p->d, &piece));
	}
}

/* Every second page of all, in single ranges. */
static int discard_all(vmem_discard *d)
{
	struct vmem_balloon_range r[KINDS * PAGES / 2];

	for (unsigned i = 0; i < KINDS * PAGES / 2; i++)
		r[i] = (struct vmem_balloon_range){ .gpa = 2 * i * PAGE,
						    .bytes = PAGE,
						    .operation = VMEM_BALLOON_DISCARD };
	return vmem_discard_ranges(d, r, KINDS * PAGES / 2, NULL);
}

/* Pages that should have gone and are still what they were; all others must be right. */
static unsigned left(const struct plain *p)
{
	unsigned n = 0;

	for (unsigned i = 0; i < KINDS; i++)
		for (unsigned page = 0; page < PAGES; page++) {
			unsigned char is = p->base[i][page * PAGE];

			assert(is == page + 1 || (!is && page % 2 == 0));
			n += page % 2 == 0 && is;
		}
	return n;
}

static struct vmem_discard_counts inflated(const vmem_discard *d)
{
	struct vmem_discard_metrics m = { .size = sizeof(m) };

	assert(!vmem_discard_get_metrics(d, &m));
	return m.inflated;
}

/* True if the call was made to fail. */
static bool live(const struct failure *f, long nth, const struct vmem_allocator *allocator)
{
	unsigned files = vmemt_open_files(), kept, zeroed;
	struct plain p;
	int error;

	vmemt_kernel_reset();
	vmemt_kernel.hide_scan = f && f->hide_scan;
	vmemt_kernel.fail = f ? f->call : VMEMT_K_CALLS;
	vmemt_kernel.error = f ? f->error : 0;
	vmemt_kernel.fail_after = f ? nth : -1;
	map(&p);
	open_all(&p, allocator);
	error = discard_all(p.d);
	kept = left(&p);
	/* Without other memory for an image there are zeros in the old one. */
	zeroed = f && f->call == VMEMT_K_MAP_OVER && vmemt_kernel.failed;
	kept += zeroed;
	assert(!error == !kept && (!error || error == -VMEM_EIO || error == -VMEM_EBUSY));
	assert(inflated(p.d).failed + inflated(p.d).pinned == kept * PAGE);
	assert(inflated(p.d).released == (KINDS * PAGES / 2 - kept) * PAGE);
	vmemt_kernel.fail_after = -1;
	assert(!discard_all(p.d) && !left(&p));
	vmem_discard_free(p.d);
	unmap(&p);
	assert(vmemt_open_files() == files);
	return vmemt_kernel.failed > 0;
}

static void each_call(void)
{
	static const struct failure failures[] = {
		{ VMEMT_K_OPEN, -EMFILE, false },
		{ VMEMT_K_FCNTL, -EMFILE, false },
		{ VMEMT_K_FSTAT, -EIO, false },
		{ VMEMT_K_MADVISE, -ENOMEM, false },
		{ VMEMT_K_MADVISE, -EINVAL, false },
		{ VMEMT_K_MADVISE_VECTOR, -EPERM, false },
		{ VMEMT_K_MADVISE_VECTOR, -ENOMEM, false },
		{ VMEMT_K_FALLOCATE, -ENOMEM, false },
		{ VMEMT_K_FALLOCATE, -EPERM, false },
		{ VMEMT_K_MAP_OVER, -ENOMEM, false },
		{ VMEMT_K_LSEEK, -EIO, false },
		{ VMEMT_K_SCAN, -ENOMEM, false },
		{ VMEMT_K_PREAD, -EIO, true },
	};

	for (unsigned i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
		long n = 0;

		while (live(&failures[i], n, NULL))
			n++;
		fprintf(stderr, "%s %d: %ld times\n", vmemt_call_name(failures[i].call),
			failures[i].error, n);
		assert(n);
	}
}

static void each_allocation(void)
{
	struct vmemt_fail_alloc a;

	for (long n = 0;; n++) {
		vmemt_fail_alloc_init(&a);
		a.fail_after = n;
		live(NULL, 0, &a.allocator);
		assert(!a.live_bytes);
		if (!a.failed)
			break;
	}
}

/* --- Regions under a guard --- */

#define REGION_PAGES 96u

static bool live_guarded(const struct failure *f, long nth)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .flags = VMEM_REGION_DMA_PINNED,
				      .bytes = REGION_PAGES * PAGE };
	struct vmem_discard_piece piece = { .size = sizeof(piece), .kind = VMEM_DISCARD_REGION };
	struct vmem_balloon_range r = { .bytes = REGION_PAGES * PAGE,
					.operation = VMEM_BALLOON_DISCARD_HINTED };
	struct vmem_balloon_guard guard = { .size = sizeof(guard) };
	struct vmem_discard_metrics metrics = { .size = sizeof(metrics) };
	const struct vmem_discard_counts *c = &metrics.hinted;
	struct vmemt_page page, want;
	vmem_manager *m;
	vmem_discard *d;
	unsigned gone = 0;
	bool failed;
	int error;

	vmemt_kernel_reset();
	assert(!vmemi_manager_new(&m, NULL, &vmemt_kernel_table));
	assert(!vmemt_alloc(&piece.region, m, &o));
	assert(!vmemi_discard_new(&d, NULL, &vmemt_kernel_table) && !vmem_discard_add(d, &piece));
	assert(!vmem_discard_get_guard(d, &guard));
	for (uint64_t i = 0; i < REGION_PAGES; i++) {
		vmemt_make(&page, i, 1);
		assert(!vmem_region_write(piece.region, i * PAGE, &page, PAGE));
	}
	vmemt_stage(piece.region, 32, 32);
	vmemt_kernel.fail = f->call;
	vmemt_kernel.error = f->error;
	vmemt_kernel.fail_after = vmemt_kernel.calls[f->call] + nth;
	if (guard.begin(guard.context))
		assert(!guard.begin(guard.context));
	error = vmem_discard_ranges(d, &r, 1, NULL);
	assert(!error || error == -VMEM_EIO);
	guard.end(guard.context);
	failed = vmemt_kernel.failed > 0;
	vmemt_kernel.fail_after = -1;
	for (uint64_t i = 0; i < REGION_PAGES; i++) {
		assert(!vmem_region_read(piece.region, i * PAGE, &page, PAGE));
		vmemt_make(&want, i, 1);
		if (!memcmp(&page, &want, PAGE))
			continue;
		memset(&want, 0, PAGE);
		assert(!memcmp(&page, &want, PAGE));
		gone++;
	}
	assert(error || gone == REGION_PAGES);
	assert(!vmem_discard_get_metrics(d, &metrics));
	assert(c->released == gone * PAGE);
	assert(c->asked == c->released + c->failed + c->written);
	vmem_discard_free(d);
	vmemt_check(m, piece.region);
	assert(!vmem_region_detach(piece.region, VMEM_DETACH_DISCARD) && !vmem_manager_free(m));
	return failed;
}

static void guarded(void)
{
	static const struct failure private_failures[] = {
		{ VMEMT_K_PROTECT, -EAGAIN, false },
		{ VMEMT_K_PROTECT, -ENOMEM, false },
		{ VMEMT_K_PROTECT, -EIO, false },
		{ VMEMT_K_MADVISE, -ENOMEM, false },
	};
	static const struct failure file_failures[] = {
		{ VMEMT_K_PROTECT, -ENOMEM, false },
		{ VMEMT_K_PROTECT, -EIO, false },
		{ VMEMT_K_FALLOCATE, -ENOMEM, false },
	};
	bool files = vmemt_on_files();
	size_t count = files ? sizeof(file_failures) / sizeof(file_failures[0])
			     : sizeof(private_failures) / sizeof(private_failures[0]);

	for (size_t i = 0; i < count; i++) {
		const struct failure *f = files ? &file_failures[i] : &private_failures[i];
		long n = 0;

		while (live_guarded(f, n))
			n++;
		fprintf(stderr, "guarded, %s %d: %ld times\n", vmemt_call_name(f->call), f->error,
			n);
		assert(n);
	}
}

/* --- Kernels that lack something --- */

/* What is counted is the same, by other means. */
static void old_kernels(void)
{
	struct vmem_region_opts o = { .size = sizeof(o), .bytes = 8 * PAGE };
	struct vmem_discard_piece piece = { .size = sizeof(piece), .kind = VMEM_DISCARD_REGION };
	struct vmem_balloon_guard guard = { .size = sizeof(guard) };
	struct plain p;
	vmem_manager *m;

	vmemt_kernel_reset();
	vmemt_kernel.hide_scan = vmemt_kernel.hide_vector = true; /* before 6.7 */
	map(&p);
	open_all(&p, NULL);
	assert(!discard_all(p.d) && !left(&p));
	assert(inflated(p.d).released == KINDS * PAGES / 2 * PAGE);
	vmem_discard_free(p.d);
	unmap(&p);

	vmemt_kernel.hide = VMEMI_UFFD_FEATURE_MOVE | VMEMI_UFFD_FEATURE_POISON |
			    VMEMI_UFFD_FEATURE_WP; /* before 5.7: no hints */
	assert(!vmemi_manager_new(&m, NULL, &vmemt_kernel_table));
	assert(!vmem_region_alloc(&piece.region, m, &o));
	assert(!vmemi_discard_new(&p.d, NULL, &vmemt_kernel_table));
	assert(!vmem_discard_add(p.d, &piece) && !vmem_discard_get_guard(p.d, &guard));
	assert(guard.begin(guard.context) == -VMEM_ENOTSUP && !guard.unwritten(guard.context, 0));
	vmem_discard_free(p.d);
	assert(!vmem_region_detach(piece.region, VMEM_DETACH_DISCARD) && !vmem_manager_free(m));
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_WP);
	each_call();
	each_allocation();
	guarded();
	old_kernels();
	return 0;
}
