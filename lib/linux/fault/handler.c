/* SPDX-License-Identifier: BSD-2-Clause */
/* The handler of faults that arrive as messages: see handler.h.
 *
 * Held faults are an array in order of arrival. Those that wait for a frame stay in turn: the first
 * that finds none keeps the others from asking, and newcomers too. */
#include "linux/fault/handler.h"
#include "base/mem.h"
#include "linux/kernel/uffd_abi.h"

#define BATCH 32
#define EVENTS 32
#define STALL_POLL_MS 10
#define LOAD_POLL_MS 1
#define STEP_TURNS 64 /* so that a storm of faults does not keep a step for ever */

enum held_for {
	HELD_BUSY,   /* another thread is at the page */
	HELD_FRAME,  /* no frame */
	HELD_LOADING /* a slow load is under way */
};

struct held {
	struct vmem_region *region;
	struct vmemi_fault fault;
	uint64_t arrived_ns;
	enum held_for why;
	int error;    /* of a load that is over */
	bool over;    /* the load is over */
	bool gave_up; /* it took too long */
};

struct vmemi_handler {
	struct vmemi_host *host;
	uint64_t spin_ns;
	_Atomic uint32_t busy, loading, starving; /* atomic; held faults by what they wait for */
	struct vmemi_lock lock;                   /* guards all below; held while serving */
	uint32_t count;
	struct held held[VMEMI_HANDLER_HELD];
};

int vmemi_handler_new(struct vmemi_handler **ret_handler, struct vmemi_host *host, uint32_t spin_us)
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

static void answered(struct vmemi_handler *h, struct held *e)
{
	uint64_t now = h->host->k->clock_ns();

	vmemi_latency_add(&e->region->latency, now - e->arrived_ns);
	if (e->why == HELD_FRAME) {
		vmemi_tally(&e->region->counters.stall_ns, now - e->arrived_ns);
		vmemi_tally(&h->host->stall_ns, now - e->arrived_ns);
	}
}

static void stall(struct vmemi_handler *h, struct held *e)
{
	if (e->why != HELD_FRAME) {
		vmemi_tally(&e->region->counters.stalls, 1);
		vmemi_tally(&h->host->stalls, 1);
	}
	e->why = HELD_FRAME;
}

/* Serves @e once. True if it is over; else e->why says what it waits for. */
static bool serve(struct vmemi_handler *h, struct held *e)
{
	switch (vmemi_serve(e->region, &e->fault)) {
	case VMEMI_SERVED: answered(h, e); return true;
	case VMEMI_POISONED: return true;
	case VMEMI_LOADING: e->why = HELD_LOADING; return false;
	case VMEMI_NO_FRAME: stall(h, e); return false;
	default:
		if (e->why != HELD_FRAME)
			e->why = HELD_BUSY;
		return false;
	}
}

/* Without room to hold a fault its access is repeated, and comes again. */
static void send_back(struct held *e)
{
	vmemi_uffd_wake(e->region->uffd, vmemi_region_page(e->region, e->fault.page),
			VMEM_PAGE_SIZE);
}

/* A fault that comes in: served, or held back, or sent back. True if it was served. */
static bool take_in(struct vmemi_handler *h, struct held *e)
{
	enum vmem_page_state state = vmemi_page_state(vmemi_region_word(e->region, e->fault.page));
	bool in_place = state == VMEM_PAGE_RESIDENT || state == VMEM_PAGE_CLEAN;

	if (h->count == VMEMI_HANDLER_HELD) {
		send_back(e);
		return false;
	}
	if (atomic_load(&h->starving) && !in_place && !e->fault.force)
		stall(h, e); /* behind those that wait for a frame; it is tried in its turn */
	else if (serve(h, e))
		return true;
	h->held[h->count++] = *e;
	return false;
}

