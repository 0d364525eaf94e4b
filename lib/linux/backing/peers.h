/* SPDX-License-Identifier: BSD-2-Clause */
/* Others who map a region's file: see vmem/peer.h. A peer is one mapping; a process may be several peers, with one
 * userfaultfd, which we have a duplicate of.
 *
 * What a peer's kernel says is the peer's own matter: no error of its mapping changes a page. A page that it
 * faults on comes into the file as for a fault here, and is then mapped there too, under the same claim. So what
 * holds of mappings holds of a peer's: a page that is away and still in the file is writable nowhere, and a clean one
 * neither.
 *
 * Slots of host->peers are filled and emptied under the manager's lock for attaching; who looks at them is a walker. */
#ifndef VMEMI_PEERS_H
#define VMEMI_PEERS_H
#include "linux/region/table.h"
#include <vmem/peer.h>

struct vmemi_process {
	struct vmemi_uffd uffd;
	uint32_t peers;             /* the lock for attaching */
	_Atomic uint32_t ended;     /* atomic; it has no memory any more */
	_Atomic uint32_t misplaced; /* atomic; faults in a row that could not be answered */
	_Atomic uint32_t dropped;   /* atomic; its faults are not read any more */
};

struct vmem_peer {
	struct vmemi_at at; /* first: who has this has the peer */
	struct vmem_region *region;
	struct vmemi_process *process;
	uint64_t first, count; /* pages of the region */
	uint32_t slot;
	_Atomic uint32_t leaving; /* atomic; its faults are left unanswered */
};

/* The peer of @process that has @address, and which page that is; NULL: none. The caller is a walker. */
struct vmem_peer *vmemi_peer_find(struct vmemi_host *host, const struct vmemi_process *process,
				  uintptr_t address, uint64_t *ret_page);

/* Asks the kernel whether its process has ended, and notes that. */
bool vmemi_peer_ask(const struct vmem_peer *p);

/* A fault of it could not be answered: its access is repeated, unless that goes on for ever. */
void vmemi_peer_failed(struct vmemi_host *host, struct vmem_peer *p, int error);
/* The same of a process. */
void vmemi_process_failed(struct vmemi_host *host, struct vmemi_process *process, int error);

/* Claimed, and in the file: maps the page at a peer too, and wakes who waits there. @wp: protected. Returns whether
 * it is so now. */
bool vmemi_peer_map(struct vmem_region *r, const struct vmemi_at *at, uint64_t page, bool wp);

/* Write-protects pages, ascending, with all peers. Returns how many surely are, from the first on. */
uint32_t vmemi_peers_protect(struct vmem_region *r, const uint64_t *pages, uint32_t count);
/* Wakes who waits for a page, with all peers. */
void vmemi_peers_wake(struct vmem_region *r, uint64_t page);
/* Leaving, poisoned: makes a page such that a hole punched there is all that is left of it with any peer. A peer whose
 * kernel refuses keeps its error, which is counted. False: the file could not be written, nothing has changed. */
bool vmemi_peers_heal(struct vmem_region *r, uint64_t page);

/* One peer, which need not be in its slot. */
/* Write-protects what is away or clean of [page, page + count). 0, -VMEM_EINVAL, -VMEM_ENOMEM, -VMEM_EIO. */
int vmemi_peer_begin(struct vmem_peer *p, uint64_t page, uint64_t count);
/* Nobody serves it any more: write-protects what is in place of [page, page + count), which will leave without it.
 * 0, -VMEM_ENOMEM, -VMEM_EIO. */
int vmemi_peer_leave(struct vmem_peer *p, uint64_t page, uint64_t count);
/* Its memory has no contents any more: makes all of it an error to touch. */
void vmemi_peer_close(struct vmem_peer *p);

#endif
