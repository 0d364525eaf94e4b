/* SPDX-License-Identifier: BSD-2-Clause */
/* Serving for callers that can do nothing but wait: the faulting thread itself, and calls of the VMM. See serve.c. */
#include "linux/fault/serve.h"

#define WAIT_NS 10000000
#define GIVE_UP_NS 1000000000
#define ROUNDS 2 /* the first may have begun before */
#define GIVE_UP_ANYWAY_NS 10000000000

/* Whether reclaim has been stuck for a second. Of a machine that is busy elsewhere a second says nothing: rounds
 * must have found it so, the last of which began when we already waited. But who reclaims may be in the VMM's
 * callback, which may wait for us. */
static bool is_hopeless(struct vmemi_host *host, struct vmemi_hope *hope)
{
	uint64_t now = host->k->clock_ns(), waited;
	uint32_t unstuck = atomic_load(&host->unstuck), rounds = atomic_load(&host->stuck_rounds);

	if (!atomic_load(&host->stuck)) {
		hope->stuck_since_ns = 0;
		return false;
	}
	if (!hope->stuck_since_ns || hope->unstuck != unstuck)
		*hope = (struct vmemi_hope){ now, rounds, unstuck };
	waited = now - hope->stuck_since_ns;
	return (waited >= GIVE_UP_NS && rounds - hope->rounds >= ROUNDS) ||
	       waited >= GIVE_UP_ANYWAY_NS;
}

bool vmemi_serve_wait_for_frame(struct vmemi_host *host, uint32_t sequence, struct vmemi_hope *hope)
{
	bool (*make_room)(struct vmemi_host *) = atomic_load(&host->make_room);

	if (is_hopeless(host, hope))
		return false;
	if (!make_room || !make_room(host))
		vmemi_frames_wait(&host->frames, sequence, WAIT_NS);
	return true;
}

/* The same for a fault, which is told to others. In a signal handler it can only wait for good. */
static bool stall(struct vmem_region *r, struct vmemi_fault *f, uint32_t sequence,
		  struct vmemi_hope *hope)
{
	struct vmemi_host *host = r->host;
	uint64_t start = host->k->clock_ns(), waited;
	bool go_on = true;

	if (f->may_reclaim)
		go_on = vmemi_serve_wait_for_frame(host, sequence, hope);
	else
		vmemi_frames_wait(&host->frames, sequence, WAIT_NS);
	waited = host->k->clock_ns() - start;
	vmemi_tally(&r->counters.stall_ns, waited);
	vmemi_tally(&host->stall_ns, waited);
	return go_on;
}

void vmemi_serve_want(struct vmem_region *r, uint64_t page)
{
	uint64_t bit = UINT64_C(1) << page % 64;

	if (atomic_fetch_or(&r->wanted[page / 64], bit) & bit)
		return;
	atomic_store(&r->any_wanted, 1);
	vmemi_host_kick_faults(r->host);
}

/* In a signal handler only others may serve. */
static void wait_for_others(struct vmemi_host *host, const struct vmemi_fault *f)
{
	if (f->may_reclaim)
		vmemi_host_wait(host);
	else
		vmemi_relax(host->env);
}

static uint64_t block(struct vmem_region *r)
{
	uint64_t now = r->host->k->clock_ns();

	vmemi_pressure_begin(&r->pressure, now);
	return now;
}

/* Waits for what keeps a fault from being served. False: there is no frame to be had. */
static bool wait_for(struct vmem_region *r, struct vmemi_fault *f, enum vmemi_served why,
		     uint32_t sequence, struct vmemi_hope *hope)
{
	if (why == VMEMI_NO_FRAME)
		return stall(r, f, sequence, hope);
	if (why == VMEMI_ASKED && f->may_reclaim && is_hopeless(r->host, hope) &&
	    vmemi_page_state(vmemi_region_word(r, f->page)) == VMEM_PAGE_SOURCE)
		return false; /* that waits for a frame, too */
	if (why == VMEMI_SLOW)
		vmemi_serve_want(r, f->page);
	wait_for_others(r->host, f);
	return true;
}

enum vmemi_served vmemi_serve_wait(struct vmem_region *r, struct vmemi_fault *f)
{
	struct vmemi_host *host = r->host;
	/* Two looks at the clock are too much for a signal that does not wait. */
	uint64_t began_ns = f->may_reclaim ? block(r) : 0;
	struct vmemi_hope hope = { 0 };
	enum vmemi_served served;
	bool stalled = false;
	uint32_t sequence;

	for (;;) {
		sequence = atomic_load(&host->frames.sequence);
		served = vmemi_serve(r, f);
		if (served == VMEMI_SERVED || served == VMEMI_POISONED)
			break;
		if (!began_ns)
			began_ns = block(r);
		if (served == VMEMI_NO_FRAME && !stalled) {
			vmemi_tally(&r->counters.stalls, 1);
			vmemi_tally(&host->stalls, 1);
			stalled = true;
		}
		if (!wait_for(r, f, served, sequence, &hope)) {
			served = VMEMI_NO_FRAME;
			break;
		}
	}
	if (began_ns) {
		uint64_t now = host->k->clock_ns();

		vmemi_pressure_end(&r->pressure, began_ns, now);
		f->waited_ns = now - began_ns;
	}
	return served;
}
