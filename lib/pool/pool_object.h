/* SPDX-License-Identifier: BSD-2-Clause */
/* What an object looks like in its segment, and what its index entry says. */
#ifndef VMEMI_POOL_OBJECT_H
#define VMEMI_POOL_OBJECT_H
#include <stdbool.h>
#include <vmem/pool.h>

#define VMEMI_GRAIN_BYTES 4u
#define VMEMI_SEGMENT_GRAINS (VMEM_POOL_SEGMENT_BYTES / VMEMI_GRAIN_BYTES)

/* Stands before the bytes of each object, so that a segment explains itself. What it repeats of the
 * index entry is compared at each load, never trusted. */
struct vmemi_object_header {
	uint32_t handle;
	uint32_t checksum;       /* low half of XXH3-64: of the decoded page, or of the bytes */
	uint16_t bytes;          /* that follow: 1..4096 */
	uint8_t form;            /* VMEMI_FORM() */
	uint8_t reference_check; /* of a delta; else 0 */
};

/* The codec, 0 for bytes that are no page, and how many grains come after the payload: they say who saved the page,
 * and under what key, as a hint for who reads it among others. They are not checked, and nothing depends on them. */
#define VMEMI_FORM(codec, extra) ((codec) | (extra) << 4)
#define VMEMI_FORM_CODEC(form) ((form)&0xfu)
#define VMEMI_FORM_EXTRA(form) ((form) >> 4 & 3u)
enum {
	VMEMI_EXTRA_NONE = 0,
	VMEMI_EXTRA_KEY = 2,   /* the key */
	VMEMI_EXTRA_KEY_VM = 3 /* the key and the number of the VM */
};

/* The bytes of a delta begin with the handle of its reference. A drop takes it from there without decoding
 * the page, so that it has a check of its own: the CRC-8 of ITU-T I.432.1, which tells any change of up to
 * three bits in both. A handle that is not believed costs the memory of a reference that nobody lets go,
 * while believing it might free the object of another page. */
static inline uint8_t vmemi_reference_check(uint32_t handle)
{
	uint64_t rest = (uint64_t)handle << 8;

	for (int bit = 31; bit >= 0; bit--)
		rest ^= (UINT64_C(0x107) & -(rest >> (bit + 8) & 1)) << bit;
	return (uint8_t)(rest ^ 0x55);
}

static inline uint32_t vmemi_object_grains(uint32_t bytes)
{
	return (uint32_t)(sizeof(struct vmemi_object_header) + bytes + VMEMI_GRAIN_BYTES - 1) /
	       VMEMI_GRAIN_BYTES;
}

static inline uint32_t vmemi_header_grains(const struct vmemi_object_header *header)
{
	return vmemi_object_grains(header->bytes) + VMEMI_FORM_EXTRA(header->form);
}

#define VMEMI_OBJECT_MAX_BYTES                                 \
	(sizeof(struct vmemi_object_header) + VMEM_PAGE_SIZE + \
	 VMEMI_EXTRA_KEY_VM * VMEMI_GRAIN_BYTES)

/* An entry is one word:
 *
 *     63  62 | 60  59 | 58  53 | 52   40 | 39   24 | 23     0
 *     kind   | mark   | form   | bytes   | grain   | segment     LIVE
 *     kind   |                             31        next   0    FREE
 *
 * A live entry alone tells what the object is and where. The mark (enum vmemi_mark) may change at any
 * time, all else under the lock of the stream only; a mark that is lost that way is no harm. */
#define VMEMI_ENTRY_TAKEN UINT64_C(0) /* being saved or dropped */
#define VMEMI_ENTRY_FREE UINT64_C(1)
#define VMEMI_ENTRY_LIVE UINT64_C(2)

static inline uint64_t vmemi_entry_make(uint32_t segment, uint32_t grain, uint32_t bytes,
					uint32_t form)
{
	return VMEMI_ENTRY_LIVE << 62 | (uint64_t)form << 53 | (uint64_t)bytes << 40 |
	       (uint64_t)grain << 24 | segment;
}

/* The same object at another place. */
static inline uint64_t vmemi_entry_move(uint64_t entry, uint32_t segment, uint32_t grain)
{
	return entry >> 40 << 40 | (uint64_t)grain << 24 | segment;
}

static inline bool vmemi_entry_is_live(uint64_t entry)
{
	return entry >> 62 == VMEMI_ENTRY_LIVE;
}

#define VMEMI_ENTRY_MARK_SHIFT 59u
#define VMEMI_ENTRY_MARK (UINT64_C(3) << VMEMI_ENTRY_MARK_SHIFT)

/* Whether two entries are of the same object at the same place. */
static inline bool vmemi_entry_is_same(uint64_t a, uint64_t b)
{
	return !((a ^ b) & ~VMEMI_ENTRY_MARK);
}

static inline uint32_t vmemi_entry_mark(uint64_t entry)
{
	return (uint32_t)(entry >> VMEMI_ENTRY_MARK_SHIFT) & 3;
}

static inline uint32_t vmemi_entry_segment(uint64_t entry)
{
	return (uint32_t)entry & 0xffffff;
}

static inline uint32_t vmemi_entry_grain(uint64_t entry)
{
	return (uint32_t)(entry >> 24) & 0xffff;
}

static inline uint32_t vmemi_entry_bytes(uint64_t entry)
{
	return (uint32_t)(entry >> 40) & 0x1fff;
}

static inline uint32_t vmemi_entry_codec(uint64_t entry)
{
	return (uint32_t)(entry >> 53) & 0xf;
}

static inline uint32_t vmemi_entry_form(uint64_t entry)
{
	return (uint32_t)(entry >> 53) & 0x3f;
}

static inline uint32_t vmemi_entry_grains(uint64_t entry)
{
	return vmemi_object_grains(vmemi_entry_bytes(entry)) +
	       VMEMI_FORM_EXTRA(vmemi_entry_form(entry));
}

#endif
