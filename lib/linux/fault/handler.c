/* SPDX-License-Identifier: BSD-2-Clause */
/* The handler of faults that arrive as messages: see handler.h.
 *
 * Held faults are an array in order of arrival. Those that wait for a frame stay in turn: the first
 * that finds none keeps the others from asking, and newcomers too, of whichever handler. Between handlers
 * the first ones of each take their chance. */
#include "linux/fault/handler_held.h"
#include "linux/fault/loads.h"
#include "base/mem.h"

#define READS_PER_TURN 32
#define STALL_POLL_MS 10
#define LOAD_POLL_MS 1
#define STEP_TURNS 64     /* so that a storm of faults does not keep a step for ever */
#define REFUSED_NS 250000 /* between two tries */
#define LOOKS_IN_VAIN 4
#define LOOK_EVERY 16
#define LOOK_EVERY_MOST 1024
#define CROWDED_NS 20000u /* between two looks: somebody else ran on this core meanwhile */
/* What the first handler sleeps on, besides other processes; of it what the others do, who only are called. */
#define FDS 4
#define FDS_OF_OTHERS 2
#define SLICE_NS 100000u /* the least that Linux takes */

int vmemi_handler_new(struct vmemi_handler **ret_handler, struct vmemi_host *host, uint32_t index,
		      uint32_t spin_us)
{
	struct vmemi_handler *h =
		vmemi_zalloc(&host->metadata.allocator, sizeof(*h), _Alignof(struct vmemi_handler));

	if (!h)
		return -VMEM_ENOMEM;
	if (vmemi_lock_init(&h->lock, host->env)) {
		vmemi_free(&host->metadata.allocator, h, sizeof(*h),
			   _Alignof(struct vmemi_handler));
		return -VMEM_ENOMEM;
	}
	h->host = host;
	h->sign = &host->handler[index];
	h->sign->most = VMEMI_HANDLER_HELD - VMEMI_HANDLER_LOADS; /* adopted loads are reserved */
	h->index = index;
	h->spin_ns = (uint64_t)spin_us * 1000;
	*ret_handler = h;
	return 0;
}

void vmemi_handler_free(struct vmemi_handler *h)
{
	if (!h)
		return;
	vmemi_lock_destroy(&h->lock);
	vmemi_free(&h->host->metadata.allocator, h, sizeof(*h), _Alignof(struct vmemi_handler));
}

static void unblock(struct vmemi_held *e, uint64_t now)
{
	vmemi_pressure_end(&e->region->pressure, e->arrived_ns, now);
	e->blocks = false;
}

/* That nobody waits any more is booked last: who sees it finds the rest. */
static void answered(struct vmemi_handler *h, struct vmemi_held *e)
{
	uint64_t now = h->host->k->clock_ns();

	vmemi_latency_add(&e->region->latency, now - e->arrived_ns);
	if (e->why == VMEMI_HELD_FRAME) {
		vmemi_tally(&e->region->counters.stall_ns, now - e->arrived_ns);
		vmemi_tally(&h->host->stall_ns, now - e->arrived_ns);
	}
	if (e->blocks)
		unblock(e, now);
}

static void stall(struct vmemi_handler *h, struct vmemi_held *e)
{
	if (e->why != VMEMI_HELD_FRAME) {
		vmemi_tally(&e->region->counters.stalls, 1);
		vmemi_tally(&h->host->stalls, 1);
		atomic_fetch_add(&h->sign->starving, 1); /* who comes next is behind it */
	}
	e->why = VMEMI_HELD_FRAME;
}

/* Whether its bytes may have to be waited for. If that changes meanwhile it comes again. */
static bool may_be_slow(const struct vmemi_held *e)
{
	const uint32_t quick = 1u << VMEM_PAGE_ABSENT | 1u << VMEM_PAGE_RESIDENT |
			       1u << VMEM_PAGE_CLEAN | 1u << VMEM_PAGE_SHARED |
			       1u << VMEM_PAGE_STAGED | 1u << VMEM_PAGE_STORING;

	return !(quick >> vmemi_page_state(vmemi_region_word(e->region, e->fault.page)) & 1);
}

