/* SPDX-License-Identifier: BSD-2-Clause */
/* Private anonymous memory, with a staging range beside it: see backing.h. */
#include "base/mem.h"
#include "linux/backing/backing.h"
#include "linux/discard/discard.h"
#include "linux/reclaim/reclaim.h"
#include <fcntl.h>
#include <sys/mman.h>

static int map_staging(struct vmem_region *r)
{
	struct vmemi_host *host = r->host;
	uint64_t ioctls, bytes = vmemi_region_most_bytes(r);
	void *memory;
	int error;

	if (host->k->mmap(&memory, bytes, PROT_READ | PROT_WRITE, MAP_NORESERVE))
		return -VMEM_ENOMEM;
	r->staging = memory;
	error = vmemi_backing_advise(host, memory, bytes, false);
	if (error)
		return error;
	error = vmemi_uffd_register(&host->staging, memory, bytes, false, &ioctls);
	if (error)
		return error == -VMEM_ENOMEM ? error : -VMEM_EIO;
	r->can_move = ioctls >> 5 & 1 && (host->features & VMEM_KERNEL_MOVE);
	return 0;
}

static int private_open(struct vmem_region *r)
{
	int error = map_staging(r);

	if (error)
		return error;
	r->can_write_protect = (r->host->features & VMEM_KERNEL_WP) && !r->async_wp;
	r->can_scatter = r->can_write_protect && (r->opts.flags & VMEM_REGION_DMA_PINNED);
	return 0;
}

static int private_join(struct vmem_region *r, uint64_t first, uint64_t count)
{
	uint64_t ioctls;
	int error =
		vmemi_uffd_register(r->uffd, vmemi_region_page(r, first), count * VMEM_PAGE_SIZE,
				    r->can_write_protect || r->async_wp, &ioctls);

	return !error || error == -VMEM_EBUSY || error == -VMEM_ENOMEM ? error : -VMEM_EIO;
}

/* /proc/self/pagemap: one word a page, bit 63 present, 62 swapped. */
static int64_t private_count(struct vmem_region *r, uint64_t first, uint64_t count)
{
	const struct vmemi_kernel *k = r->host->k;
	uint64_t entries[512], end = first + count;
	int64_t present = 0;
	int fd = k->open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -VMEM_EIO;
	for (uint64_t page = first; page < end;) {
		uint64_t n = end - page < 512 ? end - page : 512;
		ssize_t bytes = k->pread(fd, entries, n * 8,
					 (off_t)(((uintptr_t)r->base / VMEM_PAGE_SIZE + page) * 8));

		if (bytes < 8) {
			k->close(fd);
			return -VMEM_EIO;
		}
		for (uint64_t i = 0; i < (uint64_t)bytes / 8; i++, page++) {
			if (!(entries[i] >> 62))
				continue;
			atomic_store(&r->words[page], vmemi_page_word(VMEM_PAGE_RESIDENT, 0, 0));
			vmemi_page_set_add(&r->ages.moved, page);
			present++;
		}
	}
	k->close(fd);
	return present;
}

static void private_empty(struct vmem_region *r)
{
	r->host->k->madvise(r->base, vmemi_region_bytes(r), MADV_DONTNEED);
}

static void private_close(struct vmem_region *r)
{
	if (r->staging)
		r->host->k->munmap(r->staging, vmemi_region_most_bytes(r));
}

static int private_fill(struct vmem_region *r, const struct vmemi_at *at, uint64_t page,
			unsigned count, const void *src, bool *wp, size_t *ret_done)
{
	int error;

	(void)r;
	if (src)
		return vmemi_uffd_copy(at->uffd, vmemi_address(at, page), src,
				       (size_t)count * VMEM_PAGE_SIZE, *wp, ret_done);
	error = vmemi_uffd_zeropage(at->uffd, vmemi_address(at, page),
				    (size_t)count * VMEM_PAGE_SIZE);
	*ret_done = error ? 0 : (size_t)count * VMEM_PAGE_SIZE;
	return error;
}

