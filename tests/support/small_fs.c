/* SPDX-License-Identifier: BSD-2-Clause */
/* See small_fs.h. */
#define _GNU_SOURCE
#include "support/small_fs.h"
#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

int vmemt_small_fs_begin(const char *folder, const char *options)
{
	assert(!mkdir(folder, 0700));
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("small-test", folder, "tmpfs", 0, options))
		return errno;
	return 0;
}

void vmemt_small_fs_end(const char *folder, int error)
{
	assert(error || !umount2(folder, MNT_DETACH));
	assert(!rmdir(folder));
}

int vmemt_small_fs_status(int error)
{
	if (!error)
		return 0;
	printf("skipped: a full file system, as none can be mounted (%s); all else is tried\n",
	       strerror(error));
	return 77;
}
