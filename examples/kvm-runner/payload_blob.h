/* SPDX-License-Identifier: BSD-2-Clause */
/* The freestanding payload, as it lies in guest memory at GUEST_PAYLOAD_GPA. */
#ifndef PAYLOAD_BLOB_H
#define PAYLOAD_BLOB_H
#include <stdint.h>

extern const unsigned char payload_blob[];
extern const uint32_t payload_blob_bytes;

#endif
