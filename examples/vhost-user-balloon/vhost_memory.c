/* SPDX-License-Identifier: BSD-2-Clause */
/* Regions are few, so they are searched one by one. The client keeps its files and can do to them what it likes;
 * what it cannot is make us touch anything else, or wait: only files in memory are taken. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "vhost_memory.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define PAGE UINT64_C(4096)
#define MOST_GPA (UINT64_C(1) << 44) /* page numbers of a balloon have 32 bits */

static struct vhost_memory *guarded;

static bool overlap(uint64_t a, uint64_t b, const struct vhost_region *x,
		    const struct vhost_region *y)
{
	return a < b + y->bytes && b < a + x->bytes;
}

static const char *check_file(struct vhost_region *r)
{
	struct statfs fs;
	struct stat st;

	/* Only files in memory have seals. Another file system is not even asked: it may be the client's, and not
	 * answer. */
	if (fcntl(r->fd, F_GET_SEALS) < 0)
		return "a region is in no file in memory (memfd, tmpfs, hugetlbfs)";
	if (fstat(r->fd, &st) != 0 || fstatfs(r->fd, &fs) != 0 || !S_ISREG(st.st_mode))
		return "a region is in no file";
	if (r->offset > (uint64_t)st.st_size || r->bytes > (uint64_t)st.st_size - r->offset)
		return "a region goes beyond the end of its file";
	r->block = fs.f_type == HUGETLBFS_MAGIC ? (uint64_t)fs.f_bsize : PAGE;
	r->device = st.st_dev;
	r->inode = st.st_ino;
	if ((r->gpa | r->bytes | r->offset) % r->block)
		return "a region does not begin and end with a page of its file";
	return NULL;
}

static const char *check(struct vhost_memory *m, uint32_t i)
{
	struct vhost_region *r = &m->region[i];
	const char *why;

	if (!r->bytes || (r->gpa | r->user | r->bytes | r->offset) % PAGE)
		return "a region is empty, or not of whole pages";
	if (r->bytes > MOST_GPA || r->gpa > MOST_GPA - r->bytes || r->user > UINT64_MAX - r->bytes)
		return "a region goes beyond the end of the address space";
	why = check_file(r);
	for (uint32_t j = 0; j < i && !why; j++) {
		const struct vhost_region *o = &m->region[j];

		if (overlap(r->gpa, o->gpa, r, o) || overlap(r->user, o->user, r, o) ||
		    (r->device == o->device && r->inode == o->inode &&
		     overlap(r->offset, o->offset, r, o)))
			why = "two regions overlap";
	}
	return why;
}

static const char *map(struct vhost_region *r)
{
	void *p = mmap(NULL, r->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, r->fd,
		       (off_t)r->offset);

	if (p == MAP_FAILED)
		return "a region cannot be mapped for reading and writing";
	r->map = p;
	return NULL;
}

static void unmap(struct vhost_memory *m)
{
	for (uint32_t i = 0; i < m->count; i++)
		if (m->region[i].map)
			munmap(m->region[i].map, m->region[i].bytes);
}

const char *vhost_memory_open(struct vhost_memory *m, const struct vhost_table *table,
			      const int *fds, uint64_t most_bytes)
{
	const char *why = NULL;
	uint64_t left = most_bytes;

	memset(m, 0, sizeof(*m));
	for (uint32_t i = 0; i < table->count && !why; i++) {
		const struct vhost_table_region *t = &table->region[i];

		m->region[i] = (struct vhost_region){ .gpa = t->gpa,
						      .user = t->user,
						      .bytes = t->bytes,
						      .offset = t->offset,
						      .fd = fds[i] };
		m->count = i + 1;
		if (t->bytes > left)
			why = "there is more memory than is allowed (--most-memory)";
		left -= t->bytes;
		if (!why)
			why = check(m, i);
		if (!why)
			why = map(&m->region[i]);
	}
	if (why) {
		unmap(m);
		m->count = 0;
	}
	return why;
}

void vhost_memory_close(struct vhost_memory *m)
{
	unmap(m);
	for (uint32_t i = 0; i < m->count; i++)
		close(m->region[i].fd);
	memset(m, 0, sizeof(*m));
}

bool vhost_memory_is_same(const struct vhost_memory *a, const struct vhost_memory *b)
{
	if (a->count != b->count)
		return false;
	for (uint32_t i = 0; i < a->count; i++) {
		const struct vhost_region *x = &a->region[i], *y = &b->region[i];

		if (x->gpa != y->gpa || x->user != y->user || x->bytes != y->bytes ||
		    x->offset != y->offset || x->device != y->device || x->inode != y->inode)
			return false;
	}
	return true;
}

static void *within(const struct vhost_region *r, uint64_t at, uint64_t *bytes)
{
	if (*bytes > r->bytes - at)
		*bytes = r->bytes - at;
	return r->map + at;
}

void *vhost_memory_at(const struct vhost_memory *m, uint64_t gpa, uint64_t *bytes)
{
	for (uint32_t i = 0; i < m->count; i++)
		if (gpa - m->region[i].gpa < m->region[i].bytes)
			return within(&m->region[i], gpa - m->region[i].gpa, bytes);
	return NULL;
}

void *vhost_memory_at_user(const struct vhost_memory *m, uint64_t user, uint64_t *bytes)
{
	for (uint32_t i = 0; i < m->count; i++)
		if (user - m->region[i].user < m->region[i].bytes)
			return within(&m->region[i], user - m->region[i].user, bytes);
	return NULL;
}

uint64_t vhost_memory_bytes(const struct vhost_memory *m)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < m->count; i++)
		bytes += m->region[i].bytes;
	return bytes;
}

uint64_t vhost_memory_file_bytes(const struct vhost_memory *m)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < m->count; i++) {
		bool seen = false;
		struct stat st;

		for (uint32_t j = 0; j < i; j++)
			seen |= m->region[j].device == m->region[i].device &&
				m->region[j].inode == m->region[i].inode;
		if (!seen && fstat(m->region[i].fd, &st) == 0)
			bytes += (uint64_t)st.st_blocks * 512;
	}
	return bytes;
}

/* Memory of nobody's goes where the file has none any more: all of the region at once, for its client could otherwise
 * make so many faults that there are more mappings than a process may have. mmap() is a plain system call here. */
static void on_bus_error(int number, siginfo_t *info, void *context)
{
	(void)context;
	for (uint32_t i = 0; guarded && i < guarded->count; i++) {
		const struct vhost_region *r = &guarded->region[i];

		if ((uintptr_t)info->si_addr - (uintptr_t)r->map >= r->bytes)
			continue;
		guarded->lost = true;
		if (mmap(r->map, r->bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
			 0) != MAP_FAILED)
			return;
	}
	signal(number, SIG_DFL); /* ours: it comes again, and ends the process */
}

void vhost_memory_guard(struct vhost_memory *m)
{
	struct sigaction action = { .sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO };

	guarded = m;
	sigaction(SIGBUS, &action, NULL);
}
