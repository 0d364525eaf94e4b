/* SPDX-License-Identifier: BSD-2-Clause */
/* For xxhash.h without libc: see base/mem.h. */
#ifndef VMEMI_SHIM_STRING_H
#define VMEMI_SHIM_STRING_H
#include <stddef.h>

void *memcpy(void *restrict dst, const void *restrict src, size_t bytes);
void *memset(void *dst, int byte, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

/* -ffreestanding forgets what memcpy is: without this each word read is a call. */
#define memcpy __builtin_memcpy

#endif
