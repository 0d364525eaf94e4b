/* SPDX-License-Identifier: BSD-2-Clause */
/* Real pages to measure on: from images of guest memory, else from the files of this machine. */
#ifndef BENCH_REAL_PAGES_H
#define BENCH_REAL_PAGES_H
#include <stddef.h>
#include <stdint.h>

enum page_class {
	PAGE_SAME,         /* one 64-bit word, repeated */
	PAGE_COMPRESSIBLE, /* LZ4 makes at most 3072 bytes of it, which every store and zram keep so */
	PAGE_MIDDLING,     /* between the two, where stores differ: in no row of one class */
	PAGE_INCOMPRESSIBLE, /* LZ4 does not make it smaller */
	PAGE_CLASSES
};

struct real_pages {
	uint8_t *bytes;
	uint8_t *class_of; /* enum page_class of each page */
	size_t count;      /* pages in the order and the mixture in which they were found */
	size_t total;      /* and more behind them, so that each class has some */
	size_t of_class[PAGE_CLASSES];
};

/* @param images  folder of *.img, or NULL: files of this machine, and three zero pages in ten, as
 *                guests have. They stay until the bench ends. @return 0, or -errno with a message */
int real_pages_load(struct real_pages *pages, size_t count, const char *images);

/* Copy @p count pages of one class, from the start again when there are fewer. */
void real_pages_pick(const struct real_pages *pages, enum page_class class_wanted, uint8_t *to,
		     size_t count);
/* Copy @p count pages as they come. */
void real_pages_mix(const struct real_pages *pages, uint8_t *to, size_t count);
/* The same, but only pages that are all one word or compressible. */
void real_pages_mix_compressible(const struct real_pages *pages, uint8_t *to, size_t count);

#endif
