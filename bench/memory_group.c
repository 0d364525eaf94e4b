/* SPDX-License-Identifier: BSD-2-Clause */
#include "memory_group.h"
#include "machine.h"
#include "undo.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROOT_V1 "/sys/fs/cgroup/memory"
#define ROOT_V2 "/sys/fs/cgroup"

/* Files of the two versions. */
static const struct {
	const char *root, *usage, *limit;
} versions[] = { [1] = { ROOT_V1, "memory.usage_in_bytes", "memory.limit_in_bytes" },
		 [2] = { ROOT_V2, "memory.current", "memory.max" } };

static int find_version(void)
{
	char text[256];

	if (access(ROOT_V1 "/cgroup.procs", W_OK) == 0)
		return 1;
	if (machine_read(ROOT_V2 "/cgroup.controllers", text, sizeof(text)) == 0 &&
	    strstr(text, "memory") && access(ROOT_V2 "/cgroup.procs", W_OK) == 0)
		return 2;
	return 0;
}

const char *memory_group_missing(void)
{
	if (geteuid() != 0)
		return "making a memory cgroup needs root";
	return find_version() == 0 ? "there is no memory cgroup controller" : NULL;
}

/* Groups below the root have memory files only if the root hands the controller down. */
static void hand_down(void)
{
	static const char file[] = ROOT_V2 "/cgroup.subtree_control";
	char text[256];

	if (machine_read(file, text, sizeof(text)) != 0 || strstr(text, "memory"))
		return;
	undo_later("write %s -memory", file);
	machine_write(file, "+memory");
}

int memory_group_new(struct memory_group *group, const char *name)
{
	group->version = find_version();
	if (group->version == 0)
		return -ENODEV;
	if (group->version == 2)
		hand_down();
	snprintf(group->path, sizeof(group->path), "%s/vmem-bench-%s",
		 versions[group->version].root, name);
	undo_later("rmdir %s", group->path);
	return mkdir(group->path, 0755) == 0 || errno == EEXIST ? 0 : -errno;
}

static const char *file_of(const struct memory_group *group, const char *file, char *path,
			   size_t capacity)
{
	snprintf(path, capacity, "%s/%s", group->path, file);
	return path;
}

int memory_group_enter(const struct memory_group *group)
{
	char path[256];

	return machine_write(file_of(group, "cgroup.procs", path, sizeof(path)), "0") == 0 ? 0
											   : -errno;
}

uint64_t memory_group_usage(const struct memory_group *group)
{
	char path[256], text[32];

	file_of(group, versions[group->version].usage, path, sizeof(path));
	return machine_read(path, text, sizeof(text)) == 0 ? strtoull(text, NULL, 10) : 0;
}

void memory_group_refresh(const struct memory_group *group)
{
	char path[256], text[4096];

	machine_read(file_of(group, "memory.stat", path, sizeof(path)), text, sizeof(text));
}

int memory_group_limit(const struct memory_group *group, uint64_t bytes)
{
	char path[256], text[32];

	snprintf(text, sizeof(text), "%" PRIu64, bytes);
	file_of(group, versions[group->version].limit, path, sizeof(path));
	return machine_write(path, text) == 0 ? 0 : -errno;
}
