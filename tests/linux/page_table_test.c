/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of page states by itself. */
#include "linux/region/page.h"
#include <criterion/criterion.h>

/* All words that can exist, and all events: what the table allows leads to a word that can exist. */
Test(page_table, every_allowed_step_leads_to_a_valid_word)
{
	unsigned allowed = 0;

	for (unsigned s = 0; s < 16; s++) {
		for (unsigned flags = 0; flags < 16; flags++) {
			for (uint64_t ref = 0; ref < 2; ref++) {
				uint64_t word = vmemi_page_word((enum vmem_page_state)s,
								(uint64_t)flags << 60, ref * 77);

				if (!vmemi_page_valid(word))
					continue;
				for (int e = 0; e < VMEMI_PAGE_EVENTS; e++) {
					uint64_t new = 0;
					/* Back to where a fetched page came from. */
					uint64_t argument =
						e == VMEMI_PAGE_STORED || e == VMEMI_PAGE_IMPORT
							? 78
							: 0;

					if (e == VMEMI_PAGE_RETURN && ref)
						argument = vmemi_page_word(VMEM_PAGE_STORED, 0, 0);
					if ((e == VMEMI_PAGE_RETURN) && (word & VMEMI_PAGE_PINNED))
						continue; /* only from where it can be pinned */
					if (!vmemi_page_step(word, (enum vmemi_page_event)e,
							     argument, &new))
						continue;
					allowed++;
					cr_assert(vmemi_page_valid(new) ||
							  (e == VMEMI_PAGE_CLAIM && ref),
						  "event %d: %016llx -> %016llx", e,
						  (unsigned long long)word,
						  (unsigned long long)new);
				}
			}
		}
	}
	cr_assert_gt(allowed, 50);
}
