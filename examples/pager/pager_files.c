/* SPDX-License-Identifier: BSD-2-Clause */
/* See pager_files.h. What comes is not trusted: a descriptor is asked for its seals first, which only files in
 * memory have, because any other question could be answered by somebody who does not answer. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* seals */
#endif
#include "pager_files.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

/* Nobody makes it shorter from now on, nor keeps us from freeing its pages. */
static const char *seal(int fd)
{
	int seals;

	(void)fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL); /* unless it was sealed before */
	seals = fcntl(fd, F_GET_SEALS);
	if (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
		return "a memfd that is sealed against writing";
	if (!(seals & F_SEAL_SHRINK))
		return "a memfd that can shrink (without F_SEAL_SHRINK, and it cannot be sealed)";
	return NULL;
}

static const char *judge(int fd, uint64_t bytes)
{
	struct statfs fs;
	struct stat st;

	if (fcntl(fd, F_GET_SEALS) < 0 || fstat(fd, &st) != 0 || fstatfs(fd, &fs) != 0)
		return "a descriptor that is no memfd";
	if (fs.f_type == HUGETLBFS_MAGIC)
		return "huge pages cannot be served";
	if ((fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR)
		return "a memfd that is not open for reading and writing";
	if ((uint64_t)st.st_size < bytes)
		return "a memfd that is too small";
	return seal(fd);
}

static const char *judge_all(const struct hand_over *h)
{
	const char *why = NULL;

	for (uint32_t i = 0; i < h->count && !why; i++)
		why = judge(h->file[h->range[i].file], h->range[i].file_offset + h->range[i].bytes);
	return why;
}

static const char *reason(int error)
{
	switch (error) {
	case 0: return NULL;
	case -VMEM_EEXIST: return "memory that overlaps, or is served already";
	case -VMEM_EBUSY: return "memory that another userfaultfd is registered for";
	case -VMEM_EPERM: return "a mapping that can never be written";
	case -VMEM_EINVAL: return "no userfaultfd, or no mapping of memory at that address";
	case -VMEM_ENOTSUP:
		return "a userfaultfd with features that cannot be served (events, SIGBUS), or no "
		       "faults on files on this kernel";
	default: return vmem_strerror(error);
	}
}

static int attach(struct pager_files *f, vmem_manager *manager, const struct hand_over *h,
		  struct vmem_source_file *source)
{
	const struct hand_over_range *r = &h->range[f->count];
	struct pager_files_range *to = &f->range[f->count];
	struct vmem_region_opts o = {
		.size = sizeof(o),
		.flags = VMEM_REGION_FILE | VMEM_REGION_DMA_PINNED | VMEM_REGION_FROM_SOURCE |
			 VMEM_REGION_SOURCE_STAYS,
		.gpa = r->offset,
		.bytes = r->bytes,
		.same_vm_as = f->count ? f->range[0].region : NULL,
		.read_source = vmem_source_file_read,
		.context = source,
		.file_fd = h->file[r->file],
		.file_offset = r->file_offset,
	};
	int error;

	o.hva = mmap(NULL, r->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, o.file_fd,
		     (off_t)r->file_offset);
	if (o.hva == MAP_FAILED)
		return -VMEM_ENOMEM;
	error = vmem_region_attach(&to->region, manager, &o);
	if (error) {
		munmap(o.hva, r->bytes);
		return error;
	}
	to->memory = o.hva;
	to->bytes = r->bytes;
	to->peer = NULL;
	f->count++;
	return 0;
}

static int add_peer(struct pager_files *f, const struct hand_over *h, uint32_t i)
{
	struct vmem_peer_opts o = {
		.size = sizeof(o),
		.gpa = h->range[i].offset,
		.bytes = h->range[i].bytes,
		.address = h->range[i].base,
		.userfaultfd = h->uffd,
		.same_process_as = i ? f->range[0].peer : NULL,
	};

	return vmem_region_add_peer(&f->range[i].peer, f->range[i].region, &o);
}

/* Whoever it is must not find zeros: it waits at what it has not touched. What does not end now is as if the process had
 * ended, and is tried again. */
static void give_up(struct pager_files *f)
{
	for (uint32_t i = 0; i < f->count; i++)
		if (f->range[i].peer && !vmem_region_remove_peer(f->range[i].peer))
			f->range[i].peer = NULL;
	(void)pager_files_end(f, VMEM_DETACH_DISCARD);
}

const char *pager_files_begin(struct pager_files *f, vmem_manager *manager,
			      const struct hand_over *h, struct vmem_source_file *sources)
{
	const char *why = judge_all(h);
	int error = 0;

	f->count = 0;
	if (why)
		return why;
	while (f->count < h->count && !error)
		error = attach(f, manager, h, &sources[f->count]);
	for (uint32_t i = 0; i < h->count && !error; i++)
		error = add_peer(f, h, i);
	if (error)
		give_up(f);
	return reason(error);
}

bool pager_files_are_gone(const struct pager_files *f)
{
	return !f->range[0].peer || vmem_peer_state(f->range[0].peer) == VMEM_PEER_ENDED;
}

int pager_files_end(struct pager_files *f, uint32_t how)
{
	while (f->count) {
		struct pager_files_range *r = &f->range[f->count - 1];
		int error = vmem_region_detach(r->region, how);

		if (error)
			return error;
		munmap(r->memory, r->bytes);
		*r = (struct pager_files_range){ 0 };
		f->count--;
	}
	return 0;
}
