/* SPDX-License-Identifier: BSD-2-Clause */
/* A file system of one file, served by a process of its own by FUSE, that says nothing when others than who has
 * begun it close the file. */
#ifndef MUTE_FS_H
#define MUTE_FS_H
#include <stdbool.h>
#include <sys/types.h>

struct mute_fs {
	char folder[32], file[40];
	pid_t server;
	int closes; /* a byte is read here for each close that waits */
};

/* False: it cannot be had; *ret_why says why. */
bool mute_fs_begin(struct mute_fs *fs, const char **ret_why);

/* The server ends: who waits is told that it is gone. */
void mute_fs_stop(struct mute_fs *fs);
void mute_fs_end(struct mute_fs *fs);

#endif
