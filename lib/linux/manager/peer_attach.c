/* SPDX-License-Identifier: BSD-2-Clause */
/* Peers come and go: see vmem/peer.h and backing/peers.h. All under the lock for attaching. */
#include "base/mem.h"
#include "base/opts.h"
#include "linux/backing/backing.h"
#include "linux/backing/peers.h"
#include "linux/foreign/foreign_events.h"
#include "linux/manager/manager.h"
#include <errno.h>

#define PIECE 8192 /* pages until reclaim may go on */

static int check_opts(const struct vmem_region *r, const struct vmem_peer_opts *o)
{
	uint64_t first, count;

	if (o->flags || o->reserved || !r->backing->one_frame || !o->bytes ||
	    (o->gpa | o->bytes | o->address) % VMEM_PAGE_SIZE || o->address > UINT64_MAX - o->bytes)
		return -VMEM_EINVAL;
	if (o->same_process_as && o->same_process_as->region->host != r->host)
		return -VMEM_EINVAL;
	return vmemi_region_span(r, o->gpa, o->bytes, false, &first, &count);
}

bool vmemi_manager_has_uffd(const struct vmem_manager *m, int fd)
{
	const struct vmemi_host *host = &m->host;

	for (uint32_t i = 0; i < VMEMI_PEERS_MAX; i++) {
		const struct vmem_peer *p = atomic_load(&host->peers[i]);

		if (p && vmemi_uffd_is(&p->process->uffd, fd))
			return true;
	}
	for (uint32_t i = 0; i < VMEMI_FOREIGN_MAX; i++) {
		const struct vmem_foreign *f = atomic_load(&host->foreign[i].it);

		if (f && vmemi_uffd_is(&f->uffd, fd))
			return true;
	}
	return false;
}

/* Whether @p's process is told to be the same, and has @p there. */
static bool is_double(const struct vmem_peer *p, const struct vmem_peer_opts *o)
{
	uint64_t address = p->at.base + p->first * VMEM_PAGE_SIZE;

	return o->same_process_as && o->same_process_as->process == p->process &&
	       o->address < address + p->count * VMEM_PAGE_SIZE && address < o->address + o->bytes;
}

/* 0, -VMEM_ENOSPC, -VMEM_EEXIST. */
static int find_slot(struct vmem_manager *m, const struct vmem_peer_opts *o, uint32_t *ret_slot)
{
	struct vmemi_host *host = &m->host;
	bool found = false;

	if (!o->same_process_as && vmemi_manager_has_uffd(m, o->userfaultfd))
		return -VMEM_EEXIST;
	for (uint32_t i = VMEMI_PEERS_MAX; i--;) {
		struct vmem_peer *p = atomic_load(&host->peers[i]);

		if (p && is_double(p, o))
			return -VMEM_EEXIST;
		if (!p) {
			*ret_slot = i;
			found = true;
		}
	}
	return found ? 0 : -VMEM_ENOSPC;
}

static void let_go(struct vmemi_host *host, struct vmemi_process *process)
{
	if (--process->peers)
		return;
	/* Before it is closed: its owner may have it open for longer. */
	host->k->epoll_watch(host->peers_epoll, process->uffd.fd, false);
	vmemi_uffd_close(&process->uffd);
	vmemi_free(&host->metadata.allocator, process, sizeof(*process),
		   _Alignof(struct vmemi_process));
}

static int take_process(struct vmemi_host *host, const struct vmem_peer_opts *o,
			struct vmemi_process **ret_process)
{
	struct vmemi_process *process;
	int error;

	if (o->same_process_as) {
		process = o->same_process_as->process;
		if (atomic_load(&process->dropped)) /* nobody would read its faults */
			return -VMEM_EINVAL;
		process->peers++;
		*ret_process = process;
		return 0;
	}
	process = vmemi_zalloc(&host->metadata.allocator, sizeof(*process),
			       _Alignof(struct vmemi_process));
	if (!process)
		return -VMEM_ENOMEM;
	process->peers = 1;
	error = vmemi_uffd_adopt(&process->uffd, host->k, o->userfaultfd);
	if (!error && host->k->epoll_watch(host->peers_epoll, process->uffd.fd, true))
		error = -VMEM_EIO;
	if (error)
		let_go(host, process);
	else
		*ret_process = process;
	return error;
}

static int register_at(const struct vmem_peer *p)
{
	void *start = vmemi_address(&p->at, p->first);
	int error = vmemi_uffd_register_shared(p->at.uffd, start, p->count * VMEM_PAGE_SIZE);

	/* Of a process that has ended it says so. */
	if (error == -VMEM_ENOMEM && vmemi_peer_ask(p))
		error = -ESRCH;
	switch (error) {
	case 0:
	case -VMEM_EBUSY:
	case -VMEM_EPERM:
	case -VMEM_ENOMEM: return error;
	case -VMEM_EINVAL:
	case -ESRCH: return -VMEM_EINVAL;
	default: return -VMEM_EIO;
	}
}

/* What has @slots is told to nobody any more, and nobody is at it. */
static void forget(struct vmem_manager *m, struct vmem_peer *p)
{
	vmemi_host_drain(&m->host);
	for (uint32_t i = 0; i < m->host.handlers; i++)
		vmemi_handler_forget_peer(m->handlers[i], &p->at);
}

static void unpublish(struct vmem_peer *p)
{
	atomic_store(&p->region->host->peers[p->slot], NULL);
	atomic_fetch_sub(&p->region->peers, 1);
}

static void wake_all(const struct vmem_peer *p)
{
	vmemi_uffd_wake(p->at.uffd, vmemi_address(&p->at, p->first), p->count * VMEM_PAGE_SIZE);
}

