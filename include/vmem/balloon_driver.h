/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/balloon_driver.h
 *  The virtio memory balloon (VIRTIO 1.3, 5.5), the driver's side, without a transport: for small guests, and as the
 *  partner of a device under test. The guest's memory is behind callbacks; buffers for the device come out, returned
 *  ones go in. One buffer a queue is on its way at a time, and none is allocated. How many pages the device has
 *  (VMEM_BALLOON_CONFIG_ACTUAL) it is told when there is nothing more to be moved, and every 16 MiB before that.
 *
 *  The transport, after each of its interrupts and after each call below that says so:
 *
 *      while (vmem_balloon_driver_next(driver, &out))
 *              if (out.queue == VMEM_BALLOON_NO_QUEUE)
 *                      write out.value, 4 bytes, to the configuration space at out.offset;
 *              else
 *                      make out's bytes and pieces available in that queue;
 *
 *  What the device says is not trusted: it cannot make the driver give more than it has, or use a page twice. */
#ifndef VMEM_BALLOON_DRIVER_H
#define VMEM_BALLOON_DRIVER_H
#include <vmem/allocator.h>
#include <vmem/balloon_protocol.h>
VMEM_BEGIN_DECLS

#define VMEM_BALLOON_DRIVER_ENTRIES 256u /**< page numbers, or ranges, of a buffer, as a rule */
#define VMEM_BALLOON_DRIVER_ENTRIES_MOST 16384u /**< of them, that vmem_balloon_driver_opts takes */
#define VMEM_BALLOON_DRIVER_PIECES 32u          /**< of a report */

typedef struct vmem_balloon_driver vmem_balloon_driver; /* opaque */

/** A statistic. Stays as it is. */
struct vmem_balloon_stat {
	uint16_t tag; /**< enum vmem_balloon_tag */
	uint64_t value;
};

/** The guest's memory. Called from within calls of the driver; must not call back. */
struct vmem_balloon_guest_memory {
	size_t size; /**< sizeof(*this) as the caller compiled it */
	void *context;
	/** Take free pages in a row, at most @p most of them, from all use. @return how many; 0: there are none */
	uint64_t (*take)(void *context, uint64_t most, uint64_t *ret_gfn);
	/** They are the guest's again; they hold anything. */
	void (*give)(void *context, uint64_t gfn, uint64_t pages);
	/** Statistics, of which the same ones each time. @return how many. NULL: none; STATS_VQ is not taken */
	uint32_t (*stats)(void *context, struct vmem_balloon_stat *stats, uint32_t most);
	/** Take a free range, the next one, from use until it is released: for a report or a hint. A range comes once
	 *  until begin_free is called. @return 1, or 0: there are no more. NULL: no reports, no hints */
	int (*isolate)(void *context, struct vmem_balloon_piece *ret_piece);
	/** Begin with the first free range again. */
	void (*begin_free)(void *context);
	/** A range may be used again; after a report it holds zeros or anything. */
	void (*release)(void *context, const struct vmem_balloon_piece *piece);
	/** So may all that are isolated. */
	void (*release_all)(void *context);
};

/** Options. Fields are only ever added at the end. */
struct vmem_balloon_driver_opts {
	size_t size;                            /**< sizeof(*this) as the caller compiled it */
	uint64_t flags;                         /**< 0; an unknown bit is -VMEM_EINVAL */
	const struct vmem_allocator *allocator; /**< NULL: libc (freestanding: -VMEM_EINVAL) */
	const struct vmem_balloon_guest_memory *memory;
	uint64_t features;  /**< to take if they are offered */
	uint64_t max_spans; /**< rows of pages that it can hold, 8 bytes each; at least 1 */
	uint32_t poison;    /**< what free pages hold; 0: nothing that matters */
	/** Page numbers, or ranges, of a buffer, 16 bytes of memory each; 0: VMEM_BALLOON_DRIVER_ENTRIES, as Linux has
	 *  it, and some devices take no more; above VMEM_BALLOON_DRIVER_ENTRIES_MOST: -VMEM_EINVAL. More of them are
	 *  fewer notifications. */
	uint32_t entries;
};

