/* SPDX-License-Identifier: BSD-2-Clause */
/* See page_world.h: the kernel, the store, the guest, and what must hold in every world. */
#include "linux/page_world.h"
#include <string.h>

enum { RUNS, FOUND, WAITS }; /* a processor */

static enum vmem_page_state state(const struct vmemt_world *w)
{
	return vmemt_packed_state(w->word);
}

bool vmemt_event(struct vmemt_run *run, enum vmemi_page_event event, uint64_t argument,
		 uint16_t *ret_old)
{
	uint64_t new;

	if (!vmemi_page_step(vmemt_unpack(run->w.word), event, argument, &new))
		return false;
	vmemt_expect(run, vmemi_page_valid(new), "a word that cannot be");
	run->events[event]++;
	*ret_old = run->w.word;
	run->w.word = vmemt_pack(new);
	return true;
}

void vmemt_must(struct vmemt_run *run, enum vmemi_page_event event, uint64_t argument)
{
	uint16_t old;

	vmemt_expect(run, vmemt_event(run, event, argument, &old), vmemt_event_name(event));
}

bool vmemt_may(struct vmemt_run *run, unsigned what)
{
	return (run->may & what) && run->choose(run->context, 2, true);
}

unsigned vmemt_choose(struct vmemt_run *run, unsigned n)
{
	return run->choose(run->context, n, false);
}

void vmemt_expect(struct vmemt_run *run, bool holds, const char *otherwise)
{
	if (!holds && !run->failure)
		run->failure = otherwise;
}

/* --- the store --- */

uint8_t vmemt_store_save(struct vmemt_run *run, int version)
{
	struct vmemt_world *w = &run->w;

	for (unsigned i = 0; i < VMEMT_REFS; i++)
		if (w->store[i] == VMEMT_NOTHING) {
			w->store[i] = (int8_t)version;
			return (uint8_t)(i + 1);
		}
	vmemt_expect(run, false, "the store leaks refs");
	return 0;
}

int vmemt_store_load(struct vmemt_run *run, uint64_t word)
{
	uint64_t ref = vmemi_page_ref(word);

	if (ref && run->w.store[ref - 1] != VMEMT_NOTHING)
		return run->w.store[ref - 1];
	vmemt_expect(run, false, "a ref is used that was dropped");
	return 0;
}

void vmemt_store_drop(struct vmemt_run *run, uint64_t word)
{
	uint64_t ref = vmemi_page_ref(word);

	if (!ref)
		return;
	vmemt_expect(run, run->w.store[ref - 1] != VMEMT_NOTHING, "a ref is dropped twice");
	run->w.store[ref - 1] = VMEMT_NOTHING;
}

/* --- the kernel --- */

/* Messages that were sent for it stay. */
void vmemt_wake(struct vmemt_run *run)
{
	for (unsigned i = 0; i < VMEMT_CPUS; i++)
		if (run->w.cpu[i].at == WAITS) {
			run->w.cpu[i].at = RUNS;
			run->w.cpu[i].fault = VMEMT_NO_MESSAGE;
		}
}

int vmemt_unmap(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;
	int version = w->guest;

	vmemt_expect(run, !w->dma || w->discarding, "a frame is taken from under a device");
	w->dma = 0; /* it has its frame still, and nobody sees it */
	w->mapped = w->is_protected = 0;
	w->guest = VMEMT_NOTHING;
	return version;
}

void vmemt_map(struct vmemt_run *run, int version, bool is_protected)
{
	struct vmemt_world *w = &run->w;

	vmemt_expect(run, !w->mapped && !w->marker, "a page is installed over another");
	vmemt_expect(run, version != VMEMT_NOTHING, "a page is installed from nothing");
	w->mapped = 1;
	w->is_protected = is_protected;
	w->guest = (int8_t)version;
	w->strayed = 0;
}

/* --- the guest: its processors, and the kernel's part in their faults --- */

