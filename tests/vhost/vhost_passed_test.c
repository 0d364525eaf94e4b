/* SPDX-License-Identifier: BSD-2-Clause */
/* What a client passes on to vmem-vhost-user-balloon to keep it from seeing that the client is dead, or to make it wait
 * for a file system that does not answer, or for the peer of a socket: commands are answered, and the next client is
 * served. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <assert.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/deadline.h"
#include "support/send_fds.h"
#include "vhost/back_end.h"
#include "vhost/mute_fs.h"
#include "vhost/vhost_peer.h"

#define BEHIND 16 /* descriptors that do not close: no client is taken */

static struct back_end back;
static struct vhost_peer peer;
static const uint32_t all = 1000; /* steps */

static void begin(uint32_t steps)
{
	vhost_peer_open(&peer, back.socket);
	(void)vhost_peer_set_up(&peer, steps);
}

static void next_is_served(const char *after)
{
	printf("%s\n", after);
	begin(all);
	vhost_peer_is_served(&peer);
	vhost_peer_close(&peer);
}

static void pass_on(uint32_t request, int fd)
{
	const uint64_t queue = 0;

	(void)vhost_peer_ask(&peer, request, &queue, request == VHOST_SET_BACKEND_REQ_FD ? 0 : 8,
			     &fd, 1);
}

/* --- Its end of the connection, in a socket for requests or for notifications, or as one --- */

static void holds_on(uint32_t request)
{
	struct vhost_message m;
	int ends[2];

	begin(all);
	assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
	pass_on(request, ends[1]);
	assert(vhost_peer_ask(&peer, VHOST_GET_FEATURES, NULL, 0, NULL, 0) &&
	       vhost_peer_answer(&peer, &m));
	for (int i = 0; i < 100; i++)
		assert(vmemt_send_fds(ends[0], "x", 1, (int[]){ peer.socket, ends[0] }, 2,
				      MSG_NOSIGNAL) == 1);
	close(ends[0]);
	close(ends[1]);
	vhost_peer_close(&peer);
	VMEMT_UNTIL(back_end_status(&back, "client") == 0);
	next_is_served("holds on");
}

static void is_its_own(uint32_t request)
{
	begin(6);
	pass_on(request, peer.socket);
	vhost_peer_until_closed(&peer);
	vhost_peer_close(&peer);
	next_is_served("its own");
}

/* --- Sockets whose last close waits until somebody has read what they sent --- */

struct lingering {
	int fd;   /* closed by who has it last */
	int peer; /* nothing is read there; when it is closed nobody waits any more */
};

