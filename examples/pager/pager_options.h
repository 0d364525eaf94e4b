/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line of vmem-pager. */
#ifndef PAGER_OPTIONS_H
#define PAGER_OPTIONS_H
#include <stdint.h>

#include "common/swap_list.h"

enum pager_exit { PAGER_GOOD = 0, PAGER_FAILED = 1, PAGER_USAGE = 2 };

struct pager_options {
	const char *socket, *memory, *json;
	uint64_t budget; /* bytes; 0: none */
	struct swap_options swap;
	uint32_t fault_threads, source_threads;
};

/* Does not return if they are wrong. Called once, before anything else. */
void pager_options_parse(struct pager_options *o, int argc, char **argv);

#endif
