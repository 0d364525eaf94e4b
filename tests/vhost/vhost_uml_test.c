/* SPDX-License-Identifier: BSD-2-Clause */
/* Linux's own balloon driver, in User-Mode Linux, with vmem-vhost-user-balloon: memory that the guest gives up is the
 * host's again, measured at the file of the guest's memory. At power-off this kernel fails in its own device teardown,
 * so guests are killed. With --rounds it is what bench-balloon measures by. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/deadline.h"
#include "vhost/back_end.h"
#include "vhost/uml_guest.h"

#define MIB (UINT64_C(1) << 20)
#define GUEST_MIB 256
#define GIVEN_MIB 100

static char initrd[] = "/tmp/vmem-uml-initrd-XXXXXX";
static struct uml_guest guest;

#define CHECK(condition)                                                                        \
	do {                                                                                    \
		if (!(condition)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			exit(1);                                                                \
		}                                                                               \
	} while (0)

static void boot(struct back_end *b)
{
	uml_guest_boot(&guest, initrd, b->socket, GUEST_MIB);
	VMEMT_UNTIL(back_end_status(b, "driver") == 1);
}

static double target(struct back_end *b, unsigned mib)
{
	char command[64];

	snprintf(command, sizeof(command), "target %uM", mib);
	return back_end_number(b, command, NULL, "target_bytes");
}

static void reach(struct back_end *b, unsigned mib)
{
	CHECK(target(b, mib) == (double)(mib * MIB));
	VMEMT_UNTIL(back_end_status(b, "balloon_bytes") == (double)(mib * MIB));
}

/* What the guest has touched and freed takes memory of the host all the same. */
static void touch(unsigned mib)
{
	char line[128];

	snprintf(line, sizeof(line), "dd if=/dev/zero of=/tmp/f bs=1M count=%u 2>/dev/null", mib);
	CHECK(uml_guest_run(&guest, line) == 0);
	CHECK(uml_guest_file_bytes(&guest) > mib * MIB);
}

/* All that can be, so that what it gives up afterwards is there. */
static void touch_all(void)
{
	CHECK(uml_guest_run(&guest, "dd if=/dev/zero of=/tmp/f bs=1M count=$(awk "
				    "'/MemAvailable/ { print int($2 / 1024) - 6 }' /proc/meminfo) "
				    "2>/dev/null") == 0);
	CHECK(uml_guest_file_bytes(&guest) > 180 * MIB);
}