static void free_peer(struct vmemi_host *host, struct vmem_peer *p)
{
	let_go(host, p->process);
	vmemi_free(&host->metadata.allocator, p, sizeof(*p), _Alignof(struct vmem_peer));
}

/* All pages of it, a piece at a time, in which nothing leaves. */
static int in_pieces(struct vmem_manager *m, struct vmem_peer *p,
		     int (*act)(struct vmem_peer *p, uint64_t page, uint64_t count))
{
	int error = 0;

	for (uint64_t done = 0, n; done < p->count && !error; done += n) {
		n = p->count - done < PIECE ? p->count - done : PIECE;
		vmemi_reclaim_enter(m->reclaim);
		error = act(p, p->first + done, n);
		vmemi_reclaim_leave(m->reclaim);
	}
	return error;
}

/* Registers it, and from then on keeps what is away from it. */
static int publish(struct vmem_manager *m, struct vmem_peer *p)
{
	struct vmemi_host *host = &m->host;
	int error = register_at(p);

	if (error)
		return error;
	atomic_fetch_add(&p->region->peers, 1);
	atomic_store(&host->peers[p->slot], p);
	if (p->slot >= atomic_load(&host->peer_slots))
		atomic_store(&host->peer_slots, p->slot + 1);
	/* What is away and clean is protected here, and what leaves meanwhile as it leaves. */
	error = in_pieces(m, p, vmemi_peer_begin);
	if (error) {
		unpublish(p);
		forget(m, p);
	} else {
		wake_all(p); /* who touched it too early */
	}
	return error;
}

static int add(struct vmem_manager *m, struct vmem_region *r, const struct vmem_peer_opts *o,
	       struct vmem_peer **ret_peer)
{
	struct vmemi_host *host = &m->host;
	struct vmem_peer *p;
	uint32_t slot = 0;
	int error = find_slot(m, o, &slot);

	if (error)
		return error;
	p = vmemi_zalloc(&host->metadata.allocator, sizeof(*p), _Alignof(struct vmem_peer));
	if (!p)
		return -VMEM_ENOMEM;
	error = take_process(host, o, &p->process);
	if (error) {
		vmemi_free(&host->metadata.allocator, p, sizeof(*p), _Alignof(struct vmem_peer));
		return error;
	}
	p->region = r;
	p->slot = slot;
	p->first = (o->gpa - r->opts.gpa) / VMEM_PAGE_SIZE;
	p->count = o->bytes / VMEM_PAGE_SIZE;
	p->at.uffd = &p->process->uffd;
	p->at.base = (uintptr_t)(o->address - p->first * VMEM_PAGE_SIZE);
	error = publish(m, p);
	if (error)
		free_peer(host, p);
	else
		*ret_peer = p;
	return error;
}

int vmem_region_add_peer(vmem_peer **ret_peer, vmem_region *region,
			 const struct vmem_peer_opts *opts)
{
	struct vmem_peer_opts o;
	struct vmem_manager *m;
	int error;

	if (!ret_peer || !region || !opts)
		return -VMEM_EINVAL;
	if (region->foreign)
		return -VMEM_ENOTSUP;
	error = vmemi_opts_take(&o, sizeof(o), opts);
	if (!error)
		error = check_opts(region, &o);
	if (error)
		return error;
	m = (struct vmem_manager *)region->host;
	vmemi_lock(&m->attach_lock);
	error = add(m, region, &o, ret_peer);
	vmemi_unlock(&m->attach_lock);
	return error;
}

/* First nobody serves it any more, so nothing is made writable there behind what is protected; what leaves
 * meanwhile is protected as with any peer. */
static int remove_peer(struct vmem_manager *m, struct vmem_peer *p)
{
	int error;

	atomic_store(&p->leaving, 1);
	forget(m, p);
	error = in_pieces(m, p, vmemi_peer_leave);
	if (error) {
		atomic_store(&p->leaving, 0);
		wake_all(p); /* whose faults were left */
		return error;
	}
	unpublish(p);
	vmemi_host_drain(&m->host);
	free_peer(&m->host, p);
	return 0;
}

int vmem_region_remove_peer(vmem_peer *peer)
{
	struct vmem_manager *m;
	int error;

	if (!peer)
		return -VMEM_EINVAL;
	m = (struct vmem_manager *)peer->region->host;
	vmemi_lock(&m->attach_lock);
	error = remove_peer(m, peer);
	vmemi_unlock(&m->attach_lock);
	return error;
}

int vmem_peer_state(const vmem_peer *peer)
{
	if (!peer)
		return -VMEM_EINVAL;
	vmemi_peer_ask(peer);
	return atomic_load(&peer->process->ended)     ? VMEM_PEER_ENDED
	       : atomic_load(&peer->process->dropped) ? VMEM_PEER_DROPPED
						      : VMEM_PEER_SERVED;
}

uint32_t vmemi_manager_hide_peers(struct vmem_region *r, struct vmem_peer **peers)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < VMEMI_PEERS_MAX; i++) {
		struct vmem_peer *p = atomic_load(&r->host->peers[i]);

		if (!p || p->region != r)
			continue;
		unpublish(p);
		peers[n++] = p;
	}
	return n;
}

void vmemi_manager_end_peers(struct vmem_region *r, uint32_t how, struct vmem_peer **peers,
			     uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		struct vmem_peer *p = peers[i];

		if (how == VMEM_DETACH_DISCARD)
			vmemi_peer_close(p);
		else /* all is in the file: its kernel serves it, and who waits finds it there */
			vmemi_uffd_unregister(p->at.uffd, vmemi_address(&p->at, p->first),
					      p->count * VMEM_PAGE_SIZE);
		free_peer(r->host, p);
	}
}
