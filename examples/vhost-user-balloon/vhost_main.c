/* SPDX-License-Identifier: BSD-2-Clause */
/* vmem-vhost-user-balloon: its sockets, its signals, and the loop. One thread, and those
 * of vhost_closer.c. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/units.h"
#include "vhost_control.h"
#include "vhost_ctl.h"
#include "vhost_server.h"

#define SECOND_NS UINT64_C(1000000000)

/* A path of ours, to be removed at the end if it still is. */
struct own_path {
	const char *path; /* NULL: none */
	dev_t device;
	ino_t inode;
};

uint64_t vhost_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * SECOND_NS + (uint64_t)t.tv_nsec;
}

static int complain(const char *what)
{
	fprintf(stderr, "vmem-vhost-user-balloon: %s: %s\n", what, strerror(errno));
	return -1;
}

/* --- Sockets --- */

/* A socket that nobody has open any more is in nobody's way. Asked for with another type than it can have, it is
 * refused for that where somebody has: who listens does not see it. */
static bool is_left_over(const char *path, const struct sockaddr_un *address)
{
	int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool left;
	struct stat st;

	left = s >= 0 && lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) &&
	       connect(s, (const struct sockaddr *)address, sizeof(*address)) != 0 &&
	       errno == ECONNREFUSED;
	if (s >= 0)
		close(s);
	return left;
}

int vhost_listen(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int s, bound, error;
	mode_t mask;

	errno = ENAMETOOLONG;
	if (strlen(path) >= sizeof(address.sun_path))
		return -1;
	strcpy(address.sun_path, path);
	if (is_left_over(path, &address))
		unlink(path);
	s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s < 0)
		return -1;
	mask = umask(077);
	bound = bind(s, (struct sockaddr *)&address, sizeof(address));
	error = errno;
	umask(mask);
	if (bound == 0 && listen(s, 8) == 0)
		return s;
	error = bound ? error : errno;
	close(s);
	errno = error;
	return -1;
}

static int listen_at(struct own_path *own, const char *path)
{
	int s = vhost_listen(path);
	struct stat st;

	if (s < 0) {
		complain(path);
		if (errno == EADDRINUSE)
			fprintf(stderr, "another one listens there, or it is a file: take another "
					"path, or remove it\n");
	} else if (lstat(path, &st) == 0) {
		*own = (struct own_path){ path, st.st_dev, st.st_ino };
	}
	return s;
}

static void remove_path(const struct own_path *own)
{
	struct stat st;

	if (own->path && lstat(own->path, &st) == 0 && st.st_dev == own->device &&
	    st.st_ino == own->inode)
		unlink(own->path);
}

/* --- Signals --- */

static void wake_up(int number)
{
	(void)number;
}

/* Ctrl-C is read like anything else. A client may fill what we write to just when we write: a timer ends any call that
 * waits. */
static int open_signals(void)
{
	const struct itimerval each = { { 1, 0 }, { 1, 0 } };
	struct sigaction alarm = { .sa_handler = wake_up };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGALRM, &alarm, NULL);
	setitimer(ITIMER_REAL, &each, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

int main(int argc, char **argv)
{
	static struct vhost_server s;
	static struct vhost_control control;
	struct own_path own = { 0 }, own_control = { 0 };
	int controller = -1;
	bool good;

	if (argc > 1 && strcmp(argv[1], "ctl") == 0)
		return vhost_ctl(argc - 1, argv + 1);
	vhost_options_parse(&s.o, argc, argv);
	vhost_server_begin(&s);
	s.signals = open_signals();
	if (s.signals < 0)
		return complain("signalfd"), VHOST_FAILED;
	s.listener = listen_at(&own, s.o.socket);
	if (s.listener >= 0 && s.o.control)
		controller = listen_at(&own_control, s.o.control);
	good = s.listener >= 0 && (!s.o.control || controller >= 0);
	if (good) {
		vhost_control_begin(&control, controller);
		printf("listening at %s\n", s.o.socket);
		fflush(stdout);
		while (vhost_server_turn(&s, &control))
			;
		vhost_server_end(&s);
		vhost_control_end(&control);
	}
	remove_path(&own);
	remove_path(&own_control);
	return good ? VHOST_GOOD : VHOST_FAILED;
}
