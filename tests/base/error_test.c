/* SPDX-License-Identifier: BSD-2-Clause */
/* Error numbers are Linux's, and each has words of its own. */
#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <vmem/common.h>

static const struct {
	int vmem, linux_;
} errors[] = {
	{ VMEM_EPERM, EPERM },
	{ VMEM_ENOENT, ENOENT },
	{ VMEM_EIO, EIO },
	{ VMEM_E2BIG, E2BIG },
	{ VMEM_EAGAIN, EAGAIN },
	{ VMEM_ENOMEM, ENOMEM },
	{ VMEM_EFAULT, EFAULT },
	{ VMEM_EBUSY, EBUSY },
	{ VMEM_EEXIST, EEXIST },
	{ VMEM_ENODEV, ENODEV },
	{ VMEM_EINVAL, EINVAL },
	{ VMEM_EFBIG, EFBIG },
	{ VMEM_ENOSPC, ENOSPC },
	{ VMEM_ERANGE, ERANGE },
	{ VMEM_EBADMSG, EBADMSG },
	{ VMEM_ENOTSUP, EOPNOTSUPP },
	{ VMEM_EINPROGRESS, EINPROGRESS },
};

#define COUNT (sizeof(errors) / sizeof(errors[0]))

Test(error, numbers_are_linux)
{
	for (size_t i = 0; i < COUNT; i++)
		cr_assert_eq(errors[i].vmem, errors[i].linux_);
}

Test(error, each_has_words_of_its_own)
{
	const char *unknown = vmem_strerror(4095);

	cr_assert(strlen(unknown));
	cr_assert_str_eq(vmem_strerror(INT_MIN), unknown);
	cr_assert_str_eq(vmem_strerror(INT_MAX), unknown);
	cr_assert_str_neq(vmem_strerror(0), unknown);
	for (size_t i = 0; i < COUNT; i++) {
		const char *words = vmem_strerror(errors[i].vmem);

		cr_assert_str_eq(words, vmem_strerror(-errors[i].vmem));
		cr_assert_str_neq(words, unknown);
		cr_assert_str_neq(words, vmem_strerror(0));
		for (size_t j = 0; j < i; j++)
			cr_assert_str_neq(words, vmem_strerror(errors[j].vmem));
	}
}

Test(error, version_is_that_of_the_header)
{
	uint32_t version = vmem_version();

	cr_assert_eq(version >> 16, (uint32_t)VMEM_VERSION_MAJOR);
	cr_assert_eq(version >> 8 & 0xff, (uint32_t)VMEM_VERSION_MINOR);
	cr_assert_eq(version & 0xff, (uint32_t)VMEM_VERSION_PATCH);
}
