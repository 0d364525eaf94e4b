/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/trace.h
 *  What a tracker knows, as a file, and what it learnt in each period since: to try a policy offline, with
 *  the accesses of a real guest, as often as one likes.
 *
 *  The file: the 8 bytes "VMEMTRK1", then frames. A frame is a letter, numbers, and the checksum of these,
 *  8 bytes, least significant first: XXH3-64 of up to 256 bytes at a time, each with the result before as
 *  its seed, the first with 0. Numbers have 7 bits a byte, the lowest first, and the high bit set in all
 *  bytes but the last.
 *    'S'  all, once, first: pages, periods, accesses, taken, returned; 240 promotions by age; then runs of
 *         pages that are alike, until all pages were there: length, age, state
 *    'P'  a period: runs of pages that were accessed: pages that were not since the last run, then twice
 *         the length, and one more if all were written; ends with 0, 0 */
#ifndef VMEM_TRACE_H
#define VMEM_TRACE_H
#include <vmem/track.h>
VMEM_BEGIN_DECLS

/** Where the bytes go. Fields are only ever added at the end. */
struct vmem_trace_writer {
	size_t size;   /**< sizeof(*this) as the caller compiled it */
	void *context; /**< handed to write */

	/** Take up to 256 bytes. @return 0, or an error to be passed on */
	int (*write)(void *context, const void *bytes, size_t count);
};

/** Where they come from. Fields are only ever added at the end. */
struct vmem_trace_reader {
	size_t size;   /**< sizeof(*this) as the caller compiled it */
	void *context; /**< handed to read */

	/** Give exactly so many bytes (asks for few at a time). @return 1, 0 (the end came before the first
	 *  of them), or an error to be passed on */
	int (*read)(void *context, void *bytes, size_t count);
};

/** Write the start of a file: all that a tracker knows (samples apart). @return 0, -VMEM_EINVAL, or what
 *  write returned @threads serial @since 1.0 */
VMEM_API int vmem_trace_save(const vmem_track *track, const struct vmem_trace_writer *writer);

/** Write what was accessed in this period, before vmem_track_period() ends it. Pages whose state is
 *  VMEM_TRACK_WRITTEN count as written, also if that was in an earlier period. @return 0, -VMEM_EINVAL, or
 *  what write returned @threads serial @since 1.0 */
VMEM_API int vmem_trace_save_period(const vmem_track *track,
				    const struct vmem_trace_writer *writer);

/** Make a tracker as it was when the file was begun.
 *  @param opts  pages: the most that are wanted
 *  @return 0, -VMEM_EINVAL, -VMEM_E2BIG, -VMEM_ENOMEM, -VMEM_ERANGE (more pages), -VMEM_EBADMSG (not such a
 *  file, or damaged), or what read returned; nothing is left then
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_trace_load(vmem_track **ret_track, const struct vmem_track_opts *opts,
			     const struct vmem_trace_reader *reader) VMEM_NODISCARD;

/** Feed a tracker with the next period of the file. The caller ends it (vmem_track_period) when it has done
 *  with it what the policy does. States are the policy's: only accesses are in the file.
 *  @return 1, 0 (the file ends), -VMEM_EINVAL, -VMEM_ERANGE (pages beyond the tracker's), -VMEM_EBADMSG
 *  (damaged), or what read returned; after an error the tracker may have part of the period
 *  @threads serial
 *  @since 1.0 */
VMEM_API int vmem_trace_replay(vmem_track *track, const struct vmem_trace_reader *reader);

VMEM_END_DECLS
#endif
