/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/balloon.h
 *  The virtio memory balloon (VIRTIO 1.3, 5.5), the device's side, without a transport: buffers of the guest go in,
 *  ranges of memory to be discarded and buffers to be returned come out. Nothing here touches guest memory but the
 *  bytes of a buffer: they may be given where the guest wrote them, and change meanwhile.
 *
 *  For each buffer that the driver made available:
 *
 *      while ((err = vmem_balloon_give(balloon, &buffer)) == -VMEM_EAGAIN)
 *              drain();
 *
 *  and at the end of each notification drain() once more:
 *
 *      while ((n = vmem_balloon_take_ranges(balloon, ranges, MANY)) != 0)
 *              discard what they say;
 *      while (vmem_balloon_take_done(balloon, &done))
 *              return buffer done.token, 0 bytes used, through queue done.queue;
 *
 *  Ranges come sorted and joined, whatever the order of the page numbers, and each page once: which pages are in the
 *  balloon is known here. What the guest says wrongly is counted and left undone; nothing that it says makes a call
 *  fail that it could not have made fail by saying nothing. Work of a call is bounded (VMEM_BALLOON_WORK_PAGES), and
 *  nothing is allocated after vmem_balloon_add_ram().
 *
 *  What the host wants of it is in vmem/balloon_host.h.
 *
 *  Memory: 10 KiB, 66 KiB for each GiB of RAM, and 4 bytes for each block of 256 KiB and more. */
#ifndef VMEM_BALLOON_H
#define VMEM_BALLOON_H
#include <vmem/allocator.h>
#include <vmem/balloon_protocol.h>
VMEM_BEGIN_DECLS

#define VMEM_BALLOON_RAMS 32u                /**< ranges of RAM of one object */
#define VMEM_BALLOON_MAX_PAGES UINT32_MAX    /**< page numbers have 32 bits: 16 TiB */
#define VMEM_BALLOON_WORK_PAGES (1u << 18)   /**< most that a call looks at */
#define VMEM_BALLOON_WORK_ENTRIES (1u << 14) /**< most page numbers, or ranges, that it looks at */
#define VMEM_BALLOON_BATCH 64u /**< buffers between two calls of vmem_balloon_take_done() */

typedef struct vmem_balloon vmem_balloon; /* opaque */

/** Flags. The device fails FEATURES_OK of a driver without MUST_TELL_HOST, if that was offered and it is not a legacy
 *  one. */
#define VMEM_BALLOON_REQUIRE_TELL (UINT64_C(1) << 0)
/** A legacy driver (without VERSION_1) is big-endian. */
#define VMEM_BALLOON_LEGACY_BIG_ENDIAN (UINT64_C(1) << 1)

/** Watches what the guest writes, for hints: a page that was free when it was hinted may be in use again when the
 *  hint is read, and nobody tells. Called from within calls of the balloon; must not call back. */
struct vmem_balloon_guard {
	size_t size; /**< sizeof(*this) as the caller compiled it */
	void *context;
	/** Watch from now on all RAM. Not 0: hinting does not begin. */
	int (*begin)(void *context);
	/** Which pages have not been written since. @p first is a multiple of 64, bit i of the word is page first + i;
	 *  pages outside RAM are 0. Whoever discards a hinted range must see to it that a page is not written between
	 *  this answer and the discard: it is written if in doubt. */
	uint64_t (*unwritten)(void *context, uint64_t first);
	/** Watch no more. */
	void (*end)(void *context);
};

/** Options. Fields are only ever added at the end. */
struct vmem_balloon_opts {
	size_t size;    /**< sizeof(*this) as the caller compiled it */
	uint64_t flags; /**< VMEM_BALLOON_*; an unknown bit is -VMEM_EINVAL */
	const struct vmem_allocator *allocator; /**< NULL: libc (freestanding: -VMEM_EINVAL) */
	uint64_t features; /**< VMEM_BALLOON_F_* to offer, and VMEM_VIRTIO_F_VERSION_1 */
	uint32_t map;      /**< enum vmem_balloon_queue_map */
	uint32_t numbers[VMEM_BALLOON_QUEUES];  /**< for VMEM_BALLOON_MAP_GIVEN */
	const struct vmem_balloon_guard *guard; /**< needed for FREE_PAGE_HINT, else not used */
	uint64_t stall_ns;                      /**< no progress for so long is a stall; 0: 5 s */
	uint64_t
		swap_bytes_per_s; /**< a guest that swaps more than this is an event; 0: 256 KiB/s */
};

/** Make a device without RAM, with target 0.
 *  @param[out] ret_balloon  set only on success
 *  @return 0, -VMEM_EINVAL (bad options; a feature that is not known; FREE_PAGE_HINT without a guard), -VMEM_E2BIG,
 *          -VMEM_ENOMEM
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_balloon_new(vmem_balloon **ret_balloon,
			      const struct vmem_balloon_opts *opts) VMEM_NODISCARD;

/** Free it. NULL is fine. @threads exclusive @since 1.0 */
VMEM_API void vmem_balloon_free(vmem_balloon *balloon);

/** Add RAM. Only pages of RAM can be in the balloon.
 *  @param gpa,bytes     multiples of block_bytes, below 16 TiB
 *  @param block_bytes   what its backing gives back at once: a power of two, 4 KiB .. 1 GiB. Pages of a larger block
 *                       are remembered until all of it is in the balloon, and then come as one range. That needs
 *                       MUST_TELL_HOST: without it a guest may use pages again that are remembered here (5.5.6), and
 *                       larger blocks are never discarded
 *  @return 0, -VMEM_EINVAL, -VMEM_ERANGE (beyond 16 TiB), -VMEM_EEXIST (overlaps), -VMEM_ENOSPC (VMEM_BALLOON_RAMS),
 *          -VMEM_EBUSY (hints run, and their guard watches the RAM that there was), -VMEM_ENOMEM
 *  @threads serial @since 1.0 */
