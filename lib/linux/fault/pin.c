/* SPDX-License-Identifier: BSD-2-Clause */
/* Bringing pages back on request, and holding them. The pin count is beside the state: the flag in the
 * word says that it is not 0, and keeps every taker away. */
#include "linux/backing/backing.h"
#include "linux/region/dirty.h"

#define PINS_MAX 65535u

/* While written pages are tracked a page in place may be protected. What writes to a pinned page may meet no
 * fault, so it is dirty as long as it is pinned. */
static void make_writable(struct vmem_region *r, uint64_t page)
{
	struct vmemi_fault f = {
		.page = page, .kind = VMEMI_FAULT_PROTECTED, .write = true, .may_reclaim = true
	};

	if (vmemi_dirty_on(r))
		vmemi_serve_wait(r, &f);
}

/* In a file, a page that is in place may not be mapped here: only serving it tells. */
static int resolve(struct vmem_region *r, uint64_t page, bool write)
{
	struct vmemi_fault f = {
		.page = page, .write = write, .demand = true, .may_reclaim = true
	};
	bool mapped = !r->backing->one_frame;

	for (;;) {
		uint64_t word = vmemi_region_word(r, page);
		enum vmem_page_state state = vmemi_page_state(word);

		if (state == VMEM_PAGE_RESIDENT && !(word & VMEMI_PAGE_LEAVING) && mapped) {
			if (write)
				make_writable(r, page);
			return 0;
		}
		if (state == VMEM_PAGE_CLEAN && !write && mapped)
			return 0;
		f.kind = vmemi_backing_kind(r, word, write);
		mapped = true;
		switch (vmemi_serve_wait(r, &f)) {
		case VMEMI_POISONED: return -VMEM_EIO;
		case VMEMI_NO_FRAME: return -VMEM_ENOSPC;
		default: break;
		}
	}
}

int vmem_region_resolve(vmem_region *region, uint64_t gpa, int write)
{
	uint64_t page, count;
	int error = vmemi_region_span(region, gpa, 1, true, &page, &count);

	return error ? error : resolve(region, page, write != 0);
}

/* Pins are for the budget's sake bounded: what they hold cannot be reclaimed. */
static bool fits(struct vmem_region *r, uint64_t count)
{
	struct vmemi_frames *f = &r->host->frames;
	uint64_t budget = atomic_load(&f->budget_bytes);

	if (budget == UINT64_MAX)
		return true;
	return (vmemi_host_pinned(r->host) + count) * VMEM_PAGE_SIZE +
		       atomic_load(&f->floor_bytes) + atomic_load(&f->metadata->bytes) <=
	       budget;
}

/* The pins are locked, and there is one. */
static void unpin_page(struct vmem_region *r, uint64_t page)
{
	uint64_t old;

	if (!--r->pins[page])
		vmemi_region_step(r, page, VMEMI_PAGE_UNPIN, 0, &old);
}

static int pin_page(struct vmem_region *r, uint64_t page)
{
	uint64_t old;
	int error = 0;

	for (;;) {
		vmemi_lock(&r->pin_lock);
		if (r->pins[page] == PINS_MAX)
			error = -VMEM_ENOSPC;
		else if (r->pins[page] || vmemi_region_step(r, page, VMEMI_PAGE_PIN, 0, &old))
			r->pins[page]++;
		else
			error = -VMEM_EAGAIN;
		vmemi_unlock(&r->pin_lock);
		if (!error && r->backing->one_frame && resolve(r, page, true)) {
			vmemi_lock(&r->pin_lock);
			unpin_page(r, page);
			vmemi_unlock(&r->pin_lock);
			return -VMEM_EIO;
		}
		if (!error)
			make_writable(r, page);
		if (error != -VMEM_EAGAIN)
			return error;
		error = resolve(r, page, true); /* not under the lock: it may wait for a frame */
		if (error)
			return error;
	}
}

int vmem_region_pin(vmem_region *region, uint64_t gpa, uint64_t bytes)
{
	uint64_t first, count, done;
	int error = vmemi_region_span(region, gpa, bytes, true, &first, &count);

	if (error)
		return error;
	if (!fits(region, count))
		return -VMEM_ENOSPC;
	for (done = 0; done < count && !error; done++)
		error = pin_page(region, first + done);
	if (error) {
		vmemi_lock(&region->pin_lock);
		for (done--; done--;)
			unpin_page(region, first + done);
		vmemi_unlock(&region->pin_lock);
	}
	return error;
}

int vmem_region_unpin(vmem_region *region, uint64_t gpa, uint64_t bytes)
{
	uint64_t first, count;
	int error = vmemi_region_span(region, gpa, bytes, true, &first, &count);

	if (error)
		return error;
	vmemi_lock(&region->pin_lock);
	for (uint64_t i = 0; i < count && !error; i++)
		if (!region->pins[first + i])
			error = -VMEM_EINVAL;
	for (uint64_t i = 0; i < count && !error; i++)
		unpin_page(region, first + i);
	vmemi_unlock(&region->pin_lock);
	vmemi_host_freed(region->host);
	return error;
}
