/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory that is a file (memfd), mapped here and perhaps by others: see backing.h.
 *
 * Bytes are read and written through the descriptor, never through a mapping: pread and pwrite neither
 * fault nor wait, whatever others do to the file meanwhile. A hole is never made readable as zeros: a page
 * that is away has no mapping that the library does not hear of. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux/backing/backing.h"
#include "linux/backing/peers.h"
#include "linux/discard/discard.h"
#include "linux/reclaim/reclaim.h"
#include "linux/region/dirty.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <unistd.h>

static off_t offset_of(const struct vmem_region *r, uint64_t page)
{
	return (off_t)(r->file.offset + page * VMEM_PAGE_SIZE);
}

static int punch(const struct vmem_region *r, uint64_t page, uint64_t count)
{
	return r->host->k->fallocate(r->file.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				     offset_of(r, page), (off_t)(count * VMEM_PAGE_SIZE));
}

int vmemi_file_make(const struct vmemi_kernel *k, uint64_t bytes, void **ret_memory, int *ret_fd)
{
	int fd = k->memfd("vmem", MFD_CLOEXEC | MFD_ALLOW_SEALING), error;

	if (fd < 0)
		return fd == -VMEM_ENOMEM ? -VMEM_ENOMEM : -VMEM_EIO;
	error = k->ftruncate(fd, (off_t)bytes);
	if (!error)
		error = k->fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	if (error) {
		k->close(fd);
		return -VMEM_EIO;
	}
	if (k->map_file(ret_memory, bytes, PROT_READ | PROT_WRITE, fd, 0)) {
		k->close(fd);
		return -VMEM_ENOMEM;
	}
	*ret_fd = fd;
	return 0;
}

static int file_open(struct vmem_region *r)
{
	const struct vmemi_kernel *k = r->host->k;
	int fd;

	if (!(r->host->features & VMEM_KERNEL_FILES))
		return -VMEM_ENOTSUP;
	fd = k->fcntl(r->opts.file_fd, F_DUPFD_CLOEXEC, 3); /* the VMM may close its own */
	if (fd < 0)
		return -VMEM_EIO;
	r->file.fd = fd;
	r->can_write_protect = true;
	r->can_scatter = r->opts.flags & VMEM_REGION_DMA_PINNED;
	return 0;
}

static int file_join(struct vmem_region *r, uint64_t first, uint64_t count)
{
	int error = vmemi_uffd_register_shared(r->uffd, vmemi_region_page(r, first),
					       count * VMEM_PAGE_SIZE);

	if (error == -VMEM_EINVAL) /* a file, but not in memory */
		return -VMEM_ENOTSUP;
	return error && error != -VMEM_EBUSY && error != -VMEM_ENOMEM ? -VMEM_EIO : error;
}

static void book_present(struct vmem_region *r, uint64_t page)
{
	atomic_store(&r->words[page], vmemi_page_word(VMEM_PAGE_RESIDENT, 0, 0));
	vmemi_page_set_add(&r->ages.moved, page);
}

/* What is data is resident. What is not is made a hole, which it may not be: room that was allocated and never
 * written would count as free and is none. */
static int64_t file_count(struct vmem_region *r, uint64_t page, uint64_t count)
{
	const struct vmemi_kernel *k = r->host->k;
	off_t first = offset_of(r, 0), at = offset_of(r, page), end = offset_of(r, page + count);
	off_t position = k->lseek(r->file.fd, 0, SEEK_CUR);
	int64_t present = 0;
	int error = 0;

	while (at < end && !error) {
		off_t data = k->lseek(r->file.fd, at, SEEK_DATA), hole;

		if (data < 0 && data != -ENXIO) { /* that is: none up to the end */
			error = -VMEM_EIO;
			break;
		}
		data = data < 0 || data > end ? end : data / VMEM_PAGE_SIZE * VMEM_PAGE_SIZE;
		if (data > at && punch(r, (uint64_t)(at - first) / VMEM_PAGE_SIZE,
				       (uint64_t)(data - at) / VMEM_PAGE_SIZE))
			error = -VMEM_EIO;
		hole = data < end ? k->lseek(r->file.fd, data, SEEK_HOLE) : end;
		if (hole < 0)
			error = -VMEM_EIO;
		for (at = data; at < hole && at < end && !error; at += VMEM_PAGE_SIZE, present++)
			book_present(r, (uint64_t)(at - first) / VMEM_PAGE_SIZE);
	}
	k->lseek(r->file.fd, position, SEEK_SET); /* it is the VMM's too */
	return error ? error : present;
}

