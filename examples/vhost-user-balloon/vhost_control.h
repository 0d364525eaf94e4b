/* SPDX-License-Identifier: BSD-2-Clause */
/* The control socket: a command a line, a JSON object a line as the answer. Never waits; who does not read is left.
 *
 *	target SIZE [RATE]	how much the guest shall give up, and how fast at most (bytes a second)
 *	status			where it stands
 *	stats			what the guest says of itself, asked for now
 *	leave			ends the connection of the client
 *	quit			ends the back end */
#ifndef VHOST_CONTROL_H
#define VHOST_CONTROL_H
#include "vhost_server.h"

#define VHOST_CONTROLLERS 8u
#define VHOST_CONTROL_FDS (1 + VHOST_CONTROLLERS)
#define VHOST_LINE 256u /* most of a command */

struct vhost_control {
	int listener; /* -1: there is none */
	struct vhost_controller {
		int fd;
		size_t got;
		char line[VHOST_LINE];
		uint64_t stats_end_ns; /* waits for statistics until then; 0: does not */
	} peer[VHOST_CONTROLLERS];
};

/* @param listener  the control's from now on, or -1 */
void vhost_control_begin(struct vhost_control *c, int listener);
void vhost_control_end(struct vhost_control *c);

void vhost_control_fds(const struct vhost_control *c, struct pollfd *fds);
void vhost_control_serve(struct vhost_control *c, struct vhost_server *s, const struct pollfd *fds);

#endif
