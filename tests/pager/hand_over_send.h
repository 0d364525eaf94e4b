/* SPDX-License-Identifier: BSD-2-Clause */
/* What clients of vmem-pager do alike: a userfaultfd of one's own, and its message. */
#ifndef HAND_OVER_SEND_H
#define HAND_OVER_SEND_H
#include <linux/userfaultfd.h>
#include <stddef.h>
#include <stdint.h>

/* Ends the process with what went wrong. */
void need(int condition, const char *what);

/* The file with what memory must hold, mapped to be read; it is not empty. */
const unsigned char *map_original(const char *path, size_t *ret_bytes);

/* Has @memory registered. Ends the process with 77 where there is none. */
int open_uffd(void *memory, size_t bytes, uint64_t features);

int connect_to(const char *path);
/* One message: @text with @count descriptors, VMEMT_FDS_MAX at most. */
void hand_over(int socket, const char *text, const int *fds, unsigned count);

#endif
