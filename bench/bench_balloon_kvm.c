/* SPDX-License-Identifier: BSD-2-Clause */
/* The whole way of a balloon, in a VM that does nothing else: driver core in the guest, split virtqueue, an exit for
 * each buffer, device core, discard in a region. The VM is vmem-kvm-runner's, which says when the first page went and
 * when the last one. */
#include "bench_balloon.h"
#include "kvm_guest.h"
#include "machine.h"
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define VM_BYTES ((size_t)256 << 20)
#define GIVEN_BYTES (VM_BYTES / 5 * 4 & ~(PAGE - 1))
#define ROUNDS 5
#ifndef BENCH_RUNNER
#define BENCH_RUNNER ""
#endif

extern char **environ;

struct vm_bench {
	const char *backend;
	const char *unit; /* option of the runner, or NULL */
	uint8_t *memory;  /* of the limit */
	char json[64];    /* what the runner writes */
};

/* Its words are for whoever looks for a failure. */
static int run(struct vm_bench *b, const char *seconds)
{
	char *argv[] = { (char[]){ BENCH_RUNNER },
			 (char[]){ "--quiet" },
			 (char[]){ "--vms=1" },
			 (char[]){ "--attach=0" },
			 (char[]){ "--mem=256M" },
			 (char[]){ "--budget=300%" },
			 (char[]){ "--balloon=80%" },
			 (char[]){ "--seconds" },
			 strdupa(seconds),
			 (char[]){ "--workload=idle" },
			 (char[]){ "--backend" },
			 strdupa(b->backend),
			 (char[]){ "--json" },
			 b->json,
			 b->unit ? strdupa(b->unit) : NULL,
			 NULL };
	posix_spawn_file_actions_t actions;
	int status = 0, error;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	error = posix_spawn(&pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (error)
		return -error;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

static cJSON *read_object(const char *path)
{
	static char text[1 << 16];
	FILE *file = fopen(path, "re");
	size_t bytes = file ? fread(text, 1, sizeof(text) - 1, file) : 0;

	if (file)
		fclose(file);
	text[bytes] = '\0';
	return cJSON_Parse(text);
}

static double number(const cJSON *object, const char *name)
{
	return cJSON_GetNumberValue(cJSON_GetObjectItem(object, name));
}

/* 1: all of it went there and back, and was really released: same-filled pages take memory here, too. 0: not within
 * that time. */
static int measure_once(struct vm_bench *b, const char *seconds, double *values)
{
	int done = run(b, seconds);
	cJSON *root = done ? NULL : read_object(b->json);
	const cJSON *balloon = cJSON_GetObjectItem(
		cJSON_GetArrayItem(cJSON_GetObjectItem(root, "vms"), 0), "balloon");
	double in_ns = number(cJSON_GetObjectItem(balloon, "inflate"), "ns");
	double out_ns = number(cJSON_GetObjectItem(balloon, "deflate"), "ns");
	double given = number(balloon, "most_bytes");

	if (!done)
		done = in_ns > 0 && out_ns > 0 && given >= (double)GIVEN_BYTES &&
		       number(balloon, "returned_bytes") == given &&
		       number(balloon, "released_bytes") >= given * 0.95;
	values[0] = given * 1e9 / in_ns;
	values[1] = given * 1e9 / out_ns;
	cJSON_Delete(root);
	return done;
}

/* The guest lives for as long as it needs; what is measured is the balloon's own time. */
static int measure_vm(void *context, double *values)
{
	static const char *const seconds[] = { "1", "4", "16" };
	int done = 0;

	for (unsigned i = 0; i < 3 && !done; i++)
		done = measure_once(context, seconds[i], values);
	return done > 0 ? 0 : done ? done : -EIO;
}

/* On the way out nothing is discarded: it has no such limit. */
static int measure_bulk(void *context, double *values)
{
	struct vm_bench *b = context;
	uint64_t started;

	for (size_t at = 0; at < GIVEN_BYTES; at += PAGE)
		b->memory[at] = 1;
	started = machine_now_ns();
	if (madvise(b->memory, GIVEN_BYTES, MADV_DONTNEED) != 0)
		return -errno;
	values[0] = (double)GIVEN_BYTES * 1e9 / (double)(machine_now_ns() - started);
	return 0;
}

static int compare(struct bench *bench, struct vm_bench *b, const char *in, const char *out)
{
	const struct bench_metric metrics[] = { { "inflate_bytes_per_s", "B/s", in, 1 },
						{ "deflate_bytes_per_s", "B/s", out, 1 } };
	const struct bench_comparison comparison = {
		.metrics = metrics,
		.metric_count = 2,
		.rounds = bench_quick(bench) ? 3 : ROUNDS,
		.context = b,
		.ours = { "libvmem", measure_vm,
			  *BENCH_RUNNER ? NULL : "built without the examples" },
		.limit = { "bulk MADV_DONTNEED", measure_bulk, NULL },
	};

	return bench_compare(bench, &comparison);
}

int bench_balloon_vm(struct bench *bench)
{
	struct vm_bench b = { .backend = "kvm" };
	const char *why = kvm_guest_missing();
	int error, fd;

	strcpy(b.json, "/tmp/vmem-bench.XXXXXX");
	fd = mkstemp(b.json);
	if (fd < 0)
		return -errno;
	close(fd);
	if (why) {
		b.backend = "thread";
		bench_note(bench, "the VM that has a balloon is a thread here: %s", why);
	}
	b.memory = machine_map(GIVEN_BYTES);
	error = b.memory ? compare(bench, &b, "kvm_inflate", "kvm_deflate") : -ENOMEM;
	b.unit = "--balloon-ranges";
	error = error ? error : compare(bench, &b, "kvm_inflate, ranges", "kvm_deflate, ranges");
	if (b.memory)
		machine_unmap(b.memory, GIVEN_BYTES);
	unlink(b.json);
	return error;
}
