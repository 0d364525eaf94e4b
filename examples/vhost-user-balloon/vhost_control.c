/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "vhost_control.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/units.h"

#define STATS_NS UINT64_C(5000000000) /* a guest answers within this, or not at all */

void vhost_control_begin(struct vhost_control *c, int listener)
{
	*c = (struct vhost_control){ .listener = listener };
	for (uint32_t i = 0; i < VHOST_CONTROLLERS; i++)
		c->peer[i].fd = -1;
}

static void leave(struct vhost_controller *p)
{
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
	p->got = 0;
	p->stats_end_ns = 0;
}

void vhost_control_end(struct vhost_control *c)
{
	for (uint32_t i = 0; i < VHOST_CONTROLLERS; i++)
		leave(&c->peer[i]);
	if (c->listener >= 0)
		close(c->listener);
	c->listener = -1;
}

static bool is_full(const struct vhost_control *c)
{
	for (uint32_t i = 0; i < VHOST_CONTROLLERS; i++)
		if (c->peer[i].fd < 0)
			return false;
	return true;
}

void vhost_control_fds(const struct vhost_control *c, struct pollfd *fds)
{
	fds[0] = (struct pollfd){ .fd = is_full(c) ? -1 : c->listener, .events = POLLIN };
	for (uint32_t i = 0; i < VHOST_CONTROLLERS; i++)
		fds[1 + i] = (struct pollfd){ .fd = c->peer[i].stats_end_ns ? -1 : c->peer[i].fd,
					      .events = POLLIN };
}

/* Frees @text. */
static void answer(struct vhost_controller *p, char *text)
{
	size_t bytes = text ? strlen(text) : 0;

	if (!bytes || send(p->fd, text, bytes, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)bytes)
		leave(p);
	free(text);
}

static char *set_target(struct vhost_server *s, const char *size, const char *rate)
{
	uint64_t bytes = 0, bytes_per_s = 0;
	const char *why;

	if (!size || units_parse_bytes(size, &bytes) != 0 ||
	    (rate && units_parse_bytes(rate, &bytes_per_s) != 0))
		return vhost_error_text("target SIZE [RATE], such as: target 100M 50M");
	why = vhost_server_set_target(s, bytes, bytes_per_s);
	return why ? vhost_error_text(why) : vhost_good_text(s);
}

/* Answered at once only if there is nothing to wait for. */
static char *ask_stats(struct vhost_server *s, struct vhost_controller *p)
{
	if (!s->has_client)
		return vhost_error_text("there is no client");
	if (vmem_balloon_ask_stats(s->client.balloon) == -VMEM_ENOTSUP)
		return vhost_error_text("the guest's driver gives no statistics");
	p->stats_end_ns = s->now_ns + STATS_NS;
	return NULL;
}

static void command(struct vhost_server *s, struct vhost_controller *p, char *line)
{
	char *rest, *text = NULL;
	const char *word = strtok_r(line, " \t\r", &rest);
	const char *first = word ? strtok_r(NULL, " \t\r", &rest) : NULL;
	const char *second = first ? strtok_r(NULL, " \t\r", &rest) : NULL;

	if (word && strcmp(word, "target") == 0) {
		text = set_target(s, first, second);
	} else if (word && strcmp(word, "status") == 0) {
		text = vhost_status_text(s);
	} else if (word && strcmp(word, "stats") == 0) {
		text = ask_stats(s, p);
		if (p->stats_end_ns)
			return;
	} else if (word && strcmp(word, "leave") == 0) {
		s->leave = s->has_client;
		text = s->leave ? vhost_good_text(s) : vhost_error_text("there is no client");
	} else if (word && strcmp(word, "quit") == 0) {
		s->quit = true;
		text = vhost_good_text(s);
	} else {
		text = vhost_error_text("commands: target SIZE [RATE], status, stats, leave, quit");
	}
	answer(p, text);
}

/* False: it has left. */
static bool receive(struct vhost_controller *p)
{
	ssize_t n = recv(p->fd, p->line + p->got, sizeof(p->line) - p->got, MSG_DONTWAIT);

	if (n == 0) {
		leave(p);
		return false;
	}
	p->got += n > 0 ? (size_t)n : 0;
	return true;
}

/* Whole lines, until one has to wait for statistics. */
static void run_lines(struct vhost_server *s, struct vhost_controller *p)
{
	char *end, line[VHOST_LINE];
	size_t bytes;

	while (p->fd >= 0 && !p->stats_end_ns && (end = memchr(p->line, '\n', p->got)) != NULL) {
		bytes = (size_t)(end - p->line);
		memcpy(line, p->line, bytes);
		line[bytes] = 0;
		p->got -= bytes + 1;
		memmove(p->line, end + 1, p->got);
		command(s, p, line);
	}
	if (p->fd >= 0 && !p->stats_end_ns && p->got == sizeof(p->line)) {
		answer(p, vhost_error_text("a line is too long"));
		leave(p);
	}
}

static void answer_stats(struct vhost_server *s, struct vhost_controller *p, bool came)
{
	if (!came && s->has_client && s->now_ns < p->stats_end_ns)
		return;
	p->stats_end_ns = 0;
	answer(p, came ? vhost_stats_text(s) : vhost_error_text("the guest does not answer"));
}

void vhost_control_serve(struct vhost_control *c, struct vhost_server *s, const struct pollfd *fds)
{
	bool came = s->stats_came;

	s->stats_came = false;
	for (uint32_t i = 0; i < VHOST_CONTROLLERS; i++) {
		struct vhost_controller *p = &c->peer[i];

		if (p->fd >= 0 && p->stats_end_ns)
			answer_stats(s, p, came);
		else if (p->fd >= 0 &&
			 (!fds[1 + i].revents || fds[1 + i].fd != p->fd || !receive(p)))
			continue;
		run_lines(s, p);
	}
	for (uint32_t i = 0; fds[0].revents && i < VHOST_CONTROLLERS; i++)
		if (c->peer[i].fd < 0) {
			c->peer[i].fd =
				accept4(c->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
			break;
		}
}
