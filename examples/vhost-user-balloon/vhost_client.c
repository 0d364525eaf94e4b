/* SPDX-License-Identifier: BSD-2-Clause */
/* A connection from its beginning to its end, and the balloon of it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "vhost_client.h"

#include <stddef.h>
#include <string.h>

#include "vhost_closer.h"

#define DRIVER_SEEN 3u   /* acknowledged, and there is a driver */
#define TURN_MESSAGES 16 /* in one turn */

static void all_queues_are_due(struct vhost_client *c)
{
	for (uint32_t i = 0; i < VHOST_QUEUES; i++)
		c->queue[i].due = c->queue[i].started;
}

/* --- The balloon, which is another one where memory is --- */

static void free_balloon(struct vhost_client *c)
{
	vmem_balloon_free(c->balloon);
	vmem_discard_free(c->discard);
	c->balloon = NULL;
	c->discard = NULL;
}

static int add_region(struct vhost_client *c, const struct vhost_region *r)
{
	struct vmem_discard_piece piece = { .size = sizeof(piece),
					    .gpa = r->gpa,
					    .bytes = r->bytes,
					    .kind = VMEM_DISCARD_FILE,
					    .fd = r->fd,
					    .offset = r->offset,
					    .block_bytes = r->block };
	int err = vmem_balloon_add_ram(c->balloon, r->gpa, r->bytes, r->block);

	return err ? err : vmem_discard_add(c->discard, &piece);
}

const char *vhost_client_make_balloon(struct vhost_client *c)
{
	const struct vmem_balloon_opts opts = { .size = sizeof(opts),
						.features =
							c->o->features | VMEM_VIRTIO_F_VERSION_1,
						.map = c->o->map,
						.stall_ns = c->o->stall_ns };
	const struct vmem_discard_opts discard = { .size = sizeof(discard) };
	int err;

	free_balloon(c);
	c->driver_ok = false;
	c->status = 0;
	c->part = false;
	err = vmem_balloon_new(&c->balloon, &opts);
	if (!err)
		err = vmem_discard_new(&c->discard, &discard);
	for (uint32_t i = 0; i < c->memory.count && !err; i++)
		err = add_region(c, &c->memory.region[i]);
	return err ? vmem_strerror(err) : NULL;
}

bool vhost_client_some_queue_runs(const struct vhost_client *c)
{
	for (uint32_t i = 0; i < VHOST_QUEUES; i++)
		if (vhost_queue_runs(&c->queue[i]))
			return true;
	return false;
}

int vhost_client_set_target(struct vhost_client *c, uint64_t pages, uint64_t pages_per_s,
			    uint64_t now_ns)
{
	int err = 0;

	if (c->memory.count)
		err = vmem_balloon_set_target(c->balloon, pages, pages_per_s, now_ns);
	if (!err) {
		c->target_pages = pages;
		c->pages_per_s = pages_per_s;
	}
	return err;
}

/* --- The status of the device, which is guessed --- */

const char *vhost_client_set_status(struct vhost_client *c, uint32_t status)
{
	uint32_t now;

	/* Too late is counted by the balloon, and changes nothing. */
	if (status & VMEM_VIRTIO_FEATURES_OK && !(c->status & VMEM_VIRTIO_FEATURES_OK))
		(void)vmem_balloon_set_features(c->balloon,
						c->features & ~VHOST_F_PROTOCOL_FEATURES);
	vmem_balloon_set_status(c->balloon, status, &now);
	c->status = now;
	if (status & VMEM_VIRTIO_FEATURES_OK && !(now & VMEM_VIRTIO_FEATURES_OK))
		return "features that were not offered, or that do not go together";
	if (!c->driver_ok && now & VMEM_VIRTIO_DRIVER_OK)
		all_queues_are_due(c);
	c->driver_ok = now & VMEM_VIRTIO_DRIVER_OK;
	return NULL;
}

/* There is a driver as soon as it can inflate and deflate; but one that has a poison value to tell tells it when its
 * queues are there already. */
const char *vhost_client_guess_status(struct vhost_client *c, bool poison_told)
{
	if (c->driver_ok || !vhost_queue_runs(&c->queue[0]) || !vhost_queue_runs(&c->queue[1]))
		return NULL;
	if (c->features & VMEM_BALLOON_F_PAGE_POISON && !poison_told)
		return NULL;
	return vhost_client_set_status(c, DRIVER_SEEN | VMEM_VIRTIO_FEATURES_OK |
						  VMEM_VIRTIO_DRIVER_OK);
}

/* --- The connection --- */