/* Serves @e once; unless it is over then, e->why says what it waits for. @others_first: frames are for
 * those that wait already. */
static enum vmemi_served serve(struct vmemi_handler *h, struct vmemi_held *e, bool others_first)
{
	enum vmemi_served served;

	e->fault.own_frame = others_first && !e->fault.force;
	e->fault.take_slow = may_be_slow(e) && vmemi_loads_reserve(h->host, VMEMI_HANDLER_LOADS);
	served = vmemi_serve(e->region, &e->fault);
	if (e->fault.take_slow && served != VMEMI_LOADING)
		vmemi_loads_release(h->host);
	switch (served) {
	case VMEMI_SERVED: answered(h, e); break;
	case VMEMI_POISONED:
	case VMEMI_ASKED: break;
	case VMEMI_LOADING:
		e->why = VMEMI_HELD_LOADING;
		e->load_began_ns = h->host->k->clock_ns();
		break;
	case VMEMI_NO_FRAME: stall(h, e); break;
	default:
		if (e->why != VMEMI_HELD_FRAME)
			e->why = e->region->foreign ? VMEMI_HELD_REFUSED : VMEMI_HELD_BUSY;
		if (e->why == VMEMI_HELD_REFUSED)
			e->refused_ns = h->host->k->clock_ns();
	}
	return served;
}

static bool is_over(enum vmemi_served served)
{
	return served == VMEMI_SERVED || served == VMEMI_POISONED || served == VMEMI_ASKED;
}

/* The end of a fault that was not answered, but poisoned or sent back. */
static void ended(struct vmemi_handler *h, struct vmemi_held *e)
{
	if (e->blocks)
		unblock(e, h->host->k->clock_ns());
}

/* Without room to hold a fault: if it cannot be served at once its access is repeated, and it comes again.
 * So whoever makes so many faults wait does not keep others from being served. */
static bool serve_or_send_back(struct vmemi_handler *h, struct vmemi_held *e)
{
	const struct vmemi_at *at;
	enum vmemi_served served;

	e->fault.own_frame = vmemi_host_starving(h->host) > 0 && !e->fault.force;
	served = vmemi_serve(e->region, &e->fault);
	if (served == VMEMI_SERVED)
		answered(h, e);
	ended(h, e);
	if (is_over(served))
		return true;
	at = e->fault.at ? e->fault.at : &e->region->own;
	vmemi_uffd_wake(at->uffd, vmemi_address(at, e->fault.page), VMEM_PAGE_SIZE);
	return false;
}

bool vmemi_handler_take_in(struct vmemi_handler *h, struct vmemi_held *e)
{
	if (h->count >= h->sign->most)
		return serve_or_send_back(h, e);
	if (is_over(serve(h, e, vmemi_host_starving(h->host) > 0))) {
		ended(h, e);
		return true;
	}
	h->held[h->count++] = *e;
	return false;
}

void vmemi_handler_note_around(struct vmemi_handler *h, const struct vmemi_held *e)
{
	if (e->fault.kind == VMEMI_FAULT_MISSING && !e->fault.at &&
	    h->around_count < VMEMI_HANDLER_AROUND &&
	    vmemi_around_begin(&h->around[h->around_count], e->region, e->fault.page,
			       e->fault.write))
		h->around_count++;
}

/* The end of a slow load. True if the fault is over, too. */
static bool end_load(struct vmemi_handler *h, struct vmemi_held *e)
{
	enum vmemi_served served = vmemi_serve_loaded(e->region, &e->fault, e->error);

	vmemi_loads_release(h->host);
	if (!is_over(served)) { /* once more, from the beginning */
		e->over = false;
		e->why = VMEMI_HELD_BUSY;
		return false;
	}
	if (!e->gave_up)
		answered(h, e);
	/* What was read with it comes without another load. */
	if (served == VMEMI_SERVED)
		vmemi_handler_note_around(h, e);
	return true;
}