static void access_page(struct vmemt_run *run, bool write)
{
	struct vmemt_world *w = &run->w;

	/* Until a discard is over, the old contents are as good as none. */
	vmemt_expect(run, w->discarding || w->guest == w->truth,
		     w->guest ? "the guest reads what is not its last write"
			      : "the guest reads zeros instead of what it wrote");
	if (!write)
		return;
	w->guest = ++w->last_version;
	if (w->discarding)
		return;
	w->truth = w->guest;
	w->rewritten = w->guarded;
}

static void find(struct vmemt_run *run, struct vmemt_processor *c)
{
	struct vmemt_world *w = &run->w;
	bool write = vmemt_choose(run, 2);

	run->began = true;
	if (w->marker) {
		vmemt_expect(run,
			     state(w) == VMEM_PAGE_POISONED || state(w) == VMEM_PAGE_ARRIVING ||
				     w->discarding,
			     "an error for no reason");
	} else if (!w->mapped) {
		c->fault = write ? VMEMT_MISSED_WRITE : VMEMT_MISSED_READ;
		c->at = FOUND;
	} else if (write && w->is_protected) {
		c->fault = VMEMT_PROTECTED;
		c->at = FOUND;
	} else {
		access_page(run, write);
	}
}

static unsigned messages(const struct vmemt_world *w)
{
	unsigned n = 0;

	for (unsigned i = 1; i <= VMEMT_PROTECTED; i++)
		n += w->message[i];
	for (unsigned i = 0; i < VMEMT_HANDLERS; i++)
		n += w->handler[i].message != VMEMT_NO_MESSAGE;
	return n;
}

/* The kernel looks again before it lets the processor wait. A marker is as good as nothing there. */
static void come_to_wait(struct vmemt_run *run, struct vmemt_processor *c)
{
	struct vmemt_world *w = &run->w;

	if (w->mapped && !(c->fault == VMEMT_PROTECTED && w->is_protected)) {
		c->at = RUNS;
		c->fault = VMEMT_NO_MESSAGE;
	} else if (messages(w) < VMEMT_MESSAGES) {
		w->message[c->fault]++;
		c->at = WAITS;
		c->fault = VMEMT_NO_MESSAGE;
	}
}

static void processor(struct vmemt_run *run, struct vmemt_processor *c)
{
	if (c->at == RUNS)
		find(run, c);
	else if (c->at == FOUND)
		come_to_wait(run, c);
}

/* --- what must always hold --- */

/* Who waits has a message with the handlers, unless the page is lost where it cannot be made an error. */
static void check_waiting(struct vmemt_run *run)
{
	const struct vmemt_world *w = &run->w;
	bool waits = w->cpu[0].at == WAITS || w->cpu[1].at == WAITS;

	vmemt_expect(run,
		     !waits || messages(w) || w->waking || w->wanted || w->loading ||
			     vmemt_asker_wakes(run) ||
			     (state(w) == VMEM_PAGE_POISONED && !(run->may & VMEMT_MAY_POISON)),
		     "a wake-up is lost");
}

static void mark_ref(uint16_t packed, uint32_t *known)
{
	if (packed >> 8)
		*known |= 1u << ((packed >> 8) - 1);
}

/* Whatever is in the store is known to somebody. */
static void check_refs(struct vmemt_run *run)
{
	const struct vmemt_world *w = &run->w;
	uint32_t known = 0;

	mark_ref(w->word, &known);
	mark_ref(w->discarder.old, &known);
	mark_ref(w->giver.old, &known);
	mark_ref(w->sayer.old, &known);
	mark_ref(w->hinter.old, &known);
	for (unsigned i = 0; i < VMEMT_HANDLERS; i++)
		mark_ref((uint16_t)(w->handler[i].late_ref << 8), &known);
	for (unsigned i = 0; i < VMEMT_SAVERS; i++)
		mark_ref((uint16_t)(w->saver[i].ref << 8), &known);
	for (unsigned i = 0; i < VMEMT_REFS; i++)
		vmemt_expect(run, w->store[i] == VMEMT_NOTHING || (known >> i & 1),
			     "a ref is leaked");
}