const char *vhost_client_begin(struct vhost_client *c, const struct vhost_client_opts *opts,
			       int socket)
{
	const char *why;

	memset(c, 0, offsetof(struct vhost_client, pieces));
	c->o = opts;
	c->request = -1;
	vhost_channel_begin(&c->channel, socket);
	for (uint32_t i = 0; i < VHOST_QUEUES; i++)
		vhost_queue_begin(&c->queue[i]);
	vhost_memory_guard(&c->memory);
	why = vhost_client_make_balloon(c);
	if (why)
		vhost_client_end(c);
	return why;
}

void vhost_client_end(struct vhost_client *c)
{
	for (uint32_t i = 0; i < VHOST_QUEUES; i++)
		vhost_queue_end(&c->queue[i]);
	vhost_queue_set_fd(&c->request, -1);
	free_balloon(c);
	vhost_memory_close(&c->memory);
	vhost_channel_end(&c->channel);
}

uint32_t vhost_client_fds(const struct vhost_client *c, struct pollfd *fds)
{
	fds[0] = (struct pollfd){ .fd = c->channel.socket,
				  .events = (short)(c->part ? POLLRDHUP : POLLIN) };
	for (uint32_t i = 0; i < VHOST_QUEUES; i++)
		fds[1 + i] =
			(struct pollfd){ .fd = c->part ? -1 : c->queue[i].kick, .events = POLLIN };
	return VHOST_CLIENT_FDS;
}

bool vhost_client_is_busy(const struct vhost_client *c)
{
	bool busy = c->part;

	for (uint32_t i = 0; i < VHOST_QUEUES; i++)
		busy |= c->driver_ok && c->queue[i].due && vhost_queue_runs(&c->queue[i]);
	return busy;
}

static const char *receive(struct vhost_client *c)
{
	const char *why = "";

	for (int i = 0; i < TURN_MESSAGES; i++) {
		int got = vhost_channel_receive(&c->channel, c->now_ns, &why);

		if (got == 0)
			return NULL;
		if (got < 0)
			return why ? why : "";
		why = vhost_client_handle(c);
		if (why)
			return why;
		vhost_channel_next(&c->channel);
	}
	return NULL;
}

/* The driver is told that the configuration has changed, as soon as it can be; a client whose queues are all stopped
 * is told nothing. */
static const char *tell_config(struct vhost_client *c)
{
	const struct vhost_header m = { VHOST_BACKEND_CONFIG_CHANGE, VHOST_VERSION, 0 };
	int told;

	if (!c->config_due || c->request < 0 || !c->driver_ok || !vhost_client_some_queue_runs(c))
		return NULL;
	told = vhost_channel_tell(c->request, &m, sizeof(m));
	if (told > 0)
		c->config_due = false;
	return told < 0 ? "it cannot be told of a changed configuration" : NULL;
}

static void pass_events(struct vhost_client *c)
{
	int event;

	vmem_balloon_tick(c->balloon, c->now_ns);
	while ((event = vmem_balloon_next_event(c->balloon)) != 0)
		if (event == VMEM_BALLOON_EVENT_CONFIG)
			c->config_due = true;
		else
			c->o->event(c->o->context, event);
}

static const char *read_kicks(struct vhost_client *c, const struct pollfd *fds)
{
	const char *why = NULL;

	for (uint32_t i = 0; i < VHOST_QUEUES && !why; i++) {
		if (!fds[1 + i].revents || fds[1 + i].fd != c->queue[i].kick)
			continue;
		vhost_queue_read_kick(&c->queue[i]);
		why = i < 2 ? vhost_client_guess_status(c, true) : NULL;
	}
	return why;
}

/* Where nothing comes from the client it may be dead, and its end of the connection lie in a socket that it passed on:
 * it ends when that is taken out. */
static void look_for_its_end(struct vhost_client *c, const struct pollfd *fds)
{
	for (uint32_t i = 0; i < VHOST_CLIENT_FDS; i++)
		if (fds[i].revents)
			return;
	if (vhost_closer_drains())
		return;
	vhost_drain(c->request);
	for (uint32_t i = 0; i < VHOST_QUEUES; i++)
		vhost_drain(c->queue[i].call);
}

const char *vhost_client_serve(struct vhost_client *c, const struct pollfd *fds, uint64_t now_ns)
{
	const char *why;

	c->now_ns = now_ns;
	if (c->part && fds[0].revents)
		return "";
	why = read_kicks(c, fds);
	if (!why)
		why = vhost_client_work(c);
	if (!why && !c->part && fds[0].revents)
		why = receive(c);
	if (!why && vhost_channel_is_late(&c->channel, now_ns))
		why = "a message has begun and does not end";
	if (why)
		return why;
	look_for_its_end(c, fds);
	pass_events(c);
	return tell_config(c);
}
