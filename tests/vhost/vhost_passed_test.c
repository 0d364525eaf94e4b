/* SPDX-License-Identifier: BSD-2-Clause */
/* What a client passes on to vmem-vhost-user-balloon to keep it from seeing that the client is dead, or to make it wait
 * for a file system that does not answer: commands are answered, and the next client is served. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/deadline.h"
#include "support/send_fds.h"
#include "vhost/back_end.h"
#include "vhost/mute_fs.h"
#include "vhost/vhost_peer.h"

#define BEHIND 8 /* descriptors that do not close: no client is taken */

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
	assert(back_end_status(&back, "closing") == 4);
	begin(all);
	for (int i = 0; i < 3 * BEHIND; i++)
		pass_on(VHOST_SET_VRING_ERR, fd);
	vhost_peer_until_closed(&peer);
	vhost_peer_close(&peer);
	VMEMT_UNTIL(back_end_status(&back, "client") == 0);
	assert(back_end_status(&back, "closing") == BEHIND);
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
	bool has_files;

	setvbuf(stdout, NULL, _IOLBF, 0);
	back_end_start(&back, "--quiet", "--stats-every=0", NULL);
	holds_on(VHOST_SET_BACKEND_REQ_FD);
	holds_on(VHOST_SET_VRING_CALL);
	is_its_own(VHOST_SET_BACKEND_REQ_FD);
	is_its_own(VHOST_SET_VRING_CALL);
	has_files = files(false, &why) && files(true, &why);
	if (back_end_stop(&back, SIGTERM) != 0)
		return 1;
	if (!has_files)
		printf("skipped: files whose close waits: %s\n", why);
	return has_files ? 0 : 77;
}