/* One turn over all that is held. True if something was answered. */
static bool retry(struct vmemi_handler *h)
{
	uint32_t kept = 0;
	bool no_frame = false, any = false;

	for (uint32_t i = 0; i < h->count; i++) {
		struct held *e = &h->held[i];
		bool over;

		if (e->why == HELD_LOADING) {
			over = e->over;
			if (over &&
			    vmemi_serve_loaded(e->region, &e->fault, e->error) == VMEMI_PUT_OFF) {
				over = false;
				e->over = false;
				e->why = HELD_BUSY;
			} else if (over && !e->gave_up) {
				answered(h, e);
			}
		} else {
			/* In turn: who waits for a frame does not overtake, unless a frame is not
			 * what its page needs, which vmemi_serve() alone can tell. */
			over = no_frame && e->why == HELD_FRAME ? false : serve(h, e);
			no_frame |= e->why == HELD_FRAME && !over;
		}
		any |= over;
		if (!over) {
			if (kept != i)
				h->held[kept] = *e;
			kept++;
		}
	}
	h->count = kept;
	return any;
}

static bool read_messages(struct vmemi_handler *h)
{
	const struct vmemi_uffd *u = &h->host->uffd[VMEM_FAULT_THREAD];
	struct uffd_msg messages[BATCH];
	struct held served[BATCH];
	unsigned count = 0;
	uint64_t now;
	ssize_t bytes;

	if (u->fd < 0)
		return false;
	bytes = h->host->k->read(u->fd, messages, sizeof(messages));
	if (bytes <= 0)
		return false;
	now = h->host->k->clock_ns();
	for (size_t i = 0; i < (size_t)bytes / sizeof(messages[0]); i++) {
		const struct uffd_msg *m = &messages[i];
		void *address = (void *)(uintptr_t)m->arg.pagefault.address;
		struct held e = { .arrived_ns = now };

		if (m->event != UFFD_EVENT_PAGEFAULT)
			continue;
		e.region = vmemi_host_find(h->host, address);
		if (!e.region) { /* being attached, or detached: it comes again, or never */
			vmemi_uffd_wake(u, (void *)((uintptr_t)address & ~(VMEM_PAGE_SIZE - 1ul)),
					VMEM_PAGE_SIZE);
			continue;
		}
		e.fault.page =
			(uint64_t)((unsigned char *)address - e.region->base) / VMEM_PAGE_SIZE;
		e.fault.kind = m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP
				       ? VMEMI_FAULT_PROTECTED
				       : VMEMI_FAULT_MISSING;
		e.fault.write = m->arg.pagefault.flags &
				(UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_WRITE);
		e.fault.demand = true;
		e.fault.take_slow = true;
		if (take_in(h, &e) && e.fault.kind == VMEMI_FAULT_MISSING)
			served[count++] = e;
	}
	for (unsigned i = 0; i < count; i++)
		vmemi_serve_around(served[i].region, served[i].fault.page, served[i].fault.write);
	return true;
}

/* Slow loads that are over, or that took too long. */
static void look_after_loads(struct vmemi_handler *h)
{
	struct vmem_store_event events[EVENTS];
	uint32_t n = vmem_store_poll(h->host->store, events, EVENTS);
	uint64_t now = 0;

	for (uint32_t k = 0; k < n; k++)
		for (uint32_t i = 0; i < h->count; i++)
			if (events[k].type == VMEM_STORE_LOADED && h->held[i].why == HELD_LOADING &&
			    h->held[i].fault.token == events[k].token) {
				h->held[i].over = true;
				h->held[i].error = events[k].result;
			}
	for (uint32_t i = 0; i < h->count; i++) {
		struct held *e = &h->held[i];

		if (e->why != HELD_LOADING || e->over || e->gave_up)
			continue;
		if (!now)
			now = h->host->k->clock_ns();
		if (now - e->arrived_ns < e->region->opts.fault_deadline_ms * 1000000)
			continue;
		e->gave_up = true;
		vmemi_serve_give_up(e->region, &e->fault, -VMEM_EIO);
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
				struct held e = { .region = r };

				e.arrived_ns = h->host->k->clock_ns();
				e.fault.page = i * 64 + (uint64_t)__builtin_ctzll(bits);
				e.fault.demand = true;
				e.fault.take_slow = true;
				e.fault.force = atomic_load(&r->restoring);
				if (h->count < VMEMI_HANDLER_HELD)
					take_in(h, &e);
				else /* later */
					vmemi_serve_want(r, e.fault.page);
			}
		}
	}
}

