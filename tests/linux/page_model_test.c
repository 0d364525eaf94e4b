/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of page states against a simulated kernel. One page; a guest that reads and writes it; and
 * all who change it: two handlers of faults, a taker (by move, by copy, by dropping), a worker that
 * saves, one that frees copies, a VMM that discards, pins and reads. Each is a little program that is
 * interrupted after any step; the order of steps is random. The simulated memory holds version numbers
 * instead of bytes, so a lost write, a stale read and a zero out of nowhere all show. */
#include "linux/region/page.h"
#include "support/rng.h"
#include <criterion/criterion.h>

#define STORE_SLOTS 16

enum { NOTHING = -1 };

struct world {
	uint64_t word;
	/* the kernel */
	bool mapped, protected;
	int guest;   /* version in the guest's frame */
	int staging; /* version in staging, NOTHING: no frame */
	/* the store: version by ref - 1, NOTHING: free */
	int store[STORE_SLOTS];
	/* the truth */
	int truth, last_version;
	bool faulting, fault_write, fault_protected;
	bool discarding; /* the guest gave the page up: it does not touch it */
	unsigned pins;
	uint64_t rng;
};

static bool step(struct world *w, enum vmemi_page_event event, uint64_t argument, uint64_t *old)
{
	uint64_t new;

	if (!vmemi_page_step(w->word, event, argument, &new))
		return false;
	cr_assert(vmemi_page_valid(new), "event %d: %016llx -> %016llx", (int)event,
		  (unsigned long long)w->word, (unsigned long long)new);
	*old = w->word;
	w->word = new;
	return true;
}

static void must(struct world *w, enum vmemi_page_event event, uint64_t argument)
{
	uint64_t old;

	cr_assert(step(w, event, argument, &old), "event %d refused at %016llx", (int)event,
		  (unsigned long long)w->word);
}

static uint64_t store_save(struct world *w, int version)
{
	for (unsigned i = 0; i < STORE_SLOTS; i++)
		if (w->store[i] == NOTHING) {
			w->store[i] = version;
			return i + 1;
		}
	cr_assert_fail("the store leaks refs");
	return 0;
}

static void store_drop(struct world *w, uint64_t word)
{
	uint64_t ref = vmemi_page_ref(word);

	if (!ref)
		return;
	cr_assert(w->store[ref - 1] != NOTHING, "ref dropped twice");
	w->store[ref - 1] = NOTHING;
}

static enum vmem_page_state state(const struct world *w)
{
	return vmemi_page_state(w->word);
}

/* --- the guest --- */

static void guest(struct world *w)
{
	bool write = vmemt_rand(&w->rng) % 2;

	if (w->faulting || w->discarding)
		return; /* it waits; a wake-up clears this */
	if (!w->mapped || (write && w->protected)) {
		w->faulting = true;
		w->fault_write = write;
		w->fault_protected = w->mapped;
		return;
	}
	cr_assert_eq(w->guest, w->truth, "the guest reads version %d, it wrote %d", w->guest,
		     w->truth);
	if (write)
		w->guest = w->truth = ++w->last_version;
}

/* --- a handler of faults: pc 0 looks, then ends what it claimed --- */

struct handler {
	int pc;
	uint64_t old;
	bool write;
	int loaded;
};

