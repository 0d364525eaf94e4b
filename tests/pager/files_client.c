/* SPDX-License-Identifier: BSD-2-Clause */
/* A VMM for tests of vmem-pager whose memory is in two memfds that it hands over too, so that pages can leave it.
 * Usage: files_client SOCKET MEMORY-FILE HOW
 *   good     reads every page, writes every second one, says "touched", waits for a line on stdin, and checks all,
 *            twice; says "all right"
 *   stay     says "touched", waits for a line, which comes when the pager has ended, and checks all; "all right"
 *   orphan   the same, but the pager was killed: says "stopped" when it waits at what it misses; never sees zeros
 *   noise    as good, but nothing of what it writes compresses
 *   twice    hands the same userfaultfd over once more, with other memory, and then is as good
 *   others   a hand-over that is wrong in the way that is named: then it only says "sent", and goes
 * Says first "memfds A B": as which descriptors its files can be looked at.
 * Exit 0: all held; 77: no userfaultfd for it here. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hand_over_send.h"

#ifndef MFD_HUGETLB
#define MFD_HUGETLB 0x0004U
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#define PAGE 4096u
#define STOP_MS 120000

static unsigned char *memory; /* two halves, each of them in a file */
static const unsigned char *file;
static size_t bytes;
static int memfd[2], uffd;
static int noise; /* what is written does not compress */

/* --- The hand-over --- */

/* From @offset on, so that it is not the file's beginning either. */
static int make_memfd(size_t offset, unsigned flags)
{
	int fd = memfd_create("guest", MFD_CLOEXEC | flags);

	need(fd >= 0 && !ftruncate(fd, (off_t)(offset + bytes / 2)), "memfd");
	return fd;
}

static void map_memory(void)
{
	memory = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	need(memory != MAP_FAILED, "mmap");
	for (unsigned i = 0; i < 2; i++) {
		memfd[i] = make_memfd(i * PAGE, MFD_ALLOW_SEALING);
		need(mmap(memory + i * bytes / 2, bytes / 2, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_FIXED, memfd[i], (off_t)(i * PAGE)) != MAP_FAILED,
		     "mmap of a memfd");
	}
	uffd = open_uffd(memory, bytes, 0);
}

struct list {
	unsigned file[2];
	unsigned long long offset[2]; /* in it */
};

/* The second half is first in the memory file. */
static const char *text_of(const struct list *l)
{
	static char text[1024];
	unsigned long long base = (uintptr_t)memory, half = bytes / 2;

	snprintf(text, sizeof(text),
		 "[{\"base_host_virt_addr\":%llu,\"size\":%llu,\"offset\":%llu,\"page_size\":%u,"
		 "\"memfd\":%u,\"memfd_offset\":%llu},{\"base_host_virt_addr\":%llu,\"size\":%llu,"
		 "\"offset\":0,\"page_size\":%u,\"memfd\":%u,\"memfd_offset\":%llu}]",
		 base, half, half, PAGE, l->file[0], l->offset[0], base + half, half, PAGE,
		 l->file[1], l->offset[1]);
	return text;
}

static const struct list right = { { 1, 2 }, { 0, PAGE } };

static void send_with(const char *socket, const struct list *l, int first, int second)
{
	int fds[3] = { uffd, first, second };

	hand_over(connect_to(socket), text_of(l), fds, second >= 0 ? 3 : 2);
}

static int sealed(int seal)
{
	int fd = make_memfd(0, MFD_ALLOW_SEALING);

	need(!fcntl(fd, F_ADD_SEALS, seal), "seal");
	return fd;
}

static int read_only(void)
{
	char path[40];
	int fd = make_memfd(0, MFD_ALLOW_SEALING);

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static int huge(void)
{
	int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB);

	if (fd < 0 || ftruncate(fd, (off_t)bytes)) {
		printf("no huge pages\n");
		exit(0);
	}
	return fd;
}

static int small(void)
{
	int fd = make_memfd(0, MFD_ALLOW_SEALING);

	need(!ftruncate(fd, (off_t)(bytes / 2 - PAGE)), "ftruncate");
	return fd;
}

/* What stands in the place of the first file. */
static int wrong_file(const char *how)
{
	int pair[2];

	if (!strcmp(how, "small"))
		return small();
	if (!strcmp(how, "pipe"))
		return pipe2(pair, O_CLOEXEC) ? -1 : pair[1];
	if (!strcmp(how, "regular"))
		return open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (!strcmp(how, "unwritable"))
		return sealed(F_SEAL_WRITE);
	if (!strcmp(how, "frozen"))
		return sealed(F_SEAL_FUTURE_WRITE);
	if (!strcmp(how, "unsealable"))
		return make_memfd(0, 0);
	if (!strcmp(how, "read-only"))
		return read_only();
	if (!strcmp(how, "huge"))
		return huge();
	return -1;
}

