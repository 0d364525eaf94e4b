/* SPDX-License-Identifier: BSD-2-Clause */
/* vmem-vhost-user-balloon, by its options and its control socket: what is wrong is refused, and what cannot be ends. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/deadline.h"
#include "vhost/back_end.h"
#include "vhost/vhost_peer.h"

static struct back_end back;
static struct vhost_peer peer;

static void connect_guest(void)
{
	vhost_peer_open(&peer, back.socket);
	(void)vhost_peer_set_up(&peer, 1000);
}

/* Runs the program, and it ends with this status. */
static void ends(int status, const char *words)
{
	char line[512];
	int end;

	assert(snprintf(line, sizeof(line), "%s %s", BACK_END, words) < (int)sizeof(line));
	end = system(line);
	assert(WIFEXITED(end) && WEXITSTATUS(end) == status);
}

/* A target that was there before the guest, and is more than it has. */
static void too_much(void)
{
	char words[256];

	VMEMT_UNTIL(back_end_status(&back, "client") == 0); /* the one before */
	assert(back_end_number(&back, "target 1G", NULL, "ok") == 1);
	connect_guest();
	VMEMT_UNTIL(back_end_status(&back, "target_too_large") == 1);
	snprintf(words, sizeof(words), "ctl %s wait", back.control_path);
	ends(1, words);
	assert(back_end_number(&back, "target 1M", NULL, "ok") == 1);
	assert(back_end_number(&back, "target 2G", NULL, "ok") == 0);
	assert(back_end_status(&back, "target_bytes") == 1 << 20);
	assert(back_end_status(&back, "target_too_large") == 0);
	assert(back_end_number(&back, "target 0", NULL, "ok") == 1);
	vhost_peer_close(&peer);
}

/* A socket that nobody listens at is taken over, and removed in the end; here because the other one is in use. */
static void left_over(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char words[256];

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/left", back.folder);
	assert(bind(s, (struct sockaddr *)&address, sizeof(address)) == 0);
	close(s);
	snprintf(words, sizeof(words), "--socket %s --control %s", address.sun_path,
		 back.control_path);
	ends(1, words);
	assert(access(address.sun_path, F_OK) != 0);
}

/* Wrong options; nobody to wait for; and another back end where this one is, which its client does not notice. */
static void command_lines(void)
{
	double clients;
	char words[256];

	VMEMT_UNTIL(back_end_status(&back, "client") == 0);
	clients = back_end_status(&back, "clients");
	ends(2, "--socket /none/s --stall 0");
	snprintf(words, sizeof(words), "ctl %s --timeout 0 wait", back.control_path);
	ends(2, words);
	snprintf(words, sizeof(words), "ctl %s --timeout 1 status", back.control_path);
	ends(2, words);
	snprintf(words, sizeof(words), "ctl %s --timeout 1 wait", back.control_path);
	ends(1, words);
	snprintf(words, sizeof(words), "--socket %s", back.socket);
	ends(1, words);
	(void)back_end_status(&back, "clients"); /* a turn, in which one would be taken */
	assert(back_end_status(&back, "clients") == clients);
	left_over();
}

static void control_lines(void)
{
	char junk[600];
	int lines;

	VMEMT_UNTIL(back_end_status(&back, "client") == 0); /* the one before has gone */
	assert(back_end_number(&back, "no such command", NULL, "ok") == 0);
	assert(back_end_number(&back, "", NULL, "ok") == 0);
	assert(back_end_number(&back, "target", NULL, "ok") == 0);
	assert(back_end_number(&back, "target -1", NULL, "ok") == 0);
	assert(back_end_number(&back, "target 1M often", NULL, "ok") == 0);
	assert(back_end_number(&back, "stats", NULL, "ok") == 0); /* no client */
	assert(send(back.control, "\n\nsta", 5, MSG_NOSIGNAL) ==
	       5); /* two lines, and a part of one */
	for (lines = 0; lines < 2; lines += junk[0] == '\n')
		assert(recv(back.control, junk, 1, 0) == 1);
	assert(back_end_number(&back, "tus", NULL, "ok") == 1);
	connect_guest();
	VMEMT_UNTIL(back_end_status(&back, "driver") == 1);
	assert(back_end_number(&back, "target 1G", NULL, "ok") == 0); /* more than there is */
	vhost_peer_close(&peer);
	memset(junk, 'x', sizeof(junk));
	assert(send(back.control, junk, sizeof(junk), MSG_NOSIGNAL) > 0);
	VMEMT_UNTIL(recv(back.control, junk, sizeof(junk), 0) <= 0);
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	back_end_start(&back, "--quiet", "--stats-every=0", NULL);
	too_much();
	command_lines();
	control_lines();
	connect_guest();
	vhost_peer_is_served(&peer);
	vhost_peer_close(&peer);
	return back_end_stop(&back, SIGTERM);
}
