/* SPDX-License-Identifier: BSD-2-Clause */
/* Numbers with units. No state; any thread. */
#include "common/units.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int units_parse_decimal(const char *text, double least, double most, double *ret_number)
{
	char *end;
	double number;

	if (!isdigit((unsigned char)text[0]) && text[0] != '.')
		return -1;
	errno = 0;
	number = strtod(text, &end);
	if (errno || end == text || *end || !(number >= least && number <= most))
		return -1;
	*ret_number = number;
	return 0;
}

int units_parse_number(const char *text, uint64_t least, uint64_t most, uint64_t *ret_number)
{
	char *end;
	unsigned long long number;

	if (!isdigit((unsigned char)text[0]))
		return -1;
	errno = 0;
	number = strtoull(text, &end, strncasecmp(text, "0x", 2) == 0 ? 16 : 10);
	if (errno || *end || number < least || number > most)
		return -1;
	*ret_number = number;
	return 0;
}

int units_parse_bytes(const char *text, uint64_t *ret_bytes)
{
	static const char suffixes[] = "KMGT";
	size_t length = strlen(text);
	char digits[32];
	double number;
	const char *suffix;
	double unit = 1;

	if (length > 3 && strcmp(text + length - 2, "iB") == 0)
		length -= 2;
	if (length == 0 || length >= sizeof(digits))
		return -1;
	suffix = strchr(suffixes, toupper((unsigned char)text[length - 1]));
	if (suffix && length > 1) {
		unit = ldexp(1, 10 * (int)(suffix - suffixes + 1));
		length--;
	}
	memcpy(digits, text, length);
	digits[length] = '\0';
	if (units_parse_decimal(digits, 0, ldexp(1, 52) / unit, &number) != 0)
		return -1;
	*ret_bytes = (uint64_t)llround(number * unit);
	return 0;
}

/* Three digits that count. */
static const char *three(struct units_text *buffer, double number, const char *unit)
{
	int decimals = number >= 99.95 ? 0 : number >= 9.995 ? 1 : 2;

	snprintf(buffer->text, sizeof(buffer->text), "%.*f%s", decimals, number, unit);
	return buffer->text;
}

static const char *scaled(struct units_text *buffer, double number, double step,
			  const char *const *units)
{
	while (number >= step * 0.9995 && units[1]) {
		number /= step;
		units++;
	}
	return three(buffer, number, units[0]);
}

const char *units_bytes(struct units_text *buffer, uint64_t bytes)
{
	static const char *const units[] = { " B", " KiB", " MiB", " GiB", " TiB", NULL };

	if (bytes < 1000) {
		snprintf(buffer->text, sizeof(buffer->text), "%u B", (unsigned)bytes);
		return buffer->text;
	}
	return scaled(buffer, (double)bytes, 1024, units);
}

const char *units_time(struct units_text *buffer, uint64_t ns)
{
	static const char *const units[] = { " ns", " us", " ms", " s", NULL };

	if (ns == 0)
		return "-";
	return scaled(buffer, (double)ns, 1000, units);
}

const char *units_count(struct units_text *buffer, double count)
{
	static const char *const units[] = { "", "k", "M", "G", NULL };

	if (count < 1000) {
		snprintf(buffer->text, sizeof(buffer->text), "%.0f", count);
		return buffer->text;
	}
	return scaled(buffer, count, 1000, units);
}