/* Whether it was refused just now. *@now: the time, or 0. */
static bool too_soon(const struct vmemi_handler *h, const struct vmemi_held *e, uint64_t *now)
{
	if (e->why != VMEMI_HELD_REFUSED)
		return false;
	if (!*now)
		*now = h->host->k->clock_ns();
	return *now - e->refused_ns < REFUSED_NS;
}

/* One turn over all that is held. True if something was answered. */
static bool retry(struct vmemi_handler *h)
{
	uint32_t kept = 0;
	bool no_frame = false, any = false;
	uint64_t now = 0;

	for (uint32_t i = 0; i < h->count; i++) {
		struct vmemi_held *e = &h->held[i];
		bool over;

		if (e->why == VMEMI_HELD_LOADING) {
			over = e->over && end_load(h, e);
		} else if (too_soon(h, e, &now)) {
			over = false;
		} else {
			enum vmemi_served served = serve(h, e, no_frame);

			over = is_over(served);
			no_frame |= served == VMEMI_NO_FRAME;
		}
		any |= over;
		if (over) {
			ended(h, e);
		} else {
			if (kept != i)
				h->held[kept] = *e;
			kept++;
		}
	}
	h->count = kept;
	return any;
}

/* Neighbours come when nobody waits; the latest first, as who goes on from there comes soonest. If faults
 * come faster than that, the rest is left to the next turn, which those faults bring about. */
static bool read_and_bring_around(struct vmemi_handler *h)
{
	unsigned reads = 0;

	do {
		reads += vmemi_handler_read(h);
		if (h->around_count && !vmemi_around_some(&h->around[h->around_count - 1]))
			h->around_count--;
	} while (h->around_count && reads < READS_PER_TURN);
	return reads > 0;
}

/* Slow loads that are over, or that took too long. */
static void look_after_loads(struct vmemi_handler *h)
{
	uint64_t now = 0;

	vmemi_loads_poll(h->host);
	for (uint32_t i = 0; i < h->count; i++) {
		struct vmemi_held *e = &h->held[i];

		if (e->why != VMEMI_HELD_LOADING || e->over)
			continue;
		e->over = vmemi_loads_take(h->host, e->fault.token, &e->error);
		if (e->over || e->gave_up)
			continue;
		if (!now)
			now = h->host->k->clock_ns();
		if (now - e->load_began_ns >= e->region->opts.fault_deadline_ms * 1000000)
			e->gave_up = vmemi_serve_give_up(e->region, &e->fault, -VMEM_EIO);
		if (e->gave_up)
			ended(h, e);
	}
}

/* Pages whose faulting threads cannot wait for slow loads themselves. */
static void take_wanted(struct vmemi_handler *h)
{
	uint32_t slots = atomic_load(&h->host->region_slots);

	for (uint32_t s = 0; s < slots; s++) {
		struct vmem_region *r = atomic_load(&h->host->regions[s]);

		if (!r || !atomic_exchange(&r->any_wanted, 0))
			continue;
		for (uint64_t i = 0; i < (r->pages + 63) / 64; i++) {
			uint64_t bits = atomic_exchange(&r->wanted[i], 0);

			for (; bits; bits &= bits - 1) {
				struct vmemi_held e = { .region = r };

				e.arrived_ns = h->host->k->clock_ns();
				e.fault.page = i * 64 + (uint64_t)__builtin_ctzll(bits);
				e.fault.demand = true;
				e.fault.force = atomic_load(&r->restoring);
				if (h->count < h->sign->most)
					vmemi_handler_take_in(h, &e);
				else /* later */
					vmemi_serve_want(r, e.fault.page);
			}
		}
	}
}

/* Others read it all the time, and it seldom changes. */
static void note(_Atomic uint32_t *number, uint32_t value)
{
	if (atomic_load_explicit(number, memory_order_relaxed) != value)
		atomic_store(number, value);
}

static void count_held(struct vmemi_handler *h)
{
	uint32_t n[VMEMI_HELD_LOADING + 1] = { 0 };

	for (uint32_t i = 0; i < h->count; i++)
		n[h->held[i].why]++;
	note(&h->busy, n[VMEMI_HELD_BUSY]);
	note(&h->refused, n[VMEMI_HELD_REFUSED]);
	note(&h->sign->loading, n[VMEMI_HELD_LOADING]);
	note(&h->sign->starving, n[VMEMI_HELD_FRAME]);
	note(&h->sign->put_off, h->count);
}

