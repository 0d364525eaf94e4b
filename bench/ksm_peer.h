/* SPDX-License-Identifier: BSD-2-Clause */
/* The kernel's own way of joining equal pages, as a peer: KSM. */
#ifndef BENCH_KSM_PEER_H
#define BENCH_KSM_PEER_H
#include <stddef.h>
#include <stdint.h>

/* Why this machine cannot do it, or NULL. */
const char *ksm_missing(void);
/* Let it scan without pauses, and any number of pages share one; undone when the bench ends.
 * @return 0, -errno */
int ksm_start(void);

struct ksm_result {
	uint64_t cpu_ns; /* of its thread, until it had joined the last page */
	uint64_t merged; /* pages that it has spared */
	double index_bytes; /* its records of the pages, as the kernel reckons them; NAN: it does not say */
};

/* Scan this memory, of which nothing is joined, until nothing more is. It goes on scanning.
 * @return 0, -errno, -ETIMEDOUT */
int ksm_join(void *memory, size_t bytes, struct ksm_result *ret_result);
/* The same, then take all apart again. */
int ksm_run(void *memory, size_t bytes, struct ksm_result *ret_result);

#endif
