/* SPDX-License-Identifier: BSD-2-Clause */
/* A small guest for the rings: memory in two rows that follow each other for the guest and not for the host, with a
 * ring at its start. */
#ifndef RING_TOOLS_H
#define RING_TOOLS_H
#include <stdlib.h>
#include <string.h>

#include "common/split_ring_device.h"
#include "common/split_ring_driver.h"

enum {
	GUEST_GPA = 0x100000, /* of the first row */
	ROW_BYTES = 1 << 20,
	PIECES = 64,
	RING_AT = 0,       /* in the first row */
	DATA_AT = 1 << 19, /* the same; behind it is free */
};
#define GUEST_END (GUEST_GPA + 2 * (uint64_t)ROW_BYTES)

struct guest {
	uint8_t *rows[2];
	struct split_ring_parts parts;
};

static inline void *guest_translate(void *context, uint64_t gpa, uint64_t *bytes)
{
	struct guest *g = context;
	uint64_t at, left;

	if (gpa < GUEST_GPA || gpa >= GUEST_END)
		return NULL;
	at = gpa - GUEST_GPA;
	left = ROW_BYTES - at % ROW_BYTES;
	*bytes = *bytes < left ? *bytes : left;
	return g->rows[at / ROW_BYTES] + at % ROW_BYTES;
}

/* For what is known to be there, in one row. */
static inline void *guest_at(struct guest *g, uint64_t gpa)
{
	uint64_t bytes = 1;

	return guest_translate(g, gpa, &bytes);
}

static inline int guest_make(struct guest *g, uint32_t size)
{
	uint8_t *at;

	for (int i = 0; i < 2; i++)
		if (!(g->rows[i] = calloc(1, ROW_BYTES)))
			return -1;
	at = g->rows[0] + RING_AT;
	g->parts.size = size;
	g->parts.descriptors = at;
	at += SPLIT_RING_DESCRIPTORS_BYTES(size);
	g->parts.available = at;
	at += (SPLIT_RING_AVAILABLE_BYTES(size) + 3) & ~UINT64_C(3);
	g->parts.used = at;
	return 0;
}

static inline void guest_free(struct guest *g)
{
	free(g->rows[0]);
	free(g->rows[1]);
}

static inline struct split_ring_device_opts guest_opts(struct guest *g, uint64_t features)
{
	return (struct split_ring_device_opts){
		.parts = g->parts, .features = features, .translate = guest_translate, .context = g
	};
}

#endif
