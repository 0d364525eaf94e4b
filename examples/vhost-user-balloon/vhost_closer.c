/* SPDX-License-Identifier: BSD-2-Clause */
/* A ring of descriptors and threads that close them, each started when all before it are at work: what waits keeps
 * nothing else waiting. A thread may be waiting when the process ends: then the kernel ends the process when the file
 * system answers, or is gone. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "vhost_closer.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vhost_channel.h"

#define BEHIND 16u      /* from here on nothing is received; and threads */
#define KEPT 32u        /* a client has less besides a message */
#define MOST_DROPPED 64 /* messages in one go */
#define ROOM (BEHIND + VHOST_FDS + KEPT)

struct job {
	int fd;
	bool drains; /* before it is closed */
};

static struct {
	pthread_mutex_t lock; /* of all below */
	pthread_cond_t more;
	uint32_t threads, idle;
	uint32_t first, waiting; /* in the ring */
	uint32_t count, drains;  /* in the ring, and under way */
	struct job job[ROOM];
} closer = { .lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER };

/* Its close is known not to wait. No file system is asked. */
static bool is_quick(int fd)
{
	return fcntl(fd, F_GET_SEALS) >= 0 || vhost_channel_fd_is(fd, "anon_inode:[eventfd]") ||
	       vhost_channel_fd_is(fd, "pipe:[");
}

/* There is no room for descriptors, so none is taken in, whatever the socket was told to add to a message. */
static void drain(int fd)
{
	char bytes[512];

	for (int i = 0; i < MOST_DROPPED; i++)
		if (recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) <= 0)
			return;
}

static struct job next_job(void)
{
	struct job job;

	while (!closer.waiting) {
		closer.idle++;
		pthread_cond_wait(&closer.more, &closer.lock);
		closer.idle--;
	}
	job = closer.job[closer.first];
	closer.first = (closer.first + 1) % ROOM;
	closer.waiting--;
	return job;
}

static void *run(void *unused)
{
	pthread_mutex_lock(&closer.lock);
	for (;;) {
		struct job job = next_job();

		pthread_mutex_unlock(&closer.lock);
		if (job.drains)
			drain(job.fd);
		close(job.fd);
		pthread_mutex_lock(&closer.lock);
		closer.count--;
		closer.drains -= job.drains;
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
static bool hand_over(int fd, bool drains)
{
	bool taken;

	pthread_mutex_lock(&closer.lock);
	/* One that was woken may not have run yet, and is idle still. */
	if (closer.idle <= closer.waiting && closer.threads < BEHIND)
		closer.threads += start();
	taken = closer.threads && closer.waiting < ROOM;
	if (taken) {
		closer.job[(closer.first + closer.waiting++) % ROOM] = (struct job){ fd, drains };
		closer.count++;
		closer.drains += drains;
		pthread_cond_signal(&closer.more);
	}
	pthread_mutex_unlock(&closer.lock);
	return taken;
}

void vhost_close(int fd)
{
	if (is_quick(fd) || !hand_over(fd, false))
		close(fd);
}

/* Of a copy: the descriptor may be closed meanwhile. */
void vhost_drain(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int copy;

	if (fd < 0 || !vhost_channel_fd_is(fd, "socket:[") || poll(&p, 1, 0) <= 0)
		return;
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (copy >= 0 && !hand_over(copy, true))
		close(copy);
}

static uint32_t read_locked(const uint32_t *number)
{
	uint32_t now;

	pthread_mutex_lock(&closer.lock);
	now = *number;
	pthread_mutex_unlock(&closer.lock);
	return now;
}

bool vhost_closer_drains(void)
{
	return read_locked(&closer.drains) != 0;
}

uint32_t vhost_closer_count(void)
{
	return read_locked(&closer.count);
}

bool vhost_closer_is_behind(void)
{
	return vhost_closer_count() >= BEHIND;
}
