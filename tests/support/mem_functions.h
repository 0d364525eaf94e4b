/* SPDX-License-Identifier: BSD-2-Clause */
/* The four functions that compilers and libvmem-core.a call, for programs without libc. */
#ifndef VMEMT_MEM_FUNCTIONS_H
#define VMEMT_MEM_FUNCTIONS_H
#include <stddef.h>

void *memcpy(void *restrict dst, const void *restrict src, size_t bytes);
void *memmove(void *dst, const void *src, size_t bytes);
void *memset(void *dst, int byte, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

#endif
