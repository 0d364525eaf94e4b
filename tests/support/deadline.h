/* SPDX-License-Identifier: BSD-2-Clause */
/* Waiting for what another thread or the kernel will do. No test depends on how fast the machine is, but one that
 * waits for ever is of no use: at a deadline far beyond what anything takes it ends with a status of its own and a
 * line that begins with "timed out: ", so that tests/run.sh --again can tell that it failed by the clock only. */
#ifndef VMEMT_DEADLINE_H
#define VMEMT_DEADLINE_H
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#define VMEMT_DEADLINE_MS 30000
#define VMEMT_TIMED_OUT 75 /* exit status */

/* Milliseconds of a clock that only goes forward. */
uint64_t vmemt_now_ms(void);

/* Says what was waited for and where, and what each thread is at, and ends the process. With VMEM_TEST_GDB set, gdb
 * adds the stacks of all threads. */
void vmemt_timed_out(const char *what, const char *file, int line, const char *function)
	__attribute__((noreturn));

/* Ends the test as timed out if it is later than @end_ms. @what: text. */
#define VMEMT_NOT_AFTER(end_ms, what)                                        \
	do {                                                                 \
		if (vmemt_now_ms() > (end_ms))                               \
			vmemt_timed_out(what, __FILE__, __LINE__, __func__); \
	} while (0)

/* A condition that will become true: waits for it, up to the deadline. */
#define VMEMT_UNTIL(condition)                                              \
	do {                                                                \
		uint64_t vmemt_end_ms = vmemt_now_ms() + VMEMT_DEADLINE_MS; \
		while (!(condition)) {                                      \
			VMEMT_NOT_AFTER(vmemt_end_ms, #condition);          \
			sched_yield();                                      \
		}                                                           \
	} while (0)

/* Waits until @counter has gone up by @count more; it may take long, but a part of it must come each time. */
void vmemt_until_more(_Atomic uint64_t *counter, uint64_t count);

bool vmemt_is_readable(int fd);
/* Waits until @fd can be read. */
void vmemt_until_readable(int fd);

#endif
