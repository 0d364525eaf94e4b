/* SPDX-License-Identifier: BSD-2-Clause */
/* What all regions of a manager have in common: the kernel, its userfaultfds, the budget, the store.
 * The manager fills it; fault, discard and reclaim work on it and know no manager. */
#ifndef VMEMI_HOST_H
#define VMEMI_HOST_H
#include "base/alloc.h"
#include "base/lock.h"
#include "linux/kernel/uffd.h"
#include "linux/region/frames.h"
#include <vmem/env.h>
#include <vmem/region.h>
#include <vmem/store.h>

#define VMEMI_REGIONS_MAX 256
#define VMEMI_BUFFERS 64 /* page buffers for loads */
#define VMEMI_STRIPES 8  /* of counters that many threads change */
#define VMEMI_HANDLERS_MAX 16
#define VMEMI_PEERS_MAX 64
#define VMEMI_FOREIGN_MAX 64 /* processes whose memory is served */

/* Who goes through the regions without a lock, by phase. Each in a cache line of its own. */
struct vmemi_walkers {
	_Alignas(64) _Atomic uint32_t count[2]; /* atomic */
};

/* Slow loads that handlers of faults have begun. The store tells of the end of each once, to whoever asks
 * first; it is kept here for who began it. See loads.c. */
struct vmemi_loads {
	_Atomic uint32_t under_way; /* atomic; with those about to be begun */
	_Atomic uint32_t count;     /* atomic; of over; written under the lock */
	struct vmemi_lock lock;     /* guards over */
	struct vmemi_load_end {
		vmem_store_token token;
		int result;
	} over[VMEMI_BUFFERS]; /* each has a buffer still, so there are no more */
};

/* Swap devices of the store: see manager/devices.c. */
struct vmemi_devices {
	int epoll;              /* readable when one of them may have something */
	_Atomic uint32_t count; /* atomic; that there are */
	_Atomic uint32_t blind; /* atomic; of them those that must be asked */
};

/* What a handler of faults shows to others. */
struct vmemi_handler_sign {
	_Alignas(64) int fd;       /* eventfd: it has something to do */
	uint32_t most;             /* faults that it has room to hold back; tests lower it */
	_Atomic uint32_t put_off;  /* atomic; faults that it holds back */
	_Atomic uint32_t starving; /* atomic; those of them that wait for a frame */
	_Atomic uint32_t loading;  /* atomic; those that wait for a slow load */
};

struct vmemi_host {
	const struct vmemi_kernel *k;
	const struct vmem_env *env;
	struct vmemi_counting_allocator metadata; /* all tables come from here */
	struct vmem_allocator segments;           /* the pool's: mapped, never huge, never dumped */
	struct vmemi_frames frames;
	vmem_store *store;
	struct vmemi_uffd uffd[2]; /* of guest memory, by enum vmem_fault_way; fd -1: not opened */
	/* of all staging ranges; a stray access there is SIGBUS, never a hang */
	struct vmemi_uffd staging;
	int pagemap;       /* /proc/self/pagemap, for VMEM_MANAGER_ASYNC_WP; -1: not opened */
	uint64_t features; /* VMEM_KERNEL_* */
	unsigned char *zero_page; /* one page of zeros, read only */
	unsigned char *buffers;   /* VMEMI_BUFFERS pages */

	/* Slots are filled by attach and emptied by detach; readers skip NULL. */
	_Atomic(struct vmem_region *) regions[VMEMI_REGIONS_MAX]; /* atomic */
	_Atomic uint32_t region_slots;                            /* slots ever used; atomic */
	_Atomic uint32_t phase;                                   /* atomic; 0 or 1, of walkers */

	/* Other mappings of regions' files, in the same way: see backing/peers.h. Read by walkers alone. */
	_Atomic(struct vmem_peer *) peers[VMEMI_PEERS_MAX]; /* atomic */
	_Atomic uint32_t peer_slots;                        /* slots ever used; atomic */
	int peers_epoll;                                    /* their userfaultfds */

	/* Memory of other processes: foreign/foreign_events.h. Filled and emptied like regions; read by handlers
	 * under their locks, and fd by anybody. */
	struct {
		_Atomic(struct vmem_foreign *) it; /* atomic */
		_Atomic int fd;                    /* atomic; of its messages; -1: none */
	} foreign[VMEMI_FOREIGN_MAX];
	_Atomic uint32_t foreign_slots; /* slots ever used; atomic */

