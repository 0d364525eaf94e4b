/* SPDX-License-Identifier: BSD-2-Clause */
/* Opening a file, a folder or a block device as a swap device, and finding out what it can. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux/device/device_file.h"
#include "base/alloc.h"
#include "base/opts.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/file.h>

#define BLOCK VMEM_DEVICE_BLOCK_MAX
#define MAX_BYTES (1u << 30) /* of a transfer; the kernel does just less than 2 GiB at once */
#define DEPTH 128
#define DEPTH_MAX 4096
#define THREADS 4
#define NAMES 100 /* that are tried */
#define PATH_BYTES 4096
#define FLAGS                                                                               \
	(VMEM_DEVICE_FILE_CREATE | VMEM_DEVICE_FILE_PREALLOCATE | VMEM_DEVICE_FILE_CACHED | \
	 VMEM_DEVICE_FILE_THREADS | VMEM_DEVICE_FILE_MAPPED)

static int error_of(int error)
{
	switch (error) {
	case -ENOENT:
	case -ENOTDIR: return -VMEM_ENOENT;
	case -EPERM:
	case -EACCES:
	case -EROFS: return -VMEM_EPERM;
	case -EBUSY:
	case -ETXTBSY:
	case -EWOULDBLOCK: return -VMEM_EBUSY;
	case -ENOSPC:
	case -EDQUOT:
	case -EFBIG: return -VMEM_ENOSPC;
	case -ENOMEM: return -VMEM_ENOMEM;
	case -EOPNOTSUPP: return -VMEM_ENOTSUP;
	case -ENODEV:
	case -ENXIO: return -VMEM_ENODEV;
	default: return -VMEM_EIO;
	}
}

static int take_opts(struct vmem_device_file_opts *o, const struct vmem_device_file_opts *given)
{
	int error = vmemi_opts_take(o, sizeof(*o), given);

	if (error)
		return error;
	if (o->flags & VMEM_DEVICE_FILE_MAPPED)
		o->flags |= VMEM_DEVICE_FILE_PREALLOCATE; /* a hole may find no space */
	if (!o->depth)
		o->depth = DEPTH;
	if (!o->threads)
		o->threads = THREADS;
	return o->flags & ~FLAGS || o->size_bytes % BLOCK || o->size_bytes > INT64_MAX ||
			       o->depth > DEPTH_MAX || o->threads > VMEMI_DEVICE_THREADS_MAX
		       ? -VMEM_EINVAL
		       : 0;
}

/* Where a file system has no files without names, one is made and its name taken away. */
static int make_unnamed(const struct vmemi_kernel *k, const char *folder)
{
	char path[PATH_BYTES];
	int fd = -EEXIST;

	for (unsigned i = 0; i < NAMES && fd == -EEXIST; i++) {
		int n = snprintf(path, sizeof(path), "%s/.vmem-%llx-%u", folder,
				 (unsigned long long)k->clock_ns(), i);

		if (n < 0 || (size_t)n >= sizeof(path))
			return -ENOENT;
		fd = k->create(path, O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL, 0600);
	}
	if (fd >= 0)
		k->unlink(path);
	return fd;
}

/* The descriptor, or an error number of the kernel's, negated. */
static int open_path(const struct vmemi_kernel *k, const char *path, uint64_t flags)
{
	int how = O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	int fd = k->open(path, how | O_EXCL); /* which is for block devices */

	if (fd == -ENOENT && flags & VMEM_DEVICE_FILE_CREATE)
		fd = k->create(path, how | O_CREAT, 0600);
	if (fd == -EISDIR) {
		fd = k->create(path, how | O_TMPFILE | O_EXCL, 0600);
		if (fd == -EOPNOTSUPP || fd == -EISDIR || fd == -EINVAL)
			fd = make_unnamed(k, path);
	}
	return fd;
}

