/* SPDX-License-Identifier: BSD-2-Clause */
/* Options structures that grow at the end: taking in what a caller compiled, and giving results out. */
#ifndef VMEMI_OPTS_H
#define VMEMI_OPTS_H
#include <vmem/common.h>

/* Copies the caller's options @src (size first, NULL: all defaults) into @dst of @known bytes, zeroing
 * what the caller did not know. 0, -VMEM_EINVAL (size smaller than a size_t), or -VMEM_E2BIG (bytes
 * that this library does not know are set). */
int vmemi_opts_take(void *dst, size_t known, const void *src);

/* Copies the result @src of @known bytes into the caller's @dst, whose first field says how much it has
 * room for; a larger @dst gets zeros in the rest, its size field stays. 0, -VMEM_EINVAL. */
int vmemi_opts_give(void *dst, const void *src, size_t known);

#endif
