/* SPDX-License-Identifier: BSD-2-Clause */
/* Linux's own balloon driver, in a guest of User-Mode Linux with 256 MiB of which all takes memory of the host, and
 * vmem-vhost-user-balloon. The guest is booted once, and gives 100 MiB and takes them back for each round; the program
 * that has it (tests/vhost/vhost_uml_test.c) measures.
 * uml_released_share    what the file of the guest's memory falls by, of 100 MiB
 *   limit               all of it
 * uml_target_to_done_s  from the target until the device has all of it, looked at each millisecond
 *   limit               one call of the kernel for 100 MiB of a file in memory */
#include "bench_balloon.h"
#include "machine.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define GIVEN_BYTES (100 << 20)
#ifndef BENCH_UML_GUEST
#define BENCH_UML_GUEST ""
#endif

extern char **environ;

struct uml_bench {
	pid_t pid;
	FILE *says; /* the program's lines; what is written to its descriptor, it reads */
	char *line;
	size_t room;
	const char *missing;
	int fd; /* of the limit */
};

/* It is no part of the bench's group of processes: when the bench is gone, however that is, it sees that nobody asks any
 * more, and takes its guest with it. */
static int spawn(struct uml_bench *b)
{
	char *argv[] = { (char[]){ BENCH_UML_GUEST }, (char[]){ "--rounds" }, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	int ends[2], error;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
		return -errno;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
	error = posix_spawn(&b->pid, argv[0], &actions, &attributes, argv, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	close(ends[1]);
	b->says = error ? NULL : fdopen(ends[0], "r");
	if (!b->says)
		close(ends[0]);
	return -error;
}

static int boot(struct uml_bench *b)
{
	static const char skipped[] = "skipped: ";
	int error = spawn(b);

	if (error || !b->says)
		return error ? error : -ENOMEM;
	while (getline(&b->line, &b->room, b->says) > 0) {
		b->line[strcspn(b->line, "\n")] = '\0';
		if (strcmp(b->line, "ready") == 0)
			return 0;
		if (strncmp(b->line, skipped, strlen(skipped)) == 0) {
			b->missing = b->line + strlen(skipped);
			return 0;
		}
	}
	return -EIO;
}

static int end(struct uml_bench *b)
{
	int status = 0;

	if (b->says)
		fclose(b->says);
	free(b->line);
	while (b->pid > 0 && waitpid(b->pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return b->missing || (WIFEXITED(status) && WEXITSTATUS(status) == 0) ? 0 : -EIO;
}

static int measure_uml(void *context, double *values)
{
	struct uml_bench *b = context;
	double bytes, ns;

	if (send(fileno(b->says), "\n", 1, MSG_NOSIGNAL) != 1)
		return -errno;
	while (getline(&b->line, &b->room, b->says) > 0)
		if (sscanf(b->line, "given %lf %lf", &bytes, &ns) == 2) {
			values[0] = bytes / GIVEN_BYTES;
			values[1] = ns / 1e9;
			return 0;
		}
	return -EIO;
}

static int measure_punch(void *context, double *values)
{
	struct uml_bench *b = context;
	uint64_t started;

	if (fallocate(b->fd, 0, 0, GIVEN_BYTES) != 0)
		return -errno;
	started = machine_now_ns();
	if (fallocate(b->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, GIVEN_BYTES) != 0)
		return -errno;
	values[0] = 1;
	values[1] = (double)(machine_now_ns() - started) / 1e9;
	return 0;
}

static int compare(struct bench *bench, struct uml_bench *b)
{
	const struct bench_metric metrics[] = { { "uml_released_share", "", NULL, 1 },
						{ "uml_target_to_done_s", "s", NULL, 0 } };
	const struct bench_comparison comparison = {
		.metrics = metrics,
		.metric_count = 2,
		.context = b,
		.ours = { "User-Mode Linux", measure_uml, b->missing },
		.limit = { "one fallocate", measure_punch, NULL },
	};

	return bench_compare(bench, &comparison);
}

int bench_balloon_uml(struct bench *bench)
{
	struct uml_bench b = { .missing = *BENCH_UML_GUEST ? NULL : "built without the examples" };
	int error = b.missing ? 0 : boot(&b), ended;

	b.fd = memfd_create("vmem-bench", MFD_CLOEXEC);
	if (!error && b.fd < 0)
		error = -errno;
	error = error ? error : compare(bench, &b);
	if (b.fd >= 0)
		close(b.fd);
	ended = end(&b);
	return error ? error : ended;
}
