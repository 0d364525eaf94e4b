/* SPDX-License-Identifier: BSD-2-Clause */
/* For tests: walks a scanner at rest and says what is wrong in it. Takes no lock. */
#include "base/check.h"
#include "share/share_internal.h"

static const char *check_range(const struct vmem_share *s, const struct vmemi_share_range *r,
			       uint64_t *merged)
{
	uint64_t counts[4] = { 0 };
	uint64_t last = r->pages - 1;

	for (uint64_t i = 0; i < r->pages; i++)
		counts[vmemi_share_kind_of(atomic_load(&r->state[i]))]++;
	VMEMI_REQUIRE(counts[VMEMI_SHARE_HINTED] == r->hinted);
	VMEMI_REQUIRE(counts[VMEMI_SHARE_MERGED] == atomic_load(&r->merged));
	for (uint64_t n = 0; n <= last >> VMEMI_SHARE_BLOCK_SHIFT; n++)
		VMEMI_REQUIRE(s->blocks[r->block + n] == r);
	*merged += counts[VMEMI_SHARE_MERGED];
	return NULL;
}

/* Each hint that is good is that of its page; all pages with a hint have one. */
static const char *check_hints(struct vmem_share *s)
{
	uint64_t good = 0, orphans = 0, hinted = 0;
	uint32_t number = 0;
	bool all = true;

	do {
		uint32_t count = vmemi_dedup_hints(s->dedup, &number, s->hints);

		all = all && count < VMEMI_DEDUP_HINTS;
		for (uint32_t i = 0; i < count; i++) {
			if (vmemi_share_hint_is_good(vmemi_share_page_at(s, s->hints[i].key),
						     s->hints[i].mix))
				good++;
			else
				orphans++;
		}
	} while (number);
	for (uint32_t n = 0; n < s->range_count; n++)
		hinted += s->ranges[n]->hinted;
	VMEMI_REQUIRE(!all || good >= hinted); /* two hints of a page may have the same 16 bits */
	VMEMI_REQUIRE(orphans <= s->orphans);
	return NULL;
}

const char *vmemi_share_check(struct vmem_share *s)
{
	const char *wrong = vmemi_dedup_check(s->dedup);
	uint64_t merged = 0, pages = 0, end = 0;

	for (uint32_t n = 0; !wrong && n < s->range_count; n++) {
		VMEMI_REQUIRE(!n || s->ranges[n]->first >= end);
		end = s->ranges[n]->first + s->ranges[n]->pages;
		pages += s->ranges[n]->pages;
		wrong = check_range(s, s->ranges[n], &merged);
	}
	VMEMI_REQUIRE(wrong || pages == s->pages);
	VMEMI_REQUIRE(wrong || merged == atomic_load(&s->merged));
	return wrong ? wrong : check_hints(s);
}
