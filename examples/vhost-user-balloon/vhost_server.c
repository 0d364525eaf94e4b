/* SPDX-License-Identifier: BSD-2-Clause */
/* What comes between waiting and waiting: commands first, then a client's turn, which is bounded (vhost_buffers.c). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "vhost_server.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vhost_closer.h"
#include "vhost_control.h"

#define PAGE UINT64_C(4096)
#define SECOND_NS UINT64_C(1000000000)
#define MOVING_MS 20 /* how often time passes for a balloon that moves with a rate */
#define WAITING_MS 250

enum { FD_SIGNALS, FD_LISTENER, FD_CLIENT, FD_CONTROL = FD_CLIENT + VHOST_CLIENT_FDS };
#define FDS (FD_CONTROL + VHOST_CONTROL_FDS)

const char *vhost_server_set_target(struct vhost_server *s, uint64_t bytes, uint64_t bytes_per_s)
{
	uint64_t rate = bytes_per_s ? bytes_per_s / PAGE + !(bytes_per_s / PAGE) : 0;

	if (s->has_client &&
	    vhost_client_set_target(&s->client, bytes / PAGE, rate, s->now_ns) != 0)
		return "the guest has less memory than that";
	s->target_bytes = bytes / PAGE * PAGE;
	s->bytes_per_s = bytes_per_s;
	return NULL;
}

static void on_event(void *context, int event)
{
	struct vhost_server *s = context;

	s->events[event]++;
	s->stats_came |= event == VMEM_BALLOON_EVENT_STATS;
	vhost_say_event(s, event);
}

void vhost_server_begin(struct vhost_server *s)
{
	s->o.client.event = on_event;
	s->o.client.context = s;
	s->target_bytes = s->o.target_bytes / PAGE * PAGE;
	s->bytes_per_s = s->o.bytes_per_s;
	s->signals = s->listener = -1;
}

static void take_client(struct vhost_server *s)
{
	int socket = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	const char *why;

	if (socket < 0)
		return;
	why = vhost_client_begin(&s->client, &s->o.client, socket);
	if (why) {
		fprintf(stderr, "vmem-vhost-user-balloon: no client can be taken: %s\n", why);
		return;
	}
	s->has_client = true;
	s->clients++;
	vhost_say_due(s);
	(void)vhost_server_set_target(s, s->target_bytes, s->bytes_per_s);
}

static void leave_client(struct vhost_server *s, const char *why)
{
	if (*why) {
		s->refused++;
		snprintf(s->refused_for, sizeof(s->refused_for), "%s", why);
	}
	vhost_say_gone(s, why);
	vhost_client_end(&s->client);
	s->has_client = s->leave = false;
}

static void serve_client(struct vhost_server *s, const struct pollfd *fds)
{
	const char *why;

	if (s->o.stats_s && s->now_ns - s->asked_ns >= s->o.stats_s * SECOND_NS) {
		s->asked_ns = s->now_ns;
		(void)vmem_balloon_ask_stats(s->client.balloon);
	}
	/* Without that queue the guest may be another one, of which nothing is in the balloon. */
	if (s->now_ns - s->tried_again_ns >= SECOND_NS && vhost_queue_runs(&s->client.queue[0])) {
		s->tried_again_ns = s->now_ns;
		(void)vmem_discard_retry(s->client.discard, s->client.balloon);
	}
	why = vhost_client_serve(&s->client, fds, s->now_ns);
	if (why) {
		leave_client(s, why);
		return;
	}
	vhost_say_due(s);
	vhost_say_progress(s);
}

static int wait_ms(struct vhost_server *s)
{
	struct vmem_balloon_progress p = { .size = sizeof(p) };

	if (!s->has_client)
		return -1; /* the timer of main() ends that, too */
	if (s->stats_came || vhost_client_is_busy(&s->client))
		return 0;
	(void)vmem_balloon_get_progress(s->client.balloon, &p);
	return p.told != p.target ? MOVING_MS : WAITING_MS;
}

bool vhost_server_turn(struct vhost_server *s, struct vhost_control *control)
{
	struct pollfd fds[FDS];

	fds[FD_SIGNALS] = (struct pollfd){ .fd = s->signals, .events = POLLIN };
	fds[FD_LISTENER] =
		(struct pollfd){ .fd = s->has_client || vhost_closer_is_behind() ? -1 : s->listener,
				 .events = POLLIN };
	for (unsigned i = FD_CLIENT; i < FD_CONTROL; i++)
		fds[i] = (struct pollfd){ .fd = -1 };
	if (s->has_client)
		(void)vhost_client_fds(&s->client, fds + FD_CLIENT);
	vhost_control_fds(control, fds + FD_CONTROL);
	if (poll(fds, FDS, wait_ms(s)) < 0)
		for (unsigned i = 0; i < FDS; i++)
			fds[i].revents = 0;
	s->now_ns = vhost_now_ns();
	if (fds[FD_SIGNALS].revents)
		return false;
	vhost_control_serve(control, s, fds + FD_CONTROL);
	if (s->has_client && s->leave)
		leave_client(s, "");
	else if (s->has_client)
		serve_client(s, fds + FD_CLIENT);
	else if (fds[FD_LISTENER].revents)
		take_client(s);
	return !s->quit;
}

void vhost_server_end(struct vhost_server *s)
{
	if (s->has_client)
		leave_client(s, "");
	close(s->listener);
}
