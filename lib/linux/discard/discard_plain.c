/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory that is of no region: which calls give it back, by what it is. What there is of it is counted before, and
 * what the kernel refuses is counted again after, so that what is told is what really went. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/mem.h"
#include "linux/discard/discard_memory.h"
#include "linux/kernel/maps.h"
#include "linux/kernel/pagemap.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Runs of pages with other memory in private mappings of files, each of which costs two mappings: the kernel allows a
 * process 65530. */
#define REPLACED_RUNS_MAX 8192

/* --- What there is --- */

/* Bytes of data in a file. What cannot be told is as if all of it were. */
static uint64_t data_in_file(const vmem_discard *d, const struct vmemi_piece *p, uint64_t at,
			     uint64_t bytes)
{
	off_t from = (off_t)(p->offset + at), end = from + (off_t)bytes, data = from, hole;
	uint64_t found = 0;

	while (data < end) {
		data = d->k->lseek(p->fd, data, SEEK_DATA);
		if (data == -ENXIO || data >= end)
			break;
		hole = data < 0 ? data : d->k->lseek(p->fd, data, SEEK_HOLE);
		if (hole < 0)
			return bytes;
		hole = hole < end ? hole : end;
		found += (uint64_t)(hole - data);
		data = hole;
	}
	return found;
}

/* Bytes that all of the file takes. */
static uint64_t blocks_of_file(const vmem_discard *d, const struct vmemi_piece *p)
{
	struct stat st;

	return d->k->fstat(p->fd, &st) ? 0 : (uint64_t)st.st_blocks * 512;
}

static uint64_t present_at(const vmem_discard *d, const struct vmemi_piece *p, uint64_t at,
			   uint64_t bytes)
{
	uint64_t found;

	if (p->kind == VMEM_DISCARD_FILE)
		return data_in_file(d, p, at, bytes);
	return vmemi_pagemap_count(d->k, d->pagemap, d->scan, (uintptr_t)p->hva + at, bytes, &found)
		       ? bytes
		       : found;
}

/* What became of a run that the kernel refused a part of. */
static void refused(vmem_discard *d, size_t i, int error)
{
	uint64_t at = (uintptr_t)d->runs[i].iov_base;
	uint64_t left = present_at(d, d->at, at, d->runs[i].iov_len), before = d->present[i];

	d->counts->released += before > left ? before - left : 0;
	/* Of memory that is mapped this says that it is mlocked. */
	if (error == -VMEM_EINVAL && d->at->block_bytes == VMEM_PAGE_SIZE)
		d->counts->pinned += left;
	else
		d->counts->failed += left;
}

/* --- Private memory --- */

static void drop(vmem_discard *d, size_t first, size_t end)
{
	struct iovec ranges[VMEMI_DISCARD_RUNS];
	size_t done;
	int error;

	for (size_t i = first; i < end; i++)
		ranges[i] = (struct iovec){ d->at->hva + (uintptr_t)d->runs[i].iov_base,
					    d->runs[i].iov_len };
	while (first < end) {
		done = vmemi_discard_ranges(d->k, d->vector, ranges + first, end - first);
		for (; first < end && done >= ranges[first].iov_len; first++) {
			done -= ranges[first].iov_len;
			d->counts->released += d->present[first];
		}
		if (first == end)
			break;
		/* Once more by itself: the error of the others says nothing of it. */
		error = d->k->madvise(ranges[first].iov_base, ranges[first].iov_len, MADV_DONTNEED);
		if (error)
			refused(d, first, error);
		else
			d->counts->released += d->present[first];
		first++;
	}
}

/* --- Files --- */

/* Whoever has a userfaultfd on our mapping is told by this call, and not by the hole; and it knows what is mlocked,
 * which the hole would take all the same. */
static int unmap(vmem_discard *d, const struct vmemi_piece *p, uint64_t at, uint64_t bytes)
{
	int error = p->hva ? d->k->madvise(p->hva + at, bytes, MADV_DONTNEED) : 0;

	/* Before 5.18 hugetlbfs cannot: the hole does that, too. */
	return p->block_bytes > VMEM_PAGE_SIZE ? 0 : error;
}

static void punch(vmem_discard *d, size_t i)
{
	const struct vmemi_piece *p = d->at;
	uint64_t at = (uintptr_t)d->runs[i].iov_base, bytes = d->runs[i].iov_len;
	uint64_t blocks = p->counts_blocks ? blocks_of_file(d, p) : 0, after;
	int error = unmap(d, p, at, bytes);

	if (!error)
		error = d->k->fallocate(p->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					(off_t)(p->offset + at), (off_t)bytes);
	if (p->counts_blocks && !error) {
		after = blocks_of_file(d, p);
		blocks = blocks > after ? blocks - after : 0;
		d->counts->released += blocks < bytes ? blocks : bytes;
	} else if (error) {
		refused(d, i, error);
	} else {
		d->counts->released += d->present[i];
	}
}

