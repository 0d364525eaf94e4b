/* SPDX-License-Identifier: BSD-2-Clause */
/* What the parts of the program share: the client, if there is one, and what is wanted of it. One thread. */
#ifndef VHOST_SERVER_H
#define VHOST_SERVER_H
#include "vhost_options.h"

#define VHOST_EVENTS 16

struct vhost_control;

struct vhost_server {
	struct vhost_options o;
	int signals, listener; /* descriptors, or -1 */
	struct vhost_client client;
	bool has_client, quit;
	bool leave;      /* the client shall be left */
	bool stats_came; /* since it was last looked at */
	uint64_t target_bytes, bytes_per_s;
	uint64_t clients;              /* that have come */
	uint64_t refused;              /* of which were left for what they sent */
	char refused_for[96];          /* why the last one was */
	uint64_t events[VHOST_EVENTS]; /* by enum vmem_balloon_event; 0: a target was too much */
	uint64_t event_said_ns[VHOST_EVENTS];
	bool event_due[VHOST_EVENTS]; /* to be said when the one before is a second old */
	bool client_said;
	uint64_t client_said_ns;
	uint64_t now_ns;
	uint64_t said_ns, asked_ns; /* progress printed, statistics asked for */
	uint64_t tried_again_ns;    /* to give back what could not be before */
};

/* vhost_main.c: of a clock that does not go back. */
uint64_t vhost_now_ns(void);

/* With the options as they are. */
void vhost_server_begin(struct vhost_server *s);
/* Leaves the client, and listens no more. */
void vhost_server_end(struct vhost_server *s);

/* Waits until there is something to do, and does some of it: whatever a client sends, not for long.
 * False: it is to end. */
bool vhost_server_turn(struct vhost_server *s, struct vhost_control *control);

/* @return NULL, or why it cannot be */
const char *vhost_server_set_target(struct vhost_server *s, uint64_t bytes, uint64_t bytes_per_s);

/* Makes a socket at @path that listens, readable and writable for its user alone. A path at which nobody listens any
 * more is taken over. @return a descriptor, or -1 and errno */
int vhost_listen(const char *path);

/* --- vhost_say.c: what is printed --- */
/* Events, each kind at most once a second: what comes in between is said then, once. */
void vhost_say_event(struct vhost_server *s, int event);
/* What is due by now: again and again while there is a client. */
void vhost_say_due(struct vhost_server *s);
/* Goodbye to one whose coming was said. At most one a second is. */
void vhost_say_gone(struct vhost_server *s, const char *why);
/* At most once a second, while the balloon is on its way. */
void vhost_say_progress(struct vhost_server *s);
/* The name of an event, as in answers; NULL: there is none. */
const char *vhost_event_name(int event);

/* --- vhost_status.c: answers, to be freed; NULL: no memory --- */
char *vhost_status_text(struct vhost_server *s);
char *vhost_stats_text(struct vhost_server *s);
char *vhost_error_text(const char *why);
char *vhost_good_text(const struct vhost_server *s);

#endif
