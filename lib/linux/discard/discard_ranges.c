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
	size_t done = 0, total = 0, i = 0;

	if (count < 2 || !vector)
		return one_by_one(k, ranges, count);
	for (size_t n = 0; n < count; n++)
		total += ranges[n].iov_len;
	/* One call does whole ranges, and may stop between two of them. */
	while (done < total) {
		ssize_t bytes = k->madvise_vector(ranges + i, count - i, MADV_DONTNEED);

		if (bytes <= 0)
			return done + one_by_one(k, ranges + i, count - i);
		done += (size_t)bytes;
		for (size_t left = (size_t)bytes; i < count && left >= ranges[i].iov_len; i++)
			left -= ranges[i].iov_len;
	}
	return done;
}
