/* SPDX-License-Identifier: BSD-2-Clause */
/* A connected socket on which messages come in pieces, with descriptors. Never waits. One thread. */
#ifndef VHOST_CHANNEL_H
#define VHOST_CHANNEL_H
#include <stdbool.h>
#include <stddef.h>

#include "vhost_message.h"

#define VHOST_MESSAGE_NS \
	UINT64_C(10000000000) /* a message that has begun comes whole within this */

struct vhost_channel {
	int socket;
	size_t got; /* bytes of the message */
	uint64_t begun_ns;
	struct vhost_message message;
};

/* The channel owns the socket. */
void vhost_channel_begin(struct vhost_channel *c, int socket);
/* Ends the connection, and closes what came in a message that is not whole. */
void vhost_channel_end(struct vhost_channel *c);

/* Takes what is there of a message.
 * @return 1: c->message is whole and checked; its descriptors are the caller's, who sets c->message.fd[i] to -1
 *         for what he keeps and then calls vhost_channel_next(). 0: not yet. -1: *ret_why says why it is over */
int vhost_channel_receive(struct vhost_channel *c, uint64_t now_ns, const char **ret_why);

/* Closes the descriptors of the message that nobody kept, and is ready for another. */
void vhost_channel_next(struct vhost_channel *c);

/* Whether one has begun and not come whole for too long. */
bool vhost_channel_is_late(const struct vhost_channel *c, uint64_t now_ns);

/* Answers with the payload of @message, of header.size bytes. @return 0, -1: the client does not read, or is gone */
int vhost_channel_reply(struct vhost_channel *c, struct vhost_message *message);

/* Whether it is of a kind, by the beginning of the name that the kernel has for it: "pipe:[". No file system is asked. */
bool vhost_channel_fd_is(int fd, const char *kind);

/* Whether it is the other end of a connection to where this one was made: its client's own, most likely. Who keeps
 * that does not see the client go. */
bool vhost_channel_is_to_us(const struct vhost_channel *c, int fd);

/* Writes all of it or nothing, to a descriptor that somebody else may have filled. @return 1, 0: no room; -1 */
int vhost_channel_tell(int fd, const void *bytes, size_t count);

#endif
