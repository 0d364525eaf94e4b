/* SPDX-License-Identifier: BSD-2-Clause */
/* The parent keeps the actions that it reads from a pipe, one a line, until no process of the bench
 * holds the other end. A process that a bench forks must ask for SIGKILL at its parent's death. */
#include "undo.h"
#include "machine.h"
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ACTIONS_MAX 32

static FILE *announce;          /* the child's end of the pipe */
static volatile pid_t the_body; /* for the signal handler of the parent; 0: not running */

void undo_later(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vfprintf(announce, format, arguments);
	va_end(arguments);
	fputc('\n', announce);
	fflush(announce);
}

static void pass_on(int signal_number)
{
	if (the_body > 0)
		kill(-the_body, signal_number);
}

/* A cgroup is busy for a moment after its last process was killed. */
static int remove_group(const char *path)
{
	for (int tries = 0; rmdir(path) != 0; tries++) {
		if (errno == ENOENT)
			return 0;
		if (errno != EBUSY || tries == 500)
			return -1;
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
	return 0;
}

static void undo(char *line)
{
	char *verb = strtok(line, " "), *path = strtok(NULL, " "), *text = strtok(NULL, "");
	int result = 0;

	if (!verb || !path)
		return;
	if (strcmp(verb, "write") == 0)
		result = machine_write(path, text ? text : "");
	else if (strcmp(verb, "swapoff") == 0)
		result = swapoff(path) == 0 || errno == EINVAL ? 0 : -1; /* EINVAL: off already */
	else if (strcmp(verb, "rmdir") == 0)
		result = remove_group(path);
	if (result != 0)
		fprintf(stderr, "bench: could not restore: %s %s\n", verb, path);
}

static int supervise(pid_t body, FILE *actions)
{
	char *lines[ACTIONS_MAX] = { NULL };
	size_t count = 0, room = 0;
	int status = 0;

	while (count < ACTIONS_MAX && getline(&lines[count], &room, actions) > 0) {
		lines[count][strcspn(lines[count], "\n")] = '\0';
		count++;
		room = 0;
	}
	fclose(actions); /* a body with more to undo than fits dies of SIGPIPE */
	while (waitpid(body, &status, 0) < 0 && errno == EINTR)
		;
	while (count > 0)
		undo(lines[--count]);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int undo_supervise(int (*body)(void *context), void *context)
{
	const struct sigaction action = { .sa_handler = pass_on, .sa_flags = SA_RESTART };
	const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	int ends[2];
	pid_t child;

	fflush(NULL);
	if (pipe(ends) != 0 || (child = fork()) < 0) {
		perror("bench");
		return 1;
	}
	if (child == 0) {
		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(ends[0]);
		announce = fdopen(ends[1], "w");
		exit(announce ? body(context) : 1);
	}
	setpgid(child, child);
	the_body = child;
	for (unsigned i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		sigaction(signals[i], &action, NULL);
	close(ends[1]);
	return supervise(child, fdopen(ends[0], "r"));
}
