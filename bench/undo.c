/* SPDX-License-Identifier: BSD-2-Clause */
/* Three processes. The body announces its actions through a pipe, one a line. The undoer reads them until
 * no process of the bench holds the other end, and then undoes them: in a session of its own, where neither
 * the terminal nor the end of the others reaches it. The supervisor waits for both, and passes signals on
 * to the body; when it is killed, so is the body, and what that has forked by undo_fork(). */
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

static FILE *announce;          /* the body's end of the pipe */
static volatile pid_t the_body; /* for the signal handler of the supervisor; 0: not running */

static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
#define SIGNALS (sizeof(signals) / sizeof(*signals))

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

/* The signals are blocked here, and stay so. */
static _Noreturn void run_undoer(FILE *actions)
{
	char *lines[ACTIONS_MAX] = { NULL };
	size_t count = 0, room = 0;

	setsid();
	signal(SIGPIPE, SIG_IGN); /* nobody may be left to read what it prints */
	while (actions && count < ACTIONS_MAX && getline(&lines[count], &room, actions) > 0) {
		lines[count][strcspn(lines[count], "\n")] = '\0';
		count++;
		room = 0;
	}
	if (actions)
		fclose(actions); /* a body with more to undo than fits dies of SIGPIPE */
	while (count > 0)
		undo(lines[--count]);
	_exit(0);
}

static _Noreturn void run_body(int (*body)(void *context), void *context, int end,
			       const sigset_t *mask)
{
	setpgid(0, 0);
	sigprocmask(SIG_SETMASK, mask, NULL);
	announce = fdopen(end, "w");
	exit(announce ? body(context) : 1);
}

pid_t undo_fork(void)
{
	const pid_t self = getpid(), child = fork();

	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != self)
			_exit(1);
	}
	return child;
}

static int wait_for_body(pid_t body)
{
	siginfo_t info;
	int status = 0;

	while (waitid(P_PID, (id_t)body, &info, WEXITED | WNOWAIT) != 0 && errno == EINTR)
		;
	the_body = 0; /* before its number is free for another process */
	waitpid(body, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int undo_supervise(int (*body)(void *context), void *context)
{
	sigset_t ours, before;
	pid_t undoer, child;
	const struct sigaction action = { .sa_handler = pass_on, .sa_flags = SA_RESTART };
	int ends[2], status = 1;

	fflush(NULL);
	sigemptyset(&ours);
	for (size_t i = 0; i < SIGNALS; i++)
		sigaddset(&ours, signals[i]);
	sigprocmask(SIG_BLOCK, &ours, &before); /* until there is somebody to pass them on to */
	if (pipe(ends) != 0 || (undoer = fork()) < 0) {
		perror("bench");
		return 1;
	}
	if (undoer == 0) {
		close(ends[1]);
		run_undoer(fdopen(ends[0], "r"));
	}
	close(ends[0]);
	child = undo_fork();
	if (child == 0)
		run_body(body, context, ends[1], &before);
	close(ends[1]);
	if (child > 0) {
		setpgid(child, child);
		the_body = child;
		for (size_t i = 0; i < SIGNALS; i++)
			sigaction(signals[i], &action, NULL);
		sigprocmask(SIG_SETMASK, &before, NULL);
		status = wait_for_body(child);
	} else {
		perror("bench");
	}
	while (waitpid(undoer, NULL, 0) < 0 && errno == EINTR)
		;
	return status;
}
