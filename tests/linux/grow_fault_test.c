/* SPDX-License-Identifier: BSD-2-Clause */
/* A region grows, and each system call and each allocation of that fails once, in turn: nothing has changed then, and
 * the next time it works. */
#include "linux/failing_kernel.h"
#include "linux/growing.h"
#include "linux/guest.h"
#include "support/fail_alloc.h"
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <vmem/grow.h>

#define PAGE VMEM_PAGE_SIZE

#define BEFORE 64
#define AFTER (VMEMI_ARRAYS_GRAIN + 100)
#define ATTACHED \
	700 /* pages of attached memory, which are filled each time: more than are counted at once */
#define LESS 100 /* that are asked for after a failure */

/* What must be as it was after a failure. */
struct state {
	uint64_t metadata, tracker;
	int64_t resident;
	long mapped;
	struct vmem_region_metrics metrics;
};

/* What a tracker of @pages takes more than one of BEFORE. */
static uint64_t tracker_grows_by(uint64_t pages)
{
	struct vmem_track_opts o = { .size = sizeof(o), .pages = BEFORE };
	struct vmem_track_stats before = { .size = sizeof(before) }, after = before;
	vmem_track *t;

	assert(!vmem_track_new(&t, &o) && !vmem_track_get_stats(t, &before));
	assert(!vmem_track_grow(t, pages) && !vmem_track_get_stats(t, &after));
	vmem_track_free(t);
	return after.bytes - before.bytes;
}

static struct state look(vmem_manager *m, vmem_region *r)
{
	return (struct state){ .metadata = m->host.metadata.bytes,
			       .tracker = tracker_grows_by(vmemi_region_most_bytes(r) / PAGE),
			       .resident = m->host.frames.resident_pages,
			       .mapped = vmemt_kernel.mapped_bytes,
			       .metrics = vmemt_metrics(r) };
}

static void nothing_has_changed(vmem_manager *m, vmem_region *r, const struct state *s)
{
	struct state now = look(m, r);

	/* A tracker that was made longer waits for the next time. */
	assert(now.metadata == s->metadata || now.metadata == s->metadata + s->tracker);
	assert(now.resident == s->resident && now.mapped == s->mapped);
	assert(now.metrics.bytes == s->metrics.bytes);
	assert(!memcmp(now.metrics.pages, s->metrics.pages, sizeof(now.metrics.pages)));
	assert(vmem_region_page_state(r, VMEMT_GROWING_GPA + BEFORE * PAGE) == -VMEM_ERANGE);
	assert(!vmemi_region_check(r) && !vmemi_ages_check(r));
}

static void grow_to_the_end(vmem_manager *m, vmem_region *r, uint64_t pages)
{
	int error = vmem_region_grow(r, pages * PAGE);

	if (error)
		fprintf(stderr, "grow: %d\n", error);
	assert(!error);
	for (uint64_t page = 0; page < pages; page += 19)
		assert(!vmem_region_resolve(r, VMEMT_GROWING_GPA + page * PAGE, 1));
	assert(!vmem_region_stage(r, VMEMT_GROWING_GPA, pages * PAGE, NULL));
	vmemt_end(m, r);
	assert(!vmemt_kernel.mapped_bytes);
}

