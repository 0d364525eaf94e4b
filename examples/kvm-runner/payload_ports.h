/* SPDX-License-Identifier: BSD-2-Clause */
/* Hypercalls of the payload in a VM. As a thread it has them from backend_thread.c. */
#ifndef PAYLOAD_PORTS_H
#define PAYLOAD_PORTS_H
#include "guest_abi.h"

#ifdef GUEST_FREESTANDING
static inline void guest_out(uint32_t port, uint32_t value)
{
	if (port == GUEST_PORT_PRINT)
		__asm__ volatile("outb %b0, %w1" : : "a"(value), "d"(port) : "memory");
	else
		__asm__ volatile("outl %0, %w1" : : "a"(value), "d"(port) : "memory");
}

static inline uint32_t guest_in(uint32_t port)
{
	uint32_t value;

	__asm__ volatile("inl %w1, %0" : "=a"(value) : "d"(port) : "memory");
	return value;
}
#endif

#endif