static void count_held(struct vmemi_handler *h)
{
	uint32_t n[HELD_LOADING + 1] = { 0 };

	for (uint32_t i = 0; i < h->count; i++)
		n[h->held[i].why]++;
	atomic_store(&h->busy, n[HELD_BUSY]);
	atomic_store(&h->starving, n[HELD_FRAME]);
	atomic_store(&h->loading, n[HELD_LOADING]);
	atomic_store(&h->host->put_off, h->count);
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
	any |= read_messages(h);
	take_wanted(h);
	count_held(h);
	vmemi_unlock(&h->lock);
	return any;
}

int vmemi_handler_step(struct vmemi_handler *h)
{
	for (unsigned i = 0; i < STEP_TURNS && turn(h); i++)
		;
	return atomic_load(&h->host->put_off) > 0;
}

/* Blocks until a fault, a kick, or the time to look at what is held. */
static void sleep_until_kicked(struct vmemi_handler *h)
{
	struct vmemi_host *host = h->host;
	struct pollfd fds[2] = {
		{ .fd = host->uffd[VMEM_FAULT_THREAD].fd, .events = POLLIN },
		{ .fd = host->fault_fd, .events = POLLIN },
	};
	int timeout_ms = atomic_load(&h->loading)    ? LOAD_POLL_MS
			 : atomic_load(&h->starving) ? STALL_POLL_MS
						     : -1;
	uint64_t value;

	/* Frames that were freed before put_off was set brought no kick. */
	if (atomic_load(&h->starving) &&
	    vmemi_frames_free(&host->frames) >
		    atomic_load(&host->frames.floor_bytes) + VMEM_PAGE_SIZE)
		return;
	host->k->poll(fds, 2, timeout_ms);
	if (fds[1].revents & POLLIN)
		host->k->read(host->fault_fd, &value, sizeof(value));
}

/* Looking for the next fault instead of sleeping saves its thread a wake-up, and takes a core from the
 * guests: it is done only while faults come faster than the time that would be spent on it. */
void vmemi_handler_run(struct vmemi_handler *h, _Atomic uint32_t *stop)
{
	const struct vmemi_kernel *k = h->host->k;
	uint64_t last = k->clock_ns(), gap_ns = 0, now;

	while (!atomic_load(stop)) {
		if (turn(h)) {
			now = k->clock_ns();
			gap_ns = (gap_ns * 7 +
				  (now - last < 8 * h->spin_ns ? now - last : 8 * h->spin_ns)) /
				 8;
			last = now;
		} else if (atomic_load(&h->busy) && !atomic_load(&h->loading)) {
			vmemi_relax(h->host->env); /* a page that is leaving: not for long */
		} else if (gap_ns >= h->spin_ns || k->clock_ns() - last >= h->spin_ns) {
			sleep_until_kicked(h);
		}
	}
}

bool vmemi_handler_forget(struct vmemi_handler *h, const struct vmem_region *r)
{
	uint32_t kept = 0;
	bool loading = false;

	vmemi_lock(&h->lock);
	for (uint32_t i = 0; i < h->count; i++) {
		struct held *e = &h->held[i];

		if (e->region == r && e->why != HELD_LOADING)
			continue;
		loading |= e->region == r;
		h->held[kept++] = *e;
	}
	h->count = kept;
	count_held(h);
	vmemi_unlock(&h->lock);
	return loading;
}