static void check(struct vmemt_run *run)
{
	const struct vmemt_world *w = &run->w;
	uint64_t word = vmemt_unpack(w->word);
	bool in_place = state(w) == VMEM_PAGE_RESIDENT || state(w) == VMEM_PAGE_CLEAN;

	check_waiting(run);
	check_refs(run);
	vmemt_expect(run, !(word & VMEMI_PAGE_PINNED) || w->mapped || w->strayed,
		     "a pinned page has no mapping");
	vmemt_expect(run, !in_place || w->mapped || w->strayed, "a page in place has no mapping");
	vmemt_expect(run, w->staging == VMEMT_NOTHING || (word & VMEMI_PAGE_OCCUPIED),
		     "staging holds a frame that nobody knows of");
	if (state(w) != VMEM_PAGE_CLEAN)
		return;
	vmemt_expect(run, !w->mapped || w->is_protected, "a clean page can be written unseen");
	vmemt_expect(run,
		     !w->mapped || w->guest == (vmemi_page_ref(word) ? vmemt_store_load(run, word)
								     : w->source),
		     "a clean page is not what the store or its source has");
}

/* --- all of it --- */

static const struct {
	const char *name;
	void (*step)(struct vmemt_run *run); /* NULL: see vmemt_world_step() */
} programs[VMEMT_PROGRAMS] = {
	[VMEMT_CPU0] = { "processor 0", NULL },
	[VMEMT_CPU1] = { "processor 1", NULL },
	[VMEMT_HANDLER0] = { "handler 0", NULL },
	[VMEMT_HANDLER1] = { "handler 1", NULL },
	[VMEMT_TAKE_RUN] = { "take a run", vmemt_take_run },
	[VMEMT_TAKE_SCATTERED] = { "take scattered", vmemt_take_scattered },
	[VMEMT_TAKE_CLEAN] = { "take clean", vmemt_take_clean },
	[VMEMT_SAVER0] = { "saver 0", NULL },
	[VMEMT_SAVER1] = { "saver 1", NULL },
	[VMEMT_FREER] = { "freer", vmemt_freer },
	[VMEMT_DISCARDER] = { "discarder", vmemt_discarder },
	[VMEMT_PINNER] = { "pinner", vmemt_pinner },
	[VMEMT_DEVICE] = { "device", vmemt_device },
	[VMEMT_READER] = { "reader", vmemt_reader },
	[VMEMT_WRITER] = { "writer", vmemt_writer },
	[VMEMT_STRAY] = { "stray discard", vmemt_stray },
	[VMEMT_OWNER] = { "owner", vmemt_owner },
	[VMEMT_ASKER] = { "asker", vmemt_asker },
	[VMEMT_GIVER] = { "giver", vmemt_giver },
	[VMEMT_SAYER] = { "sayer", vmemt_sayer },
	[VMEMT_HINTER] = { "hinter", vmemt_hinter },
};

void vmemt_world_make(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;

	memset(w, 0, sizeof(*w));
	w->guest = w->staging = VMEMT_NOTHING;
	memset(w->store, VMEMT_NOTHING, sizeof(w->store));
	run->failure = NULL;
}

void vmemt_world_step(struct vmemt_run *run, enum vmemt_program program)
{
	struct vmemt_world *w = &run->w;

	run->began = false;
	if (!(run->programs >> program & 1))
		return;
	switch (program) {
	case VMEMT_CPU0:
	case VMEMT_CPU1: processor(run, &w->cpu[program - VMEMT_CPU0]); break;
	case VMEMT_HANDLER0:
	case VMEMT_HANDLER1: vmemt_handler(run, &w->handler[program - VMEMT_HANDLER0]); break;
	case VMEMT_SAVER0:
	case VMEMT_SAVER1: vmemt_saver(run, &w->saver[program - VMEMT_SAVER0]); break;
	default: programs[program].step(run);
	}
	check(run);
}

