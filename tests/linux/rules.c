/* SPDX-License-Identifier: BSD-2-Clause */
/* See rules.h. */
#include "linux/rules.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void start(struct vmemt_rig *t, const struct vmemi_kernel *k)
{
	memset(t, 0, sizeof(*t));
	vmemt_kernel_reset();
	assert(!vmemi_manager_new(&t->manager, NULL, k ? k : &vmemt_kernel_table));
	vmemt_catch_signals(t->manager);
	for (unsigned i = 0; i < RULES_CPUS; i++)
		vmemt_cpu_start(&t->cpu[i]);
}

static void know(struct vmemt_rig *t)
{
	t->base = vmem_region_hva(t->region);
	for (unsigned i = 0; i < RULES_CPUS; i++)
		t->cpu[i].region = t->region;
}

void vmemt_rig_make(struct vmemt_rig *t, uint64_t pages, uint64_t flags,
		    const struct vmemi_kernel *k)
{
	start(t, k);
	t->region = vmemt_region(t->manager, 0, pages, flags);
	know(t);
	for (uint64_t i = 0; i < pages; i++) {
		struct vmemt_page p;

		vmemt_make(&p, i, 1);
		assert(!vmem_region_write(t->region, i * PAGE, &p, PAGE));
	}
}

void vmemt_rig_attach(struct vmemt_rig *t, void *memory, uint64_t pages, uint64_t flags)
{
	struct vmem_region_opts o = {
		.size = sizeof(o),
		.flags = flags,
		.hva = memory,
		.bytes = pages * PAGE,
		.fault_around_pages = 1,
	};

	start(t, NULL);
	assert(!vmem_region_attach(&t->region, t->manager, &o));
	know(t);
}

void vmemt_rig_threads(struct vmemt_rig *t)
{
	assert(!vmem_manager_thread_start(t->manager));
}

void vmemt_rig_expect(struct vmemt_rig *t, uint64_t first, uint64_t count, uint64_t version)
{
	for (uint64_t i = first; i < first + count; i++)
		assert(vmemt_is(&t->cpu[0], t->base, i, version));
}

void vmemt_rig_end(struct vmemt_rig *t)
{
	vmemt_end(t->manager, t->region);
	for (unsigned i = 0; i < RULES_CPUS; i++)
		vmemt_cpu_stop(&t->cpu[i]);
}

/* Calls @each for all lines of smaps that concern the range, with what it covers of it. */
static uint64_t walk_smaps(const void *memory, uint64_t bytes, const char *field,
			   uint64_t (*each)(const char *line, uint64_t covered, const char *what),
			   const char *what)
{
	uintptr_t first = (uintptr_t)memory, last = first + bytes;
	FILE *smaps = fopen("/proc/self/smaps", "re");
	uint64_t covered = 0, sum = 0;
	unsigned long from, to;
	char line[512];

	assert(smaps);
	while (fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2 && strchr(line, '-') < line + 17) {
			uintptr_t start = from > first ? from : first;
			uintptr_t end = to < last ? to : last;

			covered = end > start ? end - start : 0;
		} else if (covered && !strncmp(line, field, strlen(field))) {
			sum += each(line, covered, what);
		}
	}
	fclose(smaps);
	return sum;
}

static uint64_t flagged(const char *line, uint64_t covered, const char *flag)
{
	return strstr(line, flag) ? covered : 0;
}

static uint64_t kilobytes(const char *line, uint64_t covered, const char *unused)
{
	(void)covered;
	(void)unused;
	return strtoull(strchr(line, ':') + 1, NULL, 10);
}

bool vmemt_has_flag(const void *memory, uint64_t bytes, const char *flag)
{
	return walk_smaps(memory, bytes, "VmFlags:", flagged, flag) == bytes;
}

uint64_t vmemt_smaps_kb(const void *memory, uint64_t bytes, const char *field)
{
	return walk_smaps(memory, bytes, field, kilobytes, NULL);
}
