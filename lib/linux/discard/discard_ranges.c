/* SPDX-License-Identifier: BSD-2-Clause */
/* Giving frames back to the kernel: see discard.h. */
#include "linux/discard/discard.h"
#include <sys/mman.h>

static size_t one_by_one(const struct vmemi_kernel *k, const struct iovec *ranges, size_t count)
{
	size_t bytes = 0;

	for (size_t i = 0; i < count; i++) {
		if (k->madvise(ranges[i].iov_base, ranges[i].iov_len, MADV_DONTNEED))
			break;
		bytes += ranges[i].iov_len;
	}
	return bytes;
}

size_t vmemi_discard_ranges(const struct vmemi_kernel *k, bool vector, const struct iovec *ranges,
			    size_t count)
{
	size_t done = 0, i = 0;

	while (vector && count - i > 1) {
		ssize_t bytes = k->madvise_vector(ranges + i, count - i, MADV_DONTNEED);
		size_t left = bytes > 0 ? (size_t)bytes : 0;
		struct iovec rest;

		if (!left)
			break;
		done += left;
		for (; i < count && left >= ranges[i].iov_len; i++)
			left -= ranges[i].iov_len;
		if (!left)
			continue;
		/* One call does almost 2 GiB at most, and stops inside a range. */
		rest = (struct iovec){ (char *)ranges[i].iov_base + left,
				       ranges[i].iov_len - left };
		if (!one_by_one(k, &rest, 1))
			return done;
		done += rest.iov_len;
		i++;
	}
	return done + one_by_one(k, ranges + i, count - i);
}
