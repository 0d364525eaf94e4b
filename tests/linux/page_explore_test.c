/* SPDX-License-Identifier: BSD-2-Clause */
/* All orders of the steps of a few programs at a time, on one page: see page_explore.h. Each event of the table
 * of page states that page_world.c names must have been allowed somewhere. */
#include "linux/page_explore.h"
#include "support/slow.h"
#include <assert.h>
#include <stdio.h>
#include <string.h>

#define P(name) (UINT32_C(1) << VMEMT_##name)
#define MAY(name) VMEMT_MAY_##name
#define CPUS (P(CPU0) | P(CPU1))
#define HANDLERS (P(HANDLER0) | P(HANDLER1))
#define SAVERS (P(SAVER0) | P(SAVER1))
/* One of each, which all others need. */
#define LIFE (P(CPU0) | P(HANDLER0) | P(TAKE_RUN))
#define TAKERS (P(TAKE_RUN) | P(TAKE_SCATTERED) | P(TAKE_CLEAN))
#define SOURCE (P(OWNER) | P(ASKER))
#define SAVED (P(TAKE_CLEAN) | P(SAVER0) | P(FREER))

static const struct part {
	const char *name;
	uint32_t programs;
	unsigned may;
} parts[] = {
	{ "faults of two processors, two handlers", CPUS | HANDLERS | TAKERS | P(SAVER0) | P(FREER),
	  MAY(REFUSE) | MAY(PREFETCH) },
	{ "the kernel refuses at any time", LIFE | TAKERS | SAVED,
	  MAY(FAIL) | MAY(REFUSE) | MAY(PREFETCH) | MAY(STARVE) },
	{ "what is stored is not to be relied on", CPUS | LIFE | TAKERS | SAVED,
	  MAY(DISTRUST) | MAY(FAIL) | MAY(PREFETCH) },
	{ "the same, discarded, pinned",
	  LIFE | P(TAKE_CLEAN) | P(SAVER0) | P(PINNER) | P(DISCARDER), MAY(DISTRUST) },
	{ "two savers", CPUS | HANDLERS | SAVERS | SAVED | P(TAKE_RUN), MAY(REFUSE) | MAY(FAIL) },
	{ "two savers, frames are short", LIFE | SAVERS | P(FREER),
	  MAY(FAIL) | MAY(REFUSE) | MAY(PREFETCH) | MAY(STARVE) },
	{ "slow loads, lost bytes, discards", LIFE | P(SAVER0) | P(DISCARDER),
	  MAY(FAIL) | MAY(LOSE) | MAY(BE_SLOW) | MAY(POISON) | MAY(PREFETCH) },
	{ "the same where copies are freed", LIFE | P(SAVER0) | P(FREER) | P(DISCARDER),
	  MAY(LOSE) | MAY(BE_SLOW) | MAY(POISON) },
	{ "two processors lose a page", CPUS | HANDLERS | P(TAKE_RUN) | P(SAVER0) | P(DISCARDER),
	  MAY(LOSE) | MAY(BE_SLOW) | MAY(POISON) },
	{ "a kernel without markers", CPUS | LIFE | P(TAKE_CLEAN) | P(SAVER0) | P(DISCARDER),
	  MAY(LOSE) | MAY(BE_SLOW) },
	{ "discards of what is being copied", LIFE | P(TAKE_SCATTERED) | P(FREER) | P(DISCARDER),
	  MAY(FAIL) },
	{ "pins with a device at the frame", LIFE | P(TAKE_SCATTERED) | P(FREER) | P(PINNER),
	  MAY(FAIL) },
	{ "pins of pages that are saved", LIFE | P(TAKE_CLEAN) | P(SAVER0) | P(PINNER), 0 },
	{ "pins and discards", LIFE | P(SAVER0) | P(PINNER) | P(DISCARDER), MAY(FAIL) },
	{ "a device that nobody announced", LIFE | SAVED | P(DEVICE), MAY(FAIL) | MAY(PREFETCH) },
	{ "reading without a fault", LIFE | TAKERS | SAVED | P(READER), MAY(FAIL) | MAY(PREFETCH) },
	{ "writing without a fault", LIFE | P(SAVER0) | P(FREER) | P(WRITER),
	  MAY(FAIL) | MAY(PREFETCH) },
	{ "reading, writing, discarding", LIFE | P(SAVER0) | P(READER) | P(WRITER) | P(DISCARDER),
	  MAY(FAIL) },
	{ "bytes with the caller",
	  CPUS | P(HANDLER0) | P(TAKE_RUN) | P(TAKE_CLEAN) | P(SAVER0) | SOURCE,
	  MAY(FAIL) | MAY(STARVE) },
	{ "the same, lost and discarded", LIFE | P(TAKE_CLEAN) | P(DISCARDER) | SOURCE,
	  MAY(FAIL) | MAY(LOSE) | MAY(POISON) },
	{ "the same, read without a fault", LIFE | P(TAKE_CLEAN) | P(READER) | SOURCE,
	  MAY(FAIL) | MAY(LOSE) },
	{ "the same, written without a fault", LIFE | P(TAKE_CLEAN) | P(WRITER) | SOURCE,
	  MAY(FAIL) | MAY(PREFETCH) },
	{ "the same, pinned", LIFE | P(TAKE_CLEAN) | P(PINNER) | SOURCE, MAY(FAIL) },
	{ "given to the caller, whatever it is",
	  LIFE | P(TAKE_CLEAN) | P(SAVER0) | P(FREER) | P(GIVER) | P(ASKER), MAY(FAIL) },
	{ "the same, lost", LIFE | P(TAKE_CLEAN) | P(GIVER) | P(ASKER),
	  MAY(FAIL) | MAY(LOSE) | MAY(POISON) },
	{ "the same, scattered, copies freed",
	  LIFE | P(TAKE_SCATTERED) | P(FREER) | P(GIVER) | P(ASKER), 0 },
	{ "said to be what the caller has", LIFE | TAKERS | P(FREER) | P(SAYER) | P(ASKER), 0 },
	{ "the same, stored before", LIFE | SAVED | P(SAYER) | P(ASKER), MAY(FAIL) },
	{ "the same, two processors, given too",
	  CPUS | LIFE | P(TAKE_CLEAN) | P(GIVER) | P(SAYER) | P(ASKER), 0 },
	{ "the same, pinned", LIFE | P(TAKE_CLEAN) | P(PINNER) | P(SAYER) | P(ASKER), MAY(FAIL) },
	{ "hints", CPUS | HANDLERS | P(TAKE_RUN) | P(HINTER), MAY(PREFETCH) },
	{ "hints of pages that leave and come back", LIFE | P(TAKE_CLEAN) | P(SAVER0) | P(HINTER),
	  MAY(FAIL) | MAY(PREFETCH) | MAY(STARVE) | MAY(REFUSE) },
	{ "hints, a wide range is made writable", CPUS | LIFE | P(TAKE_SCATTERED) | P(HINTER),
	  MAY(FAIL) },
	{ "hints of what is saved, and discarded",
	  LIFE | P(SAVER0) | P(FREER) | P(DISCARDER) | P(HINTER), 0 },
	{ "hints, and pins", LIFE | P(PINNER) | P(HINTER), MAY(FAIL) },
	{ "hints of what the VMM writes", LIFE | P(SAVER0) | P(WRITER) | P(HINTER), MAY(FAIL) },
	{ "discards past the library", LIFE | P(TAKE_SCATTERED) | P(FREER) | P(STRAY),
	  MAY(DOUBT) | MAY(POISON) | MAY(PREFETCH) | MAY(FAIL) },
};

