/* SPDX-License-Identifier: BSD-2-Clause */
/* Which mapping of a process is the memory of its VM: the largest that is anonymous or shared memory, or
 * the one that was named. Neighbours of one name are one mapping: a VMM may have advised parts of its
 * guest memory differently. */
#include "estimate_source.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "estimate_progress.h"

struct mapping {
	uint64_t start, end;
	char may[5];
	char name[PATH_MAX];
};

struct search {
	const char *name; /* part of it; NULL: any anonymous or shared memory */
	uint64_t address; /* a byte of it; 0: any */
};

void mapping_refused(int pid)
{
	int error = errno;

	if (error == ENOENT || error == ESRCH)
		say_error(
			"--pid %d: there is no such process. `pgrep -a qemu` lists those of QEMU.",
			pid);
	else if (error == EACCES || error == EPERM)
		say_error(
			"--pid %d: no permission to read its memory. Run this as root, or as its user "
			"with kernel.yama.ptrace_scope=0 (sysctl).",
			pid);
	else
		say_error("--pid %d cannot be read: %s.", pid, strerror(error));
}

/* A line of /proc/PID/maps. */
static bool parse(const char *line, struct mapping *m)
{
	int at = 0;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %*s %*s %*s %n", &m->start, &m->end, m->may,
		   &at) < 3 ||
	    at == 0)
		return false;
	snprintf(m->name, sizeof(m->name), "%s", line + at);
	m->name[strcspn(m->name, "\n")] = '\0';
	return true;
}

/* Memory that a VMM may have given to a guest: not a file, not a stack, not of the kernel, and not code, of
 * which an emulator may reserve more than the guest has memory. */
static bool is_guest_memory(const struct mapping *m)
{
	static const char *const names[] = { "/memfd:", "/dev/shm/",      "/dev/zero",
					     "/SYSV",   "/dev/hugepages", "/anon_hugepage",
					     "[heap]",  "[anon" };

	if (m->may[2] == 'x')
		return false;
	if (m->name[0] == '\0')
		return true;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (strncmp(m->name, names[i], strlen(names[i])) == 0)
			return true;
	return false;
}

static bool fits(const struct mapping *m, const struct search *search)
{
	if (m->may[0] != 'r')
		return false;
	if (search->address)
		return search->address >= m->start && search->address < m->end;
	return search->name ? strstr(m->name, search->name) != NULL : is_guest_memory(m);
}

static bool continues(const struct mapping *before, const struct mapping *m)
{
	return before->end == m->start && before->may[0] == m->may[0] &&
	       strcmp(before->name, m->name) == 0;
}

/* The largest that fits, with its neighbours. 0 bytes: there is none. */
static void search_maps(FILE *maps, const struct search *search, struct mapping *best)
{
	struct mapping now = { 0 }, next;
	char *line = NULL;
	size_t capacity = 0;
	bool more;

	*best = (struct mapping){ 0 };
	do {
		more = getline(&line, &capacity, maps) > 0;
		if (more && !parse(line, &next))
			continue;
		if (more && continues(&now, &next)) {
			now.end = next.end;
			continue;
		}
		if (fits(&now, search) && now.end - now.start > best->end - best->start)
			*best = now;
		now = next;
	} while (more);
	free(line);
}

int mapping_find(int pid, const char *wanted, uint64_t *ret_first_byte, uint64_t *ret_bytes)
{
	struct search search = { .name = wanted };
	struct mapping best;
	char path[64];
	FILE *maps;

	if (wanted && wanted[0] == '0' && tolower((unsigned char)wanted[1]) == 'x')
		search = (struct search){ .address = strtoull(wanted, NULL, 16) };
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "re");
	if (!maps) {
		mapping_refused(pid);
		return -1;
	}
	search_maps(maps, &search, &best);
	fclose(maps);
	if (best.end == 0 && wanted)
		say_error(
			"--mapping %s: process %d has no such mapping. /proc/%d/maps lists what it has.",
			wanted, pid, pid);
	else if (best.end == 0)
		say_error(
			"--pid %d: it has no memory of its own: a kernel thread, or one that ends.",
			pid);
	*ret_first_byte = best.start;
	*ret_bytes = best.end - best.start;
	return best.end ? 0 : -1;
}
