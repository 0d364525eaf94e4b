/* SPDX-License-Identifier: BSD-2-Clause */
/* Text to the first serial port, counting of cases, and the end. */
#include <stdarg.h>
#include "hw.h"
#include "hw_cpu.h"

#define SERIAL 0x3f8u
#define LINE_CONTROL (SERIAL + 3u)
#define LINE_STATUS (SERIAL + 5u)
#define ROOM 0x20u
#define CASE_LINES 4u /* of a case that fails in many places */

static unsigned passed, failed, case_failures;
static char case_name[160];

static void put(char c)
{
	while (!(hw_inb(LINE_STATUS) & ROOM))
		;
	hw_outb(SERIAL, (uint8_t)c);
}

void hw_console_start(void)
{
	hw_outb(LINE_CONTROL, 0x83); /* the divisor is in reach */
	hw_outb(SERIAL, 1);          /* 115200 a second */
	hw_outb(SERIAL + 1, 0);
	hw_outb(LINE_CONTROL, 3); /* 8 bits, no parity */
}

/* Where text goes: to the port, or into a buffer whose last byte stays 0. */
struct sink {
	char *at, *end;
};

static void emit(struct sink *sink, char c)
{
	if (!sink->end)
		put(c);
	else if (sink->at < sink->end)
		*sink->at++ = c;
}

static void emit_number(struct sink *sink, uint64_t value, unsigned base)
{
	char digits[24];
	unsigned count = 0;

	do {
		digits[count++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	while (count)
		emit(sink, digits[--count]);
}

static void emit_format(struct sink *sink, const char *format, va_list arguments)
{
	for (; *format; format++) {
		int wide = format[0] == '%' && format[1] == 'l';
		uint64_t value;

		if (*format != '%') {
			emit(sink, *format);
			continue;
		}
		format += 1 + wide;
		if (*format == 's') {
			for (const char *text = va_arg(arguments, const char *); *text; text++)
				emit(sink, *text);
			continue;
		}
		value = wide ? va_arg(arguments, uint64_t) : va_arg(arguments, uint32_t);
		emit_number(sink, value, *format == 'x' ? 16 : 10);
	}
}

void hw_printf(const char *format, ...)
{
	struct sink sink = { NULL, NULL };
	va_list arguments;

	va_start(arguments, format);
	emit_format(&sink, format, arguments);
	va_end(arguments);
}

void hw_case_begin(const char *format, ...)
{
	struct sink sink = { case_name, case_name + sizeof(case_name) - 1 };
	va_list arguments;

	va_start(arguments, format);
	emit_format(&sink, format, arguments);
	va_end(arguments);
	*sink.at = '\0';
	case_failures = 0;
}

void hw_case_end(void)
{
	if (case_failures)
		failed++;
	else
		passed++;
	case_name[0] = '\0';
}

int hw_check(int holds, const char *what, unsigned line, const char *file)
{
	if (holds)
		return 1;
	if (!case_name[0])
		failed++;
	if (case_failures++ < CASE_LINES)
		hw_printf("FAILED %s: %s:%u: %s\n", case_name, file, line, what);
	return 0;
}

void hw_power_off(void)
{
	static const char bochs[] = "Shutdown";

	hw_printf("%u passed, %u failed\n", passed, failed);
	while (!(hw_inb(LINE_STATUS) & 0x40)) /* all of it is out */
		;
	hw_outb(0xf4, 0);
	for (unsigned i = 0; bochs[i]; i++)
		hw_outb(0x8900, (uint8_t)bochs[i]);
}
