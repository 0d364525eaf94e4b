/* SPDX-License-Identifier: BSD-2-Clause */
/* The passes in AVX-512 registers. Compiled with -mavx512f -mavx512bw, on x86-64 only. */
#include "track/track_vector512.h"

#define VMEMI_SCAN vmemi_track_scan_avx512

#include "track/track_scan.h"
