/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/balloon_host.h
 *  The host's side of a balloon (vmem/balloon.h): how many pages it shall hold, how far that is, what the guest says of
 *  itself, what it did wrong, which pages are in it, and its state as bytes. */
#ifndef VMEM_BALLOON_HOST_H
#define VMEM_BALLOON_HOST_H
#include <vmem/balloon.h>
VMEM_BEGIN_DECLS

/** How many pages the balloon shall hold. The driver is told by vmem_balloon_tick(). The target that it has already
 *  changes nothing but the rate; one that asks for pages the same way does not end a stall, any other does.
 *  @param pages_per_s  no faster than this; 0: at once
 *  @return 0, -VMEM_ERANGE (more than there is RAM) @threads serial @since 1.0 */
VMEM_API int vmem_balloon_set_target(vmem_balloon *balloon, uint64_t pages, uint64_t pages_per_s,
				     uint64_t now_ns);

/** Time passes: targets move, stalls are seen. Call it at each event of vmem_balloon_next_event()'s caller, and at
 *  least every stall_ns while the target is not reached. @threads serial @since 1.0 */
VMEM_API void vmem_balloon_tick(vmem_balloon *balloon, uint64_t now_ns);

/** Ask the guest for fresh statistics: returns its buffer, by vmem_balloon_take_done().
 *  @return 0, -VMEM_EAGAIN (it has not answered the last question), -VMEM_ENOTSUP (not negotiated)
 *          @threads serial @since 1.0 */
VMEM_API int vmem_balloon_ask_stats(vmem_balloon *balloon);

/** Ask the guest which pages are free; they come as DISCARD_HINTED. Ends by itself when it has told all, or resets; a
 *  guest that never says that it has told all keeps the guard watching until vmem_balloon_hint_stop() is called.
 *  @return 0, -VMEM_ENOTSUP (not negotiated), -VMEM_EBUSY (running), or what the guard's begin returned
 *          @threads serial @since 1.0 */
VMEM_API int vmem_balloon_hint_start(vmem_balloon *balloon);

/** Stop it: what comes yet is ignored, and the guest keeps its pages. @threads serial @since 1.0 */
VMEM_API void vmem_balloon_hint_stop(vmem_balloon *balloon);

enum vmem_balloon_event {
	VMEM_BALLOON_EVENT_CONFIG =
		1, /**< the configuration has changed: the transport tells the driver */
	VMEM_BALLOON_EVENT_REACHED, /**< the target is */
	/** no progress for stall_ns, with pages wanted of which the driver knows; vmem_balloon_progress.proposed is what it
	 *  can have */
	VMEM_BALLOON_EVENT_STALLED,
	/** the driver claims another number of pages than it gave: with none on its way when it wrote that, or for
	 *  stall_ns in which none moved */
	VMEM_BALLOON_EVENT_ACTUAL,
	VMEM_BALLOON_EVENT_STATS, /**< there are new statistics */
	VMEM_BALLOON_EVENT_SWAPS, /**< the guest swaps while the balloon has pages */
	/** the guest took pages back that the target asks for; not one page that it has given another for */
	VMEM_BALLOON_EVENT_LEAK,
	VMEM_BALLOON_EVENT_HINTED, /**< hinting has ended, by itself, vmem_balloon_hint_stop() or a reset */
	VMEM_BALLOON_EVENT_RESET, /**< the driver has reset the device: all pages are the guest's again */
};

/** What has happened, each kind once however often it did. @return an event, or 0 @threads serial @since 1.0 */
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
	uint64_t pages_per_s; /**< of late, in or out */
	uint64_t eta_ns;      /**< until the target at that rate; UINT64_MAX: it comes no nearer */
	uint64_t stalled_ns;  /**< since the last progress; 0: not stalled */
	uint64_t
		proposed; /**< a target that the guest can hold: pages, when stalled, else target */
	uint64_t features; /**< negotiated */
	uint64_t driver;   /**< 1: there is one (DRIVER_OK) */
};
/** @return 0, -VMEM_EINVAL (progress->size) @threads serial @since 1.0 */
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
/** @return 0, -VMEM_ENOENT (it has told nothing), -VMEM_EINVAL (guest->size) @threads serial @since 1.0 */
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
	uint64_t
		unaligned; /**< pages reported or hinted of blocks that are not whole: left alone */
	uint64_t stats;    /**< statistics taken */
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
/** @return 0, -VMEM_EINVAL (counters->size) @threads serial @since 1.0 */
VMEM_API int vmem_balloon_get_counters(const vmem_balloon *balloon,
				       struct vmem_balloon_counters *counters);

/** Whether a page is in the balloon. @return 1, 0, -VMEM_ERANGE (not RAM) @threads serial @since 1.0 */
VMEM_API int vmem_balloon_has(const vmem_balloon *balloon, uint64_t gpa);

/** The ranges that are in the balloon, from @p gpa on. @return 0, -VMEM_ENOENT (no more) @threads serial @since 1.0 */
VMEM_API int vmem_balloon_next(const vmem_balloon *balloon, uint64_t gpa,
			       struct vmem_balloon_range *ret_range);

/** Save the state of the protocol. Hinting is not part of it.
 *  @param write  takes all bytes: 0, or an error to be passed on
 *  @return 0, -VMEM_EBUSY (ranges or completions are left to take), what write returned
 *  @threads serial @since 1.0 */
VMEM_API int vmem_balloon_save(const vmem_balloon *balloon,
			       int (*write)(void *context, const void *bytes, size_t count),
			       void *context);

/** Restore it into a new device with the same options and RAM. The driver is told to stop hinting.
 *  @param read  gives exactly so many bytes: 1, 0 (the end came before), or an error to be passed on
 *  @return 0, -VMEM_EBUSY (it is not new), -VMEM_EBADMSG (not such a state, or of other RAM or features: the device is
 *          as new), what read returned
 *  @threads serial @since 1.0 */
VMEM_API int vmem_balloon_restore(vmem_balloon *balloon,
				  int (*read)(void *context, void *bytes, size_t count),
				  void *context);

VMEM_END_DECLS
#endif