static void file_empty(struct vmem_region *r)
{
	punch(r, 0, r->pages);
}

static void file_close(struct vmem_region *r)
{
	if (r->file.fd >= 0)
		r->host->k->close(r->file.fd);
	r->file.fd = -1;
}

static int file_read(struct vmem_region *r, uint64_t page, enum vmem_page_state from, void *data)
{
	(void)from;
	return r->host->k->pread(r->file.fd, data, VMEM_PAGE_SIZE, offset_of(r, page)) ==
			       (ssize_t)VMEM_PAGE_SIZE
		       ? 0
		       : -VMEM_EIO;
}

static int file_write(struct vmem_region *r, uint64_t page, const void *data)
{
	return r->host->k->pwrite(r->file.fd, data, VMEM_PAGE_SIZE, offset_of(r, page)) ==
			       (ssize_t)VMEM_PAGE_SIZE
		       ? 0
		       : -VMEM_EIO;
}

int vmemi_file_map(struct vmem_region *r, const struct vmemi_at *at, uint64_t page, bool *wp)
{
	void *address = vmemi_address(at, page);
	size_t done;
	int error = vmemi_uffd_continue(at->uffd, address, VMEM_PAGE_SIZE, *wp, &done);

	(void)r;
	if (error == -VMEM_EINVAL && *wp) { /* before 6.4 */
		*wp = false;
		error = vmemi_uffd_continue(at->uffd, address, VMEM_PAGE_SIZE, false, &done);
	}
	return error == -VMEM_EEXIST ? 1 : error;
}

/* Installs one page where the file has one although it should not: it was put there by a read past us, or
 * room was allocated. It is overwritten, so what was in it does not matter. */
static int overwrite(struct vmem_region *r, const struct vmemi_at *at, uint64_t page,
		     const void *src, bool *wp)
{
	int error = file_write(r, page, src ? src : r->host->zero_page);

	if (!error)
		error = vmemi_file_map(r, at, page, wp);
	if (error != 1)
		return error;
	*wp = false; /* it is mapped somehow */
	return vmemi_uffd_protect(at->uffd, vmemi_address(at, page), VMEM_PAGE_SIZE, false);
}

static int file_fill(struct vmem_region *r, const struct vmemi_at *at, uint64_t page,
		     unsigned count, const void *src, bool *wp, size_t *ret_done)
{
	const unsigned char *from = src;
	size_t done = 0, bytes = (size_t)count * VMEM_PAGE_SIZE, n;
	int error = 0;

	while (done < bytes && !error) {
		uint64_t at_page = page + done / VMEM_PAGE_SIZE;
		void *address = vmemi_address(at, at_page);

		if (src) {
			error = vmemi_uffd_copy(at->uffd, address, from + done, bytes - done, *wp,
						&n);
		} else {
			error = vmemi_uffd_zeropage(at->uffd, address, bytes - done);
			n = error ? 0 : bytes - done;
		}
		done += n;
		if (error == -VMEM_EEXIST) {
			at_page = page + done / VMEM_PAGE_SIZE;
			error = overwrite(r, at, at_page, src ? from + done : NULL, wp);
			done += error ? 0 : VMEM_PAGE_SIZE;
		}
	}
	*ret_done = done;
	return error;
}

