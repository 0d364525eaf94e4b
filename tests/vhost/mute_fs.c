/* SPDX-License-Identifier: BSD-2-Clause */
/* As much of the protocol of /dev/fuse as opening one file takes. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "mute_fs.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILE_NODE 2u
#define REQUEST_BYTES (FUSE_MIN_READ_BUFFER + 65536)

static void reply(int device, uint64_t unique, int error, const void *body, size_t bytes)
{
	struct fuse_out_header head = { .len = (uint32_t)(sizeof(head) + bytes),
					.error = -error,
					.unique = unique };
	struct iovec out[2] = { { &head, sizeof(head) }, { (void *)(uintptr_t)body, bytes } };

	(void)!writev(device, out, 2);
}

static struct fuse_attr attributes(uint64_t node)
{
	return (struct fuse_attr){ .ino = node,
				   .mode = node == FILE_NODE ? S_IFREG | 0600 : S_IFDIR | 0700,
				   .nlink = 1 };
}

/* Who has started us is answered, too, when it closes the file, as it does when it ends. */
static void answer(int device, const struct fuse_in_header *in, int closes, uint32_t parent)
{
	const struct fuse_init_out init = { .major = FUSE_KERNEL_VERSION,
					    .minor = 31,
					    .max_write = 4096 };
	const struct fuse_entry_out entry = { .nodeid = FILE_NODE, .attr = attributes(FILE_NODE) };
	const struct fuse_attr_out attr = { .attr = attributes(in->nodeid) };
	const struct fuse_open_out file = { .fh = 1 };

	switch (in->opcode) {
	case FUSE_INIT: reply(device, in->unique, 0, &init, sizeof(init)); break;
	case FUSE_LOOKUP: reply(device, in->unique, 0, &entry, sizeof(entry)); break;
	case FUSE_GETATTR: reply(device, in->unique, 0, &attr, sizeof(attr)); break;
	case FUSE_OPEN: reply(device, in->unique, 0, &file, sizeof(file)); break;
	case FUSE_FLUSH:
		if (in->pid == parent)
			reply(device, in->unique, 0, NULL, 0);
		else
			assert(write(closes, "c", 1) == 1);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET: break;
	default: reply(device, in->unique, ENOSYS, NULL, 0); break;
	}
}

static void serve(int device, int closes, uint32_t parent)
{
	static _Alignas(8) char request[REQUEST_BYTES];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		if (read(device, request, sizeof(request)) > 0)
			answer(device, (const struct fuse_in_header *)(void *)request, closes,
			       parent);
		else if (errno == ENODEV)
			_exit(0);
}

static bool mount_at(const char *folder, int device)
{
	char options[64];

	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=%u,group_id=%u", device,
		 (unsigned)geteuid(), (unsigned)getegid());
	/* Where nobody else sees it, so that it goes with the last of its processes. */
	return unshare(CLONE_NEWNS) == 0 &&
	       mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("mute", folder, "fuse", MS_NOSUID | MS_NODEV, options) == 0;
}

bool mute_fs_begin(struct mute_fs *fs, const char **ret_why)
{
	int device, ends[2];
	pid_t parent;

	*ret_why = "files whose close waits: no /dev/fuse that opens, or no right to mount";
	device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (device < 0)
		return false;
	strcpy(fs->folder, "/tmp/vmem-mute-fs-XXXXXX");
	assert(mkdtemp(fs->folder));
	if (!mount_at(fs->folder, device)) {
		rmdir(fs->folder);
		close(device);
		return false;
	}
	snprintf(fs->file, sizeof(fs->file), "%s/f", fs->folder);
	assert(pipe2(ends, O_CLOEXEC) == 0);
	fs->closes = ends[0];
	parent = getpid();
	fs->server = fork();
	assert(fs->server >= 0);
	if (fs->server == 0)
		serve(device, ends[1], (uint32_t)parent);
	close(ends[1]);
	close(device);
	return true;
}

void mute_fs_stop(struct mute_fs *fs)
{
	kill(fs->server, SIGKILL);
	assert(waitpid(fs->server, NULL, 0) == fs->server);
}

void mute_fs_end(struct mute_fs *fs)
{
	assert(umount2(fs->folder, MNT_DETACH) == 0);
	assert(rmdir(fs->folder) == 0);
	close(fs->closes);
}
