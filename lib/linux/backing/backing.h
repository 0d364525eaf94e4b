/* SPDX-License-Identifier: BSD-2-Clause */
/* What differs between the kinds of guest memory: private anonymous memory, and a file in memory (memfd) that
 * others may map too. Everything else is one behaviour, and does not ask which it is.
 *
 *                  private                            file
 *   staged         moved or copied to its place       unmapped; the page stays in the file
 *   OCCUPIED       the place may hold a frame         the file holds the frame of a page that is away
 *   comes back     UFFDIO_COPY, UFFDIO_MOVE           UFFDIO_CONTINUE: its own frame
 *   freed          MADV_DONTNEED of the place         a hole is punched, which unmaps it everywhere
 *   in place       mapped here                        in the file; a mapping that has not touched it since
 *                                                     it came faults once more (MINOR)
 *
 * All functions are called by who has the claim that is named; none but open() and close() allocates. */
#ifndef VMEMI_BACKING_H
#define VMEMI_BACKING_H
#include "linux/fault/serve.h"

struct vmemi_reclaim;

struct vmemi_backing {
	/* A page that is away and OCCUPIED comes back in its own frame, and PUNCH_DONE ends what frees it. */
	bool one_frame;

	/* Attaching: keeps what it needs, for all that the region may become. On error close() undoes what there
	 * is. 0, -VMEM_ENOMEM, -VMEM_EBUSY, -VMEM_ENODEV, -VMEM_ENOTSUP, -VMEM_EIO. */
	int (*open)(struct vmem_region *r);
	/* Registers pages that are attached. 0 or as open(); then nothing is. */
	int (*join)(struct vmem_region *r, uint64_t first, uint64_t count);
	/* Marks those of them that are there already as resident. Returns how many, or -VMEM_EIO. */
	int64_t (*count)(struct vmem_region *r, uint64_t first, uint64_t count);
	/* The guest is gone, and nobody has access here: gives all frames back. */
	void (*empty)(struct vmem_region *r);
	void (*close)(struct vmem_region *r);

	/* Arriving: installs @count pages from @src (NULL: zeros), with nothing there before. *@wp: protected;
	 * set to false if that could not be had. *@ret_done: bytes, also on error. */
	int (*fill)(struct vmem_region *r, const struct vmemi_at *at, uint64_t page, unsigned count,
		    const void *src, bool *wp, size_t *ret_done);
	/* Arriving from staging, protected with @wp, or told as written where that cannot be had. *@ret_done as
	 * above. */
	int (*unstage)(struct vmem_region *r, const struct vmemi_at *at, uint64_t page,
		       unsigned count, bool wp, size_t *ret_done);

	/* Arriving: the bytes of a page that was in @from: in place or in staging. 0, -VMEM_EIO. */
	int (*read)(struct vmem_region *r, uint64_t page, enum vmem_page_state from, void *data);
	/* Pinned: overwrites a page in place. 0, -VMEM_EIO. */
	int (*write)(struct vmem_region *r, uint64_t page, const void *data);
	/* Storing: the bytes of a staged page, where they lie or in @buffer; no later change shows in them while
	 * the page stays STORING. NULL: they are gone. */
	const void *(*bytes)(struct vmem_region *r, uint64_t page, void *buffer);

	/* Takes rc->scattered out; the lock of reclaim. */
	unsigned (*take)(struct vmemi_reclaim *rc, struct vmem_region *r);
	/* Leaving: frees the frames of @count pages in place, ascending. Returns how many went, from the first
	 * on. */
	uint32_t (*release)(struct vmem_region *r, const uint64_t *pages, uint32_t count);
	/* Whether a page that may be waste is one whose staging can be freed now; then it is claimed where
	 * that needs a claim, and goes to free_staged(). */
	bool (*begin_free)(struct vmem_region *r, uint64_t page);
	/* Returns how many went; the others come again. */
	uint32_t (*free_staged)(struct vmem_region *r, const uint64_t *pages, uint32_t count);
};

#define VMEMI_RELEASE_MAX 128 /* most pages of one release() */

extern const struct vmemi_backing vmemi_backing_private, vmemi_backing_file;
extern const struct vmemi_backing vmemi_backing_foreign; /* of another process: served only */

/* Ends the claim on a page that unstage() brought back; @old: its word before the claim. */
static inline void vmemi_backing_returned(struct vmem_region *r, uint64_t page, uint64_t old)
{
	bool own_frame = r->backing->one_frame && !(old & VMEMI_PAGE_READING);

	vmemi_region_end(r, page, own_frame ? VMEMI_PAGE_ARRIVE_MOVED : VMEMI_PAGE_ARRIVE, 0);
}

/* The same of a run. */
static inline void vmemi_backing_returned_run(struct vmem_region *r, uint64_t first, unsigned count,
					      const uint64_t *old)
{
	if (!r->backing->one_frame)
		vmemi_region_end_run(r, first, count, VMEMI_PAGE_ARRIVE);
	for (unsigned i = 0; i < count && r->backing->one_frame; i++)
		vmemi_backing_returned(r, first + i, old[i]);
}

/* Whether a page with @word comes back without another frame: what the file has is what the page is. */
static inline bool vmemi_backing_has_frame(const struct vmem_region *r, uint64_t word)
{
	enum vmem_page_state s = vmemi_page_state(word);

	return r->backing->one_frame && (word & VMEMI_PAGE_OCCUPIED) &&
	       (s == VMEM_PAGE_STAGED || s == VMEM_PAGE_STORING || s == VMEM_PAGE_STORED);
}

/* The kind of fault that an access to a page with @word would be, to whom the kernel does not say it. */
static inline enum vmemi_fault_kind vmemi_backing_kind(const struct vmem_region *r, uint64_t word,
						       bool write)
{
	enum vmem_page_state s = vmemi_page_state(word);
	bool in_place = s == VMEM_PAGE_RESIDENT || s == VMEM_PAGE_CLEAN || s == VMEM_PAGE_SHARED;

	/* In a file it may not be mapped, and serving it finds out. */
	return in_place && write && !r->backing->one_frame ? VMEMI_FAULT_PROTECTED
							   : VMEMI_FAULT_MISSING;
}

/* Keeps children and KSM from memory of ours or of the guest, and huge pages unless they are wanted. 0, -VMEM_ENOMEM,
 * -VMEM_EIO. */
int vmemi_backing_advise(struct vmemi_host *host, void *memory, uint64_t bytes, bool huge);

/* --- Private memory --- */

/* Gives a page its frame in staging back. It is claimed, or leaving, and nobody is READING. 0; 1: it has a frame in
 * place, and what is in staging, if anything, is of no use; or an error, and nothing has changed. -VMEM_ENOENT: it
 * has no frame at all. */
int vmemi_private_move_back(struct vmem_region *r, uint64_t page);

/* --- Files --- */

/* Makes a file in memory whose size cannot change, and maps it. 0, -VMEM_ENOMEM, -VMEM_EIO. */
int vmemi_file_make(const struct vmemi_kernel *k, uint64_t bytes, void **ret_memory, int *ret_fd);

/* Arriving: maps a page that is in place into @at too, writable or not. 0; 1: it was mapped; -VMEM_EFAULT: the
 * file has lost it. *@wp as for fill(). */
int vmemi_file_map(struct vmem_region *r, const struct vmemi_at *at, uint64_t page, bool *wp);

#endif
