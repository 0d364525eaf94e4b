/* SPDX-License-Identifier: BSD-2-Clause */
/* See mem_functions.h. On x86 by string instructions: in emulators each instruction of a loop would take its time. */
#include "support/mem_functions.h"
#include <stdint.h>

#if defined(__x86_64__)

void *memcpy(void *restrict dst, const void *restrict src, size_t bytes)
{
	void *at = dst;

	__asm__ volatile("rep movsb" : "+D"(at), "+S"(src), "+c"(bytes)::"memory");
	return dst;
}

void *memset(void *dst, int byte, size_t bytes)
{
	void *at = dst;

	__asm__ volatile("rep stosb" : "+D"(at), "+c"(bytes) : "a"(byte) : "memory");
	return dst;
}

#else

void *memcpy(void *restrict dst, const void *restrict src, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		((unsigned char *)dst)[i] = ((const unsigned char *)src)[i];
	return dst;
}

void *memset(void *dst, int byte, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		((unsigned char *)dst)[i] = (unsigned char)byte;
	return dst;
}

#endif

void *memmove(void *dst, const void *src, size_t bytes)
{
	if ((uintptr_t)dst - (uintptr_t)src >= bytes)
		return memcpy(dst, src, bytes);
	while (bytes--)
		((unsigned char *)dst)[bytes] = ((const unsigned char *)src)[bytes];
	return dst;
}

int memcmp(const void *a, const void *b, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if (((const unsigned char *)a)[i] != ((const unsigned char *)b)[i])
			return ((const unsigned char *)a)[i] - ((const unsigned char *)b)[i];
	return 0;
}
