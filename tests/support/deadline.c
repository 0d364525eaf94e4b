/* SPDX-License-Identifier: BSD-2-Clause */
/* See deadline.h. Whoever may hold a lock here waits for what does not come, that of stdout too: lines are written
 * without one, and what stdout still holds goes out only if nobody is at it. */
#define _GNU_SOURCE
#include "support/deadline.h"
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

uint64_t vmemt_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
	char line[512];
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	if (length >= (int)sizeof(line))
		length = sizeof(line) - 1;
	if (length > 0 && write(STDERR_FILENO, line, (size_t)length) < 0)
		return;
}

/* The file's beginning in one line; empty if it cannot be read. */
static void read_line(const char *task, const char *name, char *text, size_t size)
{
	char path[64];
	ssize_t length = -1;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%s/%s", task, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		length = read(fd, text, size - 1);
		close(fd);
	}
	text[length > 0 ? length : 0] = 0;
	for (char *c = text; (c = strchr(c, '\n'));)
		*c = c[1] ? ' ' : 0;
}

static void say_threads(void)
{
	DIR *tasks = opendir("/proc/self/task");
	char name[32], call[96], stack[256];
	const struct dirent *d;

	while (tasks && (d = readdir(tasks)))
		if (d->d_name[0] != '.') {
			read_line(d->d_name, "comm", name, sizeof(name));
			read_line(d->d_name, "syscall", call, sizeof(call));
			read_line(d->d_name, "stack", stack, sizeof(stack));
			say("thread %s (%s): %s; %s\n", d->d_name, name, call, stack);
		}
	if (tasks)
		closedir(tasks);
}

static void say_stacks(void)
{
	char number[16];
	char *gdb[] = { "timeout", "60",     "gdb", "-p",
			number,    "-batch", "-ex", "thread apply all bt",
			NULL };
	extern char **environ;
	pid_t child;

	snprintf(number, sizeof(number), "%d", (int)getpid());
	if (getenv("VMEM_TEST_GDB") && !posix_spawnp(&child, gdb[0], NULL, NULL, gdb, environ))
		waitpid(child, NULL, 0);
}

void vmemt_timed_out(const char *what, const char *file, int line, const char *function)
{
	if (!ftrylockfile(stdout))
		fflush_unlocked(stdout);
	say_threads();
	say_stacks();
	say("%s:%d: %s:\ntimed out: %s\n", file, line, function, what);
	_exit(VMEMT_TIMED_OUT);
}

void vmemt_until_more(_Atomic uint64_t *counter, uint64_t count)
{
	uint64_t end = atomic_load(counter) + count;

	for (uint64_t now = end - count; now < end;) {
		uint64_t next = end - now < 64 ? end : now + 64;

		VMEMT_UNTIL((now = atomic_load(counter)) >= next);
	}
}

bool vmemt_is_readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1 && (p.revents & POLLIN);
}

void vmemt_until_readable(int fd)
{
	VMEMT_UNTIL(vmemt_is_readable(fd));
}