/* The rule that memory with DMA in flight may be taken by copy only if that is pinned: without it, this is
 * what happens. And so this also shows that the explorer finds what there is. */
static void dma_without_a_pin_is_found(void)
{
	struct vmemt_exploration e = {
		.programs = P(CPU0) | P(HANDLER0) | P(TAKE_SCATTERED) | P(DEVICE),
		.most = 100000,
		.silent = true,
	};

	vmemt_explore(&e);
	assert(e.failure && !strcmp(e.failure, "a frame is taken from under a device"));
}

static void explore(const struct part *part, uint64_t *events)
{
	struct vmemt_exploration e = {
		.programs = part->programs,
		.may = part->may,
		.most = VMEMT_SLOW ? 50000 : 4000000,
	};

	vmemt_explore(&e);
	printf("%-42s %8u worlds%s\n", part->name, e.worlds,
	       e.complete  ? ", which are all"
	       : e.failure ? ""
			   : ": there are more");
	fflush(stdout);
	assert(!e.failure);
	assert(e.complete || VMEMT_SLOW);
	for (unsigned i = 0; i < VMEMI_PAGE_EVENTS; i++)
		events[i] += e.events[i];
}

int main(void)
{
	uint64_t events[VMEMI_PAGE_EVENTS] = { 0 };
	unsigned missing = 0;

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		explore(&parts[i], events);
	dma_without_a_pin_is_found();
	for (unsigned i = 0; i < VMEMI_PAGE_EVENTS; i++)
		if (!events[i]) {
			/* What has no name there has no program yet: it is tried by other tests only. */
			bool known = strcmp(vmemt_event_name(i), "?") != 0;

			printf("event %u (%s) %s\n", i, vmemt_event_name(i),
			       known ? "never happened" : "has no program");
			fflush(stdout);
			missing += known;
		}
	assert(!missing);
	return 0;
}