static int set_file_size(struct vmemi_device_file *f, uint64_t wanted, uint64_t has)
{
	int error;

	f->device.size_bytes = wanted ? wanted : has / BLOCK * BLOCK;
	if (has >= f->device.size_bytes)
		return 0;
	error = f->k->ftruncate(f->fd, (off_t)f->device.size_bytes);
	return error ? error_of(error) : 0;
}

static int set_block_size(struct vmemi_device_file *f, uint64_t wanted)
{
	off_t has = f->k->lseek(f->fd, 0, SEEK_END);
	int block = 0;

	if (has < 0 || f->k->ioctl(f->fd, BLKSSZGET, &block))
		return -VMEM_EIO;
	if (block > (int)BLOCK)
		return -VMEM_ENOTSUP;
	if (wanted > (uint64_t)has)
		return -VMEM_ERANGE;
	f->device.size_bytes = wanted ? wanted : (uint64_t)has / BLOCK * BLOCK;
	return 0;
}

static int take_space(struct vmemi_device_file *f)
{
	int error = f->k->fallocate(f->fd, 0, 0, (off_t)f->device.size_bytes);

	return error ? error_of(error) : 0;
}

/* Behind the end of the file, which had @has bytes, and of the device: nothing is lost there. */
static bool has_holes(const struct vmemi_device_file *f, uint64_t has)
{
	uint64_t end = (has + BLOCK - 1) / BLOCK * BLOCK;

	if (end < f->device.size_bytes)
		end = f->device.size_bytes;
	return end <= INT64_MAX - BLOCK &&
	       !f->k->fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)end,
				BLOCK);
}

/* Which kind of file it is, and what follows. */
static int identify(struct vmemi_device_file *f, const struct vmem_device_file_opts *o)
{
	struct stat st;
	bool is_file;
	int error;

	if (f->k->fstat(f->fd, &st))
		return -VMEM_EIO;
	is_file = S_ISREG(st.st_mode);
	if (!is_file && !S_ISBLK(st.st_mode))
		return -VMEM_ENOTSUP;
	error = is_file ? set_file_size(f, o->size_bytes, (uint64_t)st.st_size)
			: set_block_size(f, o->size_bytes);
	if (!error && !f->device.size_bytes)
		error = -VMEM_EINVAL;
	if (!error && is_file && o->flags & VMEM_DEVICE_FILE_PREALLOCATE)
		error = take_space(f);
	if (error)
		return error;
	if (!is_file || st.st_nlink)
		f->device.flags |= VMEM_DEVICE_OUTLIVES;
	if (!(o->flags & VMEM_DEVICE_FILE_PREALLOCATE) &&
	    (!is_file || has_holes(f, (uint64_t)st.st_size)))
		f->device.flags |= VMEM_DEVICE_CAN_DISCARD;
	f->may_shrink = is_file && st.st_nlink;
	return 0;
}

/* Past the page cache, if reading works that way. */
static bool go_direct(struct vmemi_device_file *f, int flags)
{
	_Alignas(VMEM_DEVICE_BLOCK_MAX) unsigned char block[VMEM_DEVICE_BLOCK_MAX];

	if (f->k->fcntl(f->fd, F_SETFL, flags | O_DIRECT))
		return false;
	if (f->k->pread(f->fd, block, sizeof(block), 0) != -EINVAL)
		return true;
	f->k->fcntl(f->fd, F_SETFL, flags);
	return false;
}

/* How the descriptor was opened. */
static int take_flags(const struct vmemi_device_file *f, int *ret_flags)
{
	int flags = f->k->fcntl(f->fd, F_GETFL, 0);

	if (flags < 0)
		return -VMEM_EIO;
	if ((flags & O_ACCMODE) != O_RDWR)
		return -VMEM_EPERM;
	if (flags & O_APPEND)
		return -VMEM_EINVAL;
	*ret_flags = flags;
	return 0;
}

