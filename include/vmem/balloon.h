/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/balloon.h
 *  The virtio memory balloon (VIRTIO 1.3, 5.5), the device's side, without a transport: buffers of the guest go in,
 *  ranges of memory to be discarded and buffers to be returned come out. Nothing here touches guest memory but the
 *  bytes of a buffer, each read once: they may be given where the guest wrote them.
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
 *  Memory: 66 KiB for each GiB of RAM. @threads of all calls: serial, unless another is named. */
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
 *                       are remembered until all of it is in the balloon, and then come as one range
 *  @return 0, -VMEM_EINVAL, -VMEM_ERANGE (beyond 16 TiB), -VMEM_EEXIST (overlaps), -VMEM_ENOSPC (VMEM_BALLOON_RAMS), -VMEM_ENOMEM
 *  @since 1.0 */
VMEM_API int vmem_balloon_add_ram(vmem_balloon *balloon, uint64_t gpa, uint64_t bytes,
				  uint64_t block_bytes) VMEM_NODISCARD;

/* --- What the transport passes on --- */

/** Features, as the driver has written them. Looked at when FEATURES_OK is set; without FEATURES_OK (legacy) when
 *  DRIVER_OK is. @return 0, -VMEM_EBUSY (too late: counted, nothing changed) @since 1.0 */
VMEM_API int vmem_balloon_set_features(vmem_balloon *balloon, uint64_t features);

/** The device status, as the driver has written it. 0 resets: the balloon is empty, buffers are forgotten.
 *  @param[out] ret_status  what it is now: without FEATURES_OK if the features are not acceptable
 *  @since 1.0 */
VMEM_API void vmem_balloon_set_status(vmem_balloon *balloon, uint32_t status, uint32_t *ret_status);

/** What queue number @p number is now.
 *  @return 0, -VMEM_ENOENT @since 1.0 */
VMEM_API int vmem_balloon_queue_of(const vmem_balloon *balloon, uint32_t number,
				   enum vmem_balloon_queue *ret_queue);

/** Bytes of the configuration space: 8, 12 or 16, by the features offered. @since 1.0 */
VMEM_API uint32_t vmem_balloon_config_bytes(const vmem_balloon *balloon);

/** Read or write the configuration space. What is beyond it reads as 0; what a driver may not write stays.
 *  @return 0, -VMEM_ERANGE (partly beyond), -VMEM_EPERM (partly not to be written, or not now) @since 1.0 */
VMEM_API int vmem_balloon_config_read(const vmem_balloon *balloon, uint32_t offset, void *bytes,
				      uint32_t count);
VMEM_API int vmem_balloon_config_write(vmem_balloon *balloon, uint32_t offset, const void *bytes,
				       uint32_t count);

