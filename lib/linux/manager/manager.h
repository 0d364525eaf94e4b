/* SPDX-License-Identifier: BSD-2-Clause */
/* The manager: one host, handlers of faults, one reclaim loop, and the threads that work them. */
#ifndef VMEMI_MANAGER_H
#define VMEMI_MANAGER_H
#include "linux/fault/handler.h"
#include "linux/reclaim/reclaim.h"
#include <pthread.h>
#include <vmem/manager.h>
#include <vmem/store_device.h>

#define VMEMI_SOURCE_THREADS 16 /* at most */

struct vmemi_device_note {
	uint32_t number;
	bool blind; /* it has no descriptor */
};

/* What segments may take while there are devices: devices.c. Guard: the lock of reclaim. */
struct vmemi_device_share {
	struct vmemi_device_note device[VMEM_STORE_DEVICES]; /* host.devices.count of them */
	bool lifted;                                         /* nothing more is taken by devices */
	uint64_t lifted_ns;                                  /* when that was last changed */
	uint64_t moved;                                      /* what devices have done so far */
	uint64_t moved_ns; /* when that last grew; 0: nothing was being written */
};

struct vmem_manager {
	struct vmemi_host host; /* first: host and manager are one address */
	struct vmem_manager_opts opts;
	struct vmemi_handler *handlers[VMEMI_HANDLERS_MAX]; /* host.handlers of them */
	struct vmemi_reclaim *reclaim;
	struct vmemi_lock attach_lock; /* attaching and detaching; host.regions' writers */
	int epoll;                     /* readable when vmem_manager_step() has work */

	pthread_t fault_threads[VMEMI_HANDLERS_MAX], reclaim_thread;
	pthread_t save_thread[VMEMI_SAVERS_MAX];
	pthread_t source_thread[VMEMI_SOURCE_THREADS];
	uint32_t started;              /* fault threads; the serial caller's */
	uint32_t source_threads;       /* that run; likewise */
	bool running;                  /* likewise */
	_Atomic uint32_t stop_reclaim; /* atomic; the thread ends */
	_Atomic uint32_t stop_sources; /* atomic; the threads end */
	_Atomic uint32_t leave;        /* atomic; vmem_manager_run() returns */
	_Atomic uint32_t detaching; /* atomic; regions that are; the budget is not kept meanwhile */
	/* atomic; reclaim finds nothing since then; 0: it does */
	_Atomic uint64_t nothing_since_ns;
	_Atomic uint64_t reclaim_ns, reclaim_rounds, stuck; /* atomic; counters */
	_Atomic uint32_t telling;                           /* atomic; on_event runs */
	uint32_t told_stuck;                                /* telling; what on_event was told */
	struct vmemi_device_share share;
	uint64_t floor_bytes; /* what frames.floor_bytes is by rights; the lock of reclaim */
};

/* A manager over another table of system calls. For tests. */
int vmemi_manager_new(struct vmem_manager **ret_manager, const struct vmem_manager_opts *opts,
		      const struct vmemi_kernel *k);

/* Notes whether reclaim finds anything; @on_event is told later, and only what changed. */
void vmemi_manager_set_stuck(struct vmem_manager *m, bool stuck);
/* Makes room for who waits and finds no reclaim thread. */
bool vmemi_manager_make_room(struct vmemi_host *host);
/* Serves faults for who waits and finds no thread that does. */
bool vmemi_manager_serve_faults(struct vmemi_host *host);
/* Serves what can be served now. True if faults are held back. */
bool vmemi_manager_step_faults(struct vmem_manager *m);
/* For who waits for the end of slow loads, if no threads run: those end, too, that their devices do not answer. */
void vmemi_manager_step_loads(struct vmem_manager *m);

/* The threads that ask callers for pages (source_loop.c). Starting is nothing where they run; 0, -VMEM_ENOMEM. */
int vmemi_manager_start_sources(struct vmem_manager *m);
void vmemi_manager_stop_sources(struct vmem_manager *m);
/* Whether any region has a source. */
bool vmemi_manager_has_source(const struct vmem_manager *m);

/* A region is being detached: takes its peers from their slots, at most VMEMI_PEERS_MAX, and tells which they were.
 * When no slot is looked at any more, and the region is as it is left, they end (peer_attach.c). */