/* One turn. True if something was answered or came in. */
static bool turn(struct vmemi_handler *h)
{
	bool any = false;

	vmemi_lock(&h->lock);
	if (h->count) { /* first come, first served */
		look_after_loads(h);
		any = retry(h);
		count_held(h);
	}
	any |= read_and_bring_around(h);
	any |= vmemi_handler_read_peers(h);
	take_wanted(h);
	count_held(h);
	vmemi_unlock(&h->lock);
	return any;
}

int vmemi_handler_step(struct vmemi_handler *h)
{
	vmemi_lock(&h->lock);
	h->peers_called = true;
	vmemi_unlock(&h->lock);
	for (unsigned i = 0; i < STEP_TURNS && turn(h); i++)
		;
	return atomic_load(&h->sign->put_off) > 0 || atomic_load(&h->unheeded);
}

/* Who shares the description of a descriptor may have made it one whose reads wait; then it is always ready. */
static void mend(const struct vmemi_kernel *k, const struct pollfd *p)
{
	struct vmemi_uffd u = { .k = k, .fd = p->fd };

	if (p->revents & POLLERR)
		vmemi_uffd_mend(&u);
}

/* How long to sleep at most. */
static int sleep_ms(const struct vmemi_handler *h)
{
	if (atomic_load(&h->sign->loading) || atomic_load(&h->busy) || atomic_load(&h->refused))
		return LOAD_POLL_MS;
	return atomic_load(&h->sign->starving) ? STALL_POLL_MS : -1;
}

/* Blocks until a fault, a kick, the end of a load, or the time to look at what is held. */
static void sleep_until_kicked(struct vmemi_handler *h)
{
	struct vmemi_host *host = h->host;
	struct pollfd fds[FDS + VMEMI_FOREIGN_MAX] = {
		{ .fd = h->sign->fd, .events = POLLIN },
		{ .fd = atomic_load(&h->sign->loading) ? host->devices.epoll : -1,
		  .events = POLLIN },
		{ .fd = host->uffd[VMEM_FAULT_THREAD].fd, .events = POLLIN },
		{ .fd = host->peers_epoll, .events = POLLIN },
	};
	nfds_t count = FDS + atomic_load(&host->foreign_slots);
	uint64_t value;

	/* Frames that were freed before put_off was set brought no kick. */
	if (atomic_load(&h->sign->starving) &&
	    vmemi_frames_free(&host->frames) >
		    atomic_load(&host->frames.floor_bytes) + VMEM_PAGE_SIZE)
		return;
	/* Only the first waits for faults, or each would wake them all. */
	if (h->index)
		atomic_fetch_or(&host->idle_handlers, 1u << h->index);
	for (nfds_t i = FDS; i < count; i++)
		fds[i] = (struct pollfd){ .fd = atomic_load(&host->foreign[i - FDS].fd),
					  .events = POLLIN };
	host->k->poll(fds, h->index ? FDS_OF_OTHERS : count, sleep_ms(h));
	for (nfds_t i = FDS; i < count && !h->index; i++)
		mend(host->k, &fds[i]);
	if (h->index)
		atomic_fetch_and(&host->idle_handlers, ~(1u << h->index));
	if (fds[0].revents & POLLIN)
		host->k->read(h->sign->fd, &value, sizeof(value));
	if (fds[FDS - 1].revents) {
		vmemi_lock(&h->lock);
		h->peers_called = true;
		vmemi_unlock(&h->lock);
	}
}

/* Looking for the next fault instead of sleeping saves its thread a wake-up, and takes a core from the
 * guests. Whether it pays is seen only by looking (the time between two faults holds the very wake-up
 * that looking would save): after some looks in vain, one sleep in so many is put off by a look.
 * Where reclaim or others want the same core it never pays: who looks uses up his share of the core, and
 * then has to wait for it when a fault has come, while who sleeps is let in at once. */