static int private_unstage(struct vmem_region *r, const struct vmemi_at *at, uint64_t page,
			   unsigned count, bool wp, size_t *ret_done)
{
	return vmemi_uffd_copy(at->uffd, vmemi_address(at, page), vmemi_region_place(r, page),
			       (size_t)count * VMEM_PAGE_SIZE, wp, ret_done);
}

int vmemi_private_move_back(struct vmem_region *r, uint64_t page)
{
	size_t done;
	int error = vmemi_uffd_move(r->uffd, vmemi_region_page(r, page),
				    vmemi_region_place(r, page), VMEM_PAGE_SIZE, &done);

	return error == -VMEM_EEXIST ? 1 : error;
}

static int private_read(struct vmem_region *r, uint64_t page, enum vmem_page_state from, void *data)
{
	bool staged = from == VMEM_PAGE_STAGED || from == VMEM_PAGE_STORING;

	memcpy(data, staged ? vmemi_region_place(r, page) : vmemi_region_page(r, page),
	       VMEM_PAGE_SIZE);
	return 0;
}

static int private_write(struct vmem_region *r, uint64_t page, const void *data)
{
	memcpy(vmemi_region_page(r, page), data, VMEM_PAGE_SIZE);
	return 0;
}

/* The place in staging does not change while it is READING. */
static const void *private_bytes(struct vmem_region *r, uint64_t page, void *buffer)
{
	(void)buffer;
	return vmemi_region_place(r, page);
}

/* Discards [base + page] of @pages by one call, neighbours as one range. */
static uint32_t discard(struct vmem_region *r, unsigned char *base, const uint64_t *pages,
			uint32_t count)
{
	struct iovec ranges[VMEMI_RELEASE_MAX];
	uint32_t gone = 0;

	while (count) {
		uint32_t n = 0, most = count < VMEMI_RELEASE_MAX ? count : VMEMI_RELEASE_MAX, went;

		for (uint32_t i = 0; i < most; i++) {
			unsigned char *address = base + pages[i] * VMEM_PAGE_SIZE;
			struct iovec *last = &ranges[n ? n - 1 : 0];

			if (n && (unsigned char *)last->iov_base + last->iov_len == address)
				last->iov_len += VMEM_PAGE_SIZE;
			else
				ranges[n++] = (struct iovec){ address, VMEM_PAGE_SIZE };
		}
		went = (uint32_t)(vmemi_discard_ranges(r->host->k,
						       r->host->features &
							       VMEM_KERNEL_VECTOR_DISCARD,
						       ranges, n) /
				  VMEM_PAGE_SIZE);
		gone += went;
		if (went < most)
			break;
		pages += most;
		count -= most;
	}
	return gone;
}

static uint32_t private_release(struct vmem_region *r, const uint64_t *pages, uint32_t count)
{
	vmemi_huge_break(r, pages, count);
	return discard(r, r->base, pages, count);
}

/* Nobody but reclaim changes a place that is neither staged nor read. */
static bool private_begin_free(struct vmem_region *r, uint64_t page)
{
	uint64_t after;

	return vmemi_page_step(vmemi_region_word(r, page), VMEMI_PAGE_FREED, 0, &after);
}

static uint32_t private_free_staged(struct vmem_region *r, const uint64_t *pages, uint32_t count)
{
	uint32_t gone = discard(r, r->staging, pages, count);
	uint64_t old;

	for (uint32_t i = 0; i < count; i++) {
		if (i < gone)
			vmemi_region_step(r, pages[i], VMEMI_PAGE_FREED, 0, &old);
		else
			vmemi_page_set_add(&r->waste, pages[i]);
	}
	return gone;
}

const struct vmemi_backing vmemi_backing_private = {
	.open = private_open,
	.join = private_join,
	.count = private_count,
	.empty = private_empty,
	.close = private_close,
	.fill = private_fill,
	.unstage = private_unstage,
	.read = private_read,
	.write = private_write,
	.bytes = private_bytes,
	.take = vmemi_take_scattered,
	.release = private_release,
	.begin_free = private_begin_free,
	.free_staged = private_free_staged,
};
