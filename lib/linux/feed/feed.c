/* SPDX-License-Identifier: BSD-2-Clause */
/* Choosing and asking a feed: see feed.h. */
#include "linux/region/table.h"
#include <vmem/feed.h>

/* Asked again only after so many times the time that it took. */
#define REST 20

static int ask_nothing(struct vmem_region *r)
{
	(void)r;
	return 0;
}

const struct vmemi_feed_kind vmemi_feed_faults = { .name = "faults",
						   .number = VMEM_FEED_FAULTS,
						   .ask = ask_nothing };

/* The cheapest first; the last one always works. */
static const struct vmemi_feed_kind *const kinds[] = { &vmemi_feed_dirty_log, &vmemi_feed_faults };

int vmemi_feed_open(struct vmem_region *r)
{
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		int error = kinds[i]->open ? kinds[i]->open(r) : 0;

		if (error == -VMEM_ENOMEM)
			return error;
		if (!error) {
			r->feed.kind = kinds[i];
			return 0;
		}
	}
	return 0;
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
	uint64_t start = r->host->k->clock_ns(), ns;

	if (feed->kind == &vmemi_feed_faults || start < feed->next_ns)
		return;
	if (feed->kind->ask(r))
		vmemi_tally(&feed->failed, 1);
	ns = r->host->k->clock_ns() - start;
	feed->next_ns = start + ns * (REST + 1);
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