struct looks {
	uint64_t since_ns; /* the last fault */
	uint64_t at_ns;    /* the last look */
	unsigned in_vain, sleeps, every;
	bool woken;
};

static bool may_look(const struct vmemi_handler *h, const struct looks *l)
{
	return !h->index && !l->woken && (l->in_vain < LOOKS_IN_VAIN || l->sleeps % l->every == 0);
}

static void found_some(struct looks *l, bool looking, uint64_t now)
{
	if (looking) {
		l->in_vain = 0;
		l->every = LOOK_EVERY;
	}
	l->since_ns = l->at_ns = now;
	l->woken = false;
}

/* Whether to look once more. */
static bool goes_on(const struct vmemi_handler *h, struct looks *l, uint64_t now)
{
	bool crowded = now - l->at_ns >= CROWDED_NS;

	l->at_ns = now;
	if (!crowded && now - l->since_ns < h->spin_ns)
		return true;
	l->in_vain = crowded ? LOOKS_IN_VAIN : l->in_vain + 1;
	if (crowded && l->every < LOOK_EVERY_MOST)
		l->every *= 2;
	return false;
}

void vmemi_handler_run(struct vmemi_handler *h)
{
	const struct vmemi_kernel *k = h->host->k;
	struct looks l = { .every = LOOK_EVERY };

	k->time_slice(SLICE_NS); /* without, faults wait a little longer for a crowded core */
	atomic_fetch_add(&h->host->begun, 1);
	k->futex_wake(&h->host->begun, 1);
	l.since_ns = l.at_ns = k->clock_ns();
	while (!atomic_load(&h->host->stop_handlers)) {
		bool look = may_look(h, &l);

		if (turn(h)) {
			found_some(&l, look, k->clock_ns());
		} else if (atomic_load(&h->busy) && !atomic_load(&h->host->loads.under_way)) {
			vmemi_relax(h->host->env); /* a page that is leaving: not for long */
			l.at_ns = k->clock_ns();
		} else if (!look || !goes_on(h, &l, k->clock_ns())) {
			l.sleeps++;
			sleep_until_kicked(h);
			l.woken = true;
		}
	}
}

void vmemi_handler_adopt(struct vmemi_handler *h, struct vmem_region *r,
			 const struct vmemi_fault *fault)
{
	vmemi_lock(&h->lock);
	h->held[h->count++] = (struct vmemi_held){
		.region = r, .fault = *fault, .why = VMEMI_HELD_LOADING, .gave_up = true
	};
	count_held(h);
	vmemi_unlock(&h->lock);
	vmemi_host_kick_faults(h->host);
}

bool vmemi_handler_forget(struct vmemi_handler *h, const struct vmem_region *r)
{
	uint32_t kept = 0;
	bool loading = false;

	vmemi_lock(&h->lock);
	for (uint32_t i = 0; i < h->count; i++) {
		struct vmemi_held *e = &h->held[i];

		if (e->region == r && e->why != VMEMI_HELD_LOADING)
			continue;
		loading |= e->region == r;
		h->held[kept++] = *e;
	}
	h->count = kept;
	kept = 0;
	for (uint32_t i = 0; i < h->around_count; i++)
		if (h->around[i].region != r)
			h->around[kept++] = h->around[i];
	h->around_count = kept;
	count_held(h);
	vmemi_unlock(&h->lock);
	return loading;
}

void vmemi_handler_forget_peer(struct vmemi_handler *h, const struct vmemi_at *at)
{
	uint32_t kept = 0;

	vmemi_lock(&h->lock);
	for (uint32_t i = 0; i < h->count; i++) {
		struct vmemi_held *e = &h->held[i];

		if (e->fault.at == at && e->why == VMEMI_HELD_LOADING)
			e->fault.at = NULL; /* the page comes all the same */
		if (e->fault.at == at)
			ended(h, e);
		else
			h->held[kept++] = *e;
	}
	h->count = kept;
	count_held(h);
	vmemi_unlock(&h->lock);
}
