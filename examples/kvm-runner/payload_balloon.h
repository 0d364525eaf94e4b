/* SPDX-License-Identifier: BSD-2-Clause */
/* The payload's balloon driver: libvmem's driver core, with the ports as its transport. vCPU 0 alone. */
#ifndef PAYLOAD_BALLOON_H
#define PAYLOAD_BALLOON_H
#include <stdbool.h>

#include "guest_abi.h"

/* The memory that it needs at params->balloon_gpa, in a guest with so many pages. */
#define PAYLOAD_BALLOON_SPANS(pages) ((pages) / 16 + 64) /* rows of pages that it can give */
#define PAYLOAD_BALLOON_ENTRIES 2048u                    /* of a buffer */
#define PAYLOAD_BALLOON_BYTES(pages) \
	(16384u + PAYLOAD_BALLOON_ENTRIES * 16 + PAYLOAD_BALLOON_SPANS(pages) * 8)

struct payload_balloon;

/* Finds the device and sets it up. NULL: it cannot. */
struct payload_balloon *payload_balloon_start(struct guest_params *params);

/* Looks at what the device has said, and does what is to be done; a part of it, if that is much. */
void payload_balloon_poll(struct payload_balloon *balloon);

#endif
