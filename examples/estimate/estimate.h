/* SPDX-License-Identifier: BSD-2-Clause */
/* What vmem-estimate counts: where the pages of a VM would go. */
#ifndef ESTIMATE_H
#define ESTIMATE_H
#include <stdbool.h>
#include <stdint.h>

#include <vmem/common.h>

#define ESTIMATE_CHANGE_PERCENT 10u /* kept free for what the guests write */

/* Exit status of the program. */
enum estimate_exit {
	EXIT_GOOD = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2, /* bad options or input; what to change was said */
	EXIT_INTERRUPTED = 130
};

/* Where a page goes. Each page is counted once. */
enum page_kind {
	KIND_ZERO,  /* all zero */
	KIND_SAME,  /* another 64-bit word, repeated */
	KIND_EQUAL, /* equal to another page, which counts as what it is */
	KIND_ALIKE, /* a delta against another page */
	KIND_ZSTD,
	KIND_LZ4,
	KIND_RAW, /* incompressible */
	KINDS
};

/* Of a VM, or of all. */
struct tally {
	uint64_t pages; /* looked at */
	uint64_t kind[KINDS];
	uint64_t stored_bytes;   /* of objects in the store */
	uint64_t metadata_bytes; /* that the store needs besides */
	uint64_t cpu_save_ns;    /* that the store took to save the pages, ... */
	uint64_t cpu_work_ns;    /* ... and to encode them anew */
};

/* What codecs make of single pages: of those that are not one word, every 8th is tried. */
struct probe {
	uint64_t pages;
	uint64_t lz4_bytes;
	uint64_t zstd_bytes;
};

struct options {
	uint32_t resident_percent;
	double sample_percent;
	uint64_t seed;
	const char *mapping; /* NULL: the largest */
	const char *json;    /* NULL: none */
	const char *plot;
	bool quiet;
	uint32_t vm_count;
};

/* What was asked about: an image, or a process. */
struct target {
	const char *image; /* NULL: a process */
	int pid;
};

struct vm {
	char name[64];
	bool is_process;
	uint64_t memory_pages;     /* of the image, or of the mapping */
	uint64_t untouched_pages;  /* of a process: without memory yet */
	uint64_t swapped_pages;    /* of a process: on swap, where they were left */
	uint64_t unreadable_pages; /* of a process: gone, or refused, when they were read */
	struct tally tally;
	struct probe probe;
};

/* All that was found out. */
struct estimate {
	const struct options *options;
	struct vm *vms;
	struct tally total;   /* each VM a domain of its own */
	struct tally shared;  /* all VMs one group; with two or more */
	struct probe probe;   /* of all */
	uint64_t fixed_bytes; /* that the store takes without a page, with its VMs */
};

/* "zero", "same_filled", ... */
extern const char *const kind_names[KINDS];

/* Bytes in the store for each byte of memory. */
double tally_stored_share(const struct tally *t);

/* Bytes of the host for each byte of the VM that are safe to count on, 1 at the most:
 *     resident + (1 - resident) * stored share + change. */
double tally_need(const struct tally *t, const struct options *o);

/* Pages that are equal only across VMs. */
uint64_t estimate_equal_across(const struct estimate *e);

/* estimate_table.c: to standard output. 0, or -1. */
int table_print(const struct estimate *e);
/* estimate_json.c: 0, or -1, and what went wrong was said. */
int json_check(const char *path);
int json_write(const struct estimate *e, const char *path);
/* estimate_plot.c: as above. */
int plot_check(const char *path);
int plot_write(const struct estimate *e, const char *path);

#endif
