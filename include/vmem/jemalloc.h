/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/jemalloc.h
 *  An allocator for libvmem's objects on a jemalloc arena of its own: tables and segments stay
 *  apart from the program's heap, their footprint is known exactly, and all of it goes in one call.
 *
 *  A second library, libvmem-jemalloc, so that libvmem itself does not depend on jemalloc. Link it as
 *  a shared library when the program is built: malloc() stays what it was. It cannot be opened with
 *  dlopen(), because jemalloc needs static thread-local storage, unless the program itself is linked
 *  with jemalloc or is started with GLIBC_TUNABLES=glibc.rtld.optional_static_tls=4096. */
#ifndef VMEM_JEMALLOC_H
#define VMEM_JEMALLOC_H
#include <vmem/allocator.h>
#include <vmem/common.h>
VMEM_BEGIN_DECLS

typedef struct vmem_jemalloc vmem_jemalloc; /* opaque */

/** Options. Fields are only ever added at the end. */
struct vmem_jemalloc_opts {
	size_t size;       /**< sizeof(*this) as the caller compiled it */
	uint64_t flags;    /**< 0; an unknown bit is -VMEM_EINVAL */
	uint64_t decay_ms; /**< until freed memory goes back to the kernel, about; 0: at once */
};

/** What the arena has, all in bytes. */
struct vmem_jemalloc_stats {
	size_t size; /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t allocated_bytes; /**< handed out, rounded up to jemalloc's size classes */
	uint64_t active_bytes;    /**< pages that hold them */
	uint64_t metadata_bytes;  /**< jemalloc's own for this arena */
	uint64_t resident_bytes;  /**< physical: active, metadata, and what is not yet given back */
};

/** Make an arena.
 *  @param[out] ret_jemalloc  set only on success
 *  @param opts  NULL: all defaults
 *  @return 0, -VMEM_EINVAL, -VMEM_E2BIG, -VMEM_ENOMEM (also: as many arenas as jemalloc can have, 4094)
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_jemalloc_new(vmem_jemalloc **ret_jemalloc,
			       const struct vmem_jemalloc_opts *opts) VMEM_NODISCARD;

/** Free the arena with everything that was allocated from it: objects that use its allocator need not
 *  be freed before, but may not be used any more. NULL is fine.
 *  @threads exclusive, with all objects that use its allocator
 *  @since 1.0 */
VMEM_API void vmem_jemalloc_free(vmem_jemalloc *jemalloc);

/** The allocator, for the options of objects. Valid until vmem_jemalloc_free().
 *  @threads any
 *  @since 1.0 */
VMEM_API const struct vmem_allocator *vmem_jemalloc_allocator(const vmem_jemalloc *jemalloc);

/** What the arena has now.
 *  @return 0, -VMEM_EINVAL, -VMEM_ENOTSUP (this jemalloc was built without statistics)
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_jemalloc_get_stats(vmem_jemalloc *jemalloc, struct vmem_jemalloc_stats *stats);

VMEM_END_DECLS
#endif
