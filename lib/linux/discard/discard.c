/* SPDX-License-Identifier: BSD-2-Clause */
/* Dropping the contents of guest pages: in place, in staging, in the store. What is dropped reads as
 * zero from then on. */
#include "linux/discard/discard.h"

#define BATCH 64

struct batch {
	struct vmem_region *r;
	unsigned count;
	uint64_t page[BATCH];
	bool mapped[BATCH]; /* there was a mapping to take away */
	uint64_t released;  /* bytes */
	int error;
};

static bool was_mapped(uint64_t word)
{
	enum vmem_page_state s = vmemi_page_state(word);

	return s == VMEM_PAGE_RESIDENT || s == VMEM_PAGE_CLEAN || s == VMEM_PAGE_SHARED ||
	       s == VMEM_PAGE_POISONED;
}

/* Takes the mappings of a batch away and ends it. */
static void flush(struct batch *b)
{
	struct iovec ranges[BATCH];
	size_t n = 0, gone;

	for (unsigned i = 0; i < b->count; i++)
		if (b->mapped[i])
			ranges[n++] = (struct iovec){ vmemi_region_page(b->r, b->page[i]),
						      VMEM_PAGE_SIZE };
	gone = vmemi_discard_ranges(b->r->host, ranges, n) / VMEM_PAGE_SIZE;
	for (unsigned i = 0; i < b->count; i++) {
		bool kept = b->mapped[i] && !gone;

		gone -= b->mapped[i] && gone;
		vmemi_region_end(b->r, b->page[i],
				 kept ? VMEMI_PAGE_DISCARD_UNDO : VMEMI_PAGE_DISCARD_DONE, 0);
		vmemi_uffd_wake(b->r->uffd, vmemi_region_page(b->r, b->page[i]), VMEM_PAGE_SIZE);
		if (kept)
			b->error = -VMEM_EIO;
		else
			vmemi_tally(&b->r->counters.discarded, 1);
	}
	b->count = 0;
}

static void add(struct batch *b, uint64_t page, uint64_t old)
{
	bool staged = vmemi_page_state(old) == VMEM_PAGE_STAGED ||
		      vmemi_page_state(old) == VMEM_PAGE_STORING;

	b->mapped[b->count] = was_mapped(old);
	if (b->mapped[b->count] || staged)
		b->released += VMEM_PAGE_SIZE;
	vmemi_region_drop_ref(b->r, old);
	b->page[b->count++] = page;
	if (b->count == BATCH)
		flush(b);
}

static void discard_page(struct batch *b, uint64_t page)
{
	uint64_t old, word;

	while (!vmemi_region_step(b->r, page, VMEMI_PAGE_DISCARD, 0, &old)) {
		word = vmemi_region_word(b->r, page);
		if (word & VMEMI_PAGE_PINNED) {
			b->error = b->error ? b->error : -VMEM_EBUSY;
			return;
		}
		if (vmemi_page_state(word) == VMEM_PAGE_ABSENT && !(word & VMEMI_PAGE_LEAVING))
			return;
		/* Somebody is at it: not for long. What this batch holds must not wait with us. */
		flush(b);
		vmemi_host_wait(b->r->host);
	}
	add(b, page, old);
}

int vmem_region_discard(vmem_region *region, uint64_t gpa, uint64_t bytes, uint64_t *ret_bytes)
{
	struct batch b = { .r = region };
	uint64_t first, count, before, after;
	struct vmem_store_account account = { .size = sizeof(account) };
	int error;

	error = vmemi_region_span(region, gpa, bytes, false, &first, &count);
	if (error)
		return error;
	vmem_store_vm_account(region->host->store, region->vm, &account);
	before = account.physical_bytes;
	for (uint64_t i = 0; i < count; i++)
		discard_page(&b, first + i);
	flush(&b);
	vmem_store_vm_account(region->host->store, region->vm, &account);
	after = account.physical_bytes;
	if (ret_bytes)
		*ret_bytes = b.released + (before > after ? before - after : 0);
	vmemi_host_freed(region->host);
	return b.error;
}
