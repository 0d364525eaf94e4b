/* SPDX-License-Identifier: BSD-2-Clause */
/* Whether a sanitizer makes all code several times as slow: tests that take millions of steps take fewer. And whether
 * it is the one that looks for races alone: what tries one thing after the other takes the fewest. */
#ifndef VMEMT_SLOW_H
#define VMEMT_SLOW_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define VMEMT_SLOW 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define VMEMT_SLOW 1
#endif
#endif
#ifndef VMEMT_SLOW
#define VMEMT_SLOW 0
#endif

#if defined(__SANITIZE_THREAD__)
#define VMEMT_RACES_ONLY 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define VMEMT_RACES_ONLY 1
#endif
#endif
#ifndef VMEMT_RACES_ONLY
#define VMEMT_RACES_ONLY 0
#endif

#endif
