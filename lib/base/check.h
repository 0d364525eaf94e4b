/* SPDX-License-Identifier: BSD-2-Clause */
/* For the functions that walk an object at rest for tests: NULL, or what is wrong in it. */
#ifndef VMEMI_CHECK_H
#define VMEMI_CHECK_H

/* Returns from such a function with the condition, if it does not hold. */
#define VMEMI_REQUIRE(condition)           \
	do {                               \
		if (!(condition))          \
			return #condition; \
	} while (0)

#endif
