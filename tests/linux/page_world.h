/* SPDX-License-Identifier: BSD-2-Clause */
/* A world of one page, in which the table of page states is tried without a kernel: a guest with two
 * processors that reads and writes it, and all who change it, each a little program that is interrupted
 * after any step. The simulated memory holds version numbers instead of bytes, so a lost write, a stale
 * read, a zero or an error out of nowhere all show; and so does a processor that nobody is going to wake.
 *
 * page_model_test.c takes steps at random, page_explore_test.c takes all of them in all orders. A
 * program is added by a state in struct vmemt_world, a function in a page_*.c that makes one step, and a line in
 * the table at the end of page_world.c; a choice is made by vmemt_may() or vmemt_choose() and nowhere else. */
#ifndef VMEMT_PAGE_WORLD_H
#define VMEMT_PAGE_WORLD_H
#include "linux/region/page.h"

#define VMEMT_CPUS 2
#define VMEMT_HANDLERS 2
#define VMEMT_SAVERS 2
#define VMEMT_REFS 8     /* of the store */
#define VMEMT_MESSAGES 3 /* about the page at a time */
#define VMEMT_NOTHING (-1)

/* Faults in the words of the kernel. */
enum vmemt_message { VMEMT_NO_MESSAGE, VMEMT_MISSED_READ, VMEMT_MISSED_WRITE, VMEMT_PROTECTED };

struct vmemt_processor {
	uint8_t at;    /* enum: runs, found the page missing or protected, sleeps */
	uint8_t fault; /* enum vmemt_message */
};

/* Who serves a fault: a handler, or a thread of the VMM for itself. */
struct vmemt_server {
	uint8_t pc;
	uint8_t message; /* enum vmemt_message; none: a page that nobody has asked for */
	uint16_t old;    /* packed */
	int8_t loaded;   /* version */
	uint8_t clean, write, moves;
	uint8_t late_ref;
};

struct vmemt_saver {
	uint8_t pc;
	int8_t read; /* version */
	uint8_t ref;
	uint16_t old; /* packed */
};

/* Who holds a claim, and what the word was before. */
struct vmemt_claim {
	uint8_t pc;
	uint16_t old; /* packed */
	int8_t version;
};

/* Everything that there is. Words are packed: see vmemt_unpack(). No padding may matter: worlds are
 * made of zeros, and compared byte by byte. */
struct vmemt_world {
	uint16_t word; /* packed */
	/* the kernel */
	uint8_t mapped, is_protected;
	uint8_t marker; /* an error to touch */
	int8_t guest;   /* version in the guest's frame, VMEMT_NOTHING: no frame */
	int8_t staging; /* likewise */
	uint8_t message[VMEMT_PROTECTED + 1]; /* unanswered, by kind */
	/* the store: version by ref - 1, VMEMT_NOTHING: free */
	int8_t store[VMEMT_REFS];
	/* the truth */
	int8_t truth, last_version;
	uint8_t discarding; /* the VMM gave the page up: it holds what it held, or zeros */
	uint8_t waking;     /* that is going to be told to who waits; a bit by who does */
	uint8_t batching;   /* what arrives now is not clean */
	uint8_t strayed;    /* the mapping was taken away behind the library's back */
	uint8_t dma;        /* a device is at the guest's frame */
	/* somebody watches writes; the page's bit of that; the guest has really written since */
	uint8_t guarded, marked, rewritten;
	/* the caller: the version that it has of a page that is with it; who asks it knows that it is wanted,
	 * for writing, and says that a wake-up is to come */
	int8_t source;
	uint8_t wanted, written, loading;
	/* the programs */
	struct vmemt_processor cpu[VMEMT_CPUS];
	struct vmemt_server handler[VMEMT_HANDLERS];
	struct vmemt_saver saver[VMEMT_SAVERS];
	struct {
		uint8_t pc, writable;
	} taker;
	uint8_t freer;
	uint8_t stray;
	struct vmemt_claim discarder, reader, writer;
	struct {
		uint8_t pc;
		struct vmemt_server server;
	} pinner;
	struct vmemt_claim asker, giver, sayer, hinter;
};

enum vmemt_program {
	VMEMT_CPU0,
	VMEMT_CPU1,
	VMEMT_HANDLER0,
	VMEMT_HANDLER1,
	VMEMT_TAKE_RUN,
	VMEMT_TAKE_SCATTERED,
	VMEMT_TAKE_CLEAN,
	VMEMT_SAVER0,
	VMEMT_SAVER1,
	VMEMT_FREER,
	VMEMT_DISCARDER,
	VMEMT_PINNER,
	VMEMT_DEVICE,
	VMEMT_READER,
	VMEMT_WRITER,
	VMEMT_STRAY,
	VMEMT_OWNER,
	VMEMT_ASKER,
	VMEMT_GIVER,
	VMEMT_SAYER,
	VMEMT_HINTER,
	VMEMT_PROGRAMS
};

/* What may happen besides what always may. */
#define VMEMT_MAY_FAIL (1u << 0)    /* the kernel has no memory for it, or somebody is in the way */
#define VMEMT_MAY_LOSE (1u << 1)    /* bytes do not check */
#define VMEMT_MAY_BE_SLOW (1u << 2) /* a load takes its time, or too much of it */
#define VMEMT_MAY_PREFETCH (1u << 3) /* pages come that nobody asked for */
#define VMEMT_MAY_REFUSE (1u << 4)   /* the store is full, or a page does not compress */
#define VMEMT_MAY_POISON (1u << 5)   /* the kernel has markers */
#define VMEMT_MAY_STARVE (1u << 6)   /* there is no frame: a page comes back with its own */
#define VMEMT_MAY_DOUBT (1u << 7)    /* a page that faults in place is looked into */
#define VMEMT_MAY_DISTRUST \
	(1u << 8) /* what is stored cannot be loaded any more, and that is known */
