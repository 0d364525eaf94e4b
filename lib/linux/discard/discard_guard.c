/* SPDX-License-Identifier: BSD-2-Clause */
/* The guard of free page hints: which pages of regions were written since it began. It watches as a migration does
 * (region/dirty.h), beside one: what is in place is write-protected, and whoever writes to it is answered by the fault
 * path, which notes the page first. Discarding a hinted page claims it (discard.c), and then nobody is answered. */
#include "base/opts.h"
#include "linux/discard/discard_memory.h"
#include "linux/region/dirty.h"

static void stop(vmem_discard *d, uint32_t pieces)
{
	for (uint32_t i = 0; i < pieces; i++)
		vmemi_watch_stop(d->piece[i].region, VMEMI_WATCH_GUARD);
}

static int watch(vmem_region *r)
{
	int error = vmemi_watch_start(r, VMEMI_WATCH_GUARD);

	if (error)
		return error;
	error = vmemi_watch_round(r, VMEMI_WATCH_GUARD, 0, atomic_load(&r->pages), NULL, NULL,
				  NULL);
	if (error)
		vmemi_watch_stop(r, VMEMI_WATCH_GUARD);
	return error;
}

static int begin(void *context)
{
	vmem_discard *d = context;
	int error = 0;

	if (d->guards || !d->pieces)
		return d->guards ? -VMEM_EBUSY : -VMEM_ENOTSUP;
	for (uint32_t i = 0; i < d->pieces; i++)
		if (!d->piece[i].region)
			return -VMEM_ENOTSUP;
	for (uint32_t i = 0; i < d->pieces && !error; i++) {
		error = watch(d->piece[i].region);
		if (error)
			stop(d, i);
	}
	d->guards = !error;
	return error;
}

/* Pages [first, first + 64) of the guest, of one region. */
static uint64_t unwritten_of(const vmem_region *r, uint64_t first)
{
	const struct vmemi_watch *w = &r->watch[VMEMI_WATCH_GUARD];
	uint64_t base = r->opts.gpa / VMEM_PAGE_SIZE, pages = atomic_load(&r->pages), bits = 0;

	for (uint64_t i = 0; i < 64; i++)
		if (first + i >= base && first + i - base < pages &&
		    !vmemi_watch_has(w, first + i - base))
			bits |= UINT64_C(1) << i;
	return bits;
}

static uint64_t unwritten(void *context, uint64_t first)
{
	const vmem_discard *d = context;
	uint64_t bits = 0;

	for (uint32_t i = 0; i < d->pieces && d->guards; i++) {
		const struct vmemi_piece *p = &d->piece[i];

		if (p->gpa < (first + 64) * VMEM_PAGE_SIZE &&
		    first * VMEM_PAGE_SIZE < p->gpa + p->bytes)
			bits |= unwritten_of(p->region, first);
	}
	return bits;
}

static void end(void *context)
{
	vmemi_discard_guard_end(context);
}

void vmemi_discard_guard_end(vmem_discard *d)
{
	if (d->guards)
		stop(d, d->pieces);
	d->guards = false;
}

int vmem_discard_get_guard(vmem_discard *d, struct vmem_balloon_guard *guard)
{
	const struct vmem_balloon_guard g = {
		.size = sizeof(g), .context = d, .begin = begin, .unwritten = unwritten, .end = end
	};

	return d ? vmemi_opts_give(guard, &g, sizeof(g)) : -VMEM_EINVAL;
}
