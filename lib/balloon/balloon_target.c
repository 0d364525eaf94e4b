/* SPDX-License-Identifier: BSD-2-Clause */
/* The target and the way there: what the driver is told, how fast it comes, whether it stalls. */
#include "balloon/balloon_internal.h"
#include "base/opts.h"

#define SECOND_NS UINT64_C(1000000000)
#define SPEED_NS (SECOND_NS / 10) /* the speed is looked at no more often */

void vmemi_balloon_event(vmem_balloon *b, enum vmem_balloon_event event)
{
	b->events |= UINT32_C(1) << event;
}

int vmem_balloon_next_event(vmem_balloon *b)
{
	int event;

	if (!b->events)
		return 0;
	event = __builtin_ctz(b->events);
	b->events &= b->events - 1;
	return event;
}

static uint64_t distance(const vmem_balloon *b)
{
	return b->owned > b->told ? b->owned - b->told : b->told - b->owned;
}

static void start_watching(vmem_balloon *b, uint64_t now_ns)
{
	b->nearest = distance(b);
	b->progress_ns = now_ns;
	b->stalled = false;
}

int vmem_balloon_set_target(vmem_balloon *b, uint64_t pages, uint64_t pages_per_s, uint64_t now_ns)
{
	if (pages > b->ram_pages || pages > VMEM_BALLOON_MAX_PAGES)
		return -VMEM_ERANGE;
	vmem_balloon_tick(b, now_ns); /* what the rate before allowed */
	b->target = pages;
	b->rate = pages_per_s;
	b->told_rest = 0;
	b->reached = false;
	start_watching(b, now_ns);
	vmem_balloon_tick(b, now_ns);
	return 0;
}

/* Without a driver there is no progress, and no stall. */
void vmemi_balloon_target_reset(vmem_balloon *b)
{
	b->speed = 0;
	b->seen_pages = 0;
	b->reached = false;
	start_watching(b, b->tick_ns);
}

/* What the driver is told moves to the target. */
static void move(vmem_balloon *b, uint64_t elapsed_ns, uint64_t now_ns)
{
	uint64_t way = b->target > b->told ? b->target - b->told : b->told - b->target;
	uint64_t step = way;

	if (!way)
		return;
	if (b->rate) { /* whole seconds apart, so that the product stays below 2^64 */
		uint64_t rate = b->rate < VMEM_BALLOON_MAX_PAGES ? b->rate : VMEM_BALLOON_MAX_PAGES;
		uint64_t seconds = elapsed_ns / SECOND_NS;

		b->told_rest += rate * (elapsed_ns % SECOND_NS);
		step = b->told_rest / SECOND_NS + (seconds > way / rate ? way : rate * seconds);
		b->told_rest %= SECOND_NS;
		if (step > way)
			step = way;
	}
	if (!step)
		return;
	b->told += b->target > b->told ? step : -step;
	start_watching(b, now_ns);
	vmemi_balloon_event(b, VMEM_BALLOON_EVENT_CONFIG);
}

static void measure(vmem_balloon *b, uint64_t now_ns)
{
	uint64_t moved, ns = now_ns - b->seen_ns, speed;

	if (now_ns < b->seen_ns || ns < SPEED_NS)
		return;
	moved = b->owned > b->seen_pages ? b->owned - b->seen_pages : b->seen_pages - b->owned;
	speed = moved * SECOND_NS / ns; /* moved is below 2^32 */
	b->speed = b->speed ? (b->speed * 3 + speed) / 4 : speed;
	b->seen_pages = b->owned;
	b->seen_ns = now_ns;
}

static void watch(vmem_balloon *b, uint64_t now_ns)
{
	if (!distance(b)) {
		b->stalled = false;
		if (b->told == b->target && !b->reached) {
			b->reached = true;
			vmemi_balloon_event(b, VMEM_BALLOON_EVENT_REACHED);
		}
		b->nearest = 0;
		b->progress_ns = now_ns;
		return;
	}
	/* nearest is 0 when the target had been reached, or the state restored */
	if (distance(b) < b->nearest || !b->nearest || !(b->status & VMEM_VIRTIO_DRIVER_OK)) {
		start_watching(b, now_ns);
	} else if (!b->stalled && now_ns - b->progress_ns >= b->stall_ns) {
		b->stalled = true;
		vmemi_balloon_event(b, VMEM_BALLOON_EVENT_STALLED);
	}
}

void vmem_balloon_tick(vmem_balloon *b, uint64_t now_ns)
{
	if (now_ns < b->tick_ns)
		now_ns = b->tick_ns;
	move(b, b->tick_ns ? now_ns - b->tick_ns : 0, now_ns);
	measure(b, now_ns);
	watch(b, now_ns);
	b->tick_ns = now_ns;
}

int vmem_balloon_get_progress(const vmem_balloon *b, struct vmem_balloon_progress *progress)
{
	uint64_t way = b->owned > b->target ? b->owned - b->target : b->target - b->owned;
	struct vmem_balloon_progress p = {
		.target = b->target,
		.told = b->told,
		.pages = b->owned,
		.actual = b->actual,
		.partial = b->owned - b->released,
		.pages_per_s = b->speed,
		.eta_ns = way ? UINT64_MAX : 0,
		.stalled_ns = b->stalled ? b->tick_ns - b->progress_ns : 0,
		.proposed = b->stalled ? b->owned : b->target,
		.features = b->negotiated ? b->features : 0,
		.driver = (b->status & VMEM_VIRTIO_DRIVER_OK) != 0,
	};

	if (way && b->speed)
		p.eta_ns = way * SECOND_NS / b->speed; /* way is below 2^32 */
	return vmemi_opts_give(progress, &p, sizeof(p));
}
