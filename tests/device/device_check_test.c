/* SPDX-License-Identifier: BSD-2-Clause */
/* What a device and a request must be like. */
#include <criterion/criterion.h>
#include <vmem/device.h>

static int submit(void *context, const struct vmem_device_request *requests, uint32_t count)
{
	(void)context, (void)requests;
	return (int)count;
}

static int complete(void *context, struct vmem_device_completion *completions, uint32_t max)
{
	(void)context, (void)completions, (void)max;
	return 0;
}

static void *map(void *context, uint64_t offset, uint64_t bytes)
{
	(void)context, (void)offset, (void)bytes;
	return NULL;
}

static void close_device(void *context)
{
	++*(int *)context;
}

static struct vmem_device_ops good_ops(void)
{
	return (struct vmem_device_ops){
		.size = sizeof(struct vmem_device_ops),
		.submit = submit,
		.complete = complete,
		.close = close_device,
	};
}

static struct vmem_device good_device(const struct vmem_device_ops *ops)
{
	return (struct vmem_device){
		.size = sizeof(struct vmem_device),
		.ops = ops,
		.size_bytes = 8 << 20,
		.block_bytes = 4096,
		.max_bytes = 1 << 20,
		.depth = 1,
		.flags = VMEM_DEVICE_CAN_DISCARD | VMEM_DEVICE_OUTLIVES | VMEM_DEVICE_ENCRYPTED |
			 VMEM_DEVICE_CACHED,
	};
}