VMEM_API int vmem_balloon_add_ram(vmem_balloon *balloon, uint64_t gpa, uint64_t bytes,
				  uint64_t block_bytes) VMEM_NODISCARD;

/* --- What the transport passes on --- */

/** Features, as the driver has written them; bits 24 to 49 but VERSION_1 are the transport's. Looked at when
 *  FEATURES_OK is set; without FEATURES_OK (legacy) when DRIVER_OK is. @return 0, -VMEM_EBUSY (too late: counted,
 *  nothing changed, and FEATURES_OK fails unless it is set) @threads serial @since 1.0 */
VMEM_API int vmem_balloon_set_features(vmem_balloon *balloon, uint64_t features);

/** The device status, as the driver has written it. 0 resets: the balloon is empty, buffers are
 *  forgotten, in time that grows with the RAM of which pages were in it.
 *  @param[out] ret_status  what it is now: without FEATURES_OK if the features are not acceptable
 *  @threads serial @since 1.0 */
VMEM_API void vmem_balloon_set_status(vmem_balloon *balloon, uint32_t status, uint32_t *ret_status);

/** What queue number @p number is now.
 *  @return 0, -VMEM_ENOENT @threads serial @since 1.0 */
VMEM_API int vmem_balloon_queue_of(const vmem_balloon *balloon, uint32_t number,
				   enum vmem_balloon_queue *ret_queue);

/** Bytes of the configuration space: 8, 12 or 16, by the features offered. @threads serial @since 1.0 */
VMEM_API uint32_t vmem_balloon_config_bytes(const vmem_balloon *balloon);

/** Read the configuration space. What is beyond it reads as 0. @return 0, -VMEM_ERANGE (partly beyond)
 *  @threads serial @since 1.0 */
VMEM_API int vmem_balloon_config_read(const vmem_balloon *balloon, uint32_t offset, void *bytes,
				      uint32_t count);

/** Write it. What a driver may not write stays.
 *  @return 0, -VMEM_ERANGE (partly beyond), -VMEM_EPERM (partly not to be written, or not now)
 *          @threads serial @since 1.0 */
VMEM_API int vmem_balloon_config_write(vmem_balloon *balloon, uint32_t offset, const void *bytes,
				       uint32_t count);

/** A buffer that the driver has made available. Fields are only ever added at the end. */
struct vmem_balloon_buffer {
	size_t size;     /**< sizeof(*this) as the caller compiled it */
	uint32_t queue;  /**< enum vmem_balloon_queue */
	uint64_t token;  /**< of the caller: comes back when it is done */
	uint64_t now_ns; /**< of a clock that does not go back */
	/** What the driver wrote for the device to read. It may lie in guest memory: what is used of an entry
	 *  was read at once. */
	const void *bytes;
	uint64_t count;                          /**< of them */
	const struct vmem_balloon_piece *pieces; /**< what it lets the device write */
	size_t piece_count;
};

/** Work off a buffer, or a part of it.
 *  @return 0 (taken: its completion comes by vmem_balloon_take_done()), -VMEM_EAGAIN (a part: take the ranges and what
 *          is done, then give it again), -VMEM_EINVAL (no such queue; not the buffer that a part was given of),
 *          -VMEM_E2BIG, -VMEM_EPERM (the driver is not there: no DRIVER_OK, or no such feature; counted; the buffer
 *          stays with the caller)
 *  @threads serial @since 1.0 */
VMEM_API int vmem_balloon_give(vmem_balloon *balloon, const struct vmem_balloon_buffer *buffer);

enum vmem_balloon_operation {
	VMEM_BALLOON_DISCARD = 1, /**< given up by the guest: nothing of it may stay anywhere */
	VMEM_BALLOON_RETURN, /**< taken back: reads as anything now; bring it in early, if that helps */
	/** Free; the guest may use it at once when its buffer is done. Afterwards it reads as zeros or as before. */
	VMEM_BALLOON_DISCARD_REPORTED,
	VMEM_BALLOON_DISCARD_HINTED, /**< was free; only while the guard holds (struct vmem_balloon_guard) */
};

/** Stays as it is. */
struct vmem_balloon_range {
	uint64_t gpa;
	uint64_t bytes;
	uint32_t operation; /**< enum vmem_balloon_operation */
	uint32_t reserved;  /**< 0 */
};

/** What is to be done now, in rising order. All ranges of a call have one operation. Calling again, or
 *  vmem_balloon_take_done(), says that those before are done.
 *  @return how many, 0: nothing is left @threads serial @since 1.0 */
VMEM_API size_t vmem_balloon_take_ranges(vmem_balloon *balloon, struct vmem_balloon_range *ranges,
					 size_t count);

/** Stays as it is. */
struct vmem_balloon_done {
	uint64_t token;
	uint32_t queue; /**< enum vmem_balloon_queue */
	uint32_t used;  /**< bytes: 0 */
};

/** A buffer to return to the driver. While ranges are left to take, there is none.
 *  @return 1, or 0: there is none @threads serial @since 1.0 */
VMEM_API int vmem_balloon_take_done(vmem_balloon *balloon, struct vmem_balloon_done *ret_done);

VMEM_END_DECLS
#endif
