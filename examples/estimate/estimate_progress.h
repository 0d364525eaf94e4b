/* SPDX-License-Identifier: BSD-2-Clause */
/* What is said while it works, to standard error: a bar on a terminal, else a line for each step. */
#ifndef ESTIMATE_PROGRESS_H
#define ESTIMATE_PROGRESS_H
#include <stdbool.h>
#include <stdint.h>

void progress_init(bool quiet);

/* A step begins. */
void progress_step(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* How far it is: @done of @total, which is not 0. */
void progress_tell(uint64_t done, uint64_t total);

/* The bar goes away: before other output. */
void progress_end(void);

/* "vmem-estimate: ...": a message to standard error. */
void say_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Ctrl-C or SIGTERM has come; a second one ends the program at once. */
void interrupt_init(void);
bool is_interrupted(void);

#endif
