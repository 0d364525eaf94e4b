/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "uml_guest.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/deadline.h"

#define LEAST_FILE (64 << 20)

/* The processes of a guest outlive its first one. So that none outlives a test that fails, whatever way it ends:
 * somebody waits for the other end of a pipe to be closed. */
static void watch_over(struct uml_guest *g)
{
	int ends[2];
	char byte;

	assert(pipe2(ends, O_CLOEXEC) == 0);
	g->watcher = fork();
	assert(g->watcher >= 0);
	if (g->watcher == 0) {
		setsid();
		dup2(ends[0], STDIN_FILENO);
		closefrom(STDERR_FILENO +
			  1); /* the guest's console, too, whose end is to be seen */
		while (read(STDIN_FILENO, &byte, 1) > 0)
			;
		kill(-g->pid, SIGKILL);
		_exit(0);
	}
	close(ends[0]);
	g->life = ends[1];
}

static void run_uml(const char *initrd, const char *socket, unsigned mib, const int in[2],
		    const int out[2])
{
	char memory[32], initrd_option[256], device[256];

	snprintf(memory, sizeof(memory), "mem=%uM", mib);
	snprintf(initrd_option, sizeof(initrd_option), "initrd=%s", initrd);
	snprintf(device, sizeof(device), "virtio_uml.device=%s:5", socket);
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(in[0], STDIN_FILENO);
	dup2(out[1], STDOUT_FILENO);
	dup2(out[1], STDERR_FILENO);
	setenv("LD_PRELOAD", UML_XSTATE, 1);
	execlp("linux.uml", "linux.uml", memory, initrd_option, device, "root=/dev/ram0",
	       "con=null", "con0=fd:0,fd:1", "quiet", (char *)NULL);
	_exit(127);
}

/* Some more of the console. False: it has ended. */
static bool read_some(struct uml_guest *g)
{
	struct pollfd p = { .fd = g->out, .events = POLLIN };
	ssize_t n;

	if (poll(&p, 1, 50) <= 0)
		return true;
	if (g->bytes > sizeof(g->console) / 2) {
		size_t half = g->bytes / 2;

		memmove(g->console, g->console + half, g->bytes - half);
		g->bytes -= half;
	}
	n = read(g->out, g->console + g->bytes, sizeof(g->console) - 1 - g->bytes);
	if (n > 0)
		g->bytes += (size_t)n;
	g->console[g->bytes] = 0;
	return n > 0;
}

/* Waits for @text, and forgets all before the end of it. */
static void wait_for(struct uml_guest *g, const char *text)
{
	uint64_t end_ms = vmemt_now_ms() + VMEMT_DEADLINE_MS;
	char *at;

	while ((at = strstr(g->console, text)) == NULL) {
		if (vmemt_now_ms() > end_ms)
			fprintf(stderr, "the guest's console:\n%s\n", g->console);
		VMEMT_NOT_AFTER(end_ms, text);
		if (!read_some(g)) {
			fprintf(stderr, "the guest has ended; its console:\n%s\n", g->console);
			exit(1);
		}
	}
	at += strlen(text);
	g->bytes -= (size_t)(at - g->console);
	memmove(g->console, at, g->bytes + 1);
}

void uml_guest_boot(struct uml_guest *g, const char *initrd, const char *socket, unsigned mib)
{
	int in[2], out[2];

	g->bytes = 0;
	g->console[0] = 0;
	assert(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
	g->pid = fork();
	assert(g->pid >= 0);
	if (g->pid == 0)
		run_uml(initrd, socket, mib, in, out);
	setpgid(g->pid, g->pid); /* whoever comes first */
	watch_over(g);
	close(in[0]);
	close(out[1]);
	g->in = in[1];
	g->out = out[0];
	wait_for(g, "guest is ready");
}

void uml_guest_begin(struct uml_guest *g, const char *line)
{
	char text[512];
	int n = snprintf(text, sizeof(text), "%s\n", line);

	assert(n > 0 && (size_t)n < sizeof(text) && write(g->in, text, (size_t)n) == n);
}

int uml_guest_wait(struct uml_guest *g)
{
	wait_for(g, "guest: done ");
	while (!strchr(g->console, '\n'))
		assert(read_some(g));
	return atoi(g->console);
}

int uml_guest_run(struct uml_guest *g, const char *line)
{
	uml_guest_begin(g, line);
	return uml_guest_wait(g);
}

/* The file has no name any more; the guest has it open, and no other one of such a size. */
uint64_t uml_guest_file_bytes(const struct uml_guest *g)
{
	char folder[64], path[512];
	uint64_t bytes = 0;
	struct dirent *e;
	DIR *d;

	snprintf(folder, sizeof(folder), "/proc/%d/fd", (int)g->pid);
	d = opendir(folder);
	while (d && (e = readdir(d)) != NULL) {
		struct stat st;

		snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
		if (stat(path, &st) == 0 && S_ISREG(st.st_mode) && !st.st_nlink &&
		    st.st_size >= LEAST_FILE)
			bytes = (uint64_t)st.st_blocks * 512;
	}
	if (d)
		closedir(d);
	return bytes;
}

void uml_guest_kill(struct uml_guest *g)
{
	int status;

	kill(-g->pid, SIGKILL);
	assert(waitpid(g->pid, &status, 0) == g->pid);
	/* Processes of the guest are children of the one that is gone: none may stay. */
	VMEMT_UNTIL(kill(-g->pid, 0) != 0);
	close(g->life);
	assert(waitpid(g->watcher, &status, 0) == g->watcher);
	close(g->in);
	close(g->out);
}
