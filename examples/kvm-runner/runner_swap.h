/* SPDX-License-Identifier: BSD-2-Clause */
/* The devices that --swap names: opened, handed to the library, watched and reported. The main thread. */
#ifndef RUNNER_SWAP_H
#define RUNNER_SWAP_H
#include <stdbool.h>
#include <stdint.h>

#include <vmem/device.h>
#include <vmem/manager.h>
#include <vmem/store_device.h>

#include "runner_options.h"

struct swap_one {
	const char *text; /* as the user gave it */
	const char *secrecy;
	struct vmem_device *device; /* until the library has it */
	uint32_t number;            /* the library's, from then on */
	bool told_bad;
};

struct swap {
	struct swap_one one[RUNNER_MAX_SWAPS];
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
	struct vmem_store_device_stats device[RUNNER_MAX_SWAPS];
};

/* Open what the options name. Returns 0, or a negative VMEM error after a message; -VMEM_EINVAL: what the user can
 * change. swap_close() either way. */
int swap_open_all(struct swap *swap, const struct runner_options *options);

/* Give the devices to the library. Returns as above. */
int swap_hand_over(struct swap *swap, vmem_manager *manager, const struct runner_options *options);

/* Close those that the library does not have. */
void swap_close(struct swap *swap);

void swap_sample(const struct swap *swap, vmem_manager *manager, struct swap_sample *sample);

/* Tell of a device that is bad or full, and of lost pages, once each. */
void swap_watch(struct swap *swap, vmem_manager *manager);

/* What was written and read, and what is there at the end. */
void swap_print_totals(const struct swap *swap, vmem_manager *manager);

#endif
