/* SPDX-License-Identifier: BSD-2-Clause */
/* Connections to where a channel was made are known, also by a path that fills its field: with its end it is a byte
 * longer than the structure. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vhost-user-balloon/vhost_channel.h"

#define LONGEST sizeof(((struct sockaddr_un *)NULL)->sun_path)

static char folder[] = "/tmp/vmem-channel-XXXXXX";

struct place {
	struct sockaddr_un address;
	int listener;
};

/* At a path of so many bytes that ends with @last. */
static struct place open_place(size_t bytes, char last)
{
	struct place p = { .address = { .sun_family = AF_UNIX } };
	char path[LONGEST + 1];

	memset(path, 'p', sizeof(path));
	memcpy(path, folder, strlen(folder));
	path[strlen(folder)] = '/';
	path[bytes - 1] = last;
	memcpy(p.address.sun_path, path, bytes);
	p.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert(bind(p.listener, (struct sockaddr *)&p.address, sizeof(p.address)) == 0);
	assert(listen(p.listener, 2) == 0);
	return p;
}

static void close_place(const struct place *p)
{
	char path[LONGEST + 1] = { 0 };

	memcpy(path, p->address.sun_path, LONGEST);
	assert(unlink(path) == 0);
	close(p->listener);
}

static int connect_to(const struct place *p)
{
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert(connect(s, (const struct sockaddr *)&p->address, sizeof(p->address)) == 0);
	return s;
}

static void knows(size_t bytes)
{
	struct place ours = open_place(bytes, 'a'), other = open_place(bytes, 'b');
	int to_us = connect_to(&ours), to_other = connect_to(&other);
	struct vhost_channel c;

	vhost_channel_begin(&c, accept4(ours.listener, NULL, NULL, SOCK_CLOEXEC));
	assert(c.socket >= 0);
	assert(vhost_channel_is_to_us(&c, to_us));
	assert(!vhost_channel_is_to_us(&c, to_other));
	vhost_channel_end(&c);
	close(to_us);
	close(to_other);
	close_place(&ours);
	close_place(&other);
}

int main(void)
{
	assert(mkdtemp(folder));
	knows(LONGEST - 1);
	knows(LONGEST);
	assert(rmdir(folder) == 0);
	return 0;
}