bool vmemt_world_is_at_rest(const struct vmemt_run *run)
{
	const struct vmemt_world *w = &run->w;
	bool waits_for_good = state(w) == VMEM_PAGE_POISONED && !(run->may & VMEMT_MAY_POISON);
	unsigned busy = messages(w) + w->dma;

	for (unsigned i = 0; i < VMEMT_CPUS; i++)
		busy += w->cpu[i].at == FOUND || (w->cpu[i].at == WAITS && !waits_for_good);
	for (unsigned i = 0; i < VMEMT_HANDLERS; i++)
		busy += w->handler[i].pc;
	for (unsigned i = 0; i < VMEMT_SAVERS; i++)
		busy += w->saver[i].pc;
	return !(busy + w->taker.pc + w->freer + w->stray + w->discarder.pc + w->reader.pc +
		 w->writer.pc + w->pinner.pc + w->wanted + w->loading + w->asker.pc + w->sayer.pc +
		 w->giver.pc + w->hinter.pc);
}

const char *vmemt_program_name(enum vmemt_program program)
{
	return programs[program].name;
}

const char *vmemt_event_name(unsigned event)
{
	static const char *const name[VMEMI_PAGE_EVENTS] = {
		[VMEMI_PAGE_MARK] = "MARK",
		[VMEMI_PAGE_UNMARK] = "UNMARK",
		[VMEMI_PAGE_TAKE] = "TAKE",
		[VMEMI_PAGE_TAKE_DONE] = "TAKE_DONE",
		[VMEMI_PAGE_TAKE_UNDO] = "TAKE_UNDO",
		[VMEMI_PAGE_TAKE_HOLE] = "TAKE_HOLE",
		[VMEMI_PAGE_DROP] = "DROP",
		[VMEMI_PAGE_DROP_DONE] = "DROP_DONE",
		[VMEMI_PAGE_DROP_UNDO] = "DROP_UNDO",
		[VMEMI_PAGE_DISTRUST] = "DISTRUST",
		[VMEMI_PAGE_FETCH] = "FETCH",
		[VMEMI_PAGE_CLAIM] = "CLAIM",
		[VMEMI_PAGE_ARRIVE] = "ARRIVE",
		[VMEMI_PAGE_ARRIVE_CLEAN] = "ARRIVE_CLEAN",
		[VMEMI_PAGE_ARRIVE_SAME] = "ARRIVE_SAME",
		[VMEMI_PAGE_ARRIVE_MOVED] = "ARRIVE_MOVED",
		[VMEMI_PAGE_RETURN] = "RETURN",
		[VMEMI_PAGE_LOSE] = "LOSE",
		[VMEMI_PAGE_LOSE_LATE] = "LOSE_LATE",
		[VMEMI_PAGE_STORE] = "STORE",
		[VMEMI_PAGE_STORED] = "STORED",
		[VMEMI_PAGE_STORE_UNDO] = "STORE_UNDO",
		[VMEMI_PAGE_RELEASE] = "RELEASE",
		[VMEMI_PAGE_FREED] = "FREED",
		[VMEMI_PAGE_SHED] = "SHED",
		[VMEMI_PAGE_SET_SOURCE] = "SET_SOURCE",
		[VMEMI_PAGE_GIVE] = "GIVE",
		[VMEMI_PAGE_FORGET] = "FORGET",
		[VMEMI_PAGE_PIN] = "PIN",
		[VMEMI_PAGE_UNPIN] = "UNPIN",
		[VMEMI_PAGE_DISCARD] = "DISCARD",
		[VMEMI_PAGE_DISCARD_DONE] = "DISCARD_DONE",
		[VMEMI_PAGE_DISCARD_UNDO] = "DISCARD_UNDO",
		[VMEMI_PAGE_DISCARD_LOST] = "DISCARD_LOST",
		[VMEMI_PAGE_DISCARD_CLAIMED] = "DISCARD_CLAIMED",
	};

	return event < VMEMI_PAGE_EVENTS && name[event] ? name[event] : "?";
}

/* --- one order for all that is equal --- */

struct renaming {
	int8_t version[128]; /* new by old, 0: none yet */
	int8_t next_version;
	uint8_t ref[VMEMT_REFS + 1];
	uint8_t next_ref;
};

