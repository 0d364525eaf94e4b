/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices on files: each way in which they work is put through the suite; then what only files can do to one. */
#define _GNU_SOURCE
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vmem/device_file.h>
#include "device/device_suite.h"
#include "support/fail_alloc.h"
#include "support/small_fs.h"

#define BLOCK 4096ul
#define MIB (UINT64_C(1) << 20)

static char folder[] = "/tmp/vmem-device-XXXXXX";
static char named[sizeof(folder) + 8];

struct way {
	const char *name;
	const char *path; /* NULL: a memfd */
	uint64_t flags;
};

static struct vmem_device *open_by(void *context)
{
	const struct way *w = context;
	struct vmem_device_file_opts o = {
		.size = sizeof(o),
		.flags = w->flags,
		.size_bytes = VMEMT_DEVICE_BYTES,
		.depth = VMEMT_DEVICE_DEPTH,
	};
	struct vmem_device *d = NULL;
	int fd = -1, error;

	if (w->path) {
		error = vmem_device_file_open(&d, w->path, &o);
	} else {
		fd = memfd_create("device", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		assert(fd >= 0);
		error = vmem_device_file_adopt(&d, fd, &o);
		close(fd);
	}
	if (error)
		fprintf(stderr, "%s: %s\n", w->name, vmem_strerror(error));
	assert(!error);
	return d;
}

static struct vmem_device_file_info info_of(const struct vmem_device *d)
{
	struct vmem_device_file_info i = { .size = sizeof(i) };

	assert(!vmem_device_file_get_info(d, &i));
	return i;
}

static void all_ways_conform(void)
{
	static struct way ways[] = {
		{ "a folder", folder, 0 },
		{ "by threads", folder, VMEM_DEVICE_FILE_THREADS },
		{ "through the page cache", folder, VMEM_DEVICE_FILE_CACHED },
		{ "preallocated", folder, VMEM_DEVICE_FILE_PREALLOCATE },
		{ "a file with a name", named, VMEM_DEVICE_FILE_CREATE },
		{ "by threads, cached", named,
		  VMEM_DEVICE_FILE_THREADS | VMEM_DEVICE_FILE_CACHED | VMEM_DEVICE_FILE_CREATE },
		{ "a memfd", NULL, 0 },
		{ "a memfd, by threads", NULL, VMEM_DEVICE_FILE_THREADS },
		{ "a memfd, mapped", NULL, VMEM_DEVICE_FILE_MAPPED },
	};

	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		struct vmemt_device_kind kind = { ways[i].name, open_by, &ways[i] };

		assert(vmemt_device_conforms(&kind));
	}
	assert(!unlink(named));
}

static void says_what_it_is(void)
{
	struct vmem_device_file_opts o = { .size = sizeof(o), .size_bytes = MIB };
	struct vmem_device *d;
	struct stat st;

	assert(!vmem_device_file_open(&d, folder, &o));
	assert(d->size_bytes == MIB && d->depth == 128 && d->block_bytes == BLOCK);
	assert(!(d->flags & (VMEM_DEVICE_OUTLIVES | VMEM_DEVICE_ENCRYPTED | VMEM_DEVICE_MAPPED)));
	fprintf(stderr, "io_uring: %s, page cache: %s, holes: %s\n",
		info_of(d).ring_error ? "no" : "yes", d->flags & VMEM_DEVICE_CACHED ? "yes" : "no",
		d->flags & VMEM_DEVICE_CAN_DISCARD ? "yes" : "no");
	assert(!info_of(d).ring_error == !info_of(d).threads);
	vmem_device_close(d);

	o.flags = VMEM_DEVICE_FILE_CREATE | VMEM_DEVICE_FILE_PREALLOCATE |
		  VMEM_DEVICE_FILE_THREADS | VMEM_DEVICE_FILE_CACHED;
	o.threads = 2;
	assert(!vmem_device_file_open(&d, named, &o));
	assert(d->flags == (VMEM_DEVICE_OUTLIVES | VMEM_DEVICE_CACHED));
	assert(info_of(d).threads == 2 && !info_of(d).ring_error);
	assert(!stat(named, &st) && (st.st_mode & 0777) == 0600);
	assert((uint64_t)st.st_size == MIB && (uint64_t)st.st_blocks * 512 >= MIB);
	vmem_device_close(d);

	/* Its size is the file's, if none is given. */
	assert(!vmem_device_file_open(&d, named, NULL));
	assert(d->size_bytes == MIB);
	vmem_device_close(d);
	assert(!unlink(named));
}

