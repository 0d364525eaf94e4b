/* SPDX-License-Identifier: BSD-2-Clause */
/* What a VM's memory holds at first: a file, or an image made of files of this machine. Read once,
 * from the first page to the last. */
#ifndef RUNNER_IMAGE_H
#define RUNNER_IMAGE_H
#include <stdint.h>

#include "runner_corpus.h"

struct image; /* opaque */

/* What was read, by origin. */
struct image_counts {
	uint64_t pages;
	uint64_t file;                 /* from an image file */
	uint64_t made[CORPUS_CLASSES]; /* from a file of the machine */
	uint64_t zero;                 /* of all: pages of zeros */
	uint64_t same;                 /* of all: pages of one other word */
	uint64_t repeated;             /* made: the files were used up and begun again */
};

/* Open a file and check it, with a message that says what is wrong.
 * Returns 0, -VMEM_EINVAL, -VMEM_ENOMEM. */
int image_open(struct image **ret_image, const char *path, uint64_t mem_bytes);

/* An image of `pages` out of the corpus, which must outlive it. Returns 0, -VMEM_ENOMEM. */
int image_make(struct image **ret_image, const struct corpus *corpus, uint64_t pages,
	       uint64_t seed);

uint64_t image_pages(const struct image *image);

/* The next `pages` into `buffer`, which is aligned to a page; no more than are left. Returns 0, or
 * -VMEM_EIO after a message. */
int image_read(struct image *image, void *buffer, uint64_t pages);

const struct image_counts *image_counts(const struct image *image);
void image_close(struct image *image);

#endif
