/* SPDX-License-Identifier: BSD-2-Clause */
/* Where pages come from: an image, or the memory of a process. Nothing is changed there: of a process only
 * pages that are in memory are read, because reading others would bring them in. */
#ifndef ESTIMATE_SOURCE_H
#define ESTIMATE_SOURCE_H
#include "estimate.h"

#define SOURCE_CHUNK 512u /* most pages that are asked about at once */

enum source_state { PAGE_PRESENT, PAGE_UNTOUCHED, PAGE_SWAPPED };

struct source {
	int fd;      /* the file, or /proc/PID/mem */
	int pagemap; /* of a process, else -1 */
	uint64_t first_byte;
	uint64_t pages;
};

/* Opens it, and names the VM after it. 0, or -1, and what to do was said. */
int source_open(struct source *source, const struct target *target, const struct options *options,
		struct vm *vm);
void source_close(struct source *source);

/* What there is of @count pages. 0, or -1: a process that has ended, which was said. */
int source_states(const struct source *source, const struct vm *vm, uint64_t page, uint32_t count,
		  enum source_state *states);

/* Reads up to @count pages. Returns how many; fewer if the next one cannot be read; or -1, which was
 * said. */
int source_read(const struct source *source, const struct vm *vm, uint64_t page, uint32_t count,
		void *buffer);

/* estimate_mapping.c: finds the mapping of a process, as --mapping says. 0, or -1, which was said. */
int mapping_find(int pid, const char *wanted, uint64_t *ret_first_byte, uint64_t *ret_bytes);

/* Says why a file of /proc/PID could not be opened, by errno. */
void mapping_refused(int pid);

#endif