static void refuses_what_it_cannot(void)
{
	struct vmem_device_file_opts o = { .size = sizeof(o) };
	struct vmem_device *d = NULL, *other;
	int fd;

	assert(vmem_device_file_open(&d, folder, &o) == -VMEM_EINVAL); /* no size */
	assert(vmem_device_file_open(&d, NULL, &o) == -VMEM_EINVAL);
	o.size_bytes = 100;
	assert(vmem_device_file_open(&d, folder, &o) == -VMEM_EINVAL);
	o.size_bytes = MIB;
	o.depth = 4097;
	assert(vmem_device_file_open(&d, folder, &o) == -VMEM_EINVAL);
	o.depth = 0;
	o.threads = 65;
	assert(vmem_device_file_open(&d, folder, &o) == -VMEM_EINVAL);
	o.threads = 0;
	o.flags = UINT64_C(1) << 63;
	assert(vmem_device_file_open(&d, folder, &o) == -VMEM_EINVAL);
	o.flags = 0;
	assert(vmem_device_file_open(&d, named, &o) == -VMEM_ENOENT);
	assert(vmem_device_file_open(&d, "/dev/null", &o) == -VMEM_ENOTSUP);
	assert(vmem_device_file_adopt(&d, -1, &o) == -VMEM_EINVAL);
	fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	assert(fd >= 0 && vmem_device_file_adopt(&d, fd, &o) == -VMEM_EPERM);
	close(fd);
	fd = open(folder, O_TMPFILE | O_RDWR | O_APPEND | O_CLOEXEC, 0600);
	assert(fd < 0 || vmem_device_file_adopt(&d, fd, &o) == -VMEM_EINVAL);
	if (fd >= 0)
		close(fd);
	o.flags = VMEM_DEVICE_FILE_CREATE;
	assert(!vmem_device_file_open(&other, named, &o));
	assert(vmem_device_file_open(&d, named, &o) == -VMEM_EBUSY);
	vmem_device_close(other);
	assert(!vmem_device_file_open(&d, named, &o));
	vmem_device_close(d);
	assert(!unlink(named));
}

/* Somebody truncates the file: what was there is never zeros. */
static void truncated(uint64_t flags)
{
	struct vmem_device_file_opts o = { .size = sizeof(o),
					   .size_bytes = MIB,
					   .flags = flags | VMEM_DEVICE_FILE_CREATE };
	unsigned char *data = vmemt_device_buffer(16 * BLOCK);
	struct vmem_device *d;

	assert(!vmem_device_file_open(&d, named, &o));
	vmemt_device_fill(data, 16 * BLOCK, 1);
	assert(!vmemt_device_do(d, VMEM_DEVICE_WRITE, 0, data, 16 * BLOCK));
	assert(!truncate(named, 2 * BLOCK + 100));
	assert(!vmemt_device_do(d, VMEM_DEVICE_READ, 0, data, 2 * BLOCK));
	assert(vmemt_device_do(d, VMEM_DEVICE_READ, 4 * BLOCK, data, BLOCK) == -VMEM_EIO);
	assert(vmemt_device_do(d, VMEM_DEVICE_READ, 2 * BLOCK, data, BLOCK) == -VMEM_EIO);
	assert(vmemt_device_do(d, VMEM_DEVICE_READ, BLOCK, data, 4 * BLOCK) == -VMEM_EIO);
	/* Growing does not bring it back. */
	assert(!truncate(named, (off_t)MIB));
	assert(vmemt_device_do(d, VMEM_DEVICE_READ, 4 * BLOCK, data, BLOCK) == -VMEM_EIO);
	assert(vmemt_device_do(d, VMEM_DEVICE_WRITE, 4 * BLOCK, data, BLOCK) == -VMEM_EIO);
	assert(!vmemt_device_do(d, VMEM_DEVICE_READ, BLOCK, data, BLOCK));
	vmemt_device_fill(data + BLOCK, 16 * BLOCK - BLOCK, 1);
	assert(!vmemt_device_do(d, VMEM_DEVICE_FLUSH, 0, NULL, 0));
	vmem_device_close(d);
	assert(!unlink(named));
	free(data);
}