/* A good device with one field changed. */
#define EXPECT_DEVICE(error, change)                                   \
	do {                                                           \
		struct vmem_device_ops o = good_ops();                 \
		struct vmem_device d = good_device(&o);                \
		change;                                                \
		cr_expect_eq(vmem_device_check(&d), (error), #change); \
	} while (0)

Test(device_check, fields_of_a_device)
{
	EXPECT_DEVICE(0, (void)0);
	EXPECT_DEVICE(0, d.block_bytes = 512);
	EXPECT_DEVICE(-VMEM_EINVAL, d.block_bytes = 256);
	EXPECT_DEVICE(-VMEM_EINVAL, d.block_bytes = 8192);
	EXPECT_DEVICE(-VMEM_EINVAL, d.block_bytes = 1536);
	EXPECT_DEVICE(-VMEM_EINVAL, d.block_bytes = 0);
	EXPECT_DEVICE(-VMEM_EINVAL, d.size_bytes = 0);
	EXPECT_DEVICE(-VMEM_EINVAL, d.size_bytes += 512);
	EXPECT_DEVICE(0, d.size_bytes = 4096);
	EXPECT_DEVICE(-VMEM_EINVAL, d.depth = 0);
	EXPECT_DEVICE(-VMEM_EINVAL, d.depth = UINT32_MAX);
	EXPECT_DEVICE(-VMEM_EINVAL, d.max_bytes = (1 << 20) - 4096);
	EXPECT_DEVICE(-VMEM_EINVAL, d.max_bytes += 512);
	EXPECT_DEVICE(-VMEM_EINVAL, d.flags = UINT32_C(1) << 31);
	EXPECT_DEVICE(-VMEM_EINVAL, d.flags = VMEM_DEVICE_MAPPED);
	EXPECT_DEVICE(0, (d.flags = VMEM_DEVICE_MAPPED, o.map = map));
	EXPECT_DEVICE(-VMEM_EINVAL, d.size = offsetof(struct vmem_device, flags));
	EXPECT_DEVICE(-VMEM_EINVAL, d.ops = NULL);
	EXPECT_DEVICE(-VMEM_EINVAL, o.size = offsetof(struct vmem_device_ops, close));
	EXPECT_DEVICE(-VMEM_EINVAL, o.submit = NULL);
	EXPECT_DEVICE(-VMEM_EINVAL, o.complete = NULL);
	EXPECT_DEVICE(-VMEM_EINVAL, o.close = NULL);
	cr_expect_eq(vmem_device_check(NULL), -VMEM_EINVAL);
}

Test(device_check, newer_than_the_library)
{
	struct {
		struct vmem_device known;
		uint64_t unknown;
	} d;
	struct vmem_device_ops o = good_ops();

	d.known = good_device(&o);
	d.known.size = sizeof(d);
	d.unknown = 0;
	cr_expect_eq(vmem_device_check(&d.known), 0);
	d.unknown = 1;
	cr_expect_eq(vmem_device_check(&d.known), -VMEM_E2BIG);
}

static _Alignas(4096) unsigned char page[4096];

static struct vmem_device_request good_request(void)
{
	return (struct vmem_device_request){ .bytes = 4096, .data = page };
}

/* A good request of a good device with something changed. */
#define EXPECT_REQUEST(error, change)                                              \
	do {                                                                       \
		struct vmem_device_ops o = good_ops();                             \
		struct vmem_device d = good_device(&o);                            \
		struct vmem_device_request r = good_request();                     \
		change;                                                            \
		cr_expect_eq(vmem_device_check_request(&d, &r), (error), #change); \
	} while (0)

Test(device_check, requests)
{
	EXPECT_REQUEST(0, (void)d);
	EXPECT_REQUEST(0, r.op = VMEM_DEVICE_WRITE);
	EXPECT_REQUEST(-VMEM_EINVAL, r.op = 4);
	EXPECT_REQUEST(-VMEM_EINVAL, r.reserved = 1);
	EXPECT_REQUEST(-VMEM_EINVAL, r.offset = 512);
	EXPECT_REQUEST(-VMEM_EINVAL, r.bytes = 512);
	EXPECT_REQUEST(0, (d.block_bytes = 512, r.bytes = 512, r.offset = 512));
	EXPECT_REQUEST(0, (d.block_bytes = 512, r.data = page + 512));
	EXPECT_REQUEST(-VMEM_EINVAL, r.bytes = 0);
	EXPECT_REQUEST(-VMEM_EINVAL, r.data = page + 512);
	EXPECT_REQUEST(-VMEM_EINVAL, r.data = NULL);
	EXPECT_REQUEST(0, r.bytes = d.max_bytes);
	EXPECT_REQUEST(-VMEM_EINVAL, r.bytes = d.max_bytes + 4096);
	EXPECT_REQUEST(0, r.offset = d.size_bytes - 4096);
	EXPECT_REQUEST(-VMEM_ERANGE, r.offset = d.size_bytes);
	EXPECT_REQUEST(-VMEM_ERANGE, (r.offset = d.size_bytes - 4096, r.bytes = 8192));
	EXPECT_REQUEST(-VMEM_ERANGE, r.offset = UINT64_MAX - 4095);
}

Test(device_check, requests_without_data)
{
	EXPECT_REQUEST(0, r = (struct vmem_device_request){ .op = VMEM_DEVICE_FLUSH });
	EXPECT_REQUEST(-VMEM_EINVAL, r.op = VMEM_DEVICE_FLUSH);
	EXPECT_REQUEST(0, (r.op = VMEM_DEVICE_DISCARD, r.data = NULL));
	EXPECT_REQUEST(0, (r.op = VMEM_DEVICE_DISCARD, r.bytes = d.size_bytes));
	EXPECT_REQUEST(-VMEM_ERANGE, (r.op = VMEM_DEVICE_DISCARD, r.bytes = d.size_bytes + 4096));
	EXPECT_REQUEST(-VMEM_EINVAL, (r.op = VMEM_DEVICE_DISCARD, r.bytes = 0));
	EXPECT_REQUEST(-VMEM_ENOTSUP, (r.op = VMEM_DEVICE_DISCARD, d.flags = 0));
}

Test(device_check, close)
{
	struct vmem_device_ops o = good_ops();
	struct vmem_device d = good_device(&o);
	int closed = 0;

	d.context = &closed;
	vmem_device_close(&d);
	cr_expect_eq(closed, 1);
	vmem_device_close(NULL);
}
