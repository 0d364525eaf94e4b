/* SPDX-License-Identifier: BSD-2-Clause */
/* Others who map a region's file: see peers.h. */
#include "linux/backing/peers.h"
#include "linux/backing/backing.h"
#include "linux/region/dirty.h"
#include <errno.h>

#define MISPLACED_MAX \
	64 /* faults in a row that cannot be answered, until nobody listens any more */
#define CLOSE_PIECE 512

/* --- One peer --- */

static void *address_of(const struct vmem_peer *p, uint64_t page)
{
	return vmemi_address(&p->at, page);
}

/* To protect a page harms nothing: who writes there asks once more. */
bool vmemi_peer_ask(const struct vmem_peer *p)
{
	if (!atomic_load(&p->process->ended) &&
	    vmemi_uffd_protect(p->at.uffd, address_of(p, p->first), VMEM_PAGE_SIZE, true) == -ESRCH)
		atomic_store(&p->process->ended, 1);
	return atomic_load(&p->process->ended);
}

struct vmem_peer *vmemi_peer_find(struct vmemi_host *host, const struct vmemi_process *process,
				  uintptr_t address, uint64_t *ret_page)
{
	uint32_t slots = atomic_load(&host->peer_slots);

	for (uint32_t i = 0; i < slots; i++) {
		struct vmem_peer *p = atomic_load(&host->peers[i]);
		uint64_t page;

		if (!p || p->process != process || atomic_load(&p->leaving))
			continue;
		page = (address - p->at.base) / VMEM_PAGE_SIZE;
		if (page - p->first < p->count) {
			*ret_page = page;
			return p;
		}
	}
	return NULL;
}

/* Its faults are not read any more. An epoll descriptor that it makes readable would keep handlers awake. */
static void drop(struct vmemi_host *host, struct vmemi_process *process)
{
	if (!atomic_exchange(&process->dropped, 1))
		host->k->epoll_watch(host->peers_epoll, process->uffd.fd, false);
}

void vmemi_process_failed(struct vmemi_host *host, struct vmemi_process *process, int error)
{
	if (error == -VMEM_EAGAIN || error == -VMEM_ENOMEM) /* that passes */
		return;
	if (error == -ESRCH)
		atomic_store(&process->ended, 1);
	if (error == -ESRCH || atomic_fetch_add(&process->misplaced, 1) >= MISPLACED_MAX)
		drop(host, process);
}

void vmemi_peer_failed(struct vmemi_host *host, struct vmem_peer *p, int error)
{
	vmemi_process_failed(host, p->process, error);
}

bool vmemi_peer_map(struct vmem_region *r, const struct vmemi_at *at, uint64_t page, bool wp)
{
	struct vmem_peer *p = (struct vmem_peer *)(uintptr_t)at;
	bool is_protected = wp;
	int error = vmemi_file_map(r, at, page, &is_protected);

	if (error == 1 && wp) /* by another of its threads */
		error = vmemi_uffd_wake(at->uffd, address_of(p, page), VMEM_PAGE_SIZE);
	else if (error == 1)
		error = vmemi_uffd_protect(at->uffd, address_of(p, page), VMEM_PAGE_SIZE, false);
	if (error) {
		vmemi_peer_failed(r->host, p, error);
		vmemi_uffd_wake(at->uffd, address_of(p, page), VMEM_PAGE_SIZE);
		return wp; /* it is not mapped there */
	}
	atomic_store(&p->process->misplaced, 0);
	return is_protected;
}

/* Whether a page that a peer could not be made to have protected is not its at all. */
static bool has_none(const struct vmem_peer *p, int error)
{
	if (error == -ESRCH)
		atomic_store(&p->process->ended, 1);
	/* Of one page EINVAL says that huge pages of another file are there. */
	return !error || error == -VMEM_ENOENT || error == -VMEM_EINVAL || error == -ESRCH;
}

/* [page, page + count), of the peer. What it has unmapped, or covered with huge pages, is refused, with all that is
 * protected by the same call: then one by one. */
static int protect_run(const struct vmem_peer *p, uint64_t page, uint64_t count)
{
	int error;

	if (atomic_load(&p->process->ended))
		return 0;
	error = vmemi_uffd_protect(p->at.uffd, address_of(p, page), count * VMEM_PAGE_SIZE, true);
	if (error != -VMEM_ENOENT && error != -VMEM_EINVAL)
		return has_none(p, error) ? 0 : error;
	for (uint64_t i = 0; i < count; i++) {
		error = vmemi_uffd_protect(p->at.uffd, address_of(p, page + i), VMEM_PAGE_SIZE,
					   true);
		if (!has_none(p, error))
			return error;
	}
	return 0;
}

/* How many of @pages, from the first on, it cannot write to unseen any more. */
static uint32_t protect(const struct vmem_peer *p, const uint64_t *pages, uint32_t count)
{
	uint32_t i = 0, n;

	for (; i < count; i += n) {
		n = 1;
		if (pages[i] - p->first >= p->count)
			continue;
		while (i + n < count && pages[i + n] == pages[i] + n &&
		       pages[i + n] - p->first < p->count)
			n++;
		if (protect_run(p, pages[i], n))
			break;
	}
	return i;
}