/* --- Private mappings of files: what was the file's would be so again --- */

static bool is_replaced(const struct vmemi_piece *p, uint64_t page)
{
	return page < p->bytes / VMEM_PAGE_SIZE && p->replaced[page / 64] >> page % 64 & 1;
}

/* Puts other memory in the place of pages that are all the file's. Runs are never counted down: the kernel joins the
 * mappings on both sides of a hole that is filled only as long as one of them was not touched. Discarding before tells the
 * owner of a userfaultfd, and says what is mlocked; then parts may read as the file's, until they are replaced. */
static int replace(vmem_discard *d, struct vmemi_piece *p, uint64_t page, uint64_t count)
{
	bool beside = (page && is_replaced(p, page - 1)) || is_replaced(p, page + count);
	unsigned char *at = p->hva + page * VMEM_PAGE_SIZE;
	size_t bytes = count * VMEM_PAGE_SIZE;
	int error;

	if (!beside && d->replaced_runs == REPLACED_RUNS_MAX)
		return -VMEM_ENOMEM;
	error = d->k->madvise(at, bytes, MADV_DONTNEED);
	if (error)
		return error;
	if (d->k->map_over(at, bytes, PROT_READ | PROT_WRITE, MAP_NORESERVE)) {
		memset(at, 0, bytes); /* never what the file has */
		return -VMEM_EIO;
	}
	/* If this fails, children and dumps have it, too: no more than the guest's zeros. */
	if (p->kept_from_children)
		d->k->madvise(at, bytes, MADV_DONTFORK);
	if (p->kept_from_dumps)
		d->k->madvise(at, bytes, MADV_DONTDUMP);
	for (uint64_t i = page; i < page + count; i++)
		p->replaced[i / 64] |= UINT64_C(1) << i % 64;
	d->replaced_runs += !beside;
	return 0;
}

/* The same, of as many at once as the kernel takes: one that is mlocked keeps it from all others of the call. What is
 * left alone is counted. True: nothing is. */
static bool replace_all(vmem_discard *d, struct vmemi_piece *p, uint64_t page, uint64_t end)
{
	uint64_t most = end - page, count;
	bool all = true;
	int error;

	for (; page < end; page += count) {
		count = most < end - page ? most : end - page;
		error = replace(d, p, page, count);
		if (error == -VMEM_EINVAL && count > 1) {
			most = count / 2;
			count = 0;
			continue;
		}
		if (error == -VMEM_EINVAL)
			d->counts->pinned += VMEM_PAGE_SIZE;
		else if (error)
			d->counts->failed += count * VMEM_PAGE_SIZE;
		else
			most = 2 * count;
		all &= !error;
	}
	return all;
}

/* A run, in parts that were replaced and parts that were not. */
static void drop_image(vmem_discard *d, size_t i)
{
	struct vmemi_piece *p = d->at;
	uint64_t page = (uintptr_t)d->runs[i].iov_base / VMEM_PAGE_SIZE, next;
	uint64_t end = page + d->runs[i].iov_len / VMEM_PAGE_SIZE;
	uint64_t at, bytes, before, left;
	bool was;
	int error;

	for (; page < end; page = next) {
		was = is_replaced(p, page);
		for (next = page + 1; next < end && is_replaced(p, next) == was;)
			next++;
		at = page * VMEM_PAGE_SIZE;
		bytes = (next - page) * VMEM_PAGE_SIZE;
		before = present_at(d, p, at, bytes);
		error = 0;
		left = 0;
		if (was)
			error = d->k->madvise(p->hva + at, bytes, MADV_DONTNEED);
		if (error || (!was && !replace_all(d, p, page, next)))
			left = present_at(d, p, at, bytes);
		d->counts->released += before > left ? before - left : 0;
		if (error == -VMEM_EINVAL)
			d->counts->pinned += left;
		else if (error)
			d->counts->failed += left;
	}
}

void vmemi_discard_plain(vmem_discard *d)
{
	const struct vmemi_piece *p = d->at;

	for (size_t i = 0; i < d->run_count && p->kind != VMEM_DISCARD_IMAGE; i++)
		d->present[i] = p->counts_blocks ? d->runs[i].iov_len
						 : present_at(d, p, (uintptr_t)d->runs[i].iov_base,
							      d->runs[i].iov_len);
	if (p->kind == VMEM_DISCARD_PRIVATE) {
		drop(d, 0, d->run_count);
		return;
	}
	for (size_t i = 0; i < d->run_count; i++) {
		if (p->kind == VMEM_DISCARD_FILE)
			punch(d, i);
		else
			drop_image(d, i);
	}
}

