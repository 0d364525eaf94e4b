/* SPDX-License-Identifier: BSD-2-Clause */
/* See the header. One thread; `interrupted` is also the signal handler's. */
#include "estimate_progress.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DRAW_EVERY_NS UINT64_C(100000000)
#define BAR_WIDTH 20

static volatile sig_atomic_t interrupted;
static bool live;  /* there is a terminal */
static bool lines; /* there is none, but somebody who reads */
static bool drawn;
static uint64_t drawn_ns;
static char step[48];

void progress_init(bool quiet)
{
	live = !quiet && isatty(STDERR_FILENO);
	lines = !quiet && !live;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void draw(uint64_t done, uint64_t total)
{
	static const char full[] = "####################";

	fprintf(stderr, "\r[%-*.*s] %3u %% %s", BAR_WIDTH, (int)(done * BAR_WIDTH / total), full,
		(unsigned)(done * 100 / total), step);
	fflush(stderr);
	drawn = true;
}

void progress_step(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(step, sizeof(step), format, arguments);
	va_end(arguments);
	progress_end();
	drawn_ns = 0;
	if (lines)
		fprintf(stderr, "%s\n", step);
}

void progress_tell(uint64_t done, uint64_t total)
{
	uint64_t now = live ? now_ns() : 0;

	if (!live || now - drawn_ns < DRAW_EVERY_NS)
		return;
	drawn_ns = now;
	draw(done, total);
}

void progress_end(void)
{
	if (drawn)
		fprintf(stderr, "\r%*s\r", BAR_WIDTH + 58, "");
	fflush(stderr);
	drawn = false;
}

void say_error(const char *format, ...)
{
	va_list arguments;

	progress_end();
	va_start(arguments, format);
	fputs("vmem-estimate: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
}

static void on_interrupt(int signal)
{
	(void)signal;
	interrupted = 1;
}

void interrupt_init(void)
{
	/* SA_RESETHAND: the second one is as usual. A shell starts what runs in its background with
	 * Ctrl-C ignored. */
	struct sigaction action = { .sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND };

	(void)sigaction(SIGINT, &action, NULL);
	(void)sigaction(SIGTERM, &action, NULL);
	(void)sigaction(SIGPIPE, &(struct sigaction){ .sa_handler = SIG_IGN }, NULL);
}

bool is_interrupted(void)
{
	return interrupted;
}
