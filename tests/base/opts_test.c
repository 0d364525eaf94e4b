/* SPDX-License-Identifier: BSD-2-Clause */
/* Options and results of structures that grow: old and new callers, with an old and a new library. */
#include <criterion/criterion.h>
#include <string.h>
#include "base/opts.h"

struct v1 {
	size_t size;
	uint64_t a;
};

struct v2 {
	size_t size;
	uint64_t a;
	uint64_t b;
};

Test(opts, none_is_all_defaults)
{
	struct v2 o;

	memset(&o, 0xff, sizeof(o));
	cr_assert_eq(vmemi_opts_take(&o, sizeof(o), NULL), 0);
	cr_assert_eq(o.size, sizeof(o));
	cr_assert_eq(o.a, 0u);
	cr_assert_eq(o.b, 0u);
}

Test(opts, older_caller_gets_defaults_for_what_it_does_not_know)
{
	struct v1 given = { .size = sizeof(given), .a = 7 };
	struct v2 o;

	memset(&o, 0xff, sizeof(o));
	cr_assert_eq(vmemi_opts_take(&o, sizeof(o), &given), 0);
	cr_assert_eq(o.size, sizeof(o));
	cr_assert_eq(o.a, 7u);
	cr_assert_eq(o.b, 0u);
}

Test(opts, newer_caller_is_refused_only_if_it_uses_what_is_new)
{
	struct v2 given = { .size = sizeof(given), .a = 7 };
	struct v1 o;

	cr_assert_eq(vmemi_opts_take(&o, sizeof(o), &given), 0);
	cr_assert_eq(o.size, sizeof(o));
	cr_assert_eq(o.a, 7u);
	for (size_t i = 0; i < sizeof(given.b); i++) {
		given.b = 0;
		((unsigned char *)&given.b)[i] = 1;
		cr_assert_eq(vmemi_opts_take(&o, sizeof(o), &given), -VMEM_E2BIG, "byte %zu", i);
	}
}

/* A table of functions: its first version, and two that grew. */
struct table1 {
	size_t size;
	int (*first)(void);
};

struct table2 {
	size_t size;
	int (*first)(void);
	int (*second)(void);
};

static int one(void)
{
	return 1;
}

Test(callbacks, of_the_first_version_on_are_taken)
{
	const size_t least = VMEMI_BYTES_TO(struct table2, first);
	struct table1 old = { .size = sizeof(old), .first = one };
	struct table2 given = { .size = sizeof(given), .first = one, .second = one }, taken;

	cr_assert_eq(least, sizeof(old));
	memset(&taken, 0xff, sizeof(taken));
	cr_assert_eq(vmemi_callbacks_take(&taken, sizeof(taken), least, &old), 0);
	cr_assert_eq(taken.size, sizeof(taken));
	cr_assert_eq(taken.first, one);
	cr_assert_null(taken.second);
	cr_assert_eq(vmemi_callbacks_take(&taken, sizeof(taken), least, &given), 0);
	cr_assert_eq(taken.second, one);
}

Test(callbacks, shorter_or_missing_are_refused)
{
	struct table1 given = { .size = sizeof(given) - 1, .first = one }, taken;

	cr_assert_eq(vmemi_callbacks_take(&taken, sizeof(taken), sizeof(taken), &given),
		     -VMEM_EINVAL);
	given.size = 0;
	cr_assert_eq(vmemi_callbacks_take(&taken, sizeof(taken), sizeof(taken), &given),
		     -VMEM_EINVAL);
	cr_assert_eq(vmemi_callbacks_take(&taken, sizeof(taken), sizeof(taken), NULL),
		     -VMEM_EINVAL);
}

Test(callbacks, that_are_unknown_must_not_be_set)
{
	struct table2 given = { .size = sizeof(given), .first = one };
	struct table1 taken;

	cr_assert_eq(vmemi_callbacks_take(&taken, sizeof(taken), sizeof(taken), &given), 0);
	given.second = one;
	cr_assert_eq(vmemi_callbacks_take(&taken, sizeof(taken), sizeof(taken), &given),
		     -VMEM_E2BIG);
}

Test(opts, size_must_cover_itself)
{
	struct v1 o;

	for (size_t size = 0; size < sizeof(size_t); size++) {
		struct v1 given = { .size = size };

		cr_assert_eq(vmemi_opts_take(&o, sizeof(o), &given), -VMEM_EINVAL);
		cr_assert_eq(vmemi_opts_give(&given, &o, sizeof(o)), -VMEM_EINVAL);
	}
}

Test(results, nowhere_to_give_them)
{
	struct v1 result = { .size = sizeof(result) };

	cr_assert_eq(vmemi_opts_give(NULL, &result, sizeof(result)), -VMEM_EINVAL);
}

Test(results, older_caller_gets_what_it_has_room_for)
{
	struct v2 result = { .size = sizeof(result), .a = 1, .b = 2 };
	struct v2 given = { .size = sizeof(struct v1), .b = 99 };

	cr_assert_eq(vmemi_opts_give(&given, &result, sizeof(result)), 0);
	cr_assert_eq(given.size, sizeof(struct v1));
	cr_assert_eq(given.a, 1u);
	cr_assert_eq(given.b, 99u, "written past the caller's structure");
}

Test(results, newer_caller_gets_zeros_for_what_the_library_does_not_know)
{
	struct v1 result = { .size = sizeof(result), .a = 1 };
	struct v2 given = { .size = sizeof(given), .a = 98, .b = 99 };

	cr_assert_eq(vmemi_opts_give(&given, &result, sizeof(result)), 0);
	cr_assert_eq(given.size, sizeof(given));
	cr_assert_eq(given.a, 1u);
	cr_assert_eq(given.b, 0u);
}
