/* SPDX-License-Identifier: BSD-2-Clause */
/* All output to people. On a terminal the table stays below the lines, redrawn in place; elsewhere
 * everything is plain lines. Any thread, but not in a signal handler. */
#ifndef RUNNER_PRINT_H
#define RUNNER_PRINT_H
#include <stdbool.h>

#define PRINT_FORMAT(at) __attribute__((format(printf, at, at + 1)))

/* Before all others. */
void print_init(void);

/* Whether a table is redrawn in place. */
bool print_is_live(void);

/* How many lines a table may have: it must fit the screen to be redrawn. */
unsigned print_table_most(void);

/* A line to the output. */
void print_line(const char *format, ...) PRINT_FORMAT(1);

/* A line to the error output, with the name of the program. */
void print_error(const char *format, ...) PRINT_FORMAT(1);

/* A table: lines that each end with '\n'. On a terminal it takes the place of the one before. */
void print_table(const char *text);

/* What is printed next goes below the table. */
void print_table_end(void);

#endif
