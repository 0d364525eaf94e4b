/* SPDX-License-Identifier: BSD-2-Clause */
/* A small file system for tests that fill it: tmpfs, in mounts of the test's own, so that nothing stays of it however
 * the test ends. */
#ifndef VMEMT_SMALL_FS_H
#define VMEMT_SMALL_FS_H

/* Makes @folder, and mounts one there that only the calling thread sees; @options: as "size=1m". 0, or what errno was:
 * nobody but root can do that. */
int vmemt_small_fs_begin(const char *folder, const char *options);
/* Takes the folder away; @error: of begin(). */
void vmemt_small_fs_end(const char *folder, int error);
/* The exit status of a test that has done all else: skipped, with the reason, where @error says that there was none. */
int vmemt_small_fs_status(int error);

#endif