static void handler(struct world *w, struct handler *h)
{
	switch (h->pc) {
	case 0:
		if (!w->faulting)
			return;
		h->write = w->fault_write;
		switch (state(w)) {
		case VMEM_PAGE_RESIDENT:
		case VMEM_PAGE_CLEAN:
			if (w->fault_protected && step(w, VMEMI_PAGE_CLAIM, 0, &h->old))
				h->pc = 1;
			else
				w->faulting = false; /* woken: it tries again */
			return;
		case VMEM_PAGE_ARRIVING: return;
		default:
			if (w->word & VMEMI_PAGE_LEAVING)
				return;
			if (w->fault_protected) {
				w->faulting = false;
				return;
			}
			cr_assert(step(w, VMEMI_PAGE_FETCH, 0, &h->old));
			h->pc = 2;
			return;
		}
	case 1: /* make it writable */
		cr_assert(w->mapped, "a claimed page has lost its mapping");
		w->protected = false;
		must(w, VMEMI_PAGE_ARRIVE, 0);
		store_drop(w, h->old);
		w->faulting = false;
		h->pc = 0;
		return;
	case 2: /* find the bytes */
		switch (vmemi_page_state(h->old)) {
		case VMEM_PAGE_ABSENT: h->loaded = 0; break;
		case VMEM_PAGE_STORED: h->loaded = w->store[vmemi_page_ref(h->old) - 1]; break;
		default: h->loaded = w->staging; break;
		}
		cr_assert(h->loaded != NOTHING, "the bytes of a page that is away are gone");
		h->pc = vmemt_rand(&w->rng) % 8 ? 3 : 4;
		return;
	case 3: /* install */
		cr_assert(!w->mapped, "a page is installed over another");
		if (vmemi_page_state(h->old) == VMEM_PAGE_STAGED &&
		    !(h->old & VMEMI_PAGE_READING) && vmemt_rand(&w->rng) % 4 == 0) {
			w->mapped = true;
			w->protected = false;
			w->guest = w->staging;
			w->staging = NOTHING;
			must(w, VMEMI_PAGE_ARRIVE_MOVED, 0);
		} else {
			bool clean = vmemi_page_ref(h->old) && !h->write;

			w->mapped = true;
			w->protected = clean;
			w->guest = h->loaded;
			must(w, clean ? VMEMI_PAGE_ARRIVE_CLEAN : VMEMI_PAGE_ARRIVE, 0);
			if (!clean)
				store_drop(w, h->old);
		}
		w->faulting = false;
		h->pc = 0;
		return;
	default: /* it did not work this time */
		must(w, VMEMI_PAGE_RETURN, h->old);
		h->pc = 0;
		return;
	}
}

/* --- the taker --- */

struct taker {
	int pc;
	bool was_protected;
};

static void taker(struct world *w, struct taker *t)
{
	uint64_t old;

	switch (t->pc) {
	case 0:
		switch (vmemt_rand(&w->rng) % 3) {
		case 0: /* a run */
			if (!(w->word & VMEMI_PAGE_LEAVING) && step(w, VMEMI_PAGE_TAKE, 0, &old))
				t->pc = 1;
			return;
		case 1: /* scattered */
			if (step(w, VMEMI_PAGE_MARK, 0, &old))
				t->pc = 2;
			return;
		default:
			if (step(w, VMEMI_PAGE_DROP, 0, &old))
				t->pc = 6;
			return;
		}
	case 1: /* move: atomic */
		if (vmemt_rand(&w->rng) % 8 == 0) {
			must(w, VMEMI_PAGE_TAKE_UNDO, 0);
		} else {
			cr_assert(w->mapped && w->staging == NOTHING);
			w->staging = w->guest;
			w->mapped = false;
			must(w, VMEMI_PAGE_TAKE_DONE, 0);
		}
		t->pc = 0;
		return;
	case 2: /* protect the whole range */
		if (w->mapped)
			w->protected = true;
		t->pc = 3;
		return;
	case 3: /* copy; the mark may be gone by now, and the page anywhere but taken */
		cr_assert(w->staging == NOTHING);
		if (!w->mapped) {
			if (!step(w, VMEMI_PAGE_UNMARK, 0, &old))
				t->pc = 5;
			return;
		}
		w->staging = w->guest;
		t->pc = 4;
		return;
	case 4: /* take what was not written */
		t->pc = (w->word & VMEMI_PAGE_LEAVING) && state(w) == VMEM_PAGE_RESIDENT &&
					step(w, VMEMI_PAGE_TAKE, 0, &old)
				? 7
				: 5;
		return;
	case 5: /* make the range writable, but for what may be clean */
		if (w->mapped && state(w) == VMEM_PAGE_RESIDENT)
			w->protected = false;
		t->pc = 0;
		return;
	case 6: /* discard a clean page's mapping */
		if (vmemt_rand(&w->rng) % 8 == 0) {
			must(w, VMEMI_PAGE_DROP_UNDO, 0);
		} else {
			w->mapped = false;
			must(w, VMEMI_PAGE_DROP_DONE, 0);
			w->faulting = false; /* wake */
		}
		t->pc = 0;
		return;
	case 7: /* discard the taken page's mapping */
		cr_assert(w->mapped);
		w->mapped = false;
		t->pc = 8;
		return;
	default:
		must(w, VMEMI_PAGE_TAKE_DONE, 0);
		w->faulting = false; /* wake */
		t->pc = 0;
		return;
	}
}

