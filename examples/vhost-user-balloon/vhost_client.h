/* SPDX-License-Identifier: BSD-2-Clause */
/* A vhost-user client, which is a VMM with one balloon: what it said, its guest's memory, its queues, and the balloon.
 * Whatever it sends, at worst its connection ends. One thread; one client at a time. */
#ifndef VHOST_CLIENT_H
#define VHOST_CLIENT_H
#include <poll.h>

#include <vmem.h>

#include "vhost_channel.h"
#include "vhost_queue.h"

#define VHOST_QUEUES ((uint32_t)VMEM_BALLOON_QUEUES)
#define VHOST_CLIENT_FDS (1 + VHOST_QUEUES)
#define VHOST_PIECES 1024u /* most of a buffer */
#define VHOST_COPY 65536u  /* most bytes of a buffer that do not lie in a row */

struct vhost_client_opts {
	uint64_t features;               /* VMEM_BALLOON_F_* to offer */
	enum vmem_balloon_queue_map map; /* how queues are numbered */
	uint64_t most_memory;            /* bytes of a guest */
	uint64_t stall_ns;               /* 0: the library's */
	/* enum vmem_balloon_event, of the guest's balloon. 0: its memory is smaller than the target. */
	void (*event)(void *context, int event);
	void *context;
};

struct vhost_client {
	const struct vhost_client_opts *o;
	struct vhost_channel channel;
	struct vhost_memory memory;
	vmem_balloon *balloon;
	vmem_discard *discard;
	uint64_t features, protocol;
	uint32_t status; /* of the device, as it was guessed */
	bool driver_ok;
	int request; /* descriptor for requests of ours, or -1 */
	bool config_due;
	uint64_t target_pages, pages_per_s; /* wanted; told to the balloon when there is memory */
	uint64_t now_ns;
	struct vhost_queue queue[VHOST_QUEUES];
	/* A buffer that is worked off in parts: until it is done nothing else is looked at. */
	bool part;
	uint32_t parts_left; /* of this turn */
	uint32_t first;      /* queue that the next turn begins with */
	struct vmem_balloon_buffer buffer;
	struct vmem_balloon_piece pieces[VHOST_PIECES];
	uint8_t copy[VHOST_COPY];
};

/* The client owns the socket. @return NULL, or why not; the socket is closed then */
const char *vhost_client_begin(struct vhost_client *c, const struct vhost_client_opts *opts,
			       int socket);
void vhost_client_end(struct vhost_client *c);

/* What to wait for. @return how many, at most VHOST_CLIENT_FDS */
uint32_t vhost_client_fds(const struct vhost_client *c, struct pollfd *fds);

/* Whether there is work that nothing needs to be waited for. */
bool vhost_client_is_busy(const struct vhost_client *c);

/* Does some of what is due: bounded. @fds: as they were polled. @return NULL, or why the connection is over: "" if
 * the client has ended it */
const char *vhost_client_serve(struct vhost_client *c, const struct pollfd *fds, uint64_t now_ns);

/* @return 0, -VMEM_ERANGE: more than the guest has; the one before stays. Without memory always 0: what it has may be
 * less, and then its target is 0 */
int vhost_client_set_target(struct vhost_client *c, uint64_t pages, uint64_t pages_per_s,
			    uint64_t now_ns);

/* --- Between the files of it. What returns text returns why the connection is over, or NULL. --- */

/* Another one, without a driver, for the memory that there is. */
const char *vhost_client_make_balloon(struct vhost_client *c);
bool vhost_client_some_queue_runs(const struct vhost_client *c);
const char *vhost_client_set_status(struct vhost_client *c, uint32_t status);
/* Whether there is a driver by now. */
const char *vhost_client_guess_status(struct vhost_client *c, bool poison_told);
/* vhost_requests.c: does what the message in the channel says, and answers. */
const char *vhost_client_handle(struct vhost_client *c);
/* vhost_buffers.c: takes what queues have.*/
const char *vhost_client_work(struct vhost_client *c);
/* Carries out what the balloon gave, and returns what is done. */
void vhost_client_drain(struct vhost_client *c);

#endif
