/* SPDX-License-Identifier: BSD-2-Clause */
/* Messages of another process's userfaultfd: see foreign_events.h. */
#include "linux/foreign/foreign_events.h"
#include "linux/kernel/uffd_abi.h"

#define BATCH 32
#define DRAIN_READS 64 /* so that who floods does not keep us */
#define DRAIN_PAGES (1 << 22)
#define HEED_GROUPS 64 /* of 64 pages: what others wait for */

void vmemi_foreign_enter(struct vmem_foreign *f)
{
	bool kept_out = false;

	for (;;) {
		atomic_fetch_add(&f->fills, 1);
		if (!atomic_load(&f->closed))
			break;
		atomic_fetch_sub(&f->fills, 1);
		if (!kept_out)
			atomic_fetch_add(&f->kept_out, 1);
		kept_out = true;
		vmemi_relax(f->host->env);
	}
	if (kept_out)
		atomic_fetch_sub(&f->kept_out, 1);
}

void vmemi_foreign_leave(struct vmem_foreign *f)
{
	atomic_fetch_sub(&f->fills, 1);
}

static void close_to_fills(struct vmem_foreign *f)
{
	atomic_store(&f->closed, 1);
	while (atomic_load(&f->fills))
		vmemi_relax(f->host->env);
}

static void send_back(struct vmem_foreign *f, uint64_t address)
{
	vmemi_uffd_wake(&f->uffd, (void *)(uintptr_t)(address & ~(VMEM_PAGE_SIZE - UINT64_C(1))),
			VMEM_PAGE_SIZE);
}

/* The pages of [start, end) that are in range @i. False: none. */
static bool cut(const struct vmem_foreign *f, unsigned i, uint64_t start, uint64_t end,
		uint64_t *ret_first, uint64_t *ret_end)
{
	uint64_t base = f->range[i].base, limit = base + f->range[i].bytes;

	start = start < base ? base : start;
	end = end > limit ? limit : end;
	if (!f->range[i].region || start >= end)
		return false;
	*ret_first = (start - base) / VMEM_PAGE_SIZE;
	*ret_end = (end - base + VMEM_PAGE_SIZE - 1) / VMEM_PAGE_SIZE;
	return true;
}

static void mark(struct vmem_region *r, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end;) {
		uint64_t n = 64 - page % 64 < end - page ? 64 - page % 64 : end - page;
		uint64_t bits = n == 64 ? UINT64_MAX : ((UINT64_C(1) << n) - 1) << page % 64;

		/* Who removes the same again and again costs no more than this. */
		if (bits & ~atomic_load(&r->removed[page / 64]))
			atomic_fetch_or(&r->removed[page / 64], bits);
		if (bits & ~atomic_load(&r->unheeded.pages[page / 64]))
			vmemi_page_set_add_group(&r->unheeded, page / 64, bits);
		page += n;
	}
}

/* Pages of a group are absent from now on. While one is leaving nobody can fill it; who did that before, knowing that it
 * was removed, has taken its bit away, and it stays. What is arriving will be zeros. */
static uint64_t heed_group(struct vmem_region *r, uint64_t group)
{
	uint64_t bits, left, old, leaving = 0, first = group * 64;

	atomic_fetch_and(&r->unheeded.groups[group / 64], ~(UINT64_C(1) << group % 64));
	bits = atomic_load(&r->unheeded.pages[group]);
	for (uint64_t b = bits; b; b &= b - 1)
		if (vmemi_region_step(r, first + (uint64_t)__builtin_ctzll(b), VMEMI_PAGE_DISCARD,
				      0, &old))
			leaving |= b & -b;
	left = atomic_fetch_and(&r->unheeded.pages[group], ~bits);
	for (uint64_t b = leaving; b; b &= b - 1)
		vmemi_region_end(r, first + (uint64_t)__builtin_ctzll(b),
				 left & b & -b ? VMEMI_PAGE_DISCARD_DONE : VMEMI_PAGE_DISCARD_UNDO,
				 0);
	if (left &
	    ~bits) /* removed meanwhile; as the set was not empty its bit above was not set */
		atomic_fetch_or(&r->unheeded.groups[group / 64], UINT64_C(1) << group % 64);
	return (uint64_t)__builtin_popcountll(leaving & left);
}

