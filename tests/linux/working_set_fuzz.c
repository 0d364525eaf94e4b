/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes as the file of a working set: as they are, then with a right checksum. What is loaded lies within its
 * region, has no more pages than that, and is the same when it was written and read again. */
#include <stdlib.h>
#include <vmem/working_set.h>
#include "linux/snapshot_tape.h"
#include "support/mended_stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void require(int condition)
{
	if (!condition)
		abort();
}

struct seen {
	struct vmem_working_set_info info;
	uint64_t pages, runs, sum;
};

static int see(void *context, uint64_t gpa, uint64_t bytes)
{
	struct seen *s = context;
	uint64_t run[2] = { gpa, bytes };

	require(gpa >= s->info.region_gpa && bytes && !(bytes % VMEM_PAGE_SIZE));
	require(bytes <= s->info.region_bytes &&
		gpa - s->info.region_gpa <= s->info.region_bytes - bytes);
	s->pages += bytes / VMEM_PAGE_SIZE;
	s->runs++;
	s->sum = vmemi_hash_scalar(run, sizeof(run), s->sum);
	return 0;
}

static struct seen look(const vmem_working_set *set)
{
	struct seen s = { .info = { .size = sizeof(s.info) } };

	require(!vmem_working_set_get_info(set, &s.info));
	require(!vmem_working_set_iterate(set, see, &s));
	require(s.pages == s.info.pages && s.runs == s.info.runs);
	require(s.pages <= s.info.region_bytes / VMEM_PAGE_SIZE);
	return s;
}

static void once_more(const vmem_working_set *set)
{
	struct seen first = look(set), second;
	vmem_working_set *again = NULL;
	struct vmemt_tape tape;

	vmemt_tape_init(&tape);
	require(!vmem_working_set_save(set, vmemt_tape_write, &tape));
	tape.at = 0;
	require(!vmem_working_set_load(&again, NULL, vmemt_tape_read, &tape));
	second = look(again);
	require(first.sum == second.sum && first.info.region_gpa == second.info.region_gpa &&
		first.info.region_bytes == second.info.region_bytes &&
		first.info.missed_pages == second.info.missed_pages);
	vmem_working_set_free(again);
	vmemt_tape_free(&tape);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	for (int mend = 0; mend < 2; mend++) {
		struct vmemt_mended source = { .data = data, .left = bytes, .mend = mend };
		vmem_working_set *set = NULL;
		int error = vmem_working_set_load(&set, NULL, vmemt_mended_read, &source);

		require(!error == !!set);
		if (set)
			once_more(set);
		vmem_working_set_free(set);
	}
	return 0;
}
