/* SPDX-License-Identifier: BSD-2-Clause */
/* Status, features, the numbers of queues, the configuration space (VIRTIO 1.3, 5.5.2 to 5.5.5). */
#include "balloon/balloon_internal.h"
#include "base/mem.h"

/* Bits 24 to 49 (2.2) but VERSION_1 are the transport's and the queues'. */
#define TRANSPORT_FEATURES (((UINT64_C(1) << 50) - (UINT64_C(1) << 24)) & ~VMEM_VIRTIO_F_VERSION_1)

/* The feature that a queue is there with; 0: always. */
static const uint64_t feature_of[VMEM_BALLOON_QUEUES] = {
	[VMEM_BALLOON_STATS] = VMEM_BALLOON_F_STATS_VQ,
	[VMEM_BALLOON_HINT] = VMEM_BALLOON_F_FREE_PAGE_HINT,
	[VMEM_BALLOON_REPORT] = VMEM_BALLOON_F_PAGE_REPORTING,
};

static bool there(uint64_t features, uint32_t queue)
{
	return !feature_of[queue] || (features & feature_of[queue]);
}

static bool twice(const uint32_t *numbers, uint64_t features)
{
	for (uint32_t i = 0; i < VMEM_BALLOON_QUEUES; i++)
		for (uint32_t j = 0; j < i; j++)
			if (there(features, i) && there(features, j) && numbers[i] == numbers[j])
				return true;
	return false;
}

int vmem_balloon_number_queues(enum vmem_balloon_queue_map map, uint64_t offered,
			       uint64_t negotiated, const uint32_t *given, uint32_t *ret_numbers)
{
	uint32_t number, next = 0;

	if (map > VMEM_BALLOON_MAP_GIVEN ||
	    (map == VMEM_BALLOON_MAP_GIVEN && (!given || twice(given, offered))))
		return -VMEM_EINVAL;
	for (uint32_t i = 0; i < VMEM_BALLOON_QUEUES; i++) {
		number = next;
		if (map == VMEM_BALLOON_MAP_SPEC)
			number = i;
		else if (map == VMEM_BALLOON_MAP_GIVEN)
			number = given[i];
		ret_numbers[i] = there(negotiated, i) ? number : VMEM_BALLOON_NO_QUEUE;
		next += there(map == VMEM_BALLOON_MAP_OFFERED ? offered : negotiated, i);
	}
	return 0;
}

bool vmemi_balloon_has(const vmem_balloon *b, uint64_t feature)
{
	return b->negotiated && (b->features & feature);
}

bool vmemi_balloon_remembers(const vmem_balloon *b)
{
	return vmemi_balloon_has(b, VMEM_BALLOON_F_MUST_TELL_HOST);
}

bool vmemi_balloon_big_endian(const vmem_balloon *b)
{
	return (b->flags & VMEM_BALLOON_LEGACY_BIG_ENDIAN) &&
	       !(b->features & VMEM_VIRTIO_F_VERSION_1);
}

bool vmemi_balloon_poisons(const vmem_balloon *b)
{
	return vmemi_balloon_has(b, VMEM_BALLOON_F_PAGE_POISON) && b->poison;
}

/* Whether the driver's features will do; then they are negotiated. Rule: 5.5.6.1, a legacy driver need not tell. */
static bool negotiate(vmem_balloon *b)
{
	bool legacy = !(b->features & VMEM_VIRTIO_F_VERSION_1);

	if (b->negotiated)
		return true;
	if (b->features & ~b->offered)
		return false;
	if ((b->flags & VMEM_BALLOON_REQUIRE_TELL) && !legacy &&
	    (b->offered & ~b->features & VMEM_BALLOON_F_MUST_TELL_HOST))
		return false;
	b->negotiated = true;
	/* What was given holds for fewer queues too. */
	(void)vmem_balloon_number_queues(b->map, b->offered, b->features, b->given, b->numbers);
	return true;
}

int vmem_balloon_set_features(vmem_balloon *b, uint64_t features)
{
	features &= ~TRANSPORT_FEATURES;
	b->refused = b->negotiated && features != b->features;
	if (b->refused) {
		b->counters.late_writes++;
		return -VMEM_EBUSY;
	}
	b->features = features;
	b->written = true;
	return 0;
}

static void reset(vmem_balloon *b)
{
	if (!b->status && !b->written && !b->negotiated)
		return;
	vmemi_balloon_hint_reset(b);
	vmemi_balloon_empty(b);
	b->features = 0;
	b->negotiated = b->written = b->refused = false;
	b->status = 0;
	memset(b->actual_bytes, 0, sizeof(b->actual_bytes));
	b->actual = b->poison = 0;
	b->part.busy = false;
	b->done_first = b->done_count = 0;
	b->stats_held = b->stats_seen = b->stats_told = false;
	memset(&b->guest, 0, sizeof(b->guest));
	vmemi_balloon_target_reset(b);
	b->counters.resets++;
	vmemi_balloon_event(b, VMEM_BALLOON_EVENT_RESET);
}