/* Up to @most groups of @r. Returns how many there were. */
static unsigned heed_some(struct vmem_foreign *f, struct vmem_region *r, unsigned most)
{
	uint64_t end = atomic_load(&r->unheeded.count), group = 0, pages = 0;
	unsigned n = 0;

	for (; n < most; n++) {
		group = vmemi_page_set_next(&r->unheeded, group, end);
		if (group == end)
			break;
		pages += heed_group(r, group++);
	}
	vmemi_tally(&f->removed_pages, pages);
	vmemi_tally(&r->counters.discarded, pages);
	return n;
}

bool vmemi_foreign_heed(struct vmem_foreign *f)
{
	struct vmem_region *r[VMEM_FOREIGN_RANGES_MAX];
	unsigned groups = 0;

	if (!atomic_load(&f->unheeded) || atomic_exchange(&f->heeding, 1))
		return false;
	atomic_store(&f->unheeded, 0);
	vmemi_lock(&f->lock);
	for (unsigned i = 0; i < f->count; i++)
		r[i] = f->range[i].region;
	vmemi_unlock(&f->lock);
	for (unsigned i = 0; i < f->count && groups < HEED_GROUPS; i++)
		groups += r[i] ? heed_some(f, r[i], HEED_GROUPS - groups) : 0;
	if (groups == HEED_GROUPS)
		atomic_store(&f->unheeded, 1); /* perhaps there is more */
	atomic_store(&f->heeding, 0);
	if (groups)
		vmemi_host_freed(f->host);
	return atomic_load(&f->unheeded);
}

bool vmemi_foreign_is_absent(struct vmem_region *r, uint64_t page)
{
	uint64_t old;

	if (!vmemi_foreign_removed(r, page) ||
	    !vmemi_region_step(r, page, VMEMI_PAGE_FORGET, 0, &old))
		return false;
	vmemi_tally(&r->foreign->removed_pages, 1);
	vmemi_tally(&r->counters.discarded, 1);
	return true;
}

static bool is_removal(const struct uffd_msg *m)
{
	return m->event == UFFD_EVENT_REMOVE || m->event == UFFD_EVENT_UNMAP;
}

/* [start, end) was removed; fills are kept out. Returns how many pages of memory that were. */
static uint64_t take_removal(struct vmem_foreign *f, uint64_t start, uint64_t end)
{
	uint64_t first, last, pages = 0;

	for (unsigned i = 0; i < f->count; i++) {
		if (!cut(f, i, start, end, &first, &last))
			continue;
		mark(f->range[i].region, first, last);
		pages += last - first;
	}
	if (pages)
		atomic_store(&f->unheeded, 1);
	return pages;
}

/* Each of them may be all there is, and no fill goes on before the last one is marked: so what they share is marked
 * once. The removals of @m, which is put in order, by address; returns how many pages they were. */
static uint64_t take_removals(struct vmem_foreign *f, struct uffd_msg *m, size_t n)
{
	uint64_t marked = 0, pages = 0;

	for (size_t i = 1; i < n; i++)
		for (size_t k = i; k && m[k].arg.remove.start < m[k - 1].arg.remove.start; k--) {
			struct uffd_msg swap = m[k];

			m[k] = m[k - 1];
			m[k - 1] = swap;
		}
	for (size_t i = 0; i < n; i++) {
		uint64_t start = m[i].arg.remove.start, end = m[i].arg.remove.end;

		if (end > marked) {
			pages += take_removal(f, start > marked ? start : marked, end);
			marked = end;
		}
	}
	vmemi_tally(&f->remove_events, n);
	return pages;
}