/* Whether a mapping that has the page must not be able to write to it. */
static bool is_to_be_protected(const struct vmem_region *r, uint64_t page)
{
	uint64_t word = vmemi_region_word(r, page);

	switch (vmemi_page_state(word)) {
	case VMEM_PAGE_RESIDENT: return vmemi_dirty_is_watched(r, page);
	case VMEM_PAGE_POISONED: return false;
	case VMEM_PAGE_CLEAN:
	case VMEM_PAGE_SHARED:
	case VMEM_PAGE_ARRIVING: return true;
	default: return (word & VMEMI_PAGE_OCCUPIED) != 0;
	}
}

/* Whether a mapping may have the page writable. */
static bool may_be_writable(const struct vmem_region *r, uint64_t page)
{
	enum vmem_page_state s = vmemi_page_state(vmemi_region_word(r, page));

	return s == VMEM_PAGE_RESIDENT || s == VMEM_PAGE_ARRIVING;
}

static int protect_those(const struct vmem_peer *p, uint64_t page, uint64_t count,
			 bool (*which)(const struct vmem_region *r, uint64_t page))
{
	uint64_t end = page + count, run = 0;
	int error = 0;

	for (; page < end && !error; page++) {
		if (which(p->region, page)) {
			run++;
			continue;
		}
		if (run)
			error = protect_run(p, page - run, run);
		run = 0;
	}
	if (run && !error)
		error = protect_run(p, end - run, run);
	return error;
}

int vmemi_peer_begin(struct vmem_peer *p, uint64_t page, uint64_t count)
{
	int error = protect_those(p, page, count, is_to_be_protected);

	if (!error && atomic_load(&p->process->ended))
		error = -VMEM_EINVAL;
	return !error || error == -VMEM_ENOMEM || error == -VMEM_EINVAL ? error : -VMEM_EIO;
}

int vmemi_peer_leave(struct vmem_peer *p, uint64_t page, uint64_t count)
{
	int error = protect_those(p, page, count, may_be_writable);

	return !error || error == -VMEM_ENOMEM ? error : -VMEM_EIO;
}

void vmemi_peer_close(struct vmem_peer *p)
{
	uint64_t page = p->first, end = page + p->count;

	vmemi_uffd_protect(p->at.uffd, address_of(p, page), p->count * VMEM_PAGE_SIZE, false);
	while (page < end) {
		uint64_t n = end - page < CLOSE_PIECE ? end - page : CLOSE_PIECE;
		int error = vmemi_uffd_poison(p->at.uffd, address_of(p, page), n * VMEM_PAGE_SIZE);

		if (error == -ESRCH)
			break;
		/* Some of it is an error already, or no longer its. */
		for (uint64_t i = 0; i < n && error; i++) {
			vmemi_uffd_protect(p->at.uffd, address_of(p, page + i), VMEM_PAGE_SIZE,
					   false);
			vmemi_uffd_poison(p->at.uffd, address_of(p, page + i), VMEM_PAGE_SIZE);
			vmemi_uffd_wake(p->at.uffd, address_of(p, page + i), VMEM_PAGE_SIZE);
		}
		page += n;
	}
}

/* --- All peers of a region --- */

/* The next one from *@slot on, or NULL. */
static struct vmem_peer *next(const struct vmem_region *r, uint32_t *slot)
{
	struct vmemi_host *host = r->host;
	uint32_t slots = atomic_load(&host->peer_slots);

	while (*slot < slots) {
		struct vmem_peer *p = atomic_load(&host->peers[(*slot)++]);

		if (p && p->region == r)
			return p;
	}
	return NULL;
}

uint32_t vmemi_peers_protect(struct vmem_region *r, const uint64_t *pages, uint32_t count)
{
	_Atomic uint32_t *walkers;
	struct vmem_peer *p;
	uint32_t slot = 0;

	if (!atomic_load(&r->peers))
		return count;
	walkers = vmemi_host_enter(r->host, r->base);
	while (count && (p = next(r, &slot)))
		count = protect(p, pages, count);
	vmemi_host_leave(walkers);
	return count;
}

/* Does it with every peer that has @page. */
static void each(struct vmem_region *r, uint64_t page,
		 void (*act)(struct vmem_peer *p, uint64_t page))
{
	_Atomic uint32_t *walkers;
	struct vmem_peer *p;
	uint32_t slot = 0;

	if (!atomic_load(&r->peers))
		return;
	walkers = vmemi_host_enter(r->host, r->base);
	while ((p = next(r, &slot)))
		if (page - p->first < p->count)
			act(p, page);
	vmemi_host_leave(walkers);
}

static void wake(struct vmem_peer *p, uint64_t page)
{
	vmemi_uffd_wake(p->at.uffd, address_of(p, page), VMEM_PAGE_SIZE);
}

void vmemi_peers_wake(struct vmem_region *r, uint64_t page)
{
	each(r, page, wake);
}

/* Over an error a page can be mapped, which a hole then takes away. */
static void cover(struct vmem_peer *p, uint64_t page)
{
	bool wp = false;
	int error = vmemi_file_map(p->region, &p->at, page, &wp);

	if (error != 1 && !has_none(p, error))
		vmemi_tally(&p->region->counters.peer_errors_left, 1);
}

bool vmemi_peers_heal(struct vmem_region *r, uint64_t page)
{
	if (!atomic_load(&r->peers))
		return true;
	if (r->backing->write(r, page, r->host->zero_page))
		return false;
	each(r, page, cover);
	return true;
}
