/* SPDX-License-Identifier: BSD-2-Clause */
/* A swap device as people name it on a command line, opened, and words for what is wrong with it. */
#ifndef SWAP_OPEN_H
#define SWAP_OPEN_H
#include <stdbool.h>
#include <stdint.h>

#include <vmem/allocator.h>
#include <vmem/device.h>

/* What a device must have to be of use to the library. */
#define SWAP_LEAST_BYTES (UINT64_C(2) << 20)

struct swap_open_opts {
	/* PATH[:SIZE] of a folder, a file or a block device, or the URI of an NBD server. A path that exists as it
	 * stands has no SIZE in it, whatever its name looks like. */
	const char *text;
	bool plain; /* what outlives the process need not be enciphered */
	const struct vmem_allocator *allocator;
};

/* Two sentences at the most. */
struct swap_words {
	char text[640];
};

/* Opens the device; close it with vmem_device_close(). Returns 0; -VMEM_EINVAL: who gave the text can change something;
 * or another negative VMEM error, and a file that was made for it is gone again. Then, or if there is something to be known of the device, `words` say so,
 * otherwise they are empty. */
int swap_open(struct vmem_device **ret_device, const struct swap_open_opts *opts,
	      struct swap_words *words);

/* What becomes of what is written: to be said of an open device. */
const char *swap_secrecy(const struct vmem_device *device);

#endif
