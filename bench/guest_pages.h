/* SPDX-License-Identifier: BSD-2-Clause */
/* All pages of all guests, in order: of images, which stay in their files and so take no memory of the
 * bench's own, else of this machine's files, as if they were those of two guests. */
#ifndef BENCH_GUEST_PAGES_H
#define BENCH_GUEST_PAGES_H
#include <stddef.h>
#include <stdint.h>

#define GUESTS_MAX 16

struct guest_pages {
	size_t guests;
	const uint8_t *pages[GUESTS_MAX]; /* of each guest */
	size_t count[GUESTS_MAX];
	size_t total;
};

/* @param images  folder of *.img, or NULL. @param quick  a third of them. They stay until the bench ends.
 * @return 0, or -errno with a message */
int guest_pages_load(struct guest_pages *guests, const char *images, int quick);

/* A page by its number in all of them. */
const uint8_t *guest_page(const struct guest_pages *guests, size_t number);
/* Copies all. */
void guest_pages_copy(const struct guest_pages *guests, uint8_t *to);
/* 1: @param pages has the same bytes */
int guest_pages_equal(const struct guest_pages *guests, const uint8_t *pages);

#endif