void vmem_balloon_set_status(vmem_balloon *b, uint32_t status, uint32_t *ret_status)
{
	const uint32_t legacy = !(b->features & VMEM_VIRTIO_F_VERSION_1);

	if (!status) {
		reset(b);
	} else {
		status |= b->status; /* bits are only ever added (2.1.1) */
		if ((status & ~b->status & VMEM_VIRTIO_FEATURES_OK) &&
		    (b->refused || !negotiate(b)))
			status &= ~VMEM_VIRTIO_FEATURES_OK;
		if ((status & VMEM_VIRTIO_DRIVER_OK) &&
		    (!(legacy || (status & VMEM_VIRTIO_FEATURES_OK)) || !negotiate(b)))
			status &= ~VMEM_VIRTIO_DRIVER_OK;
		b->status = status;
	}
	if (ret_status)
		*ret_status = b->status;
}

/* Legacy drivers may use queues before DRIVER_OK (3.1.2). Until features are written, only what is offered tells whether
 * it is one. */
static bool is_early(const vmem_balloon *b)
{
	uint64_t features = b->written ? b->features : b->offered;

	return (b->status & VMEMI_VIRTIO_DRIVER) && !(features & VMEM_VIRTIO_F_VERSION_1);
}

bool vmemi_balloon_ready(vmem_balloon *b, uint32_t queue)
{
	return ((b->status & VMEM_VIRTIO_DRIVER_OK) || is_early(b)) && negotiate(b) &&
	       b->numbers[queue] != VMEM_BALLOON_NO_QUEUE;
}

int vmem_balloon_queue_of(const vmem_balloon *b, uint32_t number,
			  enum vmem_balloon_queue *ret_queue)
{
	uint32_t numbers[VMEM_BALLOON_QUEUES];

	memcpy(numbers, b->numbers, sizeof(numbers));
	if (number == VMEM_BALLOON_NO_QUEUE || (!b->negotiated && !is_early(b)))
		return -VMEM_ENOENT;
	if (!b->negotiated)
		(void)vmem_balloon_number_queues(b->map, b->offered, b->features & b->offered,
						 b->given, numbers);
	for (uint32_t i = 0; i < VMEM_BALLOON_QUEUES; i++)
		if (numbers[i] == number) {
			*ret_queue = (enum vmem_balloon_queue)i;
			return 0;
		}
	return -VMEM_ENOENT;
}

uint32_t vmem_balloon_config_bytes(const vmem_balloon *b)
{
	if (b->offered & VMEM_BALLOON_F_PAGE_POISON)
		return VMEM_BALLOON_CONFIG_BYTES;
	return b->offered & VMEM_BALLOON_F_FREE_PAGE_HINT ? VMEM_BALLOON_CONFIG_POISON
							  : VMEM_BALLOON_CONFIG_HINT_ID;
}

static void put_le32(uint8_t *bytes, uint32_t value)
{
	for (uint32_t i = 0; i < 4; i++)
		bytes[i] = (uint8_t)(value >> 8 * i);
}

static uint32_t get_le32(const uint8_t *bytes)
{
	return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
	       (uint32_t)bytes[3] << 24;
}

int vmem_balloon_config_read(const vmem_balloon *b, uint32_t offset, void *bytes, uint32_t count)
{
	uint8_t space[VMEM_BALLOON_CONFIG_BYTES];
	uint32_t size = vmem_balloon_config_bytes(b);
	uint32_t readable = offset < size ? size - offset : 0;

	put_le32(space + VMEM_BALLOON_CONFIG_TARGET, (uint32_t)b->told);
	memcpy(space + VMEM_BALLOON_CONFIG_ACTUAL, b->actual_bytes, sizeof(b->actual_bytes));
	put_le32(space + VMEM_BALLOON_CONFIG_HINT_ID, b->hint_id);
	put_le32(space + VMEM_BALLOON_CONFIG_POISON, b->poison);
	if (readable > count)
		readable = count;
	memset(bytes, 0, count);
	if (readable)
		memcpy(bytes, space + offset, readable);
	return readable < count ? -VMEM_ERANGE : 0;
}

/* A byte of the configuration space. false: it is not to be written, or not now. */
static bool write_byte(vmem_balloon *b, uint32_t offset, uint8_t byte)
{
	uint8_t poison[4];

	if (offset - VMEM_BALLOON_CONFIG_ACTUAL < 4) {
		b->actual_bytes[offset - VMEM_BALLOON_CONFIG_ACTUAL] = byte;
		if (offset != VMEM_BALLOON_CONFIG_ACTUAL + 3) /* 5.5.6: not before the last byte */
			return true;
		b->actual = get_le32(b->actual_bytes);
		vmemi_balloon_claim(b);
		return true;
	}
	if (offset < VMEM_BALLOON_CONFIG_POISON || (b->status & VMEM_VIRTIO_DRIVER_OK) ||
	    !(b->features & VMEM_BALLOON_F_PAGE_POISON))
		return false;
	put_le32(poison, b->poison);
	poison[offset - VMEM_BALLOON_CONFIG_POISON] = byte;
	b->poison = get_le32(poison);
	return true;
}

int vmem_balloon_config_write(vmem_balloon *b, uint32_t offset, const void *bytes, uint32_t count)
{
	uint32_t size = vmem_balloon_config_bytes(b);
	uint8_t byte;
	int err = 0;

	for (uint32_t i = 0; i < count; i++) {
		if (offset >= size || i >= size - offset)
			return -VMEM_ERANGE;
		memcpy(&byte, (const uint8_t *)bytes + i, 1);
		if (!write_byte(b, offset + i, byte))
			err = -VMEM_EPERM;
	}
	b->counters.late_writes += err != 0;
	return err;
}
