/* SPDX-License-Identifier: BSD-2-Clause */
/* See the header. All of it is aimed at the device and none at the guest itself: rings lie in the driver's own memory,
 * before that is used, and no page number in them is inflated. */
#define VMEM_EXPERIMENTAL /* VMEM_BALLOON_RANGE */
#include "payload_abuse.h"

#include <vmem/balloon_protocol.h>

#include "payload_ports.h"
#include "virtio_registers.h"
#include "common/split_random.h"
#include "common/split_ring.h"

#define ROUNDS 50u
#define RING_AT_MOST 4096u /* of the memory: rings of up to 1024 entries fit behind it */
#define NOISE_WORDS 1024u
#define FLOOD_RING 256u
#define FLOOD_CHAIN 64u     /* pieces of a buffer */
#define FLOOD_BYTES 1024u   /* of a piece; they are all the same */
#define FLOOD_NOTIFIES 256u /* between two looks at the clock */

static void set(uint32_t offset, uint32_t value)
{
	guest_out(GUEST_PORT_VIRTIO + offset, value);
}

static void set_address(uint32_t offset, uint64_t gpa)
{
	set(offset, (uint32_t)gpa);
	set(offset + 4, (uint32_t)(gpa >> 32));
}

/* Where a part of a ring may be: as a rule in the driver's memory. */
static uint64_t some_place(const struct guest_params *p, uint64_t *random)
{
	uint64_t draw = random_next(random);

	if (draw % 16 == 0)
		return draw;
	if (draw % 16 == 1)
		return p->pages * GUEST_PAGE_SIZE - (draw >> 32) % 64;
	return p->balloon_gpa + (draw >> 32) % (RING_AT_MOST / 16) * (draw % 16 == 2 ? 1 : 16);
}

/* Numbers that descriptors and indices may be, small ones among them, and addresses of this memory. */
static void fill_with_noise(const struct guest_params *p, uint64_t *random)
{
	uint64_t *words = (uint64_t *)(uintptr_t)(p->base + p->balloon_gpa);

	for (uint32_t i = 0; i < NOISE_WORDS; i++) {
		uint64_t draw = random_next(random);

		words[i] = draw % 4 == 0   ? draw
			   : draw % 4 == 1 ? p->balloon_gpa + (draw >> 32) % RING_AT_MOST
			   : draw % 4 == 2 ? (draw >> 32) % 8
					   : (draw >> 8 & UINT64_C(0x0007000700000fff));
	}
}

static void make_ring(const struct guest_params *p, uint64_t *random)
{
	static const uint32_t sizes[] = { 0, 1, 2, 3, 4, 64, 256, 1024, 2048, 65536, UINT32_MAX };

	/* Deflate and statistics, and numbers that are no queue; never inflate. */
	set(VIRTIO_QUEUE_SELECT, 1 + (uint32_t)random_below(random, 6));
	set(VIRTIO_QUEUE_SIZE, sizes[random_below(random, sizeof(sizes) / sizeof(*sizes))]);
	set_address(VIRTIO_QUEUE_DESCRIPTORS, some_place(p, random));
	set_address(VIRTIO_QUEUE_AVAILABLE, some_place(p, random));
	set_address(VIRTIO_QUEUE_USED, some_place(p, random));
	set(VIRTIO_QUEUE_READY, 1);
	set(VIRTIO_QUEUE_SIZE, 7); /* too late */
}

/* Rings of as many entries as there are, full of noise. */
static void make_good_ring(const struct guest_params *p, uint64_t *random, uint32_t number)
{
	set(VIRTIO_QUEUE_SELECT, number);
	set(VIRTIO_QUEUE_SIZE, 1u << random_below(random, 8));
	set_address(VIRTIO_QUEUE_DESCRIPTORS, p->balloon_gpa);
	set_address(VIRTIO_QUEUE_AVAILABLE, p->balloon_gpa + 2048);
	set_address(VIRTIO_QUEUE_USED, p->balloon_gpa + RING_AT_MOST);
	set(VIRTIO_QUEUE_READY, 1);
}

/* So few buffers that the device takes the ring for one. */
static void offer(const struct guest_params *p, uint64_t *random)
{
	uint16_t *available = (uint16_t *)(uintptr_t)(p->base + p->balloon_gpa + 2048);

	available[SPLIT_RING_INDEX] = (uint16_t)random_below(random, 6);
	for (uint32_t i = 0; i < 4; i++)
		available[SPLIT_RING_ENTRIES + i] = (uint16_t)random_below(random, 5);
}

