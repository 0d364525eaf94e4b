/* SPDX-License-Identifier: BSD-2-Clause */
/* The four functions that every floor may call. A freestanding caller must supply them. */
#ifndef VMEMI_MEM_H
#define VMEMI_MEM_H
#include <stddef.h>

#ifdef VMEMI_CORE
void *memcpy(void *restrict dst, const void *restrict src, size_t bytes);
void *memmove(void *dst, const void *src, size_t bytes);
void *memset(void *dst, int byte, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

/* -ffreestanding forgets what they are: without this a copy of eight bytes is a call. */
#define memcpy __builtin_memcpy
#define memmove __builtin_memmove
#define memset __builtin_memset
#define memcmp __builtin_memcmp
#else
#include <string.h>
#endif

#endif
