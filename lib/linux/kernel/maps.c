/* SPDX-License-Identifier: BSD-2-Clause */
/* The mappings of this process: see maps.h. */
#include "linux/kernel/maps.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

bool vmemi_maps_line(struct vmemi_maps *in, char *line, size_t size)
{
	size_t n = 0;

	for (;;) {
		if (in->next == in->have) {
			ssize_t bytes = in->k->read(in->fd, in->buffer, sizeof(in->buffer));

			if (bytes <= 0)
				return false;
			in->have = (size_t)bytes;
			in->next = 0;
		}
		if (in->buffer[in->next] == '\n') {
			in->next++;
			line[n] = 0;
			return true;
		}
		if (n + 1 < size)
			line[n++] = in->buffer[in->next];
		in->next++;
	}
}

bool vmemi_maps_parse(const char *line, struct vmemi_mapping *m)
{
	m->anonymous_huge = strstr(line, " /anon_hugepage") != NULL;
	return sscanf(line, "%llx-%llx %7s %llx %x:%x %llu", &m->start, &m->stop, m->permissions,
		      &m->offset, &m->major, &m->minor, &m->inode) == 7;
}

int vmemi_maps_check(const struct vmemi_kernel *k, uintptr_t start, uint64_t bytes,
		     bool (*is_right)(const struct vmemi_mapping *m, const void *context),
		     const void *context)
{
	struct vmemi_maps in = { .k = k };
	uint64_t at = start, end = start + bytes;
	struct vmemi_mapping m;
	char line[512];

	in.fd = k->open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	if (in.fd < 0)
		return -VMEM_EIO;
	while (at < end && vmemi_maps_line(&in, line, sizeof(line))) {
		if (!vmemi_maps_parse(line, &m) || m.stop <= at)
			continue;
		if (m.start > at || !is_right(&m, context))
			break;
		at = m.stop;
	}
	k->close(in.fd);
	return at >= end;
}