#define VMEMT_MAY_ALL 511u

struct vmemt_run {
	struct vmemt_world w;
	unsigned may;
	uint32_t programs; /* bit by program */
	/* One of @n. @rare: something that random tests should seldom choose but as 0. */
	unsigned (*choose)(void *context, unsigned n, bool rare);
	void *context;
	bool began;                         /* the last step was the first of something new */
	const char *failure;                /* what is wrong; NULL: nothing */
	uint64_t events[VMEMI_PAGE_EVENTS]; /* how often each was allowed */
};

/* An untouched page, and programs at rest. */
void vmemt_world_make(struct vmemt_run *run);
/* One step of @program, if it has one; then all that must always hold is looked at. */
void vmemt_world_step(struct vmemt_run *run, enum vmemt_program program);
/* Nothing is under way, and nobody waits. */
bool vmemt_world_is_at_rest(const struct vmemt_run *run);
/* The same world with versions, refs and equal programs in one order. */
void vmemt_world_normalize(struct vmemt_run *run);
const char *vmemt_program_name(enum vmemt_program program);
/* "?" for one that was not given a name here. */
const char *vmemt_event_name(unsigned event);

/* --- for programs --- */

static inline uint16_t vmemt_pack(uint64_t word)
{
	return (uint16_t)(word >> VMEMI_PAGE_STATE_SHIFT | (word & 255) << 8);
}

static inline uint64_t vmemt_unpack(uint16_t packed)
{
	return (uint64_t)(packed & 255) << VMEMI_PAGE_STATE_SHIFT | packed >> 8;
}

static inline enum vmem_page_state vmemt_packed_state(uint16_t packed)
{
	return vmemi_page_state(vmemt_unpack(packed));
}

/* A step by the table. False: it is not allowed. */
bool vmemt_event(struct vmemt_run *run, enum vmemi_page_event event, uint64_t argument,
		 uint16_t *ret_old);
/* The same where the table must allow it. */
void vmemt_must(struct vmemt_run *run, enum vmemi_page_event event, uint64_t argument);
/* Whether something happens that may, at this step: both are tried. */
bool vmemt_may(struct vmemt_run *run, unsigned what);
unsigned vmemt_choose(struct vmemt_run *run, unsigned n);
void vmemt_expect(struct vmemt_run *run, bool holds, const char *otherwise);
/* Who waits for the page at this moment goes on. */
void vmemt_wake(struct vmemt_run *run);
/* The guest's frame goes: a device that is at it would write to somebody else's. */
int vmemt_unmap(struct vmemt_run *run);
/* A page with @version appears where none is. */
void vmemt_map(struct vmemt_run *run, int version, bool is_protected);
/* Saves @version; 0 if a bug has taken all refs. */
uint8_t vmemt_store_save(struct vmemt_run *run, int version);
int vmemt_store_load(struct vmemt_run *run, uint64_t word);
void vmemt_store_drop(struct vmemt_run *run, uint64_t word);

/* The page is about to be writable: who watches must know. */
static inline void vmemt_mark(struct vmemt_run *run)
{
	run->w.marked |= run->w.guarded;
}

/* Serving a fault: see page_servers.c. */
void vmemt_handler(struct vmemt_run *run, struct vmemt_server *s);
/* Brings the page into place for writing, as vmem_region_resolve() does. */
void vmemt_resolve(struct vmemt_run *run, struct vmemt_server *s);

/* One step each: see page_takers.c and page_callers.c. */
void vmemt_take_run(struct vmemt_run *run);
void vmemt_take_scattered(struct vmemt_run *run);
void vmemt_take_clean(struct vmemt_run *run);
void vmemt_saver(struct vmemt_run *run, struct vmemt_saver *s);
void vmemt_freer(struct vmemt_run *run);
void vmemt_discarder(struct vmemt_run *run);
void vmemt_pinner(struct vmemt_run *run);
void vmemt_device(struct vmemt_run *run);
void vmemt_reader(struct vmemt_run *run);
void vmemt_writer(struct vmemt_run *run);
void vmemt_stray(struct vmemt_run *run);

/* The caller has bytes of the page, or forgets it; and who asks for them: see page_sources.c. */
void vmemt_owner(struct vmemt_run *run);
void vmemt_asker(struct vmemt_run *run);
void vmemt_giver(struct vmemt_run *run);
void vmemt_sayer(struct vmemt_run *run);
/* Guards hints and discards what is hinted: see page_hinter.c. Whether it has the lock of reclaim. */
void vmemt_hinter(struct vmemt_run *run);
bool vmemt_hinter_locks(const struct vmemt_world *w);
/* Whether the asker is going to wake who waits. */
bool vmemt_asker_wakes(const struct vmemt_run *run);
/* Asks for a page that is with the caller. */
void vmemt_want(struct vmemt_run *run, bool write);
/* Makes the page an error to touch, where there are such. False: not now. */
bool vmemt_poison(struct vmemt_run *run);

#endif
