/* SPDX-License-Identifier: BSD-2-Clause */
/* Receiving a hand-over: see pager_hand_over.h. */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "common/socket_fds.h"
#include "pager_hand_over.h"

#define MOST_FDS (2 + HAND_OVER_FILES_MAX) /* that are noticed, and closed */

struct letter {
	char text[HAND_OVER_BYTES];
	size_t bytes;
	int fd[MOST_FDS];
	uint32_t fds;
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

/* Some more of it. 1; 0: the other side has ended; -1: an error. */
static int receive_some(struct letter *l, int socket)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(MOST_FDS * sizeof(int))];
	struct iovec data = { l->text + l->bytes, sizeof(l->text) - l->bytes };
	struct msghdr m = { .msg_iov = &data,
			    .msg_iovlen = 1,
			    .msg_control = control,
			    .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(socket, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 1 : -1;
	(void)socket_fds_keep(&m, l->fd, &l->fds, MOST_FDS);
	l->bytes += (size_t)n;
	return n > 0;
}

/* The text may come in pieces: it is whole when it can be read. */
static const char *receive(struct letter *l, struct hand_over *ret, int socket,
			   uint64_t memory_bytes, int timeout_ms)
{
	const char *why = "nothing was sent";
	int64_t deadline = now_ms() + timeout_ms;

	while (l->bytes < sizeof(l->text)) {
		struct pollfd p = { .fd = socket, .events = POLLIN };
		int64_t left = deadline - now_ms();

		if (left <= 0 || poll(&p, 1, (int)left) < 0)
			return why;
		if (!p.revents)
			continue;
		if (receive_some(l, socket) <= 0)
			return why;
		why = hand_over_parse(ret, l->text, l->bytes, memory_bytes);
		if (!why && l->fds > 1 + ret->files)
			return "more descriptors than it says";
		if (!why && l->fds == 1 + ret->files)
			return NULL;
		if (!why)
			why = l->fds ? "fewer descriptors than it says"
				     : "no descriptor came with it";
	}
	return "the message is too long";
}

const char *hand_over_receive(struct hand_over *ret, int socket, uint64_t memory_bytes,
			      int timeout_ms)
{
	static struct letter l; /* one thread */
	const char *why;

	l.bytes = 0;
	l.fds = 0;
	why = receive(&l, ret, socket, memory_bytes, timeout_ms);
	if (!why) {
		ret->uffd = l.fd[0];
		memcpy(ret->file, l.fd + 1, ret->files * sizeof(ret->file[0]));
	}
	while (why && l.fds)
		close(l.fd[--l.fds]);
	return why;
}

void hand_over_close(struct hand_over *h)
{
	close(h->uffd);
	for (uint32_t i = 0; i < h->files; i++)
		close(h->file[i]);
}