static int file_unstage(struct vmem_region *r, const struct vmemi_at *at, uint64_t page,
			unsigned count, bool wp, size_t *ret_done)
{
	void *address = vmemi_address(at, page);
	size_t bytes = (size_t)count * VMEM_PAGE_SIZE;
	int error = vmemi_uffd_continue(at->uffd, address, bytes, wp, ret_done);

	if (error != -VMEM_EINVAL || !wp)
		return error;
	/* Before 6.4. */
	for (unsigned i = 0; i < count; i++)
		vmemi_dirty_mark(r, page + i);
	return vmemi_uffd_continue(at->uffd, address, bytes, false, ret_done);
}

/* A copy, because the page that comes back while it is read is this very frame. */
static const void *file_bytes(struct vmem_region *r, uint64_t page, void *buffer)
{
	return file_read(r, page, VMEM_PAGE_STAGED, buffer) ? NULL : buffer;
}

/* Calls @act for each run of neighbours. Returns how many pages went, from the first on. */
static uint32_t each_run(struct vmem_region *r, const uint64_t *pages, uint32_t count,
			 int (*act)(const struct vmem_region *r, uint64_t page, uint64_t count))
{
	uint32_t i = 0;

	while (i < count) {
		uint32_t n = 1;

		while (i + n < count && pages[i + n] == pages[i] + n)
			n++;
		if (act(r, pages[i], n))
			break;
		i += n;
	}
	return i;
}

static uint32_t file_release(struct vmem_region *r, const uint64_t *pages, uint32_t count)
{
	return each_run(r, pages, count, punch);
}

/* Unmaps the victims here, and write-protects them with peers, who cannot be made to unmap them; they stay in the
 * file. Who touches one meanwhile waits until all are away: so nothing is written to a page that is staged
 * without a fault that brings it back. */
static unsigned file_take(struct vmemi_reclaim *rc, struct vmem_region *r)
{
	uint32_t kept = 0, gone;
	uint64_t old;

	for (uint32_t i = 0; i < rc->scattered_count; i++)
		if (vmemi_region_step(r, rc->scattered[i], VMEMI_PAGE_TAKE, 0, &old))
			rc->scattered[kept++] = rc->scattered[i];
	rc->scattered_count = 0;
	gone = vmemi_backing_private.release(r, rc->scattered, kept);
	gone = vmemi_peers_protect(r, rc->scattered, gone);
	for (uint32_t i = 0; i < kept; i++)
		vmemi_region_end(r, rc->scattered[i],
				 i < gone ? VMEMI_PAGE_TAKE_DONE : VMEMI_PAGE_TAKE_UNDO, 0);
	vmemi_tally(&r->counters.taken_unmapped, gone);
	return gone;
}

static bool file_begin_free(struct vmem_region *r, uint64_t page)
{
	uint64_t old;

	if (vmemi_region_step(r, page, VMEMI_PAGE_PUNCH, 0, &old))
		return true;
	vmemi_region_step(r, page, VMEMI_PAGE_FREED_IN_PLACE, 0, &old);
	return false;
}

static uint32_t file_free_staged(struct vmem_region *r, const uint64_t *pages, uint32_t count)
{
	uint32_t gone = file_release(r, pages, count);

	/* What was not punched is waste still, and comes again. */
	for (uint32_t i = 0; i < count; i++)
		vmemi_region_end(r, pages[i],
				 i < gone ? VMEMI_PAGE_PUNCH_DONE : VMEMI_PAGE_PUNCH_UNDO, 0);
	return gone;
}

const struct vmemi_backing vmemi_backing_file = {
	.one_frame = true,
	.open = file_open,
	.join = file_join,
	.count = file_count,
	.empty = file_empty,
	.close = file_close,
	.fill = file_fill,
	.unstage = file_unstage,
	.read = file_read,
	.write = file_write,
	.bytes = file_bytes,
	.take = file_take,
	.release = file_release,
	.begin_free = file_begin_free,
	.free_staged = file_free_staged,
};
