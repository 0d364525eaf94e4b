/* SPDX-License-Identifier: BSD-2-Clause */
/* What people are told: events, clients and progress, each at most once a second. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/units.h"
#include "vhost_server.h"

#define PAGE UINT64_C(4096)
#define SECOND_NS UINT64_C(1000000000)

static const char *const names[VHOST_EVENTS] = {
	[VMEM_BALLOON_EVENT_REACHED] = "reached",
	[VMEM_BALLOON_EVENT_STALLED] = "stalled",
	[VMEM_BALLOON_EVENT_ACTUAL] = "claims_otherwise",
	[VMEM_BALLOON_EVENT_STATS] = "stats",
	[VMEM_BALLOON_EVENT_SWAPS] = "swaps",
	[VMEM_BALLOON_EVENT_LEAK] = "leak",
	[VMEM_BALLOON_EVENT_RESET] = "reset",
};

const char *vhost_event_name(int event)
{
	return event >= 0 && event < VHOST_EVENTS ? names[event] : NULL;
}

static struct vmem_balloon_progress progress_of(const struct vhost_server *s)
{
	struct vmem_balloon_progress p = { .size = sizeof(p) };

	(void)vmem_balloon_get_progress(s->client.balloon, &p);
	return p;
}

static void say(struct vhost_server *s, int event)
{
	struct vmem_balloon_progress p = progress_of(s);

	switch (event) {
	case 0:
		printf("the target of %s is more than this guest has (%s): it is 0\n",
		       UNITS_BYTES(s->target_bytes),
		       UNITS_BYTES(vhost_memory_bytes(&s->client.memory)));
		break;
	case VMEM_BALLOON_EVENT_REACHED:
		printf("reached: %s in the balloon\n", UNITS_BYTES(p.pages * PAGE));
		break;
	case VMEM_BALLOON_EVENT_STALLED:
		printf("stalled: %s of %s; the guest can hold a target of %s\n",
		       UNITS_BYTES(p.pages * PAGE), UNITS_BYTES(p.target * PAGE),
		       UNITS_BYTES(p.proposed * PAGE));
		break;
	case VMEM_BALLOON_EVENT_ACTUAL:
		printf("the guest claims %s, and has given %s\n", UNITS_BYTES(p.actual * PAGE),
		       UNITS_BYTES(p.pages * PAGE));
		break;
	case VMEM_BALLOON_EVENT_SWAPS:
		printf("the guest swaps while %s are in the balloon: lower the target\n",
		       UNITS_BYTES(p.pages * PAGE));
		break;
	case VMEM_BALLOON_EVENT_LEAK:
		printf("the guest took memory back: %s of %s are left\n",
		       UNITS_BYTES(p.pages * PAGE), UNITS_BYTES(p.target * PAGE));
		break;
	case VMEM_BALLOON_EVENT_RESET:
		printf("the driver has gone: all memory is the guest's again\n");
		break;
	default: return;
	}
	fflush(stdout);
}

static bool is_old(const struct vhost_server *s, uint64_t said_ns)
{
	return !said_ns || s->now_ns - said_ns >= SECOND_NS;
}

void vhost_say_due(struct vhost_server *s)
{
	if (!s->client_said && is_old(s, s->client_said_ns)) {
		printf("client %llu\n", (unsigned long long)s->clients);
		fflush(stdout);
		s->client_said = true;
		s->client_said_ns = s->now_ns;
	}
	for (int i = 0; i < VHOST_EVENTS; i++)
		if (s->event_due[i] && is_old(s, s->event_said_ns[i])) {
			say(s, i);
			s->event_due[i] = false;
			s->event_said_ns[i] = s->now_ns;
		}
}

void vhost_say_event(struct vhost_server *s, int event)
{
	s->event_due[event] = true;
	vhost_say_due(s);
}

void vhost_say_gone(struct vhost_server *s, const char *why)
{
	if (s->client_said)
		printf("client %llu has gone%s%s\n", (unsigned long long)s->clients,
		       *why ? ": " : "", why);
	fflush(stdout);
	s->client_said = false;
	memset(s->event_due, 0, sizeof(s->event_due));
}

void vhost_say_progress(struct vhost_server *s)
{
	struct vmem_balloon_progress p = progress_of(s);

	if (s->o.quiet || !p.driver || p.pages == p.target || s->now_ns - s->said_ns < SECOND_NS)
		return;
	s->said_ns = s->now_ns;
	printf("balloon: %s of %s, %s/s", UNITS_BYTES(p.pages * PAGE), UNITS_BYTES(p.target * PAGE),
	       UNITS_BYTES(p.pages_per_s * PAGE));
	if (p.eta_ns != UINT64_MAX)
		printf(", %s left", UNITS_TIME(p.eta_ns));
	printf("\n");
	fflush(stdout);
}
