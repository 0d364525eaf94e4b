/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/common.h
 *  What every other header needs: the page, error numbers, processor flags, version.
 *
 *  Thread tags used in all headers:
 *    any        any thread, any time, also together with other calls on the same object
 *    serial     one call at a time on the same object; different objects are independent
 *    exclusive  no other call on the same object may run or start until it has returned */
#ifndef VMEM_COMMON_H
#define VMEM_COMMON_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define VMEM_BEGIN_DECLS extern "C" {
#define VMEM_END_DECLS }
#else
#define VMEM_BEGIN_DECLS
#define VMEM_END_DECLS
#endif

#if defined(__GNUC__)
#define VMEM_API __attribute__((visibility("default")))
#define VMEM_NODISCARD __attribute__((warn_unused_result))
#else
#define VMEM_API
#define VMEM_NODISCARD
#endif

VMEM_BEGIN_DECLS

#define VMEM_VERSION_MAJOR 1
#define VMEM_VERSION_MINOR 0
#define VMEM_VERSION_PATCH 0

/** Bytes of a page. Hosts with other page sizes are refused by name (-VMEM_ENOTSUP). */
#define VMEM_PAGE_SIZE 4096u
#define VMEM_PAGE_SHIFT 12u

/** Error numbers: functions return 0 or one of these negated. The values are Linux's. */
#define VMEM_EPERM 1  /**< not permitted: see the doc of the call for what to set */
#define VMEM_ENOENT 2 /**< no such object, or the address is in none of our regions */
#define VMEM_EIO 5    /**< the device or the kernel could not do it; the page is lost or poisoned */
#define VMEM_E2BIG 7  /**< a structure is newer than this library, and uses what is new */
#define VMEM_EAGAIN 11  /**< not now; call again */
#define VMEM_ENOMEM 12  /**< the allocator gave nothing */
#define VMEM_EFAULT 14  /**< an address could not be read or written */
#define VMEM_EBUSY 16   /**< in use */
#define VMEM_EEXIST 17  /**< there already, or overlapping */
#define VMEM_ENODEV 19  /**< the kernel or the machine has no such facility */
#define VMEM_EINVAL 22  /**< an argument is out of its range */
#define VMEM_EFBIG 27   /**< the page does not compress below the threshold */
#define VMEM_ENOSPC 28  /**< the budget is used up */
#define VMEM_ERANGE 34  /**< outside the object */
#define VMEM_EBADMSG 74 /**< the stored bytes fail their checksum: what came out is not the page */
#define VMEM_ENOTSUP 95 /**< this kind of memory, kernel or host is not supported */
#define VMEM_EINPROGRESS 115 /**< begun; a token tells it from others when it completes */

/** What the error number means, in a few words. Never NULL; unknown numbers say so.
 *  @param error  0, or an error number, negated or not
 *  @threads any
 *  @since 1.0 */
VMEM_API const char *vmem_strerror(int error);

/** The version of the library that runs, as major << 16 | minor << 8 | patch.
 *  @threads any
 *  @since 1.0 */
VMEM_API uint32_t vmem_version(void);

/** Processor features that an object may use, for the `cpu` field of options.
 *  0: general-purpose registers only (for hypervisors that may not touch vector registers). */
#define VMEM_CPU_SSE2 (UINT32_C(1) << 0)
#define VMEM_CPU_AVX2 (UINT32_C(1) << 1)
#define VMEM_CPU_AVX512 (UINT32_C(1) << 2)       /**< F, BW, VL and DQ */
#define VMEM_CPU_AVX512_VBMI2 (UINT32_C(1) << 3) /**< those and VBMI2 */

/** The features that this processor and operating system have; 0 in a freestanding build,
 *  where the caller alone knows what it may use.
 *  @threads any
 *  @since 1.0 */
VMEM_API uint32_t vmem_cpu_detect(void);

VMEM_END_DECLS
#endif
