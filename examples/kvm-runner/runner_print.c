/* SPDX-License-Identifier: BSD-2-Clause */
/* See the header. The state is that of the one terminal, guarded by `lock`. Terminal capabilities
 * come from terminfo; without those that are needed the output is plain lines. */
#include "runner_print.h"

#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <curses.h>
#include <term.h>

#define TABLE_MOST 16384u

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool live;
static const char *line_up;     /* one line up */
static const char *clear_below; /* from the cursor to the end of the screen */
static unsigned lines_below;    /* of the table on the screen; the cursor is at its end */
static char table[TABLE_MOST];  /* its text */

void print_init(void)
{
	int error;

	if (!isatty(STDOUT_FILENO) || setupterm(NULL, STDOUT_FILENO, &error) != OK)
		return;
	line_up = tigetstr("cuu1");
	clear_below = tigetstr("ed");
	live = line_up && line_up != (const char *)-1 && clear_below &&
	       clear_below != (const char *)-1;
}

bool print_is_live(void)
{
	return live;
}

static struct winsize screen(void)
{
	struct winsize size = { 0 };

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0)
		size = (struct winsize){ .ws_col = 80, .ws_row = 24 };
	return size;
}

unsigned print_table_most(void)
{
	return live ? screen().ws_row - 1u : UINT_MAX;
}

static void take_away(void)
{
	if (lines_below == 0)
		return;
	while (lines_below > 0) {
		fputs(line_up, stdout);
		lines_below--;
	}
	fputc('\r', stdout);
	fputs(clear_below, stdout);
}

/* Lines longer than the screen would wrap, and there would be more of them than we count. */
static void draw(void)
{
	int width = screen().ws_col;

	if (!live || !table[0])
		return;
	for (const char *line = table; *line; line += strcspn(line, "\n") + 1) {
		int length = (int)strcspn(line, "\n");

		printf("%.*s\n", length < width ? length : width - 1, line);
		lines_below++;
	}
}

void print_line(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	pthread_mutex_lock(&lock);
	take_away();
	vprintf(format, arguments);
	putchar('\n');
	draw();
	fflush(stdout);
	pthread_mutex_unlock(&lock);
	va_end(arguments);
}

void print_error(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	pthread_mutex_lock(&lock);
	take_away();
	fflush(stdout);
	fputs("vmem-kvm-runner: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	fflush(stderr);
	draw();
	fflush(stdout);
	pthread_mutex_unlock(&lock);
	va_end(arguments);
}

void print_table(const char *text)
{
	pthread_mutex_lock(&lock);
	take_away();
	if (live) {
		snprintf(table, sizeof(table), "%s", text);
		draw();
	} else {
		fputs(text, stdout);
	}
	fflush(stdout);
	pthread_mutex_unlock(&lock);
}

void print_table_end(void)
{
	pthread_mutex_lock(&lock);
	lines_below = 0;
	table[0] = '\0';
	pthread_mutex_unlock(&lock);
}