/* @is_ours: its flags are nobody else's. */
static void set_direct(struct vmemi_device_file *f, int flags, bool is_cached, bool is_ours)
{
	if (!is_ours)
		f->is_direct = flags & O_DIRECT;
	else if (!is_cached)
		f->is_direct = go_direct(f, flags & ~O_NONBLOCK);
	else
		f->k->fcntl(f->fd, F_SETFL, flags & ~O_NONBLOCK);
	if (!f->is_direct)
		f->device.flags |= VMEM_DEVICE_CACHED;
}

static int choose_way(struct vmemi_device_file *f, const struct vmem_device_file_opts *o)
{
	if (!(o->flags & VMEM_DEVICE_FILE_THREADS)) {
		f->info.ring_error = vmemi_file_ring_open(f);
		if (!f->info.ring_error)
			return 0;
	}
	return vmemi_file_threads_open(f, o->threads);
}

/* @fd becomes the device's, or is closed. */
static int make(struct vmem_device **ret_device, int fd, const struct vmem_device_file_opts *o,
		const struct vmemi_kernel *k, bool is_ours)
{
	struct vmem_allocator a;
	struct vmemi_device_file *f = NULL;
	int error = vmemi_alloc_take(&a, o->allocator), flags;

	if (!error) {
		f = vmemi_zalloc(&a, sizeof(*f), _Alignof(struct vmemi_device_file));
		error = f ? vmemi_requests_init(&f->q, k, &a, o->depth) : -VMEM_ENOMEM;
	}
	if (error) {
		if (f)
			vmemi_free(&a, f, sizeof(*f), _Alignof(struct vmemi_device_file));
		k->close(fd);
		return error;
	}
	f->k = k;
	f->allocator = a;
	f->fd = fd;
	f->least_bytes = UINT64_MAX;
	f->device = (struct vmem_device){
		.size = sizeof(f->device),
		.context = f,
		.block_bytes = BLOCK,
		.max_bytes = MAX_BYTES,
		.depth = o->depth,
	};
	error = take_flags(f, &flags);
	if (!error)
		error = identify(f, o);
	if (!error) {
		set_direct(f, flags, o->flags & VMEM_DEVICE_FILE_CACHED, is_ours);
		error = o->flags & VMEM_DEVICE_FILE_MAPPED ? vmemi_file_mapped_open(f, is_ours)
							   : choose_way(f, o);
	}
	if (error) {
		vmemi_device_file_free(f);
		return error;
	}
	*ret_device = &f->device;
	return 0;
}

int vmemi_device_file_open(struct vmem_device **ret_device, const char *path,
			   const struct vmem_device_file_opts *opts, const struct vmemi_kernel *k)
{
	struct vmem_device_file_opts o;
	struct stat st;
	int error = take_opts(&o, opts);
	int fd;

	if (error || !path)
		return error ? error : -VMEM_EINVAL;
	fd = open_path(k, path, o.flags);
	if (fd < 0)
		return error_of(fd);
	/* Not where others cannot come: and some file systems know no locks. */
	if (!k->fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_nlink &&
	    k->flock(fd, LOCK_EX | LOCK_NB) == -EWOULDBLOCK) {
		k->close(fd);
		return -VMEM_EBUSY;
	}
	return make(ret_device, fd, &o, k, true);
}

int vmemi_device_file_adopt(struct vmem_device **ret_device, int fd,
			    const struct vmem_device_file_opts *opts, const struct vmemi_kernel *k)
{
	struct vmem_device_file_opts o;
	int error = take_opts(&o, opts);

	if (error)
		return error;
	fd = k->fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return fd == -EBADF ? -VMEM_EINVAL : error_of(fd);
	return make(ret_device, fd, &o, k, false);
}

int vmem_device_file_open(struct vmem_device **ret_device, const char *path,
			  const struct vmem_device_file_opts *opts)
{
	return vmemi_device_file_open(ret_device, path, opts, &vmemi_kernel_linux);
}

int vmem_device_file_adopt(struct vmem_device **ret_device, int fd,
			   const struct vmem_device_file_opts *opts)
{
	return vmemi_device_file_adopt(ret_device, fd, opts, &vmemi_kernel_linux);
}