static void take_fault(struct vmem_foreign *f, const struct uffd_msg *m)
{
	uint64_t address = m->arg.pagefault.address;
	uint32_t at = (f->first + f->waiting) % VMEMI_FOREIGN_INBOX;

	for (unsigned i = 0; i < f->count && !(m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP);
	     i++) {
		if (address - f->range[i].base >= f->range[i].bytes)
			continue;
		if (!f->range[i].region || f->waiting == VMEMI_FOREIGN_INBOX) {
			vmemi_tally(&f->sent_back, f->range[i].region != NULL);
			send_back(f, address);
			return;
		}
		f->inbox[at] = (struct vmemi_foreign_fault){
			.region = f->range[i].region,
			.page = (address - f->range[i].base) / VMEM_PAGE_SIZE,
			.flags = m->arg.pagefault.flags,
		};
		f->waiting++;
		return;
	}
	vmemi_tally(&f->strays, 1); /* it waits: nobody knows what should be there */
}

/* The lock is held. False: that was all. */
static bool read_some(struct vmem_foreign *f, uint64_t *removed)
{
	struct uffd_msg m[BATCH], removals[BATCH];
	size_t n, some = 0;
	ssize_t bytes;

	close_to_fills(f);
	bytes = vmemi_uffd_read(&f->uffd, m, sizeof(m));
	n = bytes > 0 ? (size_t)bytes / sizeof(m[0]) : 0;
	for (size_t i = 0; i < n; i++)
		if (is_removal(&m[i]))
			removals[some++] = m[i];
	*removed += take_removals(f, removals, some);
	atomic_store(&f->closed, 0);
	for (size_t i = 0; i < n; i++) {
		if (is_removal(&m[i]))
			continue;
		if (m[i].event == UFFD_EVENT_PAGEFAULT)
			take_fault(f, &m[i]);
		else
			vmemi_tally(&f->strays, 1);
	}
	return n == BATCH;
}

static void read_all(struct vmem_foreign *f)
{
	uint64_t removed = 0;

	for (unsigned i = 0; i < DRAIN_READS && removed < DRAIN_PAGES && read_some(f, &removed);
	     i++)
		;
}

unsigned vmemi_foreign_take(struct vmem_foreign *f, struct vmemi_foreign_fault *faults,
			    unsigned most)
{
	unsigned n = 0;

	vmemi_lock(&f->lock);
	/* Else it is their turn, however much there is to be read. */
	if (!atomic_load(&f->kept_out))
		read_all(f);
	for (; n < most && f->waiting; n++) {
		faults[n] = f->inbox[f->first];
		f->first = (f->first + 1) % VMEMI_FOREIGN_INBOX;
		f->waiting--;
	}
	vmemi_unlock(&f->lock);
	return n;
}

void vmemi_foreign_drain(struct vmem_foreign *f)
{
	bool any;

	vmemi_lock(&f->lock);
	read_all(f);
	any = f->waiting > 0 || atomic_load(&f->unheeded);
	vmemi_unlock(&f->lock);
	if (any)
		vmemi_host_kick_faults(f->host);
}

void vmemi_foreign_drop(struct vmem_foreign *f, const struct vmem_region *r)
{
	uint32_t kept = 0;

	vmemi_lock(&f->lock);
	for (unsigned i = 0; i < f->count; i++)
		if (f->range[i].region == r)
			f->range[i].region = NULL;
	for (uint32_t i = 0; i < f->waiting; i++) {
		struct vmemi_foreign_fault *e = &f->inbox[(f->first + i) % VMEMI_FOREIGN_INBOX];

		if (e->region != r)
			f->inbox[(f->first + kept++) % VMEMI_FOREIGN_INBOX] = *e;
	}
	f->waiting = kept;
	vmemi_unlock(&f->lock);
}
