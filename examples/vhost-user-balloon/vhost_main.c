/* SPDX-License-Identifier: BSD-2-Clause */
/* vmem-vhost-user-balloon: one thread that waits for a client, its queues, commands and signals. */
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

#define PAGE UINT64_C(4096)
#define SECOND_NS UINT64_C(1000000000)
#define MOVING_MS 20 /* how often time passes for a balloon that moves with a rate */
#define WAITING_MS 250

enum { FD_SIGNALS, FD_LISTENER, FD_CLIENT, FD_CONTROL = FD_CLIENT + VHOST_CLIENT_FDS };
#define FDS (FD_CONTROL + VHOST_CONTROL_FDS)

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

/* A socket that nobody listens at any more is in nobody's way. Who has no room for another client listens. */
static bool is_left_over(const char *path, const struct sockaddr_un *address)
{
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
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

/* --- The client --- */

const char *vhost_server_set_target(struct vhost_server *s, uint64_t bytes, uint64_t bytes_per_s)
{
	uint64_t rate = bytes_per_s ? bytes_per_s / PAGE + !(bytes_per_s / PAGE) : 0;

	if (s->has_client &&
	    vhost_client_set_target(&s->client, bytes / PAGE, rate, s->now_ns) != 0)
		return "the guest has less memory than that";
	s->target_bytes = bytes / PAGE * PAGE;
	s->bytes_per_s = bytes_per_s;
	return NULL;
}

static void on_event(void *context, int event)
{
	struct vhost_server *s = context;

	s->events[event]++;
	s->stats_came |= event == VMEM_BALLOON_EVENT_STATS;
	vhost_say_event(s, event);
}

static void take_client(struct vhost_server *s, int listener)
{
	int socket = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	const char *why;

	if (socket < 0)
		return;
	why = vhost_client_begin(&s->client, &s->o.client, socket);
	if (why) {
		fprintf(stderr, "vmem-vhost-user-balloon: no client can be taken: %s\n", why);
		return;
	}
	s->has_client = true;
	s->clients++;
	vhost_say_due(s);
	(void)vhost_server_set_target(s, s->target_bytes, s->bytes_per_s);
}

static void leave_client(struct vhost_server *s, const char *why)
{
	if (*why)
		s->refused++;
	vhost_say_gone(s, why);
	vhost_client_end(&s->client);
	s->has_client = s->leave = false;
}

static void serve_client(struct vhost_server *s, const struct pollfd *fds)
{
	const char *why;

	if (s->o.stats_s && s->now_ns - s->asked_ns >= s->o.stats_s * SECOND_NS) {
		s->asked_ns = s->now_ns;
		(void)vmem_balloon_ask_stats(s->client.balloon);
	}
	why = vhost_client_serve(&s->client, fds, s->now_ns);
	if (why) {
		leave_client(s, why);
		return;
	}
	vhost_say_due(s);
	vhost_say_progress(s);
}

/* --- The loop --- */

static int wait_ms(struct vhost_server *s)
{
	struct vmem_balloon_progress p = { .size = sizeof(p) };

	if (!s->has_client)
		return -1;
	if (s->stats_came || vhost_client_is_busy(&s->client))
		return 0;
	(void)vmem_balloon_get_progress(s->client.balloon, &p);
	return p.told != p.target ? MOVING_MS : WAITING_MS;
}

static void serve(struct vhost_server *s, struct vhost_control *control, int signals, int listener)
{
	struct pollfd fds[FDS];

	while (!s->quit) {
		fds[FD_SIGNALS] = (struct pollfd){ .fd = signals, .events = POLLIN };
		fds[FD_LISTENER] =
			(struct pollfd){ .fd = s->has_client ? -1 : listener, .events = POLLIN };
		for (unsigned i = FD_CLIENT; i < FD_CONTROL; i++)
			fds[i] = (struct pollfd){ .fd = -1 };
		if (s->has_client)
			(void)vhost_client_fds(&s->client, fds + FD_CLIENT);
		vhost_control_fds(control, fds + FD_CONTROL);
		if (poll(fds, FDS, wait_ms(s)) < 0)
			for (unsigned i = 0; i < FDS; i++)
				fds[i].revents = 0;
		s->now_ns = vhost_now_ns();
		if (fds[FD_SIGNALS].revents)
			return;
		vhost_control_serve(control, s, fds + FD_CONTROL);
		if (s->has_client && s->leave)
			leave_client(s, "");
		else if (s->has_client)
			serve_client(s, fds + FD_CLIENT);
		else if (fds[FD_LISTENER].revents)
			take_client(s, listener);
	}
}

int main(int argc, char **argv)
{
	static struct vhost_server s;
	static struct vhost_control control;
	struct own_path own = { 0 }, own_control = { 0 };
	int signals, listener, controller = -1;

	if (argc > 1 && strcmp(argv[1], "ctl") == 0)
		return vhost_ctl(argc - 1, argv + 1);
	vhost_options_parse(&s.o, argc, argv);
	s.o.client.event = on_event;
	s.o.client.context = &s;
	s.target_bytes = s.o.target_bytes / PAGE * PAGE;
	s.bytes_per_s = s.o.bytes_per_s;
	signals = open_signals();
	if (signals < 0)
		return complain("signalfd"), VHOST_FAILED;
	listener = listen_at(&own, s.o.socket);
	if (listener >= 0 && s.o.control)
		controller = listen_at(&own_control, s.o.control);
	if (listener >= 0 && (!s.o.control || controller >= 0)) {
		vhost_control_begin(&control, controller);
		printf("listening at %s\n", s.o.socket);
		fflush(stdout);
		serve(&s, &control, signals, listener);
		if (s.has_client)
			leave_client(&s, "");
		vhost_control_end(&control);
		close(listener);
		listener = -2;
	}
	remove_path(&own);
	remove_path(&own_control);
	return listener == -2 ? VHOST_GOOD : VHOST_FAILED;
}
