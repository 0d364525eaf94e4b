/* SPDX-License-Identifier: BSD-2-Clause */
#include "ksm_peer.h"
#include "machine.h"
#include "undo.h"
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SYS "/sys/kernel/mm/ksm/"
#define POLL_MS 2
#define PATIENCE_NS UINT64_C(120000000000)
#define SCANS_AT_LEAST \
	3 /* pages are joined in the second, if they have not changed since the first */
#define SCANS_AT_REST 2 /* that have joined nothing more */

static char thread_stat[64]; /* of ksmd, under /proc; empty: not looked for yet */

static uint64_t read_number(const char *path)
{
	char text[64];

	return machine_read(path, text, sizeof(text)) == 0 ? strtoull(text, NULL, 10) : 0;
}

static int find_thread(void)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	char path[64], text[64];

	while (proc && !thread_stat[0] && (entry = readdir(proc)) != NULL) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%.20s/comm", entry->d_name);
		if (machine_read(path, text, sizeof(text)) == 0 && strcmp(text, "ksmd") == 0)
			snprintf(thread_stat, sizeof(thread_stat), "/proc/%.20s/schedstat",
				 entry->d_name);
	}
	if (proc)
		closedir(proc);
	return thread_stat[0] && read_number(thread_stat) > 0 ? 0 : -1;
}

const char *ksm_missing(void)
{
	char text[64];

	if (geteuid() != 0)
		return "letting it run needs root";
	if (machine_read(SYS "run", text, sizeof(text)) != 0)
		return "this kernel has no " SYS;
	if (strcmp(text, "0") != 0 || read_number(SYS "pages_shared") != 0)
		return "it is in use by somebody else (" SYS "run)";
	if (find_thread() != 0)
		return "there is no thread ksmd whose time can be read";
	return NULL;
}

int ksm_start(void)
{
	static const char *const settings[][2] = {
		{ SYS "pages_to_scan", "20000" }, /* at a time */
		{ SYS "sleep_millisecs", "0" },
		{ SYS "max_page_sharing", "10000000" },
	};
	char advisor[64];

	/* It would change the first of them. */
	if (machine_read(SYS "advisor_mode", advisor, sizeof(advisor)) == 0 &&
	    strstr(advisor, "[scan-time]")) {
		undo_later("write " SYS "advisor_mode scan-time");
		if (machine_write(SYS "advisor_mode", "none") != 0)
			return -errno;
	}
	undo_later("write " SYS "run 0");
	for (size_t i = 0; i < sizeof(settings) / sizeof(*settings); i++)
		if (machine_set(settings[i][0], settings[i][1]) != 0)
			return -errno;
	/* First of all everything is taken apart: until then the settings cannot be written. */
	undo_later("write " SYS "run 2");
	return 0;
}

/* What the kernel subtracts from the profit of this process for its records. */
static double index_bytes(void)
{
	FILE *file = fopen("/proc/self/ksm_stat", "re");
	int64_t pages = 0, profit = 0, number;
	int found = 0;
	char name[64];

	while (file && fscanf(file, "%63s %" SCNd64, name, &number) == 2) {
		if (strcmp(name, "ksm_merging_pages") == 0 || strcmp(name, "ksm_zero_pages") == 0)
			pages += number;
		if (strcmp(name, "ksm_process_profit") == 0) {
			profit = number;
			found = 1;
		}
	}
	if (file)
		fclose(file);
	return found ? (double)(pages * (int64_t)PAGE - profit) : NAN;
}

static int wait_until_at_rest(struct ksm_result *result)
{
	const uint64_t first_scan = read_number(SYS "full_scans"), start = machine_now_ns();
	const uint64_t cpu_start = read_number(thread_stat);
	uint64_t scan, last_scan = first_scan;

	*result = (struct ksm_result){ .index_bytes = NAN };
	if (machine_write(SYS "run", "1") != 0)
		return -errno;
	do {
		uint64_t merged;

		if (machine_now_ns() - start > PATIENCE_NS)
			return -ETIMEDOUT;
		machine_sleep_ms(POLL_MS);
		scan = read_number(SYS "full_scans"); /* first: these have joined what comes next */
		merged = read_number(SYS "pages_sharing");
		if (merged != result->merged) {
			result->merged = merged;
			result->cpu_ns = read_number(thread_stat) - cpu_start;
			last_scan = scan;
		}
	} while (scan < first_scan + SCANS_AT_LEAST || scan < last_scan + SCANS_AT_REST);
	result->index_bytes = index_bytes();
	return 0;
}

int ksm_join(void *memory, size_t bytes, struct ksm_result *ret_result)
{
	if (madvise(memory, bytes, MADV_MERGEABLE) != 0)
		return -errno;
	return wait_until_at_rest(ret_result);
}

int ksm_run(void *memory, size_t bytes, struct ksm_result *ret_result)
{
	int result = ksm_join(memory, bytes, ret_result);

	if (machine_write(SYS "run", "2") != 0 && result == 0)
		result = -errno;
	return result;
}
