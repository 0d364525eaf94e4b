/* SPDX-License-Identifier: BSD-2-Clause */
/* A memory cgroup, version 1 or 2: what processes really use, and a limit for them. */
#ifndef BENCH_MEMORY_GROUP_H
#define BENCH_MEMORY_GROUP_H
#include <stdint.h>

struct memory_group {
	char path[128];
	int version;
};

/* Why there are none here, or NULL. */
const char *memory_group_missing(void);
/* Removed when the bench ends. @return 0, -errno */
int memory_group_new(struct memory_group *group, const char *name);
/* The calling process goes there, with what it allocates from then on. */
int memory_group_enter(const struct memory_group *group);
uint64_t memory_group_usage(const struct memory_group *group);
/* Have the kernel bring its statistics of the group up to date, which it does by itself every two seconds
 * only. In a group of anonymous memory alone it decides by them whether active pages may be made inactive:
 * when all were hot, and none is inactive any more, it finds nothing to take, tries sixteen times within a
 * millisecond, and calls the OOM killer, with memory left. So it takes a call every fraction of that. */
void memory_group_refresh(const struct memory_group *group);
/* What is over it is reclaimed now. @return 0, -errno: not all of it could be */
int memory_group_limit(const struct memory_group *group, uint64_t bytes);

#endif
