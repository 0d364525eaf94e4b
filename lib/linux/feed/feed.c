/* SPDX-License-Identifier: BSD-2-Clause */
/* Choosing and asking a feed: see feed.h. */
#include "base/opts.h"
#include "linux/region/table.h"
#include <vmem/feed.h>

/* Asked again only after so many times the time that it took. */
#define REST 20

/* The cheapest first; the last two are what there is in any case, by the kind of memory. */
static const struct vmemi_feed_kind *const kinds[] = { &vmemi_feed_dirty_log, &vmemi_feed_written,
						       &vmemi_feed_idle, &vmemi_feed_minor_faults,
						       &vmemi_feed_faults };

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

int vmemi_feed_open(struct vmem_region *r)
{
	unsigned i = 0;
	int error;

	vmemi_feed_find_idle(r);
	while (kinds[i]->can(r))
		i++;
	if (kinds[i] != &vmemi_feed_idle)
		vmemi_feed_leave_idle(r);
	error = kinds[i]->open ? kinds[i]->open(r) : 0;
	if (!error)
		r->feed.kind = kinds[i];
	return error;
}

void vmemi_feed_close(struct vmem_region *r)
{
	if (r->feed.kind && r->feed.kind->close)
		r->feed.kind->close(r);
	r->feed.kind = NULL;
}

void vmemi_feed_ask(struct vmem_region *r)
{
	struct vmemi_feed *feed = &r->feed;
	uint64_t start = r->host->k->clock_ns(), seen = r->ages.seen, ns;

	if (!feed->kind->ask || start < feed->next_ns)
		return;
	if (feed->kind->ask(r))
		vmemi_tally(&feed->failed, 1);
	ns = r->host->k->clock_ns() - start;
	feed->next_ns = start + (ns + (r->ages.seen - seen) * feed->kind->guest_ns) * (REST + 1);
	vmemi_tally(&feed->asked, 1);
	vmemi_tally(&feed->ns, ns);
}

int vmem_region_feed(const vmem_region *region)
{
	return region->feed.kind->number;
}

const char *vmem_region_feed_name(const vmem_region *region)
{
	return region->feed.kind->name;
}

int vmem_region_feed_info(const vmem_region *region, int feed, struct vmem_feed_info *info)
{
	struct vmem_feed_info now = { .size = sizeof(now) };
	unsigned i = 0;

	if (!region)
		return -VMEM_EINVAL;
	while (i < KINDS && kinds[i]->number != feed)
		i++;
	if (i == KINDS)
		return -VMEM_EINVAL;
	now.name = kinds[i]->name;
	now.sees = kinds[i]->sees;
	now.error = kinds[i]->can(region);
	now.used = !now.error && (kinds[i] == region->feed.kind || !kinds[i]->ask);
	if (now.used && kinds[i]->told)
		now.pages = kinds[i]->told(region);
	if (kinds[i] == region->feed.kind && kinds[i]->ask) {
		now.pages = region->ages.seen;
		now.asked = region->feed.asked;
		now.ns = region->feed.ns;
	}
	return vmemi_opts_give(info, &now, sizeof(now));
}
