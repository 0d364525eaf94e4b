/* SPDX-License-Identifier: BSD-2-Clause */
/* The mappings of this process, from /proc/self/maps or smaps, line by line. Read in pieces, so that the size of
 * the process does not matter. */
#ifndef VMEMI_MAPS_H
#define VMEMI_MAPS_H
#include "linux/kernel/kernel.h"

struct vmemi_maps {
	const struct vmemi_kernel *k;
	int fd; /* of the file, opened by the caller */
	size_t have, next;
	char buffer[4096];
};

struct vmemi_mapping {
	unsigned long long start, stop, offset, inode;
	unsigned major, minor;
	char permissions[8];
	bool anonymous_huge; /* of hugetlbfs, without a file of anybody's; but it has an inode */
};

/* One line without its end, cut to @size. False at the end of the file. */
bool vmemi_maps_line(struct vmemi_maps *in, char *line, size_t size);
/* Whether a line is of a mapping: then which. */
bool vmemi_maps_parse(const char *line, struct vmemi_mapping *ret_mapping);

/* Calls @is_right for each mapping that [start, start + bytes) is made of, as long as that is true. 1: of all; 0: not of
 * all, or not all is mapped; -VMEM_EIO. */
int vmemi_maps_check(const struct vmemi_kernel *k, uintptr_t start, uint64_t bytes,
		     bool (*is_right)(const struct vmemi_mapping *m, const void *context),
		     const void *context);

#endif