/* Zero stays: it is what an untouched page reads as. */
static void rename_version(struct renaming *n, int8_t *version)
{
	if (*version <= 0)
		return;
	if (!n->version[*version])
		n->version[*version] = ++n->next_version;
	*version = n->version[*version];
}

static uint8_t rename_ref(struct renaming *n, uint8_t ref)
{
	if (ref && !n->ref[ref])
		n->ref[ref] = ++n->next_ref;
	return n->ref[ref];
}

static void rename_packed(struct renaming *n, uint16_t *packed)
{
	*packed = (uint16_t)((*packed & 255) | rename_ref(n, (uint8_t)(*packed >> 8)) << 8);
}

static void rename_server(struct renaming *n, struct vmemt_server *s)
{
	rename_packed(n, &s->old);
	s->late_ref = rename_ref(n, s->late_ref);
	rename_version(n, &s->loaded);
}

static void sort_two(void *first, void *second, size_t bytes)
{
	unsigned char keep[32];

	if (memcmp(first, second, bytes) <= 0)
		return;
	memcpy(keep, first, bytes);
	memcpy(first, second, bytes);
	memcpy(second, keep, bytes);
}

/* Programs that are one as the other change places. */
static void sort_programs(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;

	if (run->programs >> VMEMT_CPU1 & 1)
		sort_two(&w->cpu[0], &w->cpu[1], sizeof(w->cpu[0]));
	if (run->programs >> VMEMT_HANDLER1 & 1)
		sort_two(&w->handler[0], &w->handler[1], sizeof(w->handler[0]));
	if (run->programs >> VMEMT_SAVER1 & 1)
		sort_two(&w->saver[0], &w->saver[1], sizeof(w->saver[0]));
}

static bool is_from_source(uint16_t packed)
{
	enum vmem_page_state state = vmemt_packed_state(packed);

	return state == VMEM_PAGE_SOURCE || (state == VMEM_PAGE_CLEAN && !(packed >> 8));
}

/* Whether what the caller has may still be asked for. */
static bool needs_source(const struct vmemt_world *w)
{
	return is_from_source(w->word) || is_from_source(w->reader.old) ||
	       is_from_source(w->writer.old) || is_from_source(w->asker.old) ||
	       is_from_source(w->handler[0].old) || is_from_source(w->handler[1].old) ||
	       is_from_source(w->pinner.server.old) || is_from_source(w->hinter.old) || w->sayer.pc;
}

void vmemt_world_normalize(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;
	struct renaming n = { .next_version = 0 };
	int8_t store[VMEMT_REFS];

	sort_programs(run);
	rename_packed(&n, &w->word);
	for (unsigned i = 0; i < VMEMT_HANDLERS; i++)
		rename_server(&n, &w->handler[i]);
	for (unsigned i = 0; i < VMEMT_SAVERS; i++) {
		rename_packed(&n, &w->saver[i].old);
		w->saver[i].ref = rename_ref(&n, w->saver[i].ref);
		rename_version(&n, &w->saver[i].read);
	}
	rename_packed(&n, &w->discarder.old);
	rename_packed(&n, &w->reader.old);
	rename_packed(&n, &w->writer.old);
	rename_server(&n, &w->pinner.server);
	rename_packed(&n, &w->asker.old);
	rename_packed(&n, &w->giver.old);
	rename_packed(&n, &w->sayer.old);
	rename_packed(&n, &w->hinter.old);
	memset(store, VMEMT_NOTHING, sizeof(store));
	for (unsigned i = 0; i < VMEMT_REFS; i++)
		if (w->store[i] != VMEMT_NOTHING)
			store[rename_ref(&n, (uint8_t)(i + 1)) - 1] = w->store[i];
	memcpy(w->store, store, sizeof(store));
	rename_version(&n, &w->truth);
	rename_version(&n, &w->guest);
	rename_version(&n, &w->staging);
	if (needs_source(w))
		rename_version(&n, &w->source);
	else
		w->source = 0;
	for (unsigned i = 0; i < VMEMT_REFS; i++)
		rename_version(&n, &w->store[i]);
	w->last_version = n.next_version;
}
