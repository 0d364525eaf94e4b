/* SPDX-License-Identifier: BSD-2-Clause */
/* What <vmem/device.h> asks of every device, as a test that any of them can be put through. Ends the program where
 * one does not do it. */
#ifndef VMEMT_DEVICE_SUITE_H
#define VMEMT_DEVICE_SUITE_H
#include <stdbool.h>
#include <vmem/device.h>

#define VMEMT_DEVICE_BYTES (UINT64_C(8) << 20)
#define VMEMT_DEVICE_DEPTH 16u

struct vmemt_device_kind {
	const char *name;
	/* A device of VMEMT_DEVICE_BYTES and, at most, VMEMT_DEVICE_DEPTH requests. NULL: there is none here. */
	struct vmem_device *(*open)(void *context);
	void *context;
};

/* False: it could not be opened. */
bool vmemt_device_conforms(const struct vmemt_device_kind *kind);

/* For tests of one kind: submits one request, and waits for it. What submit() or the completion said. */
int vmemt_device_do(struct vmem_device *d, uint32_t op, uint64_t offset, void *data,
		    uint64_t bytes);
/* Aligned memory, to be freed with free(). */
unsigned char *vmemt_device_buffer(uint64_t bytes);
/* Bytes that are only there. */
void vmemt_device_fill(unsigned char *data, uint64_t bytes, uint64_t what);
bool vmemt_device_is_filled(const unsigned char *data, uint64_t bytes, uint64_t what);
/* Waits until @d has completions, and takes them. */
uint32_t vmemt_device_await(struct vmem_device *d, struct vmem_device_completion *out,
			    uint32_t max);

#endif