static int wrong(const char *socket, const char *how)
{
	struct list l = right;
	int other = wrong_file(how);

	if (other >= 0) {
		send_with(socket, &l, other, memfd[1]);
	} else if (!strcmp(how, "unaligned")) {
		l.offset[1] = 7;
		send_with(socket, &l, memfd[0], memfd[1]);
	} else if (!strcmp(how, "overlap")) {
		l = (struct list){ { 1, 1 }, { 0, bytes / 2 - PAGE } };
		send_with(socket, &l, memfd[0], -1);
	} else if (!strcmp(how, "hidden")) { /* two descriptors of one file */
		send_with(socket, &l, memfd[1], memfd[1]);
	} else if (!strcmp(how, "fewer")) {
		send_with(socket, &l, memfd[0], -1);
	} else if (!strcmp(how, "more")) {
		l.file[1] = 1;
		l.offset[1] = bytes / 2;
		send_with(socket, &l, memfd[0], memfd[1]);
	} else if (!strcmp(how, "elsewhere")) { /* what it names is not what it has mapped there */
		memory += bytes;
		send_with(socket, &l, memfd[0], memfd[1]);
	} else if (!strcmp(how, "events")) {
		close(uffd);
		uffd = open_uffd(memory, bytes, UFFD_FEATURE_EVENT_REMOVE);
		send_with(socket, &l, memfd[0], memfd[1]);
	} else {
		return 2;
	}
	printf("sent\n");
	return 0;
}

/* --- The guest --- */

/* Word @k of page @i as it is written. */
static uint64_t word(size_t i, unsigned version, size_t k)
{
	uint64_t x = i * 64 + version + k % 8 * 0x0101;

	if (!noise)
		return x;
	x = (x ^ k << 32) * UINT64_C(0x9e3779b97f4a7c15); /* Steele, Lea, Flood: SplitMix */
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	return x ^ x >> 27;
}

/* Page @i as it was in the memory file; @version: as it is written. */
static void check_page(size_t i, unsigned version)
{
	const unsigned char *original = file + (i * PAGE + bytes / 2) % bytes;
	uint64_t want[PAGE / 8];

	for (size_t k = 0; k < PAGE / 8; k++)
		want[k] = word(i, version, k);
	if (memcmp(memory + i * PAGE, i % 2 ? original : (unsigned char *)want, PAGE)) {
		printf("page %zu is wrong\n", i);
		exit(1);
	}
}

static void write_page(size_t i, unsigned version)
{
	volatile uint64_t *to = (volatile uint64_t *)(memory + i * PAGE);

	for (size_t k = 0; k < PAGE / 8; k++)
		to[k] = word(i, version, k);
}

static void check_all(unsigned version)
{
	for (size_t i = 0; i < bytes / PAGE; i++)
		check_page(i, version);
}

static void touch_all(void)
{
	for (size_t i = 0; i < bytes / PAGE; i++)
		if (i % 2)
			check_page(i, 0);
		else
			write_page(i, 1);
	printf("touched\n");
	(void)getchar();
}

static atomic_int over; /* atomic */

static void *check_in_thread(void *context)
{
	(void)context;
	check_all(1);
	atomic_store(&over, 1);
	return NULL;
}

/* Its own descriptor says that a fault is there, which nobody reads any more. */
static int orphan(void)
{
	struct pollfd fault = { .fd = uffd, .events = POLLIN };
	pthread_t thread;

	need(!pthread_create(&thread, NULL, check_in_thread, NULL), "thread");
	need(poll(&fault, 1, STOP_MS) == 1 && (fault.revents & POLLIN), "no fault came");
	if (atomic_load(&over))
		return 1;
	printf("stopped\n");
	return 0;
}

static int live(void)
{
	check_all(1);
	for (size_t i = 0; i < bytes / PAGE; i += 2)
		write_page(i, 2);
	check_all(2);
	printf("all right\n");
	return 0;
}

static void hand_over_again(const char *socket)
{
	unsigned char *first = memory;
	int own[2] = { memfd[0], memfd[1] }, own_uffd = uffd;

	map_memory();
	close(uffd);
	uffd = own_uffd;
	send_with(socket, &right, memfd[0], memfd[1]);
	memory = first;
	memfd[0] = own[0];
	memfd[1] = own[1];
}

static int run(const char *socket, const char *how)
{
	noise = !strcmp(how, "noise");
	if (!noise && strcmp(how, "good") && strcmp(how, "stay") && strcmp(how, "orphan") &&
	    strcmp(how, "twice"))
		return wrong(socket, how);
	send_with(socket, &right, memfd[0], memfd[1]);
	if (!strcmp(how, "twice"))
		hand_over_again(socket);
	printf("memfds %d %d\n", memfd[0], memfd[1]);
	touch_all();
	return !strcmp(how, "orphan") ? orphan() : live();
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	file = map_original(argv[2], &bytes);
	map_memory();
	return run(argv[1], argv[3]);
}
