/* SPDX-License-Identifier: BSD-2-Clause */
/* Before every file of libvmem-core.a (the build includes it): all functions are in the same program,
 * so that taking the address of one needs no global offset table. */
#pragma GCC visibility push(hidden)