static void free_all(void)
{
	CHECK(uml_guest_run(&guest, "rm /tmp/f") == 0);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

struct given {
	uint64_t bytes; /* that the file of its memory fell by */
	uint64_t left;  /* that it has yet */
	uint64_t ns;    /* from the target until it is reached */
};

/* GIVEN_MIB, once all of its memory takes memory of the host. */
static struct given give(struct back_end *b)
{
	struct given given;
	uint64_t before, after;

	touch_all();
	free_all();
	before = uml_guest_file_bytes(&guest);
	given.ns = now_ns();
	reach(b, GIVEN_MIB);
	given.ns = now_ns() - given.ns;
	after = uml_guest_file_bytes(&guest);
	CHECK(before > after);
	given.bytes = before - after;
	given.left = after;
	return given;
}

static void inflate_and_deflate(struct back_end *b)
{
	struct given given;

	boot(b);
	given = give(b);
	printf("%u MiB of a guest of %u MiB: the file of its memory fell by %.1f MiB, to %.1f, in %.0f ms\n",
	       GIVEN_MIB, GUEST_MIB, (double)given.bytes / (double)MIB,
	       (double)given.left / (double)MIB, (double)given.ns / 1e6);
	/* Some MiB the guest may never have touched, and give first: they take nothing from the file. */
	CHECK(given.bytes >= GIVEN_MIB * MIB / 100 * 85);
	CHECK(given.left <= GUEST_MIB * MIB - GIVEN_MIB * MIB / 100 * 95);
	/* A driver that goes takes all back; the next begins anew. */
	CHECK(uml_guest_run(&guest, "rmmod virtio_balloon && insmod /virtio_balloon.ko") == 0);
	VMEMT_UNTIL(back_end_status(b, "balloon_bytes") == (double)(GIVEN_MIB * MIB));
	/* A second target before the first is looked at, and one below it. */
	CHECK(target(b, 140) == 140.0 * (double)MIB);
	reach(b, 60);
	reach(b, 0);
	CHECK(back_end_number(b, "status", "counters", "not_inflated") == 0);
	CHECK(back_end_number(b, "status", "counters", "inflated_twice") == 0);
	CHECK(back_end_number(b, "status", "counters", "outside") == 0);
	CHECK(back_end_number(b, "status", "counters", "malformed") == 0);
	/* All of its memory is its own again, and keeps what is written to it. */
	CHECK(uml_guest_run(&guest, "dd if=/dev/urandom of=/tmp/f bs=1M count=80 2>/dev/null") ==
	      0);
	CHECK(uml_guest_run(&guest, "dd if=/tmp/f of=/tmp/g bs=1M 2>/dev/null") == 0);
	CHECK(uml_guest_run(&guest, "[ \"$(md5sum </tmp/f)\" = \"$(md5sum </tmp/g)\" ]") == 0);
	CHECK(uml_guest_run(&guest, "rm /tmp/g") == 0);
	free_all();
}

/* Both out of one answer: a guest that is slow gives none. */
static bool has_told(struct back_end *b, double *total, double *available)
{
	cJSON *answer = back_end_ask(b, "stats");
	const cJSON *first = cJSON_GetObjectItem(answer, "total_bytes");
	const cJSON *second = cJSON_GetObjectItem(answer, "available_bytes");
	bool told = cJSON_IsTrue(cJSON_GetObjectItem(answer, "ok")) && first && second;

	*total = told ? first->valuedouble : -1;
	*available = told ? second->valuedouble : -1;
	cJSON_Delete(answer);
	return told;
}

static void statistics(struct back_end *b)
{
	double total, available, less;

	VMEMT_UNTIL(has_told(b, &total, &available));
	CHECK(total > 200.0 * (double)MIB && total <= GUEST_MIB * (double)MIB);
	CHECK(available > 0 && available < total);
	reach(b, 80);
	/* The kernel counts pages per processor, so not to the page. */
	VMEMT_UNTIL(has_told(b, &total, &less) && less < available - 60.0 * (double)MIB);
	reach(b, 0);
}

static void dies_in_the_middle(struct back_end *b)
{
	CHECK(back_end_number(b, "target 150M 8M", NULL, "ok") == 1);
	VMEMT_UNTIL(back_end_status(b, "balloon_bytes") > 0);
	uml_guest_kill(&guest);
	VMEMT_UNTIL(back_end_status(b, "client") == 0);
	CHECK(target(b, 0) == 0);
}

/* A guest that needs what it has given takes it back, instead of killing its own. */
static void out_of_memory(struct back_end *b)
{
	double in_it;

	reach(b, 160);
	CHECK(uml_guest_run(&guest, "dd if=/dev/zero of=/tmp/f bs=1M count=120 2>/dev/null") == 0);
	VMEMT_UNTIL(back_end_number(b, "status", "counters", "deflated") > 0);
	VMEMT_UNTIL(back_end_number(b, "status", "events", "leak") > 0);
	in_it = back_end_status(b, "balloon_bytes");
	CHECK(in_it >= 0 && in_it < 160.0 * (double)MIB);
	free_all();
}

/* Free pages come by themselves, with no target. */
static void reporting(struct back_end *b)
{
	uint64_t full;

	touch(120);
	full = uml_guest_file_bytes(&guest);
	free_all();
	VMEMT_UNTIL(uml_guest_file_bytes(&guest) + 100 * MIB < full);
	CHECK(back_end_status(b, "balloon_bytes") == 0);
	CHECK(back_end_number(b, "status", "counters", "reported") * 4096 >= 100.0 * (double)MIB);
}

static void make_initrd(const char *script)
{
	char line[512];
	int fd = mkstemp(initrd), status;

	assert(fd >= 0);
	close(fd);
	snprintf(line, sizeof(line), "sh %s %s", script, initrd);
	status = system(line);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		unlink(initrd);
		exit(77);
	}
	CHECK(status == 0);
}

/* Says "ready", and then for each line that comes in "given BYTES NS", with all of its memory the guest's again. Whoever
 * reads that may go at any time: nothing stays. What else is printed is not for programs. */
static int rounds(void)
{
	struct back_end b;
	char line[16];

	signal(SIGPIPE, SIG_IGN);
	back_end_start(&b, "--without=reporting", "--quiet", NULL);
	boot(&b);
	unlink(initrd);
	printf("ready\n");
	while (fgets(line, sizeof(line), stdin)) {
		struct given given = give(&b);

		reach(&b, 0);
		printf("given %" PRIu64 " %" PRIu64 "\n", given.bytes, given.ns);
	}
	uml_guest_kill(&guest);
	CHECK(back_end_stop(&b, SIGTERM) == 0);
	return 0;
}

int main(int argc, char **argv)
{
	struct back_end b;

	setvbuf(stdout, NULL, _IOLBF, 0);
	make_initrd(UML_INITRD_SCRIPT);
	if (argc > 1 && strcmp(argv[1], "--rounds") == 0)
		return rounds();
	/* Without reporting, free pages stay until they are asked for. */
	back_end_start(&b, "--without=reporting", "--quiet", NULL);
	inflate_and_deflate(&b);
	statistics(&b);
	dies_in_the_middle(&b);
	boot(&b); /* the next one */
	out_of_memory(&b);
	uml_guest_kill(&guest);
	CHECK(back_end_stop(&b, SIGTERM) == 0);

	back_end_start(&b, "--quiet", NULL, NULL);
	boot(&b);
	reporting(&b);
	CHECK(back_end_number(&b, "target 150M 8M", NULL, "ok") == 1);
	VMEMT_UNTIL(back_end_status(&b, "balloon_bytes") > 0);
	(void)back_end_stop(&b, SIGKILL);
	uml_guest_kill(&guest); /* whether it lives or not, nothing of it stays */
	unlink(initrd);
	return 0;
}
