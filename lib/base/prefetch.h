/* SPDX-License-Identifier: BSD-2-Clause */
/* A line of the cache, ahead of a store to it. */
#ifndef VMEMI_PREFETCH_H
#define VMEMI_PREFETCH_H

/* The compiler would fetch to read: a store then has to ask the other processors a second time. Processors without
 * this instruction pass over it. */
static inline void vmemi_fetch_to_write(const void *p)
{
#if defined(__x86_64__)
	__asm__ volatile("prefetchw %0" : : "m"(*(const char *)p));
#else
	__builtin_prefetch(p, 1);
#endif
}

#endif
