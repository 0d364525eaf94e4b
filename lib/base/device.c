/* SPDX-License-Identifier: BSD-2-Clause */
/* What every swap device and whoever uses one looks at: see <vmem/device.h>. No state. */
#include <vmem/device.h>
#include "base/opts.h"

#define FLAGS                                                                     \
	(VMEM_DEVICE_OUTLIVES | VMEM_DEVICE_ENCRYPTED | VMEM_DEVICE_CAN_DISCARD | \
	 VMEM_DEVICE_MAPPED | VMEM_DEVICE_CACHED)

/* The first versions of the structures, which every device has. */
#define OPS_LEAST VMEMI_BYTES_TO(struct vmem_device_ops, close)
#define DEVICE_LEAST VMEMI_BYTES_TO(struct vmem_device, flags)

static int check_ops(const struct vmem_device_ops *given)
{
	struct vmem_device_ops ops;
	int error;

	error = vmemi_callbacks_take(&ops, sizeof(ops), OPS_LEAST, given);
	if (error)
		return error;
	return ops.submit && ops.complete && ops.close ? 0 : -VMEM_EINVAL;
}

int vmem_device_check(const struct vmem_device *device)
{
	struct vmem_device d;
	int error = vmemi_callbacks_take(&d, sizeof(d), DEVICE_LEAST, device);

	if (error)
		return error;
	error = check_ops(d.ops);
	if (error)
		return error;
	if (d.block_bytes < 512 || d.block_bytes > VMEM_DEVICE_BLOCK_MAX ||
	    (d.block_bytes & (d.block_bytes - 1)))
		return -VMEM_EINVAL;
	if (!d.size_bytes || d.size_bytes % d.block_bytes || !d.depth || d.depth > INT32_MAX ||
	    d.max_bytes < VMEM_DEVICE_BYTES_LEAST || d.max_bytes % d.block_bytes)
		return -VMEM_EINVAL;
	if (d.flags & ~FLAGS || (d.flags & VMEM_DEVICE_MAPPED && !d.ops->map))
		return -VMEM_EINVAL;
	return 0;
}

int vmem_device_check_request(const struct vmem_device *device,
			      const struct vmem_device_request *request)
{
	const struct vmem_device_request *r = request;
	uint64_t align = device->block_bytes - 1u;

	if (r->reserved || r->op > VMEM_DEVICE_DISCARD)
		return -VMEM_EINVAL;
	if (r->op == VMEM_DEVICE_FLUSH)
		return r->offset || r->bytes ? -VMEM_EINVAL : 0;
	if (!r->bytes || (r->offset | r->bytes) & align)
		return -VMEM_EINVAL;
	if (r->op == VMEM_DEVICE_DISCARD) {
		if (!(device->flags & VMEM_DEVICE_CAN_DISCARD))
			return -VMEM_ENOTSUP;
	} else if (r->bytes > device->max_bytes || !r->data || (uintptr_t)r->data & align) {
		return -VMEM_EINVAL;
	}
	if (r->bytes > device->size_bytes || r->offset > device->size_bytes - r->bytes)
		return -VMEM_ERANGE;
	return 0;
}

void vmem_device_close(struct vmem_device *device)
{
	if (device)
		device->ops->close(device->context);
}
