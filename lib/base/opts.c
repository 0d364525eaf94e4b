/* SPDX-License-Identifier: BSD-2-Clause */
/* Structures that grow at the end: see opts.h. Pure functions. */
#include "base/opts.h"
#include "base/mem.h"

int vmemi_opts_take(void *dst, size_t known, const void *src)
{
	size_t size;

	memset(dst, 0, known);
	if (!src) {
		memcpy(dst, &known, sizeof(known));
		return 0;
	}
	memcpy(&size, src, sizeof(size));
	if (size < sizeof(size))
		return -VMEM_EINVAL;
	for (size_t i = known; i < size; i++)
		if (((const unsigned char *)src)[i])
			return -VMEM_E2BIG;
	memcpy(dst, src, size < known ? size : known);
	memcpy(dst, &known, sizeof(known));
	return 0;
}

int vmemi_callbacks_take(void *dst, size_t known, size_t least, const void *src)
{
	size_t size = 0;

	if (src)
		memcpy(&size, src, sizeof(size));
	return size < least ? -VMEM_EINVAL : vmemi_opts_take(dst, known, src);
}

int vmemi_opts_give(void *dst, const void *src, size_t known)
{
	size_t size;

	if (!dst)
		return -VMEM_EINVAL;
	memcpy(&size, dst, sizeof(size));
	if (size < sizeof(size))
		return -VMEM_EINVAL;
	if (size > known)
		memset((unsigned char *)dst + known, 0, size - known);
	memcpy((unsigned char *)dst + sizeof(size), (const unsigned char *)src + sizeof(size),
	       (size < known ? size : known) - sizeof(size));
	return 0;
}
