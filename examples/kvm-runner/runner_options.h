/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line. */
#ifndef RUNNER_OPTIONS_H
#define RUNNER_OPTIONS_H
#include <stdbool.h>
#include <stdint.h>

#include "common/swap_list.h"
#include "guest_abi.h"

#define RUNNER_MAX_VMS 64u
#define RUNNER_MIN_MEM (UINT64_C(4) << 20)
#define RUNNER_MAX_MEM (UINT64_C(64) << 30)

/* What the process ends with. */
enum runner_exit {
	RUNNER_EXIT_GOOD = 0,         /* every page of every VM was right */
	RUNNER_EXIT_BAD = 1,          /* a wrong byte, a poisoned page, or something failed */
	RUNNER_EXIT_USAGE = 2,        /* bad options or input, or no right: nothing was run */
	RUNNER_EXIT_INTERRUPTED = 130 /* Ctrl-C; what was verified until then was right */
};

enum runner_backend { BACKEND_AUTO, BACKEND_KVM, BACKEND_THREAD };

enum runner_injection {
	INJECT_NOTHING,
	INJECT_DROP_PAGE,     /* a guest page is discarded behind the guest's back */
	INJECT_CORRUPT_PAGE,  /* a bit of a stored page flips */
	INJECT_BAD_BALLOON,   /* drivers of balloons do what they must not */
	INJECT_FLOOD_BALLOON, /* they keep their devices busy without end */
	INJECT_FAIL_ALLOC     /* the n-th allocation fails */
};

struct runner_options {
	uint32_t vms;
	uint32_t vcpus;
	uint32_t seconds;
	uint32_t attach; /* so many VMs bring memory that the runner mapped itself */
	uint64_t mem_bytes;
	uint64_t budget_bytes;
	const char *images[RUNNER_MAX_VMS]; /* VM i gets image i mod image_count */
	uint32_t image_count;
	uint32_t workloads[RUNNER_MAX_VMS]; /* VM i gets workload i mod workload_count */
	uint32_t workload_count;
	uint32_t write_percent;
	double skew;
	enum runner_backend backend;
	uint32_t fault_way;             /* enum vmem_fault_way */
	uint32_t sharing;               /* enum vmem_store_sharing */
	bool as_saved;                  /* stored pages are never encoded anew */
	uint32_t recompress_per_second; /* most that are; 0: no limit */
	bool jemalloc;
	bool quiet;
	const char *save;    /* VM i goes to the file of this name with .i; NULL: none */
	const char *restore; /* comes from there */
	bool lazy;
	bool huge;              /* pages of 2 MiB */
	uint64_t balloon_pages; /* that each VM is asked for; 0: no balloon */
	uint64_t balloon_rate;  /* so many pages a second; 0: as fast as it goes */
	bool balloon_keep;      /* to the end */
	bool balloon_ranges;    /* ranges instead of page numbers */
	bool balloon_report;    /* free pages are reported */
	bool balloon_oom;       /* guests may take pages back when they are short of them */
	struct swap_options swap;
	const char *json; /* NULL: none */
	uint64_t seed;
	enum runner_injection injection;
	uint64_t injection_number;
};

/* Names of enum guest_workload. */
extern const char *const runner_workload_names[GUEST_WORKLOADS];

/* Reads the command line. Does not return after --help or an error, which it explains. */
void runner_options_parse(struct runner_options *options, int argc, char **argv);

#endif