/* --- the worker that saves --- */

struct saver {
	int pc, read;
};

static void saver(struct world *w, struct saver *s)
{
	uint64_t old, ref;

	switch (s->pc) {
	case 0:
		if (step(w, VMEMI_PAGE_STORE, 0, &old))
			s->pc = 1;
		return;
	case 1:
		cr_assert(w->staging != NOTHING, "staging was freed under a reader");
		s->read = w->staging;
		s->pc = 2;
		return;
	case 2: /* a second look: nobody may have changed it meanwhile */
		cr_assert_eq(w->staging, s->read, "staging changed under a reader");
		s->pc = 3;
		return;
	default:
		s->pc = 0;
		if (vmemt_rand(&w->rng) % 4 == 0) { /* the store is full */
			if (!step(w, VMEMI_PAGE_STORE_UNDO, 0, &old))
				must(w, VMEMI_PAGE_RELEASE, 0);
			return;
		}
		ref = store_save(w, s->read);
		if (!step(w, VMEMI_PAGE_STORED, ref, &old)) {
			store_drop(w, ref);
			must(w, VMEMI_PAGE_RELEASE, 0);
		}
	}
}

/* --- freeing copies; the lock of reclaim keeps it and the taker apart --- */

static void freer(struct world *w, const struct taker *t, int *pc)
{
	uint64_t new;

	if (*pc == 0) {
		if (t->pc == 0 && vmemi_page_step(w->word, VMEMI_PAGE_FREED, 0, &new))
			*pc = 1;
		return;
	}
	if (*pc == 1) {
		w->staging = NOTHING;
		*pc = 2;
		return;
	}
	/* Claimed meanwhile: it is freed again later, which does no harm. */
	step(w, VMEMI_PAGE_FREED, 0, &new);
	*pc = 0;
}

/* --- the VMM --- */

struct vmm {
	int pc;
	uint64_t old;
};

static void vmm(struct world *w, struct vmm *v)
{
	uint64_t old;

	switch (v->pc) {
	case 0:
		switch (vmemt_rand(&w->rng) % 8) {
		case 0:
			if (!w->faulting && step(w, VMEMI_PAGE_DISCARD, 0, &v->old)) {
				w->truth = 0;
				w->discarding = true;
				v->pc = 1;
			}
			return;
		case 1:
		case 2:
			/* What pins a page makes it writable first: so it is not protected for long. */
			if (step(w, VMEMI_PAGE_PIN, 0, &old))
				w->pins = 1;
			return;
		case 3:
		case 4:
			if (w->pins && step(w, VMEMI_PAGE_UNPIN, 0, &old))
				w->pins = 0;
			return;
		default: /* read without a fault */
			if (step(w, VMEMI_PAGE_CLAIM, 0, &v->old) ||
			    step(w, VMEMI_PAGE_FETCH, 0, &v->old))
				v->pc = 2;
			return;
		}
	case 1:
		w->mapped = w->protected = false;
		store_drop(w, v->old);
		must(w, VMEMI_PAGE_DISCARD_DONE, 0);
		w->faulting = w->discarding = false;
		v->pc = 0;
		return;
	default: {
		int seen;

		switch (vmemi_page_state(v->old)) {
		case VMEM_PAGE_ABSENT: seen = 0; break;
		case VMEM_PAGE_STORED: seen = w->store[vmemi_page_ref(v->old) - 1]; break;
		case VMEM_PAGE_STAGED:
		case VMEM_PAGE_STORING: seen = w->staging; break;
		default:
			cr_assert(w->mapped);
			seen = w->guest;
			break;
		}
		cr_assert_eq(seen, w->truth, "the VMM reads version %d, truth is %d", seen,
			     w->truth);
		must(w, VMEMI_PAGE_RETURN, v->old);
		w->faulting = false;
		v->pc = 0;
	}
	}
}

