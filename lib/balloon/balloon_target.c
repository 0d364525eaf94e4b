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

/* So many pages are wanted in the balloon, and the driver knows it. */
static uint64_t wanted_in(const vmem_balloon *b)
{
	return b->told < b->target ? b->told : b->target;
}

/* Which way pages have to go: 1 in, -1 out, 0: neither, as at the target, and between it and what the driver was told. */
static int way_of(const vmem_balloon *b)
{
	uint64_t most = b->told > b->target ? b->told : b->target;

	return (b->owned < wanted_in(b)) - (b->owned > most);
}

static void start_watching(vmem_balloon *b, int way, uint64_t now_ns)
{
	b->way = way;
	b->furthest = b->owned;
	b->progress_ns = now_ns;
	b->stalled = false;
}

int vmem_balloon_set_target(vmem_balloon *b, uint64_t pages, uint64_t pages_per_s, uint64_t now_ns)
{
	if (pages > b->ram_pages || pages > VMEM_BALLOON_MAX_PAGES)
		return -VMEM_ERANGE;
	vmem_balloon_tick(b, now_ns); /* what the rate before allowed */
	if (pages != b->target) {
		b->target = pages;
		b->told_rest = 0;
		b->reached = false;
	}
	b->rate = pages_per_s;
	vmem_balloon_tick(b, now_ns);
	return 0;
}

/* Without a driver there is no progress, and no stall. */
void vmemi_balloon_target_reset(vmem_balloon *b)
{
	b->speed = 0;
	b->seen_pages = b->most = 0;
	b->reached = false;
	start_watching(b, 0, b->tick_ns);
}

/* What the driver is told moves to the target. */
static void move(vmem_balloon *b, uint64_t elapsed_ns)
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
	vmemi_balloon_event(b, VMEM_BALLOON_EVENT_CONFIG);
}

static void measure(vmem_balloon *b, uint64_t now_ns)
{
	uint64_t moved, ns = now_ns - b->seen_ns;
	int64_t speed;

	if (now_ns < b->seen_ns || ns < SPEED_NS)
		return;
	moved = b->owned > b->seen_pages ? b->owned - b->seen_pages : b->seen_pages - b->owned;
	speed = (int64_t)(moved * SECOND_NS / ns); /* moved is below 2^32 */
	speed = b->owned < b->seen_pages ? -speed : speed;
	b->speed = b->speed ? (b->speed * 3 + speed) / 4 : speed;
	b->seen_pages = b->owned;
	b->seen_ns = now_ns;
}

static void watch(vmem_balloon *b, uint64_t now_ns)
{
	bool driver = b->status & VMEM_VIRTIO_DRIVER_OK;
	int way = way_of(b);

	if (!way && b->told == b->target && !b->reached) {
		b->reached = true;
		vmemi_balloon_event(b, VMEM_BALLOON_EVENT_REACHED);
	}
	if (!driver || !way || way != b->way ||
	    (way > 0 ? b->owned > b->furthest : b->owned < b->furthest)) {
		start_watching(b, way, now_ns);
	} else if (!b->stalled && now_ns - b->progress_ns >= b->stall_ns) {
		b->stalled = true;
		vmemi_balloon_event(b, VMEM_BALLOON_EVENT_STALLED);
	}
}

void vmemi_balloon_claim(vmem_balloon *b)
{
	b->claim_told = b->actual != b->owned && !b->due && !b->part.busy;
	if (!b->claim_told)
		return;
	b->rest_pages = b->owned;
	vmemi_balloon_event(b, VMEM_BALLOON_EVENT_ACTUAL);
}

/* A claim that is wrong, or has not come, when no page has moved for so long that it should be right. */
static void compare(vmem_balloon *b, uint64_t now_ns)
{
	if (b->owned != b->rest_pages || b->due || b->part.busy ||
	    !(b->status & VMEM_VIRTIO_DRIVER_OK)) {
		b->rest_pages = b->owned;
		b->rest_ns = now_ns;
		b->claim_told = false;
	} else if (!b->claim_told && now_ns - b->rest_ns >= b->stall_ns) {
		vmemi_balloon_claim(b);
	}
}

void vmemi_balloon_taken_back(vmem_balloon *b, uint64_t before)
{
	uint64_t wanted = wanted_in(b);

	if (b->most < before)
		b->most = before < wanted ? before : wanted;
	if (b->owned >= before || b->owned >= wanted ||
	    (b->most < wanted && b->owned + 1 >= b->most))
		return;
	b->most = b->owned;
	vmemi_balloon_event(b, VMEM_BALLOON_EVENT_LEAK);
}

void vmem_balloon_tick(vmem_balloon *b, uint64_t now_ns)
{
	if (now_ns < b->tick_ns)
		now_ns = b->tick_ns;
	move(b, b->tick_ns ? now_ns - b->tick_ns : 0);
	if (b->most > wanted_in(b))
		b->most = wanted_in(b);
	measure(b, now_ns);
	watch(b, now_ns);
	compare(b, now_ns);
	b->tick_ns = now_ns;
}

int vmem_balloon_get_progress(const vmem_balloon *b, struct vmem_balloon_progress *progress)
{
	int64_t way = (int64_t)b->target - (int64_t)b->owned;
	struct vmem_balloon_progress p = {
		.target = b->target,
		.told = b->told,
		.pages = b->owned,
		.actual = b->actual,
		.partial = b->owned - b->released,
		.pages_per_s = (uint64_t)(b->speed < 0 ? -b->speed : b->speed),
		.eta_ns = way ? UINT64_MAX : 0,
		.stalled_ns = b->stalled ? b->tick_ns - b->progress_ns : 0,
		.proposed = b->stalled ? b->owned : b->target,
		.features = b->negotiated ? b->features : 0,
		.driver = (b->status & VMEM_VIRTIO_DRIVER_OK) != 0,
	};

	if ((way > 0 && b->speed > 0) || (way < 0 && b->speed < 0))
		p.eta_ns = (uint64_t)(way * (int64_t)SECOND_NS / b->speed);
	return vmemi_opts_give(progress, &p, sizeof(p));
}
