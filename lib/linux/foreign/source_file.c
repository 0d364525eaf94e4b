/* SPDX-License-Identifier: BSD-2-Clause */
/* A source that is a file: see <vmem/foreign.h>. */
#include "linux/kernel/kernel.h"
#include <errno.h>
#include <vmem/foreign.h>

int vmem_source_file_read(void *context, uint64_t gpa, void *buffer)
{
	const struct vmemi_kernel *k = &vmemi_kernel_linux;
	const struct vmem_source_file *s = context;
	unsigned char *to = buffer;
	size_t done = 0;

	if (!s || s->reserved || gpa < s->gpa || gpa - s->gpa > INT64_MAX - VMEM_PAGE_SIZE ||
	    s->offset > INT64_MAX - VMEM_PAGE_SIZE - (gpa - s->gpa))
		return -VMEM_EINVAL;
	while (done < VMEM_PAGE_SIZE) {
		ssize_t n = k->pread(s->fd, to + done, VMEM_PAGE_SIZE - done,
				     (off_t)(s->offset + (gpa - s->gpa) + done));

		if (n == -EINTR)
			continue;
		if (n <= 0)
			return -VMEM_EIO;
		done += (size_t)n;
	}
	return 0;
}