static void check(const struct world *w)
{
	if (w->word & VMEMI_PAGE_PINNED)
		cr_assert(w->mapped, "a pinned page has no mapping");
	if (w->staging != NOTHING)
		cr_assert(w->word & VMEMI_PAGE_OCCUPIED, "staging holds a frame nobody knows of");
	if (state(w) == VMEM_PAGE_CLEAN) {
		cr_assert(w->mapped && w->protected, "a clean page can be written unseen");
		cr_assert_eq(w->store[vmemi_page_ref(w->word) - 1], w->guest);
	}
}

static void run(uint64_t seed, unsigned steps)
{
	struct world w = { .staging = NOTHING, .rng = seed };
	struct handler handlers[2] = { { 0 } };
	struct taker t = { 0 };
	struct saver s = { 0 };
	struct vmm v = { 0 };
	int freer_pc = 0;

	for (unsigned i = 0; i < STORE_SLOTS; i++)
		w.store[i] = NOTHING;
	for (unsigned i = 0; i < steps; i++) {
		switch (vmemt_rand(&w.rng) % 8) {
		case 0:
		case 1: guest(&w); break;
		case 2: handler(&w, &handlers[0]); break;
		case 3: handler(&w, &handlers[1]); break;
		case 4:
			if (!freer_pc)
				taker(&w, &t);
			break;
		case 5: saver(&w, &s); break;
		case 6: freer(&w, &t, &freer_pc); break;
		default: vmm(&w, &v); break;
		}
		check(&w);
	}
}

Test(page_model, any_order_of_steps_keeps_every_version)
{
	uint64_t seed = vmemt_seed("page_model");

	for (unsigned i = 0; i < 2000; i++)
		run(seed + i, 2000);
}

/* All words that can exist, and all events: what the table allows leads to a word that can exist. */
Test(page_model, every_allowed_step_leads_to_a_valid_word)
{
	unsigned allowed = 0;

	for (unsigned s = 0; s < 16; s++) {
		for (unsigned flags = 0; flags < 16; flags++) {
			for (uint64_t ref = 0; ref < 2; ref++) {
				uint64_t word = vmemi_page_word((enum vmem_page_state)s,
								(uint64_t)flags << 60, ref * 77);

				if (!vmemi_page_valid(word))
					continue;
				for (int e = 0; e < VMEMI_PAGE_EVENTS; e++) {
					uint64_t new = 0;
					/* Back to where a fetched page came from. */
					uint64_t argument = e == VMEMI_PAGE_STORED ? 78 : 0;

					if (e == VMEMI_PAGE_RETURN && ref)
						argument = vmemi_page_word(VMEM_PAGE_STORED, 0, 0);
					if (e == VMEMI_PAGE_ARRIVE_CLEAN && !ref)
						continue; /* only what has a ref is clean */
					if ((e == VMEMI_PAGE_RETURN) && (word & VMEMI_PAGE_PINNED))
						continue; /* only from where it can be pinned */
					if (!vmemi_page_step(word, (enum vmemi_page_event)e,
							     argument, &new))
						continue;
					allowed++;
					cr_assert(vmemi_page_valid(new) ||
							  (e == VMEMI_PAGE_CLAIM && ref),
						  "event %d: %016llx -> %016llx", e,
						  (unsigned long long)word,
						  (unsigned long long)new);
				}
			}
		}
	}
	cr_assert_gt(allowed, 50);
}
