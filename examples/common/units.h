/* SPDX-License-Identifier: BSD-2-Clause */
/* Numbers with units, from and to people. */
#ifndef UNITS_H
#define UNITS_H
#include <stdint.h>

/* A buffer for one number with its unit: write UNITS_BYTES(n) or UNITS_TIME(ns) as an argument. */
struct units_text {
	char text[24];
};

/* "256M", "2G", "65536", "1.5G" in bytes. Returns 0, or -1 when it is not a size. */
int units_parse_bytes(const char *text, uint64_t *ret_bytes);

/* A whole number from least to most, decimal or 0x... Returns 0, or -1. */
int units_parse_number(const char *text, uint64_t least, uint64_t most, uint64_t *ret_number);

/* A decimal number from least to most. Returns 0, or -1. */
int units_parse_decimal(const char *text, double least, double most, double *ret_number);

/* "614 MiB", "12.3 GiB", "0 B". */
const char *units_bytes(struct units_text *buffer, uint64_t bytes);

/* "870 ns", "49.1 us", "3.20 ms". */
const char *units_time(struct units_text *buffer, uint64_t ns);

/* "950", "12.3k", "4.56M". */
const char *units_count(struct units_text *buffer, double count);

#define UNITS_BYTES(bytes) units_bytes(&(struct units_text){ { 0 } }, bytes)
#define UNITS_TIME(ns) units_time(&(struct units_text){ { 0 } }, ns)
#define UNITS_COUNT(count) units_count(&(struct units_text){ { 0 } }, count)

#endif
