/* SPDX-License-Identifier: BSD-2-Clause */
/* For xxhash.h without libc. */
#ifndef VMEMI_SHIM_ASSERT_H
#define VMEMI_SHIM_ASSERT_H

#define static_assert _Static_assert

#endif
