/* SPDX-License-Identifier: BSD-2-Clause */
/* See fail_alloc.h. Each block is preceded by a record of what was asked for, so that a wrong free
 * is seen; the record takes one unit of the alignment. */
#include "support/fail_alloc.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct record {
	size_t bytes;
	size_t align;
};

static size_t record_room(size_t align)
{
	return align < sizeof(struct record) ? sizeof(struct record) : align;
}

static void *fail_alloc(void *context, size_t bytes, size_t align)
{
	struct vmemt_fail_alloc *a = context;
	size_t room = record_room(align);
	unsigned char *block;

	if (__atomic_fetch_add(&a->calls, 1, __ATOMIC_RELAXED) == a->fail_after ||
	    posix_memalign((void **)&block, room, room + bytes)) {
		__atomic_fetch_add(&a->failed, 1, __ATOMIC_RELAXED);
		return NULL;
	}
	__atomic_fetch_add(&a->live_bytes, (long)bytes, __ATOMIC_RELAXED);
	memset(block + room, 0xa5, bytes);
	((struct record *)(void *)(block + room))[-1] = (struct record){ bytes, align };
	return block + room;
}

static void fail_free(void *context, void *memory, size_t bytes, size_t align)
{
	struct vmemt_fail_alloc *a = context;
	const struct record *r = (struct record *)memory - 1;

	if (r->bytes != bytes || r->align != align) {
		fprintf(stderr,
			"free of %zu bytes aligned to %zu, allocated were %zu aligned to %zu\n",
			bytes, align, r->bytes, r->align);
		abort();
	}
	__atomic_fetch_sub(&a->live_bytes, (long)bytes, __ATOMIC_RELAXED);
	memset(memory, 0x5a, bytes);
	free((unsigned char *)memory - record_room(align));
}

void vmemt_fail_alloc_init(struct vmemt_fail_alloc *a)
{
	*a = (struct vmemt_fail_alloc){
		.allocator = { .size = sizeof(a->allocator),
			       .context = a,
			       .alloc = fail_alloc,
			       .free = fail_free },
		.fail_after = -1,
	};
}
