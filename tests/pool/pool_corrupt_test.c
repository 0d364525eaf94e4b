/* SPDX-License-Identifier: BSD-2-Clause */
#include "pool/pool_tools.h"
Test(a, b)
{
}