/* --- Pieces --- */

/* What a mapping must be. */
struct expected {
	const struct vmemi_piece *p;
	struct stat file; /* FILE: which */
};

static bool is_right(const struct vmemi_mapping *m, const void *context)
{
	const struct expected *e = context;
	bool shared = m->permissions[3] == 's';

	switch (e->p->kind) {
	case VMEM_DISCARD_FILE:
		return shared && m->inode == e->file.st_ino && m->major == major(e->file.st_dev) &&
		       m->minor == minor(e->file.st_dev) &&
		       m->offset - m->start == e->p->offset - (uintptr_t)e->p->hva;
	/* What is a file's would be so again. */
	case VMEM_DISCARD_PRIVATE:
		return !shared &&
		       (m->anonymous_huge ? e->p->block_bytes > VMEM_PAGE_SIZE : !m->inode);
	default: return !shared && m->permissions[0] == 'r' && m->permissions[1] == 'w';
	}
}

/* The wrong call would discard nothing, or bring back what a file has. 0, -VMEM_ENOTSUP, -VMEM_EIO. */
static int look_at_mapping(vmem_discard *d, const struct expected *e)
{
	int right = e->p->hva
			    ? vmemi_maps_check(d->k, (uintptr_t)e->p->hva, e->p->bytes, is_right, e)
			    : 1;

	return right < 0 ? right : right ? 0 : -VMEM_ENOTSUP;
}

static int open_file(vmem_discard *d, struct vmemi_piece *p, const struct vmem_discard_piece *from)
{
	struct expected e = { .p = p };
	int fd, error;

	if (d->k->fstat(from->fd, &e.file) || !S_ISREG(e.file.st_mode) ||
	    from->offset > (uint64_t)INT64_MAX - from->bytes)
		return -VMEM_EINVAL;
	fd = d->k->fcntl(from->fd, F_GETFL, 0);
	if (fd < 0 || (fd & O_ACCMODE) == O_RDONLY)
		return -VMEM_EINVAL;
	p->counts_blocks = d->k->fs_type(from->fd) == HUGETLBFS_MAGIC;
	if (p->counts_blocks != (p->block_bytes > VMEM_PAGE_SIZE))
		return -VMEM_ENOTSUP;
	error = look_at_mapping(d, &e);
	if (error)
		return error;
	p->fd = d->k->fcntl(from->fd, F_DUPFD_CLOEXEC, 3);
	return p->fd < 0 ? -VMEM_EIO : 0;
}

/* Whether children and dumps have the memory; they do, if that cannot be found out. */
static void look_at_flags(vmem_discard *d, struct vmemi_piece *p)
{
	uint64_t start = (uintptr_t)p->hva;
	struct vmemi_maps in = { .k = d->k };
	struct vmemi_mapping m;
	bool inside = false;
	char line[512];

	in.fd = d->k->open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
	while (in.fd >= 0 && vmemi_maps_line(&in, line, sizeof(line))) {
		if (vmemi_maps_parse(line, &m)) {
			if (m.start >= start + p->bytes)
				break;
			inside = m.stop > start;
		} else if (inside && !strncmp(line, "VmFlags:", 8)) {
			p->kept_from_children |= strstr(line, " dc") != NULL;
			p->kept_from_dumps |= strstr(line, " dd") != NULL;
		}
	}
	if (in.fd >= 0)
		d->k->close(in.fd);
}

static int open_private(vmem_discard *d, struct vmemi_piece *p)
{
	const struct expected e = { .p = p };
	int error = look_at_mapping(d, &e);

	if (error || p->kind != VMEM_DISCARD_IMAGE)
		return error;
	look_at_flags(d, p);
	p->replaced_words = (p->bytes / VMEM_PAGE_SIZE + 63) / 64;
	p->replaced = vmemi_zalloc(&d->allocator, p->replaced_words * 8, 8);
	return p->replaced ? 0 : -VMEM_ENOMEM;
}

int vmemi_piece_open(vmem_discard *d, struct vmemi_piece *p, const struct vmem_discard_piece *from)
{
	if (p->kind == VMEM_DISCARD_FILE)
		return open_file(d, p, from);
	return open_private(d, p);
}

void vmemi_piece_close(vmem_discard *d, struct vmemi_piece *p)
{
	if (p->fd >= 0)
		d->k->close(p->fd);
	vmemi_free(&d->allocator, p->replaced, p->replaced_words * 8, 8);
}
