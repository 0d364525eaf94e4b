/* SPDX-License-Identifier: BSD-2-Clause */
/* Closing what a client has passed on. The close of a file waits for its file system, which may be one that the client
 * serves (FUSE) and never answers; that of a socket for its peer, if it lingers, and it may lie in a message that nobody
 * has read: threads of their own wait. There is one of these in a process. */
#ifndef VHOST_CLOSER_H
#define VHOST_CLOSER_H
#include <stdbool.h>
#include <stdint.h>

/* Closes it at once if that is known not to wait, or else soon. */
void vhost_close(int fd);

/* Drops what came at a socket, with the descriptors in it, soon; bounded. Anything else stays as it is. */
void vhost_drain(int fd);

/* Whether some socket is being drained. */
bool vhost_closer_drains(void);

/* Descriptors that are being closed, and sockets that are being drained. */
uint32_t vhost_closer_count(void);

/* Whether they are so many that no more may come. */
bool vhost_closer_is_behind(void);

#endif
