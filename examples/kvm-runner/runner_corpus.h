/* SPDX-License-Identifier: BSD-2-Clause */
/* Files of this machine by what they are: what a memory image is made of when none is given. */
#ifndef RUNNER_CORPUS_H
#define RUNNER_CORPUS_H
#include <stdbool.h>
#include <stdint.h>

enum corpus_class {
	CORPUS_EXECUTABLE = 0,
	CORPUS_LIBRARY = 1,
	CORPUS_TEXT = 2,
	CORPUS_CLASSES = 3
};

/* Names of many files, one behind the other in one string. */
struct corpus_list {
	char *names;
	uint32_t names_bytes;
	uint32_t names_room;
	uint32_t *at; /* where the name of file i begins */
	uint32_t count;
	uint32_t room;
};

struct corpus {
	struct corpus_list list[CORPUS_CLASSES];
};

/* Find the files: the same ones in the same order on the same machine. Returns 0, or -VMEM_ENOMEM. */
int corpus_find(struct corpus *corpus);
void corpus_free(struct corpus *corpus);

/* Whether a page at the beginning of a file is what its class should be: the name is not enough. */
bool corpus_belongs(enum corpus_class class, const char *page);

#endif
