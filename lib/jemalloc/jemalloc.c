/* SPDX-License-Identifier: BSD-2-Clause */
/* An allocator on a jemalloc arena of its own, for libvmem-jemalloc.
 *
 * Only mallocx(), sdallocx() and mallctl() are used: jemalloc's malloc() and operator new may or may
 * not be the program's. Thread caches are passed by, so that what is freed is free in the arena at
 * once and destroying it leaves nothing behind in a thread.
 * Guard: nothing changes after vmem_jemalloc_new(); the arena has jemalloc's own locks. */
#include <stdio.h>
#include <stdlib.h>
#include <jemalloc/jemalloc.h>
#include <vmem/jemalloc.h>
#include "base/opts.h"

struct vmem_jemalloc {
	struct vmem_allocator allocator;
	unsigned arena;
};

static void *arena_alloc(void *context, size_t bytes, size_t align)
{
	const struct vmem_jemalloc *j = context;

	return mallocx(bytes, MALLOCX_ARENA(j->arena) | MALLOCX_TCACHE_NONE | MALLOCX_ALIGN(align));
}

static void arena_free(void *context, void *memory, size_t bytes, size_t align)
{
	(void)context;
	sdallocx(memory, bytes, MALLOCX_TCACHE_NONE | MALLOCX_ALIGN(align));
}

/* Sets arena.<i>.<what>, or does it (@value NULL). */
static int arena_control(unsigned arena, const char *what, void *value, size_t bytes)
{
	char name[64];

	snprintf(name, sizeof(name), "arena.%u.%s", arena, what);
	return mallctl(name, NULL, NULL, value, bytes);
}

static int arena_stat(unsigned arena, const char *what, size_t *ret_value)
{
	size_t bytes = sizeof(*ret_value);
	char name[64];

	snprintf(name, sizeof(name), "stats.arenas.%u.%s", arena, what);
	return mallctl(name, ret_value, &bytes, NULL, 0);
}

int vmem_jemalloc_new(vmem_jemalloc **ret_jemalloc, const struct vmem_jemalloc_opts *opts)
{
	struct vmem_jemalloc_opts o;
	struct vmem_jemalloc *j;
	size_t bytes = sizeof(j->arena);
	ssize_t decay_ms;
	int result = vmemi_opts_take(&o, sizeof(o), opts);

	if (result)
		return result;
	if (o.flags || o.decay_ms > INT64_MAX)
		return -VMEM_EINVAL;
	j = malloc(sizeof(*j));
	if (!j)
		return -VMEM_ENOMEM;
	if (mallctl("arenas.create", &j->arena, &bytes, NULL, 0)) {
		free(j);
		return -VMEM_ENOMEM;
	}
	decay_ms = (ssize_t)o.decay_ms;
	if (arena_control(j->arena, "dirty_decay_ms", &decay_ms, sizeof(decay_ms)) ||
	    arena_control(j->arena, "muzzy_decay_ms", &decay_ms, sizeof(decay_ms))) {
		vmem_jemalloc_free(j);
		return -VMEM_EINVAL; /* more milliseconds than jemalloc can count */
	}
	j->allocator = (struct vmem_allocator){
		.size = sizeof(j->allocator),
		.context = j,
		.alloc = arena_alloc,
		.free = arena_free,
	};
	*ret_jemalloc = j;
	return 0;
}

void vmem_jemalloc_free(vmem_jemalloc *j)
{
	if (!j)
		return;
	arena_control(j->arena, "destroy", NULL, 0);
	free(j);
}

const struct vmem_allocator *vmem_jemalloc_allocator(const vmem_jemalloc *j)
{
	return &j->allocator;
}

int vmem_jemalloc_get_stats(vmem_jemalloc *j, struct vmem_jemalloc_stats *stats)
{
	struct vmem_jemalloc_stats s = { .size = sizeof(s) };
	size_t small, large, active_pages, base, internal, resident, page;
	size_t bytes = sizeof(page);
	uint64_t epoch = 1;

	/* Writing the epoch makes jemalloc take its figures anew. */
	if (mallctl("epoch", NULL, NULL, &epoch, sizeof(epoch)) ||
	    mallctl("arenas.page", &page, &bytes, NULL, 0) ||
	    arena_stat(j->arena, "small.allocated", &small) ||
	    arena_stat(j->arena, "large.allocated", &large) ||
	    arena_stat(j->arena, "pactive", &active_pages) || arena_stat(j->arena, "base", &base) ||
	    arena_stat(j->arena, "internal", &internal) ||
	    arena_stat(j->arena, "resident", &resident))
		return -VMEM_ENOTSUP;
	s.allocated_bytes = small + large;
	s.active_bytes = active_pages * page;
	s.metadata_bytes = base + internal;
	s.resident_bytes = resident;
	return vmemi_opts_give(stats, &s, sizeof(s));
}