/* What could raise SIGBUS is refused. */
static void maps_what_is_safe(void)
{
	struct vmem_device_file_opts o = { .size = sizeof(o),
					   .size_bytes = MIB,
					   .flags = VMEM_DEVICE_FILE_MAPPED |
						    VMEM_DEVICE_FILE_CREATE };
	struct vmem_device *d = NULL;
	int fd = memfd_create("device", MFD_CLOEXEC);

	/* Not sealed, nor can it be. */
	assert(fd >= 0 && vmem_device_file_adopt(&d, fd, &o) == -VMEM_ENOTSUP);
	close(fd);
	assert(vmem_device_file_open(&d, named, &o) == -VMEM_ENOTSUP && !d);
	assert(!unlink(named));
	fd = memfd_create("device", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert(fd >= 0 && !vmem_device_file_adopt(&d, fd, &o));
	assert(d->flags == VMEM_DEVICE_MAPPED && !info_of(d).threads && !info_of(d).ring_error);
	assert(ftruncate(fd, 0) == -1 && errno == EPERM);
	vmem_device_close(d);
	close(fd);
}

static uint64_t blocks_of(int fd)
{
	struct stat st;

	assert(!fstat(fd, &st));
	return (uint64_t)st.st_blocks * 512;
}

static void discards_make_holes(uint64_t flags)
{
	struct vmem_device_file_opts o = { .size = sizeof(o), .size_bytes = MIB, .flags = flags };
	unsigned char *data = vmemt_device_buffer(MIB);
	struct vmem_device *d;
	int fd = memfd_create("device", MFD_CLOEXEC);

	assert(fd >= 0 && !vmem_device_file_adopt(&d, fd, &o));
	assert(d->flags & VMEM_DEVICE_CAN_DISCARD);
	assert(!vmemt_device_do(d, VMEM_DEVICE_WRITE, 0, data, MIB));
	assert(blocks_of(fd) == MIB);
	assert(!vmemt_device_do(d, VMEM_DEVICE_DISCARD, 4 * BLOCK, NULL, 16 * BLOCK));
	assert(blocks_of(fd) == MIB - 16 * BLOCK);
	assert(!vmemt_device_do(d, VMEM_DEVICE_DISCARD, 0, NULL, MIB));
	assert(blocks_of(fd) == 0);
	vmem_device_close(d);
	close(fd);
	free(data);
}

/* A device that is smaller than its file: what is behind it belongs to somebody. */
static void leaves_what_is_behind(bool is_named, uint64_t size, uint64_t has)
{
	struct vmem_device_file_opts o = { .size = sizeof(o), .size_bytes = size };
	unsigned char *data = vmemt_device_buffer(MIB);
	struct vmem_device *d;
	int fd = is_named ? open(named, O_RDWR | O_CREAT | O_CLOEXEC, 0600)
			  : memfd_create("device", MFD_CLOEXEC);

	vmemt_device_fill(data, has, has);
	assert(fd >= 0 && pwrite(fd, data, has, 0) == (ssize_t)has);
	assert(!(is_named ? vmem_device_file_open(&d, named, &o)
			  : vmem_device_file_adopt(&d, fd, &o)));
	assert(d->size_bytes == (size ? size : has / BLOCK * BLOCK));
	assert(is_named || d->flags & VMEM_DEVICE_CAN_DISCARD);
	vmem_device_close(d);
	memset(data, 0, has);
	assert(pread(fd, data, MIB, 0) == (ssize_t)has);
	assert(vmemt_device_is_filled(data, has, has));
	close(fd);
	if (is_named)
		assert(!unlink(named));
	free(data);
}

/* A file system without room says so; what is there stays, and room that is made is used. */
static void full(const char *path, uint64_t flags)
{
	struct vmem_device_file_opts o = { .size = sizeof(o), .size_bytes = MIB, .flags = flags };
	unsigned char *data = vmemt_device_buffer(MIB);
	struct vmem_device *d = NULL;
	uint64_t at = 0;
	int error = 0;

	assert(!vmem_device_file_open(&d, path, &o));
	for (; at < MIB && !error; at += BLOCK) {
		vmemt_device_fill(data, BLOCK, at);
		error = vmemt_device_do(d, VMEM_DEVICE_WRITE, at, data, BLOCK);
	}
	assert(error == -VMEM_ENOSPC && at > 16 * BLOCK);
	at -= BLOCK;
	assert(!vmemt_device_do(d, VMEM_DEVICE_READ, 8 * BLOCK, data, BLOCK));
	assert(vmemt_device_is_filled(data, BLOCK, 8 * BLOCK));
	assert(!vmemt_device_do(d, VMEM_DEVICE_DISCARD, 0, NULL, 4 * BLOCK));
	assert(!vmemt_device_do(d, VMEM_DEVICE_WRITE, at, data, BLOCK));
	vmem_device_close(d);
	o.flags |= VMEM_DEVICE_FILE_PREALLOCATE;
	d = NULL;
	assert(vmem_device_file_open(&d, path, &o) == -VMEM_ENOSPC && !d);
	o.flags |= VMEM_DEVICE_FILE_MAPPED;
	assert(vmem_device_file_open(&d, path, &o) == -VMEM_ENOSPC && !d);
	o.size_bytes = 64 * BLOCK;
	assert(!vmem_device_file_open(&d, path, &o));
	assert(d->flags == VMEM_DEVICE_MAPPED && d->ops->map(d->context, 0, 64 * BLOCK));
	vmem_device_close(d);
	free(data);
}

/* 0, or errno: there was none. */
static int full_file_system(void)
{
	char path[sizeof(folder) + 8];
	int error;

	snprintf(path, sizeof(path), "%s/full", folder);
	error = vmemt_small_fs_begin(path, "size=512k");
	if (!error) {
		full(path, 0);
		full(path, VMEM_DEVICE_FILE_THREADS);
		full(path, VMEM_DEVICE_FILE_CACHED);
	}
	vmemt_small_fs_end(path, error);
	return error;
}

static unsigned open_descriptors(void)
{
	unsigned count = 0;

	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

static void allocations_fail(uint64_t flags)
{
	unsigned before = open_descriptors();
	struct vmemt_fail_alloc a;
	struct vmem_device_file_opts o = {
		.size = sizeof(o), .size_bytes = MIB, .allocator = &a.allocator, .flags = flags
	};

	for (long n = 0;; n++) {
		struct vmem_device *d = NULL;
		int error;

		vmemt_fail_alloc_init(&a);
		a.fail_after = n;
		error = vmem_device_file_open(&d, folder, &o);
		assert(error == (a.failed ? -VMEM_ENOMEM : 0) && !d == !!error);
		vmem_device_close(d);
		assert(!a.live_bytes && open_descriptors() == before);
		if (!a.failed)
			break;
	}
}

int main(void)
{
	int error;

	assert(mkdtemp(folder));
	snprintf(named, sizeof(named), "%s/swap", folder);
	says_what_it_is();
	refuses_what_it_cannot();
	for (int i = 0; i < 4; i++) {
		uint64_t flags = (i & 1 ? VMEM_DEVICE_FILE_THREADS : 0) |
				 (i & 2 ? VMEM_DEVICE_FILE_CACHED : 0);

		truncated(flags);
		discards_make_holes(flags);
		allocations_fail(flags);
	}
	for (int i = 0; i < 2; i++) {
		leaves_what_is_behind(i, 4 * BLOCK, 16 * BLOCK);
		leaves_what_is_behind(i, 4 * BLOCK, 4 * BLOCK + 100);
		leaves_what_is_behind(i, 0, 4 * BLOCK + 100);
	}
	maps_what_is_safe();
	error = full_file_system();
	all_ways_conform();
	assert(!rmdir(folder));
	return vmemt_small_fs_status(error);
}