uint32_t vmemi_manager_hide_peers(struct vmem_region *r, struct vmem_peer **peers);
void vmemi_manager_end_peers(struct vmem_region *r, uint32_t how, struct vmem_peer **peers,
			     uint32_t count);

/* The pool's segments: mapped memory, counted, refused above the budget. */
void vmemi_segments_init(struct vmem_allocator *a, struct vmemi_host *host);
/* Whenever the budget has changed, or reclaim has done something about that: @room is what it needs to work in. The
 * lock of reclaim is held. */
void vmemi_segments_come_down(struct vmemi_frames *f, uint64_t room);
/* Faults leave the whole floor free again; or, if @lend, less by what is spare in the pool. The lock of reclaim is held. */
void vmemi_segments_lend(struct vmem_manager *m, bool lend);

/* Devices (devices.c). The lock of reclaim is held. */
/* The budget has changed. */
void vmemi_devices_set_share(struct vmem_manager *m);
/* Whether devices have taken something since the last time, or are about to. */
bool vmemi_devices_are_taking(struct vmem_manager *m);
/* Something could not be stored, and the lock of reclaim is not held: waits a moment for devices to take what is. False: they
 * do not. */
bool vmemi_devices_make_room(struct vmem_manager *m);
/* After a round: lets segments take more where devices take none, and tries again later. True: there is room now. */
bool vmemi_devices_adapt(struct vmem_manager *m);

struct vmemi_memory_kind {
	bool foreign;                        /* some of it has a userfaultfd */
	bool other_file;                     /* it is not the file that was given */
	bool kept_from_children;             /* some of it is MADV_DONTFORK */
	struct vmem_foreign *foreign_memory; /* it is another process's; NULL: ours */
};

/* Whether the userfaultfd @fd was handed over before, by a peer or with foreign memory. attach_lock. */
bool vmemi_manager_has_uffd(const struct vmem_manager *m, int fd);

/* Attaches memory of another process, whose faults nobody reads yet; takes it back before anybody does; and
 * vmem_region_detach() of any memory. For the first two the attach lock is held. */
int vmemi_manager_attach_foreign(struct vmem_manager *m, const struct vmem_region_opts *opts,
				 struct vmem_foreign *foreign, struct vmem_region **ret_region);
void vmemi_manager_abandon(struct vmem_manager *m, struct vmem_region *r);
/* Brings everything back, whatever the budget says. 0; 1: pages are lost; of another process's memory all others
 * are there then, of ours those before the first; -VMEM_EBUSY: that process has had pages refused for too long, and
 * nothing is lost. */
int vmemi_manager_restore(struct vmem_region *r);
/* Also 1: detached, and pages of foreign memory are lost. Of that also -VMEM_EBUSY: it is served still. */
int vmemi_manager_detach(struct vmem_manager *m, struct vmem_region *r, uint32_t how);

/* Why [hva, hva + bytes) cannot be attached, as a mapping of @file (NULL: private memory), or "" if it can. */
const char *vmemi_memory_why(const struct vmemi_kernel *k, const void *hva, uint64_t bytes,
			     const struct vmemi_file *file, struct vmemi_memory_kind *ret_kind);

/* --- Attaching (attach.c), of all pages or of those that a region grows by (grow.c); attach_lock --- */

/* Which file it is. 0, -VMEM_EINVAL, -VMEM_EIO. */
int vmemi_attach_identify(const struct vmemi_kernel *k, const struct vmem_region_opts *o,
			  struct vmemi_file *file);
/* Registers pages and sets their words: what is there already is resident, the rest absent or with the source.
 * Returns how many are resident; or -VMEM_ENOMEM, -VMEM_EBUSY, -VMEM_EIO: nothing is registered. */
int64_t vmemi_attach_pages(struct vmem_region *r, uint64_t first, uint64_t count);
/* Unregisters them. */
void vmemi_attach_undo(struct vmem_region *r, uint64_t first, uint64_t count);
/* Books them by state, @present of them as resident. */
void vmemi_attach_count(struct vmem_region *r, uint64_t count, int64_t present);
void vmemi_attach_give_to_children(struct vmem_region *r, uint64_t first, uint64_t count);

#endif
