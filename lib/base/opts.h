/* SPDX-License-Identifier: BSD-2-Clause */
/* Structures that grow at the end: taking in what a caller compiled, and giving results out. */
#ifndef VMEMI_OPTS_H
#define VMEMI_OPTS_H
#include <stddef.h>
#include <vmem/common.h>

/* Copies the caller's options @src (size first, NULL: all defaults) into @dst of @known bytes, zeroing
 * what the caller did not know. 0, -VMEM_EINVAL (size smaller than a size_t), or -VMEM_E2BIG (bytes
 * that this library does not know are set). */
int vmemi_opts_take(void *dst, size_t known, const void *src);

/* Bytes of a structure up to the end of a field. With the last field of its first version, they are what
 * every caller has. */
#define VMEMI_BYTES_TO(type, field) (offsetof(type, field) + sizeof(((type *)0)->field))

/* Copies the caller's table of functions @src, as vmemi_opts_take() does, but it must be there and have
 * at least the @least bytes of its first version. 0, -VMEM_EINVAL, -VMEM_E2BIG. */
int vmemi_callbacks_take(void *dst, size_t known, size_t least, const void *src);

/* Copies the result @src of @known bytes into the caller's @dst, whose first field says how much it has
 * room for; a larger @dst gets zeros in the rest, its size field stays. 0, -VMEM_EINVAL. */
int vmemi_opts_give(void *dst, const void *src, size_t known);

#endif
