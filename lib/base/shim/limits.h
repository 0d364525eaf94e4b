/* SPDX-License-Identifier: BSD-2-Clause */
/* For xxhash.h without libc. */
#ifndef VMEMI_SHIM_LIMITS_H
#define VMEMI_SHIM_LIMITS_H

#define UINT_MAX (__INT_MAX__ * 2u + 1u)
#define ULLONG_MAX (__LONG_LONG_MAX__ * 2ull + 1ull)

#endif