/** @param[out] ret_driver  set only on success
 *  @return 0, -VMEM_EINVAL (bad options, callbacks that are missing), -VMEM_E2BIG, -VMEM_ENOMEM
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_balloon_driver_new(vmem_balloon_driver **ret_driver,
				     const struct vmem_balloon_driver_opts *opts) VMEM_NODISCARD;

/** Free it; pages that it holds stay taken. NULL is fine. @threads exclusive @since 1.0 */
VMEM_API void vmem_balloon_driver_free(vmem_balloon_driver *driver);

/** Of the features offered, those to accept. Begins anew: pages that are held are the guest's again (the device has
 *  been reset). @threads serial @since 1.0 */
VMEM_API uint64_t vmem_balloon_driver_negotiate(vmem_balloon_driver *driver, uint64_t offered);

/** What to write to VMEM_BALLOON_CONFIG_POISON before DRIVER_OK. @return 1, or 0: nothing @threads serial @since 1.0 */
VMEM_API int vmem_balloon_driver_poison(const vmem_balloon_driver *driver, uint32_t *ret_value);

/** DRIVER_OK has been set. @threads serial @since 1.0 */
VMEM_API void vmem_balloon_driver_start(vmem_balloon_driver *driver);

/** The configuration space, as it reads now: at the start and whenever it has changed.
 *  @param count  bytes of it: 8, 12 or 16 @threads serial @since 1.0 */
VMEM_API void vmem_balloon_driver_config(vmem_balloon_driver *driver, const void *bytes,
					 uint32_t count);

/** What is to be done next. */
struct vmem_balloon_out {
	size_t size; /**< sizeof(*this) as the caller compiled it; set before the call */
	uint32_t
		queue; /**< enum vmem_balloon_queue; VMEM_BALLOON_NO_QUEUE: write the configuration space */
	uint32_t offset; /**< there */
	uint32_t value;
	const void *bytes; /**< for the device to read; stay until the buffer is returned */
	uint32_t count;
	uint32_t piece_count;
	const struct vmem_balloon_piece *pieces; /**< for the device to write */
};
/** @return 1, or 0: nothing (or out->size is less than a size_t) @threads serial @since 1.0 */
VMEM_API int vmem_balloon_driver_next(vmem_balloon_driver *driver, struct vmem_balloon_out *out);

/** The device has returned the buffer of a queue. Call vmem_balloon_driver_next().
 *  @return 0, -VMEM_ENOENT (none is on its way there) @threads serial @since 1.0 */
VMEM_API int vmem_balloon_driver_returned(vmem_balloon_driver *driver,
					  enum vmem_balloon_queue queue);

/** Try again: when there were no pages to give, or memory has become free that may be reported. Call it from time to
 *  time, then vmem_balloon_driver_next(). @threads serial @since 1.0 */
VMEM_API void vmem_balloon_driver_retry(vmem_balloon_driver *driver);

/** The guest is out of memory: give pages back, whatever the target is. Call vmem_balloon_driver_next().
 *  @return how many more will come; 0 without DEFLATE_ON_OOM @threads serial @since 1.0 */
VMEM_API uint64_t vmem_balloon_driver_oom(vmem_balloon_driver *driver, uint64_t pages);

/** Where it stands. */
struct vmem_balloon_driver_state {
	size_t size;       /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t features; /**< accepted */
	uint64_t target;   /**< pages, as the device wants */
	uint64_t pages;    /**< given, those on their way included */
	uint64_t starved;  /**< how often there were none to give */
};
/** @return 0, -VMEM_EINVAL (state->size) @threads serial @since 1.0 */
VMEM_API int vmem_balloon_driver_get_state(const vmem_balloon_driver *driver,
					   struct vmem_balloon_driver_state *state);

VMEM_END_DECLS
#endif
