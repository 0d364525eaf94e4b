/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "back_end.h"

#include <assert.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/deadline.h"

/* A condition is looked at again after this. */
static void nap(void)
{
	poll(NULL, 0, 1);
}

static int try_connect(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, path);
	if (connect(s, (struct sockaddr *)&address, sizeof(address)) == 0)
		return s;
	close(s);
	nap();
	return -1;
}

void back_end_start(struct back_end *b, const char *option, const char *second, const char *third)
{
	strcpy(b->folder, "/tmp/vmem-back-end-XXXXXX");
	assert(mkdtemp(b->folder));
	snprintf(b->socket, sizeof(b->socket), "%s/s", b->folder);
	snprintf(b->control_path, sizeof(b->control_path), "%s/c", b->folder);
	b->pid = fork();
	assert(b->pid >= 0);
	if (b->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl(BACK_END, BACK_END, "--socket", b->socket, "--control", b->control_path,
		      option, second, third, (char *)NULL);
		_exit(127);
	}
	VMEMT_UNTIL((b->control = try_connect(b->control_path)) >= 0);
}

cJSON *back_end_ask(struct back_end *b, const char *command)
{
	static char text[16384];
	size_t bytes = 0, n = strlen(command);
	uint64_t end_ms = vmemt_now_ms() + VMEMT_DEADLINE_MS;
	cJSON *answer;

	assert(send(b->control, command, n, MSG_NOSIGNAL) == (ssize_t)n);
	assert(send(b->control, "\n", 1, MSG_NOSIGNAL) == 1);
	while (!bytes || text[bytes - 1] != '\n') {
		struct pollfd p = { .fd = b->control, .events = POLLIN };
		ssize_t got;

		VMEMT_NOT_AFTER(end_ms, command);
		if (poll(&p, 1, 1000) <= 0)
			continue;
		got = recv(b->control, text + bytes, sizeof(text) - 1 - bytes, 0);
		assert(got > 0);
		bytes += (size_t)got;
	}
	text[bytes] = 0;
	answer = cJSON_Parse(text);
	assert(answer);
	return answer;
}

double back_end_number(struct back_end *b, const char *command, const char *group, const char *name)
{
	cJSON *answer = back_end_ask(b, command);
	const cJSON *in = group ? cJSON_GetObjectItem(answer, group) : answer;
	const cJSON *item = cJSON_GetObjectItem(in, name);
	double value = cJSON_IsBool(item)     ? cJSON_IsTrue(item)
		       : cJSON_IsNumber(item) ? item->valuedouble
					      : -1;

	cJSON_Delete(answer);
	nap();
	return value;
}

double back_end_status(struct back_end *b, const char *name)
{
	return back_end_number(b, "status", NULL, name);
}

int back_end_stop(struct back_end *b, int signal_number)
{
	int status;

	close(b->control);
	kill(b->pid, signal_number);
	assert(waitpid(b->pid, &status, 0) == b->pid);
	if (signal_number == SIGKILL) {
		unlink(b->socket);
		unlink(b->control_path);
	}
	assert(rmdir(b->folder) == 0); /* its sockets are gone */
	return status;
}
