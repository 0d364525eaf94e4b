/* SPDX-License-Identifier: BSD-2-Clause */
/* A ring of descriptors and a thread that closes the first; it is started when the first one comes. The thread may
 * be waiting when the process ends: then the kernel ends the process when the file system answers, or is gone. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "vhost_closer.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vhost_channel.h"

#define BEHIND 8u                 /* from here on nothing is received */
#define ROOM (BEHIND + VHOST_FDS) /* so all of one message has room */

static struct {
	pthread_mutex_t lock; /* of all below */
	pthread_cond_t more;
	bool runs;
	uint32_t first, count; /* the first one is being closed */
	int fd[ROOM];
} closer = { .lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER };

/* Its close is known not to wait. No file system is asked. Sockets of other families may linger. */
static bool is_quick(int fd)
{
	socklen_t size = sizeof(int);
	int domain;

	return fcntl(fd, F_GET_SEALS) >= 0 || vhost_channel_fd_is(fd, "anon_inode:[eventfd]") ||
	       vhost_channel_fd_is(fd, "pipe:[") ||
	       (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX);
}

static void *run(void *unused)
{
	pthread_mutex_lock(&closer.lock);
	for (;;) {
		int fd = closer.fd[closer.first];

		if (!closer.count) {
			pthread_cond_wait(&closer.more, &closer.lock);
			continue;
		}
		pthread_mutex_unlock(&closer.lock);
		close(fd);
		pthread_mutex_lock(&closer.lock);
		closer.first = (closer.first + 1) % ROOM;
		closer.count--;
	}
	return unused;
}

/* Signals are the main thread's. */
static bool start(void)
{
	sigset_t all, before;
	pthread_t thread;
	bool good;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	good = pthread_create(&thread, NULL, run, NULL) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (good)
		pthread_detach(thread);
	return good;
}

/* False: there is no thread. */
static bool hand_over(int fd)
{
	pthread_mutex_lock(&closer.lock);
	if (!closer.runs)
		closer.runs = start();
	if (closer.runs && closer.count < ROOM) {
		closer.fd[(closer.first + closer.count++) % ROOM] = fd;
		pthread_cond_signal(&closer.more);
		fd = -1;
	}
	pthread_mutex_unlock(&closer.lock);
	return fd < 0;
}

void vhost_close(int fd)
{
	if (is_quick(fd) || !hand_over(fd))
		close(fd);
}

uint32_t vhost_closer_count(void)
{
	uint32_t count;

	pthread_mutex_lock(&closer.lock);
	count = closer.count;
	pthread_mutex_unlock(&closer.lock);
	return count;
}

bool vhost_closer_is_behind(void)
{
	return vhost_closer_count() >= BEHIND;
}
