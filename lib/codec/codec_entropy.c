/* SPDX-License-Identifier: BSD-2-Clause */
/* Whether it is worth while to encode a page at all: encrypted and compressed pages have nearly all values
 * of a byte in any sample. Counts the different ones among 512 bytes, which a random page has
 * 256 * (1 - e^-2) = 221 of, with a deviation of 5. A pure function.
 *
 * One byte is stored for each that was seen: the stores do not wait for each other, as counting would. */
#include <vmem/codec.h>
#include "base/mem.h"

#define VALUES 256u
#define SAMPLE_EVERY 64u /* bytes; of each 8 are looked at */
#define MANY_VALUES 200u

int vmem_page_looks_incompressible(const void *page, uint32_t cpu)
{
	uint64_t seen[VALUES / 8] = { 0 }, sum = 0;
	unsigned char *value_seen = (unsigned char *)seen;

	(void)cpu;
	for (size_t at = 0; at < VMEM_PAGE_SIZE; at += SAMPLE_EVERY) {
		uint64_t word;

		memcpy(&word, (const unsigned char *)page + at, sizeof(word));
		value_seen[word & 0xff] = 1;
		value_seen[word >> 8 & 0xff] = 1;
		value_seen[word >> 16 & 0xff] = 1;
		value_seen[word >> 24 & 0xff] = 1;
		value_seen[word >> 32 & 0xff] = 1;
		value_seen[word >> 40 & 0xff] = 1;
		value_seen[word >> 48 & 0xff] = 1;
		value_seen[word >> 56] = 1;
	}
	/* 32 words of bytes 0 or 1: no byte of the sum overflows, nor does their sum of at most 256 ... */
	for (size_t i = 0; i < VALUES / 8; i++)
		sum += seen[i];
	/* ... in 16 bits. */
	sum = (sum & UINT64_C(0x00ff00ff00ff00ff)) + (sum >> 8 & UINT64_C(0x00ff00ff00ff00ff));
	return (sum * UINT64_C(0x0001000100010001)) >> 48 >= MANY_VALUES;
}
