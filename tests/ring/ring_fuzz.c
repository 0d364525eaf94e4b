/* SPDX-License-Identifier: BSD-2-Clause */
/* A guest that writes anything into its ring: the first byte says which features and size, then 6 bytes a write: where
 * and what, and then the device works off what is there. Each call ends, nothing outside guest memory is touched, and
 * never more is returned than was taken. The driver's side meets the same memory. */
#include "ring_tools.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum { READ = 300, WORKS = 24 /* so often, so that many inputs are tried */ };

static void require(int condition)
{
	if (!condition)
		abort();
}

static void device_works(struct split_ring_device *device)
{
	struct vmem_balloon_piece pieces[PIECES];
	struct split_ring_buffer b = { .pieces = pieces, .most = PIECES };
	uint8_t read[READ];
	uint32_t held = 0, bound = 2 * SPLIT_RING_MOST;
	uint16_t heads[4];
	int got;

	while ((got = split_ring_device_take(device, &b)) != 0 && got != -VMEM_EIO) {
		require(bound-- != 0);
		if (got < 0)
			continue;
		require(b.readable + b.writable <= PIECES && b.readable + b.writable > 0);
		got = (int)split_ring_device_read(device, &b, b.readable_bytes / 3, read, READ);
		require(got == -VMEM_EFAULT || (got >= 0 && got <= READ));
		heads[held++] = b.head;
		while (held == 4 || (held && b.writable))
			split_ring_device_return(device, heads[--held], 1);
	}
	while (held)
		split_ring_device_return(device, heads[--held], 0);
	require(device->taken == 0);
	(void)split_ring_device_must_notify(device);
	(void)split_ring_device_listen(device);
}

static void driver_works(struct split_ring_driver *driver)
{
	const struct vmem_balloon_piece pieces[2] = { { GUEST_GPA, 8 }, { GUEST_GPA, 9 } };
	uint32_t token, written, bound = 65536;
	int got;

	while ((got = split_ring_driver_take(driver, &token, &written)) != 0) {
		require(bound-- != 0);
		require(got == -VMEM_EBADMSG || token == 5);
	}
	(void)split_ring_driver_add(driver, pieces, 1, 1, 5);
	require(driver->free_count <= driver->parts.size);
	(void)split_ring_driver_must_kick(driver);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct guest guest;
	static struct split_ring_slot slots[1 << 8];
	struct split_ring_driver driver;
	struct split_ring_device device;
	struct split_ring_device_opts opts;
	uint64_t features;
	unsigned works = 0;

	if (bytes < 1)
		return 0;
	if (!guest.rows[0] && guest_make(&guest, 8) != 0)
		return 0;
	features = (data[0] & 1 ? SPLIT_RING_F_INDIRECT : 0) |
		   (data[0] & 2 ? SPLIT_RING_F_EVENT_IDX : 0);
	memset(guest.rows[0], 0, 65536);
	guest.parts.size = 1u << (data[0] >> 2 & 7);
	opts = guest_opts(&guest, features);
	/* The parts lie where they do for 8 entries, so larger ones overlap: as hostile as any. */
	require(split_ring_driver_start(&driver, &guest.parts, slots, features) == 0);
	require(split_ring_device_start(&device, &opts) == 0);
	for (data++, bytes--; bytes >= 6; data += 6, bytes -= 6) {
		memcpy(guest.rows[0] + (data[0] | data[1] << 8) % 512, data + 2, 4);
		if (data[1] & 0x80 && works++ < WORKS)
			device_works(&device);
		if (data[1] & 0x40)
			driver_works(&driver);
	}
	device_works(&device);
	driver_works(&driver);
	return 0;
}