static bool lingering_begin(struct lingering *l)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr = { htonl(INADDR_LOOPBACK) } };
	const struct linger linger = { .l_onoff = 1, .l_linger = 600 };
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t size = sizeof(address);
	static const char bytes[65536];

	l->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	l->peer = -1;
	if (bind(listener, (struct sockaddr *)&address, size) == 0 && listen(listener, 1) == 0 &&
	    getsockname(listener, (struct sockaddr *)&address, &size) == 0 &&
	    connect(l->fd, (struct sockaddr *)&address, size) == 0)
		l->peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	close(listener);
	if (l->peer < 0) {
		close(l->fd);
		return false;
	}
	while (send(l->fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
	assert(setsockopt(l->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
	return true;
}

/* The back end stands still, so that who passes something on does not have it last. */
static void stand_still(void)
{
	int status;

	kill(back.pid, SIGSTOP);
	assert(waitpid(back.pid, &status, WUNTRACED) == back.pid && WIFSTOPPED(status));
}

/* Returns the end that is not passed. */
static int pass_socket(uint32_t request, int fd)
{
	int ends[2];

	assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
	assert(vmemt_send_fds(ends[0], "x", 1, &fd, 1, MSG_NOSIGNAL) == 1);
	pass_on(request, ends[1]);
	close(ends[1]);
	return ends[0];
}

/* In a message that comes after one that ends the connection, and is not read. */
static void pass_unread(int fd)
{
	assert(vhost_peer_ask(&peer, 99, NULL, 0, NULL, 0));
	assert(vhost_peer_send(&peer, "x", 1, &fd, 1));
}

/* The last of as many as can be. */
static void pass_many(int fd)
{
	int fds[VMEMT_FDS_MAX];

	for (int i = 0; i < VMEMT_FDS_MAX - 1; i++)
		fds[i] = peer.call[0];
	fds[VMEMT_FDS_MAX - 1] = fd;
	assert(vhost_peer_send(&peer, "x", 1, fds, VMEMT_FDS_MAX));
}

enum { DRAINED, CLOSED, UNREAD, MANY, WAYS };

/* False: there are no such sockets here. */
static bool lingers(int way)
{
	struct lingering l;
	int end = -1;

	if (!lingering_begin(&l))
		return false;
	begin(all);
	stand_still();
	switch (way) {
	case DRAINED: end = pass_socket(VHOST_SET_BACKEND_REQ_FD, l.fd); break;
	case CLOSED: end = pass_socket(VHOST_SET_VRING_ERR, l.fd); break;
	case UNREAD: pass_unread(l.fd); break;
	default: pass_many(l.fd); break;
	}
	close(l.fd);
	kill(back.pid, SIGCONT);
	VMEMT_UNTIL(back_end_status(&back, "closing") == 1);
	VMEMT_UNTIL(back_end_status(&back, "client") == (end >= 0));
	vhost_peer_close(&peer);
	VMEMT_UNTIL(back_end_status(&back, "client") == 0);
	next_is_served("a socket that lingers");
	VMEMT_UNTIL(back_end_status(&back, "closing") == 1); /* as before */
	close(l.peer);
	VMEMT_UNTIL(back_end_status(&back, "closing") == 0);
	if (end >= 0)
		close(end);
	return true;
}

static bool all_linger(const char **ret_why)
{
	*ret_why = "sockets that linger: there is no loopback";
	for (int way = 0; way < WAYS; way++)
		if (!lingers(way))
			return false;
	return true;
}

/* --- Files whose close waits --- */

static void one_file(int fd, uint32_t request)
{
	begin(all);
	pass_on(request, fd);
	if (request == VHOST_SET_VRING_ERR) /* it is not kept, and the client is */
		vhost_peer_is_served(&peer);
	else
		vhost_peer_until_closed(&peer);
	vhost_peer_close(&peer);
	next_is_served("a file whose close waits");
}

/* By clients of which each passes one, and then by one that goes on. */
static void one_by_one(struct mute_fs *fs, int fd)
{
	one_file(fd, VHOST_SET_VRING_CALL);
	vmemt_until_readable(fs->closes); /* from here on it is being closed */
	one_file(fd, VHOST_SET_VRING_KICK);
	one_file(fd, VHOST_SET_VRING_ERR);
	one_file(fd, VHOST_SET_BACKEND_REQ_FD);
	VMEMT_UNTIL(back_end_status(&back, "closing") == 4);
	begin(all);
	for (int i = 0; i < 3 * BEHIND; i++)
		pass_on(VHOST_SET_VRING_ERR, fd);
	vhost_peer_until_closed(&peer);
	vhost_peer_close(&peer);
	VMEMT_UNTIL(back_end_status(&back, "client") == 0);
	assert(back_end_status(&back, "closing") == BEHIND + 1); /* and its connection */
}

/* More than any message has. */
static void at_once(int fd)
{
	int fds[20];

	for (int i = 0; i < 20; i++)
		fds[i] = fd;
	begin(5);
	(void)vhost_peer_ask(&peer, VHOST_SET_MEM_TABLE, &(uint64_t){ 0 }, 8, fds, 20);
	vhost_peer_until_closed(&peer);
	vhost_peer_close(&peer);
	VMEMT_UNTIL(back_end_status(&back, "client") == 0);
	assert(back_end_status(&back, "closing") >= BEHIND);
}

/* False: there are no such files here. */
static bool files(bool many, const char **ret_why)
{
	struct mute_fs fs;
	double clients;
	int fd;

	if (!mute_fs_begin(&fs, ret_why))
		return false;
	fd = open(fs.file, O_RDWR | O_CLOEXEC);
	assert(fd >= 0);
	if (many)
		at_once(fd);
	else
		one_by_one(&fs, fd);
	/* Somebody knocks, and is not let in in so many turns. */
	clients = back_end_status(&back, "clients");
	vhost_peer_open(&peer, back.socket);
	for (int i = 0; i < 10; i++)
		assert(back_end_status(&back, "clients") == clients);
	mute_fs_stop(&fs);
	(void)vhost_peer_set_up(&peer, all);
	vhost_peer_is_served(&peer);
	vhost_peer_close(&peer);
	VMEMT_UNTIL(back_end_status(&back, "closing") == 0);
	close(fd);
	mute_fs_end(&fs);
	return true;
}

int main(void)
{
	const char *why;
	bool has_all;

	setvbuf(stdout, NULL, _IOLBF, 0);
	back_end_start(&back, "--quiet", "--stats-every=0", NULL);
	holds_on(VHOST_SET_BACKEND_REQ_FD);
	holds_on(VHOST_SET_VRING_CALL);
	is_its_own(VHOST_SET_BACKEND_REQ_FD);
	is_its_own(VHOST_SET_VRING_CALL);
	has_all = all_linger(&why) && files(false, &why) && files(true, &why);
	if (back_end_stop(&back, SIGTERM) != 0)
		return 1;
	if (!has_all)
		printf("skipped: %s\n", why);
	return has_all ? 0 : 77;
}