/* Fails the @nth call of a kind that growing makes. Returns whether there was one. */
static bool fails(enum vmemt_call call, int error, long nth, bool attached, bool *ret_refused)
{
	struct vmem_manager_opts mo = { .size = sizeof(mo) };
	uint64_t after = attached ? ATTACHED : AFTER;
	struct vmem_region_opts o = vmemt_growing_options(BEFORE, after);
	unsigned char *memory = NULL;
	struct state before;
	vmem_manager *m;
	vmem_region *r;
	bool failed;
	int fd, got;

	vmemt_kernel_reset();
	assert(!vmemi_manager_new(&m, &mo, &vmemt_kernel_table));
	if (attached) {
		memory = vmemt_growing_map(after, &fd);
		assert(!vmemt_growing_attach(&r, m, o, memory, fd));
	} else {
		assert(!vmemt_alloc(&r, m, &o));
	}
	before = look(m, r);
	vmemt_kernel.fail = call;
	vmemt_kernel.error = error;
	vmemt_kernel.fail_after = vmemt_kernel.calls[call] + nth;
	got = vmem_region_grow(r, after * PAGE);
	failed = vmemt_kernel.failed;
	vmemt_kernel.fail_after = -1;
	*ret_refused = got != 0;
	if (got) {
		assert(failed);
		assert(got == -VMEM_ENOMEM || got == -VMEM_EIO || got == -VMEM_EBUSY ||
		       got == -VMEM_ENOTSUP || got == -VMEM_EINVAL);
		nothing_has_changed(m, r, &before);
		/* What was there may be gone the next time, and less be asked for. */
		if (attached)
			assert(!madvise(memory + BEFORE * PAGE, (after - BEFORE) * PAGE,
					vmemt_on_files() ? MADV_REMOVE : MADV_DONTNEED));
		assert(!vmem_region_grow(r, LESS * PAGE));
		assert(!attached || vmemt_metrics(r).pages[VMEM_PAGE_RESIDENT] == BEFORE / 2);
		assert(!vmemi_region_check(r) && !vmemi_ages_check(r));
	}
	grow_to_the_end(m, r, after);
	if (attached)
		vmemt_growing_unmap(memory, after, fd);
	return failed;
}

static void each_call_fails(bool attached)
{
	static const struct {
		enum vmemt_call call;
		int error;
		bool must; /* some of them refuse it */
	} failures[] = {
		{ VMEMT_K_OPEN, -EMFILE, true },      { VMEMT_K_READ, -EIO, true },
		{ VMEMT_K_PREAD, -EIO, true },        { VMEMT_K_LSEEK, -EIO, true },
		{ VMEMT_K_FSTAT, -EIO, true },        { VMEMT_K_FCNTL, -EIO, true },
		{ VMEMT_K_FALLOCATE, -ENOMEM, true }, { VMEMT_K_MPROTECT, -ENOMEM, true },
		{ VMEMT_K_MADVISE, -EAGAIN, true },   { VMEMT_K_REGISTER, -ENOMEM, true },
		{ VMEMT_K_REGISTER, -EBUSY, true },   { VMEMT_K_MMAP, -ENOMEM, true },
		{ VMEMT_K_UNREGISTER, -EIO, false },  { VMEMT_K_WRITE, -EAGAIN, false },
	};

	for (unsigned i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
		unsigned fired = 0, refused = 0;
		bool no = false;

		for (long n = 0;
		     n < 100 && fails(failures[i].call, failures[i].error, n, attached, &no);
		     n += 1 + n / 4) {
			fired++;
			refused += no;
		}
		fprintf(stderr, "%s %d: failed %u times, refused %u\n",
			vmemt_call_name(failures[i].call), failures[i].error, fired, refused);
		assert(!fired || refused || !failures[i].must);
	}
}

/* Each allocation of a life that grows. */
static void each_allocation_fails(void)
{
	for (long n = 0;; n++) {
		struct vmemt_fail_alloc a;
		struct vmem_region_opts o = vmemt_growing_options(BEFORE, AFTER);
		struct vmem_manager_opts mo = { .size = sizeof(mo), .allocator = &a.allocator };
		vmem_manager *m;
		vmem_region *r = NULL;

		vmemt_kernel_reset();
		vmemt_fail_alloc_init(&a);
		a.fail_after = n;
		if (!vmemi_manager_new(&m, &mo, &vmemt_kernel_table)) {
			int error = vmemt_alloc(&r, m, &o);

			assert(!error || error == -VMEM_ENOMEM);
			if (error) {
				assert(!vmem_manager_free(m));
			} else {
				struct state before = look(m, r);

				error = vmem_region_grow(r, AFTER * PAGE);
				assert(!error || error == -VMEM_ENOMEM);
				if (error)
					nothing_has_changed(m, r, &before);
				grow_to_the_end(m, r, AFTER);
			}
		}
		assert(!a.live_bytes && !vmemt_kernel.mapped_bytes);
		if (!a.failed)
			break;
	}
}

int main(void)
{
	vmemt_need(0);
	each_call_fails(false);
	each_call_fails(true);
	each_allocation_fails();
	return 0;
}
