/* SPDX-License-Identifier: BSD-2-Clause */
/* The devices that --swap names: asked for on the command line, opened, handed to the library, watched and reported. One
 * thread. */
#ifndef SWAP_LIST_H
#define SWAP_LIST_H
#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

#include <vmem/device.h>
#include <vmem/manager.h>
#include <vmem/store_device.h>

#include "common/json_file.h"

#define SWAP_LIST_MOST 16u

struct swap_options {
	const char *text[SWAP_LIST_MOST]; /* the first ones are filled first */
	uint32_t count;
	bool plain; /* what is written there need not be enciphered */
};

/* --swap and --swap-plain, as a child of a program's own parser, with a struct swap_options as its input; in its first
 * group of options. */
extern const struct argp swap_argp;

struct swap_one {
	const char *text; /* as the user gave it */
	const char *secrecy;
	struct vmem_device *device; /* until the library has it */
	uint32_t number;            /* the library's, from then on */
	bool told_bad;
};

/* Set these two before the first call. */
struct swap {
	void (*say)(const char *line); /* to people */
	void (*complain)(const char *line);
	struct swap_one one[SWAP_LIST_MOST];
	uint32_t count; /* that were opened */
	bool told_full;
	bool told_lost;
};

/* All devices at one moment. */
struct swap_sample {
	uint64_t size_bytes;
	uint64_t taken_bytes;
	uint64_t written_bytes;
	uint64_t read_bytes;
	bool bad; /* one of them at least */
	struct vmem_store_out_stats out;
	struct vmem_store_device_stats device[SWAP_LIST_MOST];
};

/* Open what the options name; @allocator: may be NULL. Returns 0, or a negative VMEM error after a complaint;
 * -VMEM_EINVAL: what the user can change. swap_close() either way. */
int swap_open_all(struct swap *swap, const struct swap_options *options,
		  const struct vmem_allocator *allocator);

/* Give the devices to the library. Returns as above. */
int swap_hand_over(struct swap *swap, vmem_manager *manager, const struct swap_options *options);

/* Close those that the library does not have. */
void swap_close(struct swap *swap);

void swap_sample(const struct swap *swap, vmem_manager *manager, struct swap_sample *sample);

/* Tell of a device that is bad or full, and of lost pages, once each. */
void swap_watch(struct swap *swap, vmem_manager *manager);

/* What was written and read, and what is there at the end. Nothing without a device. */
void swap_print_totals(const struct swap *swap, vmem_manager *manager);

/* All counters, as "swap" of @root. Nothing without a device. */
void swap_add_json(cJSON *root, const struct swap *swap, vmem_manager *manager);

#endif
