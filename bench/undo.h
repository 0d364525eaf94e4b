/* SPDX-License-Identifier: BSD-2-Clause */
/* Leaves the machine as it was found. A bench runs in a child process; what it changes on the system
 * (swap, sysctls, cgroups) it announces first, by undo_later(), to another, which undoes all of it in
 * reverse order when the bench has ended, in whatever way: done, failed, crashed, Ctrl-C, kill -9. */
#ifndef BENCH_UNDO_H
#define BENCH_UNDO_H
#include <sys/types.h>

/* Run body(context) in a child; @return the exit status for main(): the body's, or 128 + its signal. */
int undo_supervise(int (*body)(void *context), void *context);

/* fork() for the body: a child that is killed when the body ends, so that nothing is in use any more. */
pid_t undo_fork(void);

/* An action for the end, before the change it belongs to: "write PATH TEXT", "swapoff PATH",
 * "rmdir PATH". In the body only. */
void undo_later(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
