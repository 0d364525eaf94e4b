/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of page states against a simulated kernel. One page; a guest with two processors that reads
 * and writes it; and all who change it: two handlers of faults, a taker (by move, by copy, by dropping), a
 * worker that saves, one that frees copies, a VMM that discards, pins and reads. Now and then bytes are
 * lost. Each is a little program that is interrupted after any step; the order of steps is random. The
 * simulated memory holds version numbers instead of bytes, so a lost write, a stale read, a zero or an error
 * out of nowhere all show; and so does a processor that nobody is going to wake. */
#include "linux/region/page.h"
#include "support/rng.h"
#include <criterion/criterion.h>

#define STORE_SLOTS 16
#define CPUS 2
#define MESSAGES 4

enum { NOTHING = -1 };

/* A fault, in the words of the kernel. */
struct message {
	bool there, protected, write;
	bool taken; /* a handler is at it */
};

struct cpu {
	enum { RUNS, FOUND, WAITS } at; /* it has found the page missing, or protected; it sleeps */
	struct message fault;
};

struct world {
	uint64_t word;
	/* the kernel */
	bool mapped, protected, marker; /* a marker is an error to touch */
	bool can_poison;                /* there are markers */
	int guest;                      /* version in the guest's frame */
	int staging;                    /* version in staging, NOTHING: no frame */
	/* the store: version by ref - 1, NOTHING: free */
	int store[STORE_SLOTS];
	/* the truth */
	int truth, last_version;
	struct cpu cpu[CPUS];
	struct message message[MESSAGES]; /* with the handlers */
	bool discarding;                  /* the guest gave the page up: it does not touch it */
	bool waking;                      /* and that is going to be told to who waits */
	bool batching;                    /* what arrives now is not clean */
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

/* --- the guest: two processors, and the kernel's part in their faults --- */

/* Who waits for the page at this moment goes on. Messages that were sent for it stay. */
static void wake(struct world *w)
{
	for (unsigned i = 0; i < CPUS; i++)
		if (w->cpu[i].at == WAITS)
			w->cpu[i].at = RUNS;
}

static void find(struct world *w, struct cpu *c)
{
	bool write = vmemt_rand(&w->rng) % 2;

	if (w->discarding)
		return;
	if (w->marker) { /* an error; the VMM is going to give the page up */
		cr_assert(state(w) == VMEM_PAGE_POISONED || state(w) == VMEM_PAGE_ARRIVING,
			  "an error for no reason: %016llx", (unsigned long long)w->word);
		return;
	}
	if (!w->mapped || (write && w->protected)) {
		c->fault = (struct message){ .there = true, .write = write };
		c->fault.protected = w->mapped;
		c->at = FOUND;
		return;
	}
	cr_assert_eq(w->guest, w->truth, "the guest reads version %d, it wrote %d", w->guest,
		     w->truth);
	if (write)
		w->guest = w->truth = ++w->last_version;
}

/* The kernel looks again before it lets the processor wait. A marker is as good as nothing there. */
static void come_to_wait(struct world *w, struct cpu *c)
{
	unsigned i = 0;

	if (w->mapped && !(c->fault.protected && w->protected)) {
		c->at = RUNS;
		return;
	}
	while (i < MESSAGES && w->message[i].there)
		i++;
	if (i == MESSAGES)
		return;
	w->message[i] = c->fault;
	c->at = WAITS;
}

static void guest(struct world *w, struct cpu *c)
{
	switch (c->at) {
	case RUNS: find(w, c); return;
	case FOUND: come_to_wait(w, c); return;
	default: return;
	}
}

/* --- a handler of faults: pc 0 looks, then ends what it claimed --- */

struct handler {
	int pc;
	struct message *message; /* NULL: a page that nobody has asked for */
	uint64_t old;
	bool clean;
	int loaded;
};

/* The message is answered. */
static void over(struct handler *h)
{
	if (h->message)
		h->message->there = false;
	h->pc = 0;
}

/* It is not, and comes again. */
static void put_off(struct handler *h)
{
	if (h->message)
		h->message->taken = false;
	h->pc = 0;
}

static void look(struct world *w, struct handler *h)
{
	struct message *m = &w->message[vmemt_rand(&w->rng) % MESSAGES];

	h->message = vmemt_rand(&w->rng) % 8 ? m : NULL;
	if (!h->message) {
		if (step(w, VMEMI_PAGE_FETCH, 0, &h->old))
			h->pc = 2;
		return;
	}
	if (!m->there || m->taken)
		return;
	switch (state(w)) {
	case VMEM_PAGE_RESIDENT:
	case VMEM_PAGE_CLEAN:
		if (m->protected && step(w, VMEMI_PAGE_CLAIM, 0, &h->old)) {
			m->taken = true;
			h->pc = 1;
			return;
		}
		wake(w); /* it tries again */
		over(h);
		return;
	case VMEM_PAGE_ARRIVING: return;
	case VMEM_PAGE_POISONED:
		if (w->can_poison)
			wake(w);
		over(h);
		return;
	default:
		if (w->word & VMEMI_PAGE_LEAVING)
			return;
		if (m->protected) {
			wake(w);
			over(h);
			return;
		}
		cr_assert(step(w, VMEMI_PAGE_FETCH, 0, &h->old));
		m->taken = true;
		h->pc = 2;
	}
}

static void find_bytes(struct world *w, struct handler *h)
{
	switch (vmemi_page_state(h->old)) {
	case VMEM_PAGE_ABSENT: h->loaded = 0; break;
	case VMEM_PAGE_STORED: h->loaded = w->store[vmemi_page_ref(h->old) - 1]; break;
	default: h->loaded = w->staging; break;
	}
	cr_assert(h->loaded != NOTHING, "the bytes of a page that is away are gone");
	h->clean = vmemi_page_ref(h->old) && !(h->message && h->message->write) && !w->batching;
	switch (vmemt_rand(&w->rng) % 16) {
	case 0: h->pc = 4; return;
	case 1: h->pc = 5; return;
	default: h->pc = 3; return;
	}
}

static void install(struct world *w, struct handler *h)
{
	cr_assert(!w->mapped && !w->marker, "a page is installed over another");
	w->mapped = true;
	if (vmemi_page_state(h->old) == VMEM_PAGE_STAGED && !(h->old & VMEMI_PAGE_READING) &&
	    vmemt_rand(&w->rng) % 4 == 0) {
		w->protected = false;
		w->guest = w->staging;
		w->staging = NOTHING;
		must(w, VMEMI_PAGE_ARRIVE_MOVED, 0);
	} else {
		w->protected = h->clean;
		w->guest = h->loaded;
		must(w, h->clean ? VMEMI_PAGE_ARRIVE_CLEAN : VMEMI_PAGE_ARRIVE, 0);
	}
	wake(w);
	over(h);
}

static void handler(struct world *w, struct handler *h)
{
	uint64_t old;

	switch (h->pc) {
	case 0: look(w, h); return;
	case 1: /* make it writable */
		cr_assert(w->mapped, "a claimed page has lost its mapping");
		w->protected = false;
		wake(w);
		must(w, VMEMI_PAGE_ARRIVE, 0);
		over(h);
		return;
	case 2: find_bytes(w, h); return;
	case 3: install(w, h); return;
	case 5: /* its bytes are gone: make it an error, which may not work this time, ... */
		if (w->can_poison && vmemt_rand(&w->rng) % 4) {
			w->marker = true;
			wake(w);
		}
		h->pc = w->can_poison && !w->marker ? 4 : 6;
		return;
	case 6: /* ... then say so */
		if (vmemt_rand(&w->rng) % 2) {
			must(w, VMEMI_PAGE_LOSE, 0);
		} else {
			cr_assert(step(w, VMEMI_PAGE_LOSE_LATE, 0, &old));
			store_drop(w, old);
		}
		over(h);
		return;
	default: /* it did not work this time */
		must(w, VMEMI_PAGE_RETURN, h->old);
		put_off(h);
		return;
	}
}

/* --- the taker --- */

struct taker {
	int pc;
	bool writable;
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
	case 2:
		w->batching = true;
		t->pc = 9;
		return;
	case 9: /* protect the whole range */
		if (w->mapped)
			w->protected = true;
		t->pc = 3;
		return;
	case 3: /* the mark may be gone by now, and any moment */
		t->pc = 10;
		if (!(w->word & VMEMI_PAGE_LEAVING)) {
			must(w, VMEMI_PAGE_UNMARK, 0);
			t->pc = 5;
		}
		return;
	case 10: /* copy */
		cr_assert(w->mapped, "a batch copies from a hole");
		cr_assert(w->staging == NOTHING);
		w->staging = w->guest;
		t->pc = 4;
		return;
	case 4: /* take what was not written */
		t->pc = 7;
		if (!step(w, VMEMI_PAGE_TAKE, 0, &old)) {
			must(w, VMEMI_PAGE_UNMARK, 0);
			t->pc = 5;
		}
		return;
	case 5: /* look whether it may be writable ... */
		t->writable = state(w) != VMEM_PAGE_CLEAN && state(w) != VMEM_PAGE_ARRIVING;
		t->pc = 11;
		return;
	case 11: /* ... and make it so */
		if (w->mapped && t->writable)
			w->protected = false;
		wake(w);
		w->batching = false;
		t->pc = 0;
		return;
	case 6: /* discard a clean page's mapping */
		if (vmemt_rand(&w->rng) % 8 == 0) {
			must(w, VMEMI_PAGE_DROP_UNDO, 0);
		} else {
			w->mapped = false;
			must(w, VMEMI_PAGE_DROP_DONE, 0);
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
		t->pc = 5;
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

/* --- dropping stale refs, and freeing copies; the lock of reclaim keeps it and the taker apart --- */

static void freer(struct world *w, const struct taker *t, int *pc)
{
	uint64_t new, old;

	if (*pc == 0) {
		if (step(w, VMEMI_PAGE_SHED, 0, &old))
			store_drop(w, old);
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
			if (step(w, VMEMI_PAGE_DISCARD, 0, &v->old)) {
				w->truth = 0;
				w->discarding = w->waking = true;
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
		w->mapped = w->protected = w->marker = false;
		store_drop(w, v->old);
		must(w, VMEMI_PAGE_DISCARD_DONE, 0);
		w->discarding = false;
		v->pc = 3;
		return;
	case 3: /* who waits for a page that was poisoned has no message any more */
		if (vmemi_page_state(v->old) == VMEM_PAGE_POISONED)
			wake(w);
		w->waking = false;
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
		v->pc = 0;
	}
	}
}

/* Who waits has a message with the handlers, unless the page is lost where it cannot be made an error. */
static void check_waiting(const struct world *w)
{
	bool message = false;

	for (unsigned i = 0; i < MESSAGES; i++)
		message |= w->message[i].there;
	for (unsigned i = 0; i < CPUS; i++)
		cr_assert(w->cpu[i].at != WAITS || message || w->waking ||
				  (state(w) == VMEM_PAGE_POISONED && !w->can_poison),
			  "a wake-up is lost at %016llx", (unsigned long long)w->word);
}

static void check(const struct world *w)
{
	check_waiting(w);
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
	struct world w = { .staging = NOTHING, .rng = seed, .can_poison = seed % 4 };
	struct handler handlers[2] = { { 0 } };
	struct taker t = { 0 };
	struct saver s = { 0 };
	struct vmm v = { 0 };
	int freer_pc = 0;

	for (unsigned i = 0; i < STORE_SLOTS; i++)
		w.store[i] = NOTHING;
	for (unsigned i = 0; i < steps; i++) {
		switch (vmemt_rand(&w.rng) % 8) {
		case 0: guest(&w, &w.cpu[0]); break;
		case 1: guest(&w, &w.cpu[1]); break;
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
