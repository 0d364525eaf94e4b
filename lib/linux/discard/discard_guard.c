/* SPDX-License-Identifier: BSD-2-Clause */
/* The guard of free page hints: which pages were written since it began. It watches regions as a migration does
 * (region/dirty.h), beside one: what is in place is write-protected, and whoever writes to it is answered by the fault
 * path, which notes the page first. Discarding a hinted page claims it (discard.c), and then nobody is answered. Of other
 * memory the caller's guard knows. */
#include "base/opts.h"
#include "linux/discard/discard_memory.h"
#include "linux/region/dirty.h"

static void stop(vmem_discard *d, uint32_t pieces)
{
	for (uint32_t i = 0; i < pieces; i++)
		if (d->piece[i].region)
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

static bool has_plain(const vmem_discard *d)
{
	for (uint32_t i = 0; i < d->pieces; i++)
		if (!d->piece[i].region)
			return true;
	return false;
}

static int begin(void *context)
{
	vmem_discard *d = context;
	int error = 0;

	if (d->guards || !d->pieces)
		return d->guards ? -VMEM_EBUSY : -VMEM_ENOTSUP;
	if (has_plain(d) && !d->guard.begin)
		return -VMEM_ENOTSUP;
	for (uint32_t i = 0; i < d->pieces && !error; i++) {
		error = d->piece[i].region ? watch(d->piece[i].region) : 0;
		if (error)
			stop(d, i);
	}
	if (!error && has_plain(d) && (error = d->guard.begin(d->guard.context)) != 0)
		stop(d, d->pieces);
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

/* Pages [first, first + 64) of the guest that are of a piece. */
static uint64_t pages_of(const struct vmemi_piece *p, uint64_t first)
{
	uint64_t base = p->gpa / VMEM_PAGE_SIZE, end = base + p->bytes / VMEM_PAGE_SIZE;
	uint64_t bits = ~UINT64_C(0);

	if (base > first)
		bits &= ~UINT64_C(0) << (base - first);
	if (end < first + 64)
		bits &= ~(~UINT64_C(0) << (end - first));
	return bits;
}

bool vmemi_discard_is_unwritten(const vmem_discard *d, const struct vmemi_piece *p, uint64_t at,
				uint64_t bytes)
{
	const struct vmemi_piece part = { .gpa = p->gpa + at, .bytes = bytes };
	uint64_t gfn = part.gpa / VMEM_PAGE_SIZE, end = gfn + bytes / VMEM_PAGE_SIZE;

	for (gfn &= ~UINT64_C(63); gfn < end; gfn += 64)
		if (pages_of(&part, gfn) & ~d->guard.unwritten(d->guard.context, gfn))
			return false;
	return true;
}

static uint64_t unwritten(void *context, uint64_t first)
{
	const vmem_discard *d = context;
	uint64_t bits = 0;

	for (uint32_t i = 0; i < d->pieces && d->guards; i++) {
		const struct vmemi_piece *p = &d->piece[i];

		if (p->gpa < (first + 64) * VMEM_PAGE_SIZE &&
		    first * VMEM_PAGE_SIZE < p->gpa + p->bytes)
			bits |= p->region ? unwritten_of(p->region, first)
					  : d->guard.unwritten(d->guard.context, first) &
						    pages_of(p, first);
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
	if (d->guards && has_plain(d))
		d->guard.end(d->guard.context);
	d->guards = false;
}

int vmemi_discard_guard_take(struct vmem_balloon_guard *guard,
			     const struct vmem_balloon_guard *from)
{
	int error =
		from ? vmemi_callbacks_take(guard, sizeof(*guard),
					    VMEMI_BYTES_TO(struct vmem_balloon_guard, end), from)
		     : 0;

	if (!error && from && (!guard->begin || !guard->unwritten || !guard->end))
		error = -VMEM_EINVAL;
	return error;
}

int vmem_discard_get_guard(vmem_discard *d, struct vmem_balloon_guard *guard)
{
	const struct vmem_balloon_guard g = {
		.size = sizeof(g), .context = d, .begin = begin, .unwritten = unwritten, .end = end
	};

	return d ? vmemi_opts_give(guard, &g, sizeof(g)) : -VMEM_EINVAL;
}
