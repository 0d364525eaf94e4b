/* SPDX-License-Identifier: BSD-2-Clause */
/* The header is received first, then as many bytes as it says: what follows belongs to the next message. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "vhost_channel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/socket_fds.h"
#include "vhost_closer.h"

void vhost_channel_begin(struct vhost_channel *c, int socket)
{
	*c = (struct vhost_channel){ .socket = socket };
}

void vhost_channel_next(struct vhost_channel *c)
{
	for (uint32_t i = 0; i < c->message.fds; i++)
		if (c->message.fd[i] >= 0)
			vhost_close(c->message.fd[i]);
	c->message.fds = 0;
	c->got = 0;
}

void vhost_channel_end(struct vhost_channel *c)
{
	vhost_channel_next(c);
	shutdown(c->socket, SHUT_RDWR); /* the client sees it at once */
	vhost_close(c->socket);
	c->socket = -1;
}

static size_t wanted(const struct vhost_channel *c)
{
	size_t bytes = sizeof(struct vhost_header);

	return c->got < bytes ? bytes : bytes + c->message.header.size;
}

/* 1: something came; 0: nothing there; -1 */
static int receive_some(struct vhost_channel *c, const char **ret_why)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(VHOST_PIECE_FDS * sizeof(int))];
	struct vhost_message *m = &c->message;
	size_t head = sizeof(m->header);
	struct iovec data = { c->got < head ? (uint8_t *)&m->header + c->got
					    : m->payload.bytes + (c->got - head),
			      wanted(c) - c->got };
	struct msghdr h = { .msg_iov = &data,
			    .msg_iovlen = 1,
			    .msg_control = control,
			    .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(c->socket, &h, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	*ret_why = n < 0 ? strerror(errno) : NULL;
	if (n <= 0)
		return -1;
	c->got += (size_t)n;
	*ret_why = "more descriptors than any message has";
	/* Those that are too many are kept, too: closing them may wait. */
	return socket_fds_keep(&h, m->fd, &m->fds, VHOST_FDS) && m->fds <= VHOST_REGIONS ? 1 : -1;
}

int vhost_channel_receive(struct vhost_channel *c, uint64_t now_ns, const char **ret_why)
{
	size_t head = sizeof(struct vhost_header);

	*ret_why = "what it has passed on cannot be closed";
	if (vhost_closer_is_behind())
		return -1;
	if (!c->got) {
		memset(&c->message, 0, sizeof(c->message));
		c->begun_ns = now_ns;
	}
	for (;;) {
		int some = receive_some(c, ret_why);

		if (some <= 0)
			return some;
		if (c->got == head) {
			*ret_why = vhost_message_check_header(&c->message.header);
			if (*ret_why)
				return -1;
		}
		if (c->got >= head && c->got == wanted(c))
			break;
	}
	*ret_why = vhost_message_check(&c->message);
	return *ret_why ? -1 : 1;
}

bool vhost_channel_is_late(const struct vhost_channel *c, uint64_t now_ns)
{
	return c->got && now_ns - c->begun_ns > VHOST_MESSAGE_NS;
}

int vhost_channel_reply(struct vhost_channel *c, struct vhost_message *m)
{
	size_t bytes = sizeof(m->header) + m->header.size;
	struct iovec data[2] = { { &m->header, sizeof(m->header) },
				 { m->payload.bytes, m->header.size } };
	struct msghdr h = { .msg_iov = data, .msg_iovlen = 2 };

	m->header.flags = VHOST_VERSION | VHOST_REPLY;
	return sendmsg(c->socket, &h, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)bytes ? 0 : -1;
}

bool vhost_channel_fd_is(int fd, const char *kind)
{
	char path[32], name[32] = { 0 };
	size_t length = strlen(kind);

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return length < sizeof(name) && readlink(path, name, sizeof(name)) >= (ssize_t)length &&
	       memcmp(name, kind, length) == 0;
}

bool vhost_channel_is_to_us(const struct vhost_channel *c, int fd)
{
	struct sockaddr_un ours = { 0 }, its = { 0 };
	socklen_t bytes = sizeof(ours), its_bytes = sizeof(its);

	/* A path that fills its field is a byte longer with its end, which is not written. */
	return getsockname(c->socket, (struct sockaddr *)&ours, &bytes) == 0 &&
	       getpeername(fd, (struct sockaddr *)&its, &its_bytes) == 0 &&
	       bytes > offsetof(struct sockaddr_un, sun_path) && bytes == its_bytes &&
	       memcmp(&ours, &its, bytes < sizeof(ours) ? bytes : sizeof(ours)) == 0;
}

/* What is no socket is written when there is room. Whoever shares it may fill it in between: the timer of the main
 * loop ends a write that waits. */
int vhost_channel_tell(int fd, const void *bytes, size_t count)
{
	ssize_t n = send(fd, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && errno == ENOTSOCK) {
		struct pollfd room = { .fd = fd, .events = POLLOUT };

		if (poll(&room, 1, 0) == 0)
			return 0;
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
		n = write(fd, bytes, count);
	}
	if (n == (ssize_t)count)
		return 1;
	return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}