/** A buffer that the driver has made available. Fields are only ever added at the end. */
struct vmem_balloon_buffer {
	size_t size;     /**< sizeof(*this) as the caller compiled it */
	uint32_t queue;  /**< enum vmem_balloon_queue */
	uint64_t token;  /**< of the caller: comes back when it is done */
	uint64_t now_ns; /**< of a clock that does not go back */
	/** What the driver wrote for the device to read. Each byte is read once, also from guest memory. */
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
 *  @since 1.0 */
VMEM_API int vmem_balloon_give(vmem_balloon *balloon, const struct vmem_balloon_buffer *buffer);

enum vmem_balloon_operation {
	VMEM_BALLOON_DISCARD = 1, /**< given up by the guest: nothing of it may stay anywhere */
	VMEM_BALLOON_RETURN, /**< taken back: reads as anything now; bring it in early, if that helps */
	VMEM_BALLOON_DISCARD_REPORTED, /**< free; the guest may use it at once when its buffer is done */
	VMEM_BALLOON_DISCARD_HINTED, /**< was free; only while the guard holds (struct vmem_balloon_guard) */
};

struct vmem_balloon_range {
	uint64_t gpa;
	uint64_t bytes;
	uint32_t operation; /**< enum vmem_balloon_operation */
	uint32_t reserved;  /**< 0 */
};

/** What is to be done now, in rising order. All ranges of a call have one operation. Calling again, or
 *  vmem_balloon_take_done(), says that those before are done.
 *  @return how many, 0: nothing is left @since 1.0 */
VMEM_API size_t vmem_balloon_take_ranges(vmem_balloon *balloon, struct vmem_balloon_range *ranges,
					 size_t count);

struct vmem_balloon_done {
	uint64_t token;
	uint32_t queue; /**< enum vmem_balloon_queue */
	uint32_t used;  /**< bytes: 0 */
};

/** A buffer to return to the driver. While ranges are left to take, there is none.
 *  @return 1, or 0: there is none @since 1.0 */
VMEM_API int vmem_balloon_take_done(vmem_balloon *balloon, struct vmem_balloon_done *ret_done);

/* --- What the host wants --- */

/** How many pages the balloon shall hold. The driver is told by vmem_balloon_tick().
 *  @param pages_per_s  no faster than this; 0: at once
 *  @return 0, -VMEM_ERANGE (more than there is RAM) @since 1.0 */
VMEM_API int vmem_balloon_set_target(vmem_balloon *balloon, uint64_t pages, uint64_t pages_per_s,
				     uint64_t now_ns);

/** Time passes: targets move, stalls are seen. Call it at each event of vmem_balloon_next_event()'s caller, and at
 *  least every stall_ns while the target is not reached. @since 1.0 */
VMEM_API void vmem_balloon_tick(vmem_balloon *balloon, uint64_t now_ns);

/** Ask the guest for fresh statistics: returns its buffer, by vmem_balloon_take_done().
 *  @return 0, -VMEM_EAGAIN (it has not answered the last question), -VMEM_ENOTSUP (not negotiated) @since 1.0 */
VMEM_API int vmem_balloon_ask_stats(vmem_balloon *balloon);

/** Ask the guest which pages are free; they come as DISCARD_HINTED. Ends by itself when it has told all.
 *  @return 0, -VMEM_ENOTSUP (not negotiated), -VMEM_EBUSY (running), or what the guard's begin returned @since 1.0 */
VMEM_API int vmem_balloon_hint_start(vmem_balloon *balloon);

/** Stop it: what comes yet is ignored, and the guest keeps its pages. @since 1.0 */
VMEM_API void vmem_balloon_hint_stop(vmem_balloon *balloon);

enum vmem_balloon_event {
	VMEM_BALLOON_EVENT_CONFIG =
		1, /**< the configuration has changed: the transport tells the driver */
	VMEM_BALLOON_EVENT_REACHED, /**< the target is */
	VMEM_BALLOON_EVENT_STALLED, /**< no progress for stall_ns; vmem_balloon_progress.proposed is what it can have */
	VMEM_BALLOON_EVENT_ACTUAL, /**< the driver claims another number of pages than it gave */
	VMEM_BALLOON_EVENT_STATS,  /**< there are new statistics */
	VMEM_BALLOON_EVENT_SWAPS,  /**< the guest swaps while the balloon has pages */
	VMEM_BALLOON_EVENT_LEAK,   /**< the guest took pages back that the target asks for */
	VMEM_BALLOON_EVENT_HINTED, /**< hinting has ended */
	VMEM_BALLOON_EVENT_RESET, /**< the driver has reset the device: all pages are the guest's again */
};

/** What has happened, each kind once however often it did. @return an event, or 0 @since 1.0 */
VMEM_API int vmem_balloon_next_event(vmem_balloon *balloon);

/** Where it stands. */
struct vmem_balloon_progress {
	size_t size;     /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t target; /**< pages, as set */
	uint64_t told;   /**< pages, as the driver can read it: moves to target */
	uint64_t pages;  /**< in the balloon, as seen here */
	uint64_t actual; /**< pages, as the driver claims */
	uint64_t
		partial; /**< of pages, those in blocks that are not whole yet: still take memory */
	uint64_t pages_per_s; /**< of late */
	uint64_t eta_ns;      /**< until the target at that rate; UINT64_MAX: no progress */
	uint64_t stalled_ns;  /**< since the last progress; 0: not stalled */
	uint64_t
		proposed; /**< a target that the guest can hold: pages, when stalled, else target */
	uint64_t features; /**< negotiated; 0: there is no driver */
};
/** @return 0, -VMEM_EINVAL (progress->size) @since 1.0 */
VMEM_API int vmem_balloon_get_progress(const vmem_balloon *balloon,
				       struct vmem_balloon_progress *progress);

#define VMEM_BALLOON_OTHER_TAGS 16u

/** The guest's own view, as it last told. */
struct vmem_balloon_guest {
	size_t size;    /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t known; /**< bit i: values[i] was told */
	uint64_t values[VMEM_BALLOON_TAGS];     /**< enum vmem_balloon_tag */
	uint64_t told_ns;                       /**< when */
	uint64_t swap_in_per_s, swap_out_per_s; /**< bytes, between the last two */
	uint64_t major_faults_per_s;
	uint32_t other_count; /**< of tags that are not known here */
	uint16_t other_tags[VMEM_BALLOON_OTHER_TAGS];
	uint64_t other_values[VMEM_BALLOON_OTHER_TAGS];
};
/** @return 0, -VMEM_ENOENT (it has told nothing), -VMEM_EINVAL (guest->size) @since 1.0 */
VMEM_API int vmem_balloon_get_guest(const vmem_balloon *balloon, struct vmem_balloon_guest *guest);

/** Counters, since the device was made. */
struct vmem_balloon_counters {
	size_t size;      /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t buffers; /**< taken */
	uint64_t inflated, deflated; /**< pages that went in and out */
	uint64_t reported, hinted;   /**< pages that were, and were given out to be discarded */
	uint64_t hints_written;      /**< pages that were hinted and written since: left alone */
	uint64_t
		hints_late; /**< pages hinted for a command that is not the current one: left alone */
	uint64_t
		poisoned; /**< pages reported or hinted whose contents the guest wants kept: left alone */
	uint64_t unaligned; /**< pages reported or hinted that are no whole block: left alone */
	uint64_t stats;     /**< statistics taken */
	uint64_t resets;
	/* What the guest did wrong. */
	uint64_t outside;        /**< pages named that are not RAM */
	uint64_t inflated_twice; /**< pages inflated that were in the balloon */
	uint64_t not_inflated;   /**< pages deflated that were not */
	uint64_t free_inflated;  /**< pages reported or hinted that were in the balloon */
	uint64_t malformed;      /**< buffers of a wrong length, or bytes left over */
	uint64_t
		unexpected; /**< buffers without a driver or a feature; a second one for statistics */
	uint64_t late_writes; /**< features or poison_val changed too late, or not to be written */
};
/** @return 0, -VMEM_EINVAL (counters->size) @since 1.0 */
VMEM_API int vmem_balloon_get_counters(const vmem_balloon *balloon,
				       struct vmem_balloon_counters *counters);

/** Whether a page is in the balloon. @return 1, 0, -VMEM_ERANGE (not RAM) @since 1.0 */
VMEM_API int vmem_balloon_has(const vmem_balloon *balloon, uint64_t gpa);

/** The ranges that are in the balloon, from @p gpa on. @return 0, -VMEM_ENOENT (no more) @since 1.0 */
VMEM_API int vmem_balloon_next(const vmem_balloon *balloon, uint64_t gpa,
			       struct vmem_balloon_range *ret_range);

/** Save the state of the protocol, or restore it into a new device with the same options and RAM. Hinting does not
 *  survive: the driver is told to stop.
 *  @param write  takes all bytes: 0, or an error to be passed on
 *  @param read   gives exactly so many: 1, 0 (the end came before), or an error to be passed on
 *  @return 0, -VMEM_EBUSY (ranges or completions are left to take; restore: not new), -VMEM_EBADMSG (not such a
 *          state, or of other RAM or features: the device is as new), what write or read returned
 *  @since 1.0 */
VMEM_API int vmem_balloon_save(const vmem_balloon *balloon,
			       int (*write)(void *context, const void *bytes, size_t count),
			       void *context);
VMEM_API int vmem_balloon_restore(vmem_balloon *balloon,
				  int (*read)(void *context, void *bytes, size_t count),
				  void *context);

VMEM_END_DECLS
#endif