/* Notifications by index, which the device did not offer: it does not say that this will do. */
static bool refuses_features(void)
{
	set(VIRTIO_STATUS, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
	set(VIRTIO_DRIVER_FEATURES_SELECT, 0);
	set(VIRTIO_DRIVER_FEATURES, 3 | (uint32_t)SPLIT_RING_F_EVENT_IDX);
	set(VIRTIO_DRIVER_FEATURES_SELECT, 1);
	set(VIRTIO_DRIVER_FEATURES, 1);
	set(VIRTIO_STATUS, VMEM_VIRTIO_FEATURES_OK);
	return !(guest_in(GUEST_PORT_VIRTIO + VIRTIO_STATUS) & VMEM_VIRTIO_FEATURES_OK);
}

bool payload_abuse(struct guest_params *p)
{
	uint64_t random = p->seed ^ 0x6162757365;
	bool refused;

	for (uint32_t round = 0; round < ROUNDS; round++) {
		fill_with_noise(p, &random);
		set(VIRTIO_STATUS, 0);
		set(VIRTIO_STATUS, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
		for (uint32_t half = 0; half < 4; half++) {
			set(VIRTIO_DRIVER_FEATURES_SELECT, half);
			set(VIRTIO_DRIVER_FEATURES, round % 4 ? (half ? 1 : 3) : (uint32_t)random);
		}
		set(VIRTIO_STATUS, VMEM_VIRTIO_FEATURES_OK);
		if (round % 2)
			make_ring(p, &random);
		make_good_ring(p, &random, 1 + round % 2);
		set(VIRTIO_STATUS, VMEM_VIRTIO_DRIVER_OK);
		offer(p, &random);
		for (uint32_t i = 0; i < 4; i++) {
			set(VIRTIO_QUEUE_NOTIFY, 1 + (uint32_t)random_below(&random, 3));
			set(VIRTIO_DRIVER_FEATURES, (uint32_t)random); /* too late */
			set(VIRTIO_CONFIG + 4 * (uint32_t)random_below(&random, 8),
			    (uint32_t)random);
			set(4 * (uint32_t)random_below(&random, 8), (uint32_t)random);
		}
		(void)guest_in(GUEST_PORT_VIRTIO + 4 * (uint32_t)random_below(&random, 128));
	}
	set(VIRTIO_STATUS, 0);
	refused = refuses_features();
	set(VIRTIO_STATUS, 0);
	return refused;
}

/* --- Work without end --- */

/* Behind each other in the driver's memory. */
#define FLOOD_AVAILABLE SPLIT_RING_DESCRIPTORS_BYTES(FLOOD_RING)
#define FLOOD_USED (FLOOD_AVAILABLE + 1024u)
#define FLOOD_DATA (FLOOD_USED + 3072u)

static void *flood_at(const struct guest_params *p, uint64_t offset)
{
	return (void *)(uintptr_t)(p->base + p->balloon_gpa + offset);
}

/* Page numbers, too, if ranges were not agreed on. None of these pages is in the balloon. */
static void fill_flood(const struct guest_params *p)
{
	struct split_ring_descriptor *descriptors = flood_at(p, 0);
	uint64_t *entries = flood_at(p, FLOOD_DATA);

	for (uint32_t i = 0; i < FLOOD_RING; i++)
		descriptors[i] = (struct split_ring_descriptor){
			p->balloon_gpa + FLOOD_DATA, FLOOD_BYTES,
			i % FLOOD_CHAIN < FLOOD_CHAIN - 1 ? SPLIT_RING_D_NEXT : 0, (uint16_t)(i + 1)
		};
	for (uint32_t i = 0; i < FLOOD_RING + 2; i++)
		split_ring_store(flood_at(p, FLOOD_AVAILABLE), i, 0);
	split_ring_store_index(flood_at(p, FLOOD_USED), 0);
	for (uint32_t i = 0; i < FLOOD_BYTES / sizeof(*entries); i++)
		entries[i] = VMEM_BALLOON_RANGE(0, p->pages);
}

/* All that is offered is taken. */
static void start_flood(const struct guest_params *p)
{
	set(VIRTIO_STATUS, 0);
	set(VIRTIO_STATUS, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
	for (uint32_t half = 0; half < 2; half++) {
		set(VIRTIO_DEVICE_FEATURES_SELECT, half);
		set(VIRTIO_DRIVER_FEATURES_SELECT, half);
		set(VIRTIO_DRIVER_FEATURES, guest_in(GUEST_PORT_VIRTIO + VIRTIO_DEVICE_FEATURES));
	}
	set(VIRTIO_STATUS, VMEM_VIRTIO_FEATURES_OK);
	set(VIRTIO_QUEUE_SELECT, VMEM_BALLOON_DEFLATE);
	set(VIRTIO_QUEUE_SIZE, FLOOD_RING);
	set_address(VIRTIO_QUEUE_DESCRIPTORS, p->balloon_gpa);
	set_address(VIRTIO_QUEUE_AVAILABLE, p->balloon_gpa + FLOOD_AVAILABLE);
	set_address(VIRTIO_QUEUE_USED, p->balloon_gpa + FLOOD_USED);
	set(VIRTIO_QUEUE_READY, 1);
	set(VIRTIO_STATUS, VMEM_VIRTIO_FEATURES_OK | VMEM_VIRTIO_DRIVER_OK);
}

void payload_flood(struct guest_params *p)
{
	fill_flood(p);
	start_flood(p);
	while (guest_in(GUEST_PORT_TIME) != 0)
		for (uint32_t i = 0; i < FLOOD_NOTIFIES; i++) {
			uint16_t used = split_ring_load_index(flood_at(p, FLOOD_USED));

			split_ring_store_index(flood_at(p, FLOOD_AVAILABLE),
					       (uint16_t)(used + FLOOD_RING));
			set(VIRTIO_QUEUE_NOTIFY, VMEM_BALLOON_DEFLATE);
		}
	set(VIRTIO_STATUS, 0);
}
