/* SPDX-License-Identifier: BSD-2-Clause */
/* A host on the bare machine, of one processor, that runs guests on second-stage tables made by lib/ept: what its parts
 * know of each other. Memory is mapped where it is, in the host and (by the tables' lowest entries) in guests, so that
 * a guest runs functions of this program. */
#ifndef HW_H
#define HW_H
#include <stddef.h>
#include <stdint.h>
#include <vmem/ept.h>
#include <vmem/ept_walk.h>

/* --- hw_console.c: the first serial port, and the way out --- */

void hw_console_start(void);
/* %s %u %x, and with l: 64 bits. No widths. */
void hw_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Ends the emulator: Bochs by a port of its own, QEMU by isa-debug-exit. */
void hw_power_off(void);

/* Prints what does not hold, and counts the case as failed. Returns holds. */
int hw_check(int holds, const char *what, unsigned line, const char *file);
#define HW_CHECK(holds) hw_check(!!(holds), #holds, __LINE__, __FILE__)
/* Between these two: one case. */
void hw_case_begin(const char *format, ...) __attribute__((format(printf, 1, 2)));
void hw_case_end(void);

void hw_main(void);

#endif
