/* SPDX-License-Identifier: BSD-2-Clause */
/* What a process has handed over: its userfaultfd, and what is read from that.
 *
 * The kernel hands out faults before the events of removals that came earlier, answers every fill with EAGAIN
 * while such an event is unread, and removes the pages only after it was read. So:
 *   - all messages are read before any fault is answered; faults wait in the inbox meanwhile
 *   - a removal sets the bits of its pages (region->removed) before anybody can fill again; from then on
 *     these pages are filled with zeros, whatever a load that is under way brings
 *   - the states of its pages change piece by piece after that (vmemi_foreign_heed()), but for those that were
 *     filled again meanwhile; until then a page with its source is absent to who faults on it
 *   - a page that was filled with zeros between the event and its removal is missing again: see
 *     vmemi_foreign_again()
 * Guards: lock, for reading and what is read; `closed` keeps fills out while messages are read and bits are
 * set, and waits for those that have begun. */
#ifndef VMEMI_FOREIGN_EVENTS_H
#define VMEMI_FOREIGN_EVENTS_H
#include "linux/fault/serve.h"
#include "linux/region/table.h"
#include <vmem/foreign.h>

#define VMEMI_FOREIGN_INBOX 1024 /* faults that are read and not taken yet */

struct vmemi_foreign_fault {
	struct vmem_region *region;
	uint64_t page;
	uint64_t flags; /* UFFD_PAGEFAULT_FLAG_* */
};

/* What one call has borne of a process for which the kernel refuses everything: it removes memory without pause, or
 * may have no more. */
struct vmemi_patience {
	uint64_t began_ns;   /* the call */
	uint64_t looked_ns;  /* a page began to be waited for, or was refused */
	uint64_t refused_ns; /* so long pages were refused, in all */
	uint32_t refusals;   /* foreign->refusals at looked_ns */
	uint32_t tries;      /* that are left where it is tried again at once */
};

struct vmem_foreign {
	struct vmemi_host *host;
	struct vmemi_uffd uffd;         /* features: those of the process */
	uint32_t slot;                  /* in host->foreign */
	bool lost;                      /* pages of ranges that are restored; detach's alone */
	struct vmemi_patience patience; /* attach's and detach's alone */
	uint64_t refused_until_ns; /* host->source_lock; no source is asked before; 0: fills work */
	uint64_t source_turn;      /* host->source_lock; when a source was last asked for it */
	uint32_t count;
	struct {
		uint64_t base, bytes;
		struct vmem_region *region; /* lock; NULL: detached */
	} range[VMEM_FOREIGN_RANGES_MAX];

	struct vmemi_lock lock;
	_Atomic uint32_t closed; /* atomic; fills wait */
	_Atomic uint32_t fills;  /* atomic; under way */
	_Atomic uint32_t gone;   /* atomic; the process has ended */
	/* atomic; times that the kernel would not fill a page, or make it an error; wraps */
	_Atomic uint32_t refusals;
	_Atomic uint32_t unheeded; /* atomic; some region has such pages */
	_Atomic uint32_t kept_out; /* atomic; fills that found it closed and have not begun since */
	_Atomic uint32_t heeding;  /* atomic; somebody is at it */
	uint32_t first, waiting;   /* of the inbox; lock */
	struct vmemi_foreign_fault inbox[VMEMI_FOREIGN_INBOX]; /* lock */

	_Atomic uint64_t remove_events, removed_pages, sent_back, strays; /* atomic; counters */
};

/* Reads what there is, unless fills have waited for another reader to end; then gives up to @most faults. */
unsigned vmemi_foreign_take(struct vmem_foreign *f, struct vmemi_foreign_fault *faults,
			    unsigned most);
/* Makes states show what was removed, a piece at a time; for handlers of faults alone, which detaching waits for. True:
 * there is more. */
bool vmemi_foreign_heed(struct vmem_foreign *f);
/* A page with its source, whose state does not show that it was removed: now it does. */
bool vmemi_foreign_is_absent(struct vmem_region *r, uint64_t page);
/* Reads for who wants to fill and was told to wait; handlers are told of faults and removals. */
void vmemi_foreign_drain(struct vmem_foreign *f);
/* Nothing of it is registered any more. Who was about to tell of a removal has been heard when this returns. */
void vmemi_foreign_hear_out(struct vmem_foreign *f);
/* No fault of @r is given from now on. */
void vmemi_foreign_drop(struct vmem_foreign *f, const struct vmem_region *r);

/* Around the filling of a page. */
void vmemi_foreign_enter(struct vmem_foreign *f);
void vmemi_foreign_leave(struct vmem_foreign *f);

/* Whether the process has removed the page at any time: it is filled with zeros. */
static inline bool vmemi_foreign_removed(const struct vmem_region *r, uint64_t page)
{
	return atomic_load(&r->removed[page / 64]) >> page % 64 & 1;
}

/* A fault on a page that is in place, and was removed, perhaps after that. */
enum vmemi_served vmemi_foreign_again(struct vmem_region *r, struct vmemi_fault *fault);

/* Arriving, and its bytes are gone: makes it an error to touch, tells, and ends the claim. VMEMI_POISONED; VMEMI_SERVED:
 * its process has removed it, so it is absent, and who waits comes again; VMEMI_PUT_OFF: not now, the claim stays. */
enum vmemi_served vmemi_foreign_lose(struct vmem_region *r, uint64_t page, int error);
/* Arriving, from its source: it is there still, or, if its process has removed it, absent: then true. Ends the claim. */
bool vmemi_foreign_return(struct vmem_region *r, uint64_t page);
/* A page is poisoned: sees to it that to touch it is an error, where the kernel can do that. 0, or why not; -VMEM_EEXIST:
 * it is one, or was removed. */
int vmemi_foreign_mark(struct vmem_region *r, uint64_t page);

/* A call begins. */
void vmemi_foreign_be_patient(struct vmem_foreign *f);
/* It begins to wait for a page; and, from time to time until that is there: whether pages were refused for so long that
 * nobody is to wait any more, @most_ns and as long as there was anything else to wait for. *@ret_refused: this one was,
 * since it was last asked. */
void vmemi_foreign_await(struct vmem_foreign *f);
bool vmemi_foreign_is_worn_out(struct vmem_foreign *f, uint64_t most_ns, bool *ret_refused);

/* Asks the kernel whether the process's memory is gone. */
bool vmemi_foreign_probe(struct vmem_foreign *f);
/* Whether all that is attached is private anonymous memory; messages are read. 0; -VMEM_ENOTSUP: shared memory, or of a
 * file; -VMEM_EINVAL: something is not mapped; -VMEM_EBUSY: it is removing pages without pause, or has too many mappings. */
int vmemi_foreign_judge(struct vmem_foreign *f);
/* Makes what is not in place errors to touch. 0, -VMEM_EIO; -VMEM_EBUSY: it is removing pages without pause, and some may
 * be errors. */
int vmemi_foreign_shut(struct vmem_region *r);

#endif
