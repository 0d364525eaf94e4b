/* SPDX-License-Identifier: BSD-2-Clause */
/* The guest's memory, as its table says: files that are mapped here. All addresses are checked against it. */
#ifndef VHOST_MEMORY_H
#define VHOST_MEMORY_H
#include <stdbool.h>
#include <sys/types.h>

#include "vhost_message.h"

struct vhost_region {
	uint64_t gpa, user, bytes;
	uint64_t offset; /* in its file */
	uint64_t block;  /* what the file gives back at once */
	int fd;
	dev_t device; /* which file it is */
	ino_t inode;
	uint8_t *map;
};

struct vhost_memory {
	uint32_t count;
	struct vhost_region region[VHOST_REGIONS];
	volatile bool lost; /* a file became shorter: all of its region reads as zeros */
};

/* Takes a table over, with its descriptors.
 * @param most_bytes  more than that is refused
 * @return NULL, or why not; the descriptors are the caller's then */
const char *vhost_memory_open(struct vhost_memory *memory, const struct vhost_table *table,
			      const int *fds, uint64_t most_bytes);
void vhost_memory_close(struct vhost_memory *memory);

/* Whether both have the same files at the same places. */
bool vhost_memory_is_same(const struct vhost_memory *a, const struct vhost_memory *b);

/* Where it is, by its guest address or its address in the client. @bytes: asked for, and how many of them are in a
 * row. NULL: nothing is there. */
void *vhost_memory_at(const struct vhost_memory *memory, uint64_t gpa, uint64_t *bytes);
void *vhost_memory_at_user(const struct vhost_memory *memory, uint64_t user, uint64_t *bytes);

/* Bytes of the regions, and bytes that their files take. */
uint64_t vhost_memory_bytes(const struct vhost_memory *memory);
uint64_t vhost_memory_file_bytes(const struct vhost_memory *memory);

/* From now on memory whose file was made shorter is noted (memory->lost) when it is touched, and reads as zeros,
 * instead of ending the process. One memory a process. */
void vhost_memory_guard(struct vhost_memory *memory);

#endif