	/* Where no thread of the library runs, who waits works instead: makes room, or serves faults.
	 * True if that helped. NULL while threads run. atomic */
	bool (*_Atomic make_room)(struct vmemi_host *host);
	bool (*_Atomic serve_faults)(struct vmemi_host *host);

	struct vmemi_lock source_lock; /* loads from callers, of all regions: see fault/source.c */
	_Atomic uint32_t source_work;  /* futex; changes when one is wanted */
	uint64_t source_turn;          /* number of the latest turn; source_lock */
	_Atomic uint64_t source_turns; /* atomic; counter: who asks for pages came back */

	int reclaim_fd;                  /* eventfd: reclaim has work */
	_Atomic uint32_t reclaim_kicked; /* atomic; reclaim_fd was written since reclaim looked */
	_Atomic uint32_t fault_reads;    /* atomic; counter: times that faults came in */
	_Atomic uint32_t stuck; /* atomic; nothing more is to be had: written by who reclaims */
	_Atomic uint32_t stuck_rounds;     /* atomic; counter: rounds that found it so */
	_Atomic uint32_t unstuck;          /* atomic; counter: times that it ended */
	_Atomic uint64_t stalls, stall_ns; /* atomic; counters */

	uint32_t handlers;              /* of faults; the first one reads whatever happens */
	_Atomic uint32_t idle_handlers; /* atomic; bit set: it sleeps until it is called */
	_Atomic uint32_t stop_handlers; /* atomic; their threads end */
	_Atomic uint32_t begun; /* futex; threads that have made the calls which they make once */
	struct vmemi_handler_sign handler[VMEMI_HANDLERS_MAX];
	struct vmemi_loads loads;
	struct vmemi_devices devices;

	/* What each fault changes, apart from what it only reads. */
	struct vmemi_walkers walkers[VMEMI_STRIPES];
	_Alignas(64) _Atomic uint64_t buffer_busy; /* bit set: taken; atomic */
};

/* The region that @address of this process is in, or NULL. It stays while its memory is in use (detach is exclusive). */
struct vmem_region *vmemi_host_find(struct vmemi_host *host, const void *address);

/* Pages pinned in all regions; pages in place in other processes. */
uint64_t vmemi_host_pinned(struct vmemi_host *host);
uint64_t vmemi_host_foreign(struct vmemi_host *host);

/* Counts the caller as a walker, who looks at slots without a lock, and may use what they point to until it
 * leaves with what it was given. It must not wait for who fills or empties slots. */
_Atomic uint32_t *vmemi_host_enter(struct vmemi_host *host, const void *address);
void vmemi_host_leave(_Atomic uint32_t *walkers);
/* Waits until all have left who entered before. */
void vmemi_host_drain(struct vmemi_host *host);

/* Empties a slot, and waits until nobody looks at the region on the way to another. */
void vmemi_host_remove(struct vmemi_host *host, uint32_t slot);

/* Lends a page buffer, or NULL if all are out. Async-signal-safe. */
unsigned char *vmemi_host_buffer(struct vmemi_host *host);
void vmemi_host_buffer_return(struct vmemi_host *host, unsigned char *buffer);

/* Tells the reclaim loop, the first handler of faults, all of them, one. Async-signal-safe. */
void vmemi_host_kick_reclaim(struct vmemi_host *host);
void vmemi_host_kick_faults(struct vmemi_host *host);
void vmemi_host_kick_handlers(struct vmemi_host *host);
void vmemi_host_kick_handler(struct vmemi_host *host, uint32_t index);

/* Wakes a handler of faults that sleeps, if one does: there is more than the caller can do. */
void vmemi_host_call_handler(struct vmemi_host *host);

/* Faults that handlers hold back, and those of them that wait for a frame. */
uint32_t vmemi_host_put_off(struct vmemi_host *host);
uint32_t vmemi_host_starving(struct vmemi_host *host);

/* Whether segments are being written to a device. */
bool vmemi_host_is_writing(const struct vmemi_host *host);
uint64_t vmemi_host_writing(const struct vmemi_host *host); /* segments */

/* One turn of waiting for another thread, by a caller that may serve faults itself. */
void vmemi_host_wait(struct vmemi_host *host);

/* Frames were given back: whoever waits for some is told. */
void vmemi_host_freed(struct vmemi_host *host);

#endif
