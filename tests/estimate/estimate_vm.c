/* SPDX-License-Identifier: BSD-2-Clause */
/* For the tests of vmem-estimate: makes images of which it is known where each page goes, and holds one in
 * its memory, as a VM does.
 *	estimate_vm make SEED KIND:COUNT...    writes an image to standard output
 *	estimate_vm hold IMAGE private|shared  says where it is, and waits to be killed
 * KIND: zero, word (one word of 64 bits, repeated), half (of 32), random, letters (Zstandard makes them
 * smaller, LZ4 does not), lines (both make them much smaller), tail (both a little), equal (to letters 0 of
 * the seed), alike (to random 0, but for a few bytes). Pages of one kind and seed differ from each other, but
 * for zero and equal. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096u

enum { RANDOM, LETTERS, LINES, TAIL, KINDS };

static const char *const kinds[KINDS] = { "random", "letters", "lines", "tail" };

static uint64_t next(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static void fill(unsigned char *page, unsigned kind, uint64_t seed, uint64_t number)
{
	uint64_t state = (seed << 40) + ((uint64_t)kind << 36) + number;

	state = next(&state);
	for (unsigned at = 0; at < PAGE; at += 8) {
		uint64_t word = next(&state);

		memcpy(page + at, &word, 8);
	}
	for (unsigned at = 0; kind == LETTERS && at < PAGE; at++)
		page[at] = (unsigned char)('a' + page[at] % 16);
	for (unsigned at = 64; kind == LINES && at < PAGE; at++)
		page[at] = (unsigned char)(page[at - 64] + (at % 61 == 0));
	if (kind == TAIL)
		memset(page + 3000, 0, PAGE - 3000);
}

static void fill_word(unsigned char *page, uint64_t word)
{
	for (unsigned at = 0; at < PAGE; at += 8)
		memcpy(page + at, &word, 8);
}

/* @return whether there is such a kind. */
static int make_page(unsigned char *page, const char *kind, uint64_t seed, uint64_t number)
{
	uint64_t word = seed << 32 | (number + 1);

	for (unsigned k = 0; k < KINDS; k++) {
		if (strcmp(kind, kinds[k]) == 0) {
			fill(page, k, seed, number);
			return 1;
		}
	}
	if (strcmp(kind, "zero") == 0) {
		fill_word(page, 0);
	} else if (strcmp(kind, "word") == 0) {
		fill_word(page, word << 8);
	} else if (strcmp(kind, "half") == 0) {
		fill_word(page, (number + 1) << 32 | (number + 1));
	} else if (strcmp(kind, "equal") == 0) {
		fill(page, LETTERS, seed, 0);
	} else if (strcmp(kind, "alike") == 0) {
		fill(page, RANDOM, seed, 0);
		memcpy(page + 100, &word, sizeof(word));
		memset(page + 2000, 'x', 8);
	} else {
		return 0;
	}
	return 1;
}

static int make(uint64_t seed, char **parts)
{
	static unsigned char page[PAGE];

	for (; *parts; parts++) {
		char *count = strchr(*parts, ':');

		if (!count)
			return 2;
		*count++ = '\0';
		for (uint64_t i = 0; i < strtoull(count, NULL, 10); i++)
			if (!make_page(page, *parts, seed, i) || fwrite(page, PAGE, 1, stdout) != 1)
				return 2;
	}
	return fflush(stdout) ? 1 : 0;
}

/* In memory that has as much again that is never touched, and is two mappings for the kernel because part of it
 * was advised, as guest memory often is; between pages that are no memory, so that it is no neighbour's. */
static int hold(const char *path, int shared)
{
	FILE *image = fopen(path, "r");
	struct stat st;
	size_t bytes;
	char *memory;

	if (!image || fstat(fileno(image), &st) != 0)
		return 1;
	bytes = (size_t)st.st_size;
	memory = mmap(NULL, 2 * bytes + 2 * PAGE, PROT_NONE,
		      MAP_NORESERVE | MAP_ANONYMOUS | (shared ? MAP_SHARED : MAP_PRIVATE), -1, 0);
	if (memory == MAP_FAILED)
		return 1;
	memory += PAGE;
	if (mprotect(memory, 2 * bytes, PROT_READ | PROT_WRITE) != 0)
		return 1;
	if (madvise(memory, bytes / PAGE / 2 * PAGE, MADV_DONTFORK) != 0)
		return 1;
	(void)madvise(memory, 2 * bytes, MADV_NOHUGEPAGE);
	if (fread(memory, bytes, 1, image) != 1)
		return 1;
	printf("at %p\n", (void *)memory);
	fflush(stdout);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	if (argc >= 4 && strcmp(argv[1], "make") == 0)
		return make(strtoull(argv[2], NULL, 10), argv + 3);
	if (argc == 4 && strcmp(argv[1], "hold") == 0)
		return hold(argv[2], strcmp(argv[3], "shared") == 0);
	fputs("estimate_vm: bad arguments\n", stderr);
	return 2;
}
