/* SPDX-License-Identifier: BSD-2-Clause */
/* A VMM for tests of vmem-pager: registers memory with a userfaultfd of its own and hands it over exactly as
 * Firecracker does when it loads a snapshot, then checks every byte.
 * Usage: pager_client SOCKET MEMORY-FILE HOW
 *   good     two ranges; each page is read, some are removed and must be zeros, and written; says "all right"
 *   stay     the same, then reads every second page, says "waiting", waits for a line on stdin, and checks all
 *   others   a hand-over that is wrong in the way that is named: then it only says "sent", and goes
 * Exit 0: all held; 77: no userfaultfd for it here. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hand_over_send.h"

#define PAGE 4096u

static unsigned char *memory;
static const unsigned char *file;
static size_t bytes;

/* Two ranges, the second one first in the file; both spellings of the page's size. */
static const char *list(unsigned page_bytes)
{
	static char text[1024];
	unsigned long long base = (uintptr_t)memory, half = bytes / 2;

	snprintf(text, sizeof(text),
		 "[{\"base_host_virt_addr\":%llu,\"size\":%llu,\"offset\":%llu,\"page_size\":%u,"
		 "\"page_size_kib\":%u},{\"base_host_virt_addr\":%llu,\"size\":%llu,\"offset\":0,"
		 "\"page_size_kib\":%u}]",
		 base, half, half, page_bytes, page_bytes, base + half, half, page_bytes);
	return text;
}

static int wrong(int socket, int uffd, const char *how)
{
	int two[2] = { uffd, uffd }, other = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (!strcmp(how, "garbage"))
		hand_over(socket, "{\"base_host_virt_addr\"", &uffd, 1);
	else if (!strcmp(how, "huge"))
		hand_over(socket, list(2 << 20), &uffd, 1);
	else if (!strcmp(how, "nothing"))
		hand_over(socket, list(PAGE), NULL, 0);
	else if (!strcmp(how, "two"))
		hand_over(socket, list(PAGE), two, 2);
	else if (!strcmp(how, "other"))
		hand_over(socket, list(PAGE), &other, 1);
	else if (!strcmp(how, "beyond"))
		hand_over(socket,
			  "[{\"base_host_virt_addr\":4096,\"size\":4096,\"offset\":1099511627776}]",
			  &uffd, 1);
	else
		return 2;
	printf("sent\n");
	return 0;
}

/* Where page @i of memory is in the file. */
static const unsigned char *original(size_t i)
{
	return file + (i * PAGE + bytes / 2) % bytes;
}

static void check_page(size_t i)
{
	if (memcmp(memory + i * PAGE, original(i), PAGE)) {
		printf("page %zu is wrong\n", i);
		exit(1);
	}
}

static void check_removal(size_t i)
{
	static const unsigned char zeros[PAGE];

	need(!madvise(memory + i * PAGE, PAGE, MADV_DONTNEED), "madvise");
	if (memcmp(memory + i * PAGE, zeros, PAGE)) {
		printf("page %zu is not zeros\n", i);
		exit(1);
	}
	memcpy(memory + i * PAGE, original(i), PAGE);
}

int main(int argc, char **argv)
{
	int socket, uffd, stay;

	if (argc != 4)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	file = map_original(argv[2], &bytes);
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	need(memory != MAP_FAILED, "mmap");
	uffd = open_uffd(memory, bytes, UFFD_FEATURE_EVENT_REMOVE);
	socket = connect_to(argv[1]);
	stay = !strcmp(argv[3], "stay");
	if (!stay && strcmp(argv[3], "good"))
		return wrong(socket, uffd, argv[3]);
	hand_over(socket, list(PAGE), &uffd, 1);
	for (size_t i = 0; i < bytes / PAGE; i += 1u + (unsigned)stay)
		check_page(i);
	for (size_t i = 0; i < bytes / PAGE; i += 7)
		check_removal(i);
	if (stay) {
		printf("waiting\n");
		(void)getchar();
	}
	for (size_t i = 0; i < bytes / PAGE; i++)
		check_page(i);
	printf("all right\n");
	return 0;
}
