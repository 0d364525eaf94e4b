/* SPDX-License-Identifier: BSD-2-Clause */
/* A guest that fills the balloon's rings with the longest chains there are, fills them up while they are worked off,
 * and notifies without end. What a notification does is bounded, as a count of buffers and pages; what is left is done
 * by later ones or by the main thread, and nothing is lost; a VM that is told to stop does nothing more. The device is
 * the runner's, its registers are written as a vCPU does it, and guest memory is ordinary memory. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define VMEM_EXPERIMENTAL /* VMEM_BALLOON_F_RANGES */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kvm-runner/runner_alloc.h"
#include "kvm-runner/runner_balloon.h"
#include "kvm-runner/runner_print.h"
#include "kvm-runner/runner_vcpu.h"
#include "kvm-runner/virtio_registers.h"
#include "support/deadline.h"

enum {
	MEM_BYTES = 64 << 20,
	PAGES = MEM_BYTES >> GUEST_PAGE_SHIFT,
	LOW_BYTES = 1 << 20,
	RING = 1024,
	RING_BYTES = 64 << 10, /* of memory for each of the two */
	DATA_GPA = 2 * RING_BYTES,
	DATA_BYTES = BALLOON_READ_MOST / BALLOON_PIECES, /* each piece is these */
};
#define TURN_PAGES (BALLOON_TURN_PARTS * (uint64_t)VMEM_BALLOON_WORK_PAGES)

struct rig {
	struct runner_options options;
	struct runner runner;
	struct vm vm;
	struct balloon b;
	_Atomic bool over;
};

/* --- What the device needs of the runner --- */

uint64_t runner_now_ns(void)
{
	static _Atomic uint64_t now;

	return atomic_fetch_add(&now, 1) + 1;
}

void print_line(const char *text, ...)
{
	(void)text;
}

void print_error(const char *text, ...)
{
	(void)text;
}

/* --- The guest --- */

static void set(struct rig *r, uint32_t offset, uint32_t value)
{
	balloon_set_register(&r->b, offset, value);
}

static uint16_t *part_of(const struct rig *r, uint64_t gpa)
{
	return (uint16_t *)(void *)(r->vm.hva + gpa);
}

static uint64_t available_of(uint32_t queue)
{
	return queue * RING_BYTES + SPLIT_RING_DESCRIPTORS_BYTES(RING);
}

static uint64_t used_of(uint32_t queue)
{
	return available_of(queue) + 4096;
}

static uint16_t used(const struct rig *r, uint32_t queue)
{
	return split_ring_load_index(part_of(r, used_of(queue)));
}

/* As many buffers are available as there are entries, however many have been returned. */
static void fill_up(const struct rig *r, uint32_t queue)
{
	split_ring_store_index(part_of(r, available_of(queue)), (uint16_t)(used(r, queue) + RING));
}

/* Each entry of the ring is a chain of @pieces; they are all the same bytes. */
static void make_chains(const struct rig *r, uint32_t queue, uint32_t pieces, uint32_t bytes)
{
	struct split_ring_descriptor *d = (void *)part_of(r, queue * RING_BYTES);
	uint16_t *entries = part_of(r, available_of(queue)) + SPLIT_RING_ENTRIES;

	for (uint32_t i = 0; i < RING; i++) {
		bool more = i % pieces < pieces - 1;

		d[i] = (struct split_ring_descriptor){ DATA_GPA, bytes,
						       more ? SPLIT_RING_D_NEXT : 0,
						       (uint16_t)(i + 1) };
		entries[i] = (uint16_t)(i * pieces % RING);
	}
}

static void make_queue(struct rig *r, uint32_t queue)
{
	set(r, VIRTIO_QUEUE_SELECT, queue);
	set(r, VIRTIO_QUEUE_SIZE, RING);
	set(r, VIRTIO_QUEUE_DESCRIPTORS, queue * RING_BYTES);
	set(r, VIRTIO_QUEUE_AVAILABLE, (uint32_t)available_of(queue));
	set(r, VIRTIO_QUEUE_USED, (uint32_t)used_of(queue));
	set(r, VIRTIO_QUEUE_READY, 1);
	assert(r->b.queues[queue].ready);
}

static void start_device(struct rig *r, uint64_t features)
{
	set(r, VIRTIO_STATUS, 0);
	set(r, VIRTIO_STATUS, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
	for (uint32_t half = 0; half < 2; half++) {
		set(r, VIRTIO_DRIVER_FEATURES_SELECT, half);
		set(r, VIRTIO_DRIVER_FEATURES, (uint32_t)(features >> 32 * half));
	}
	set(r, VIRTIO_STATUS, VMEM_VIRTIO_FEATURES_OK);
	memset(r->vm.hva, 0, LOW_BYTES);
	make_queue(r, VMEM_BALLOON_INFLATE);
	make_queue(r, VMEM_BALLOON_DEFLATE);
	set(r, VIRTIO_STATUS, VMEM_VIRTIO_FEATURES_OK | VMEM_VIRTIO_DRIVER_OK);
	assert(r->b.status & VMEM_VIRTIO_DRIVER_OK);
}

/* The longest buffers that are read, of the most work: each entry is all pages behind the low part. */
static void flood(struct rig *r)
{
	uint64_t first = LOW_BYTES >> GUEST_PAGE_SHIFT, *entries = (void *)part_of(r, DATA_GPA);

	start_device(r, r->b.offered);
	for (uint32_t queue = 0; queue < 2; queue++)
		make_chains(r, queue, BALLOON_PIECES, DATA_BYTES);
	for (uint32_t i = 0; i < DATA_BYTES / sizeof(*entries); i++)
		entries[i] = VMEM_BALLOON_RANGE(first, PAGES - first);
	for (uint32_t queue = 0; queue < 2; queue++)
		fill_up(r, queue);
}

/* --- The rig --- */

static void make_device(struct rig *r)
{
	struct vmem_balloon_opts opts = { .size = sizeof(opts),
					  .features = VMEM_BALLOON_F_MUST_TELL_HOST |
						      VMEM_BALLOON_F_RANGES |
						      VMEM_VIRTIO_F_VERSION_1 };
	struct vmem_discard_opts discard = { .size = sizeof(discard) };
	struct vmem_discard_piece piece = { .size = sizeof(piece),
					    .kind = VMEM_DISCARD_PRIVATE,
					    .gpa = LOW_BYTES,
					    .bytes = MEM_BYTES - LOW_BYTES,
					    .hva = r->vm.hva + LOW_BYTES };

	r->b.vm = &r->vm;
	r->b.offered = opts.features;
	r->b.bytes = alloc_new(BALLOON_READ_MOST);
	assert(r->b.bytes && pthread_mutex_init(&r->b.lock, NULL) == 0);
	assert(vmem_balloon_new(&r->b.core, &opts) == 0);
	assert(vmem_balloon_add_ram(r->b.core, 0, MEM_BYTES, GUEST_PAGE_SIZE) == 0);
	assert(vmem_discard_new(&r->b.discard, &discard) == 0);
	assert(vmem_discard_add(r->b.discard, &piece) == 0);
}

static struct rig *make_rig(void)
{
	struct rig *r = calloc(1, sizeof(*r));

	assert(r);
	r->options.mem_bytes = MEM_BYTES;
	r->options.balloon_keep = true;
	r->runner.options = &r->options;
	r->vm.runner = &r->runner;
	r->vm.balloon = &r->b;
	r->vm.layout.pinned_bytes = LOW_BYTES;
	r->vm.hva =
		mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert(r->vm.hva != MAP_FAILED);
	make_device(r);
	return r;
}

static void end_rig(struct rig *r)
{
	vmem_discard_free(r->b.discard);
	vmem_balloon_free(r->b.core);
	alloc_free(r->b.bytes);
	pthread_mutex_destroy(&r->b.lock);
	munmap(r->vm.hva, MEM_BYTES);
	free(r);
}

static struct vmem_balloon_counters counters_of(const struct rig *r)
{
	struct vmem_balloon_counters c = { .size = sizeof(c) };

	assert(vmem_balloon_get_counters(r->b.core, &c) == 0);
	return c;
}

/* That the device looked at. */
static uint64_t pages_seen(const struct rig *r)
{
	struct vmem_balloon_counters c = counters_of(r);

	return c.inflated + c.inflated_twice + c.deflated + c.not_inflated;
}

/* --- Tests --- */

/* Buffers of a page each: so many a turn, each returned once, by the main thread if nobody notifies again. */
static void the_rest_is_done_later(struct rig *r)
{
	uint32_t page = LOW_BYTES >> GUEST_PAGE_SHIFT;
	uint8_t returned[RING] = { 0 };
	const uint32_t *entry;

	start_device(r, r->b.offered & ~VMEM_BALLOON_F_RANGES);
	make_chains(r, VMEM_BALLOON_INFLATE, 1, sizeof(page));
	memcpy(part_of(r, DATA_GPA), &page, sizeof(page));
	fill_up(r, VMEM_BALLOON_INFLATE);
	set(r, VIRTIO_QUEUE_NOTIFY, VMEM_BALLOON_INFLATE);
	assert(used(r, VMEM_BALLOON_INFLATE) == BALLOON_TURN_PARTS);
	assert(counters_of(r).buffers == BALLOON_TURN_PARTS);
	for (uint32_t i = 2; i <= RING / BALLOON_TURN_PARTS; i++) {
		balloon_tick(&r->vm, runner_now_ns());
		assert(used(r, VMEM_BALLOON_INFLATE) == i * BALLOON_TURN_PARTS);
	}
	balloon_tick(&r->vm, runner_now_ns());
	assert(used(r, VMEM_BALLOON_INFLATE) == RING);
	assert(counters_of(r).inflated == 1 && counters_of(r).inflated_twice == RING - 1);
	entry = (const uint32_t *)(void *)part_of(r, used_of(VMEM_BALLOON_INFLATE)) + 1;
	for (uint32_t i = 0; i < RING; i++)
		assert(returned[entry[2 * i]]++ == 0);
}

/* A buffer of more work than a turn's goes on where it was. */
static void long_buffers_in_parts(struct rig *r)
{
	uint64_t before, pages = PAGES - (LOW_BYTES >> GUEST_PAGE_SHIFT);
	uint64_t of_buffer = pages * (BALLOON_READ_MOST / sizeof(uint64_t));

	flood(r);
	before = pages_seen(r);
	set(r, VIRTIO_QUEUE_NOTIFY, VMEM_BALLOON_INFLATE);
	assert(used(r, VMEM_BALLOON_INFLATE) == 0 && pages_seen(r) > before);
	assert(pages_seen(r) - before <= TURN_PAGES);
	set(r, VIRTIO_QUEUE_NOTIFY, VMEM_BALLOON_DEFLATE);
	assert(pages_seen(r) - before <= 2 * TURN_PAGES);
	assert(used(r, VMEM_BALLOON_DEFLATE) == 0);
	for (uint64_t turns = 0; used(r, VMEM_BALLOON_INFLATE) == 0; turns++) {
		assert(turns <= of_buffer / TURN_PAGES + 1);
		balloon_tick(&r->vm, runner_now_ns());
	}
	assert(pages_seen(r) - before >= of_buffer);
}

static void a_stopped_vm_does_nothing(struct rig *r)
{
	struct vmem_balloon_counters before;
	uint64_t seen;

	flood(r);
	set(r, VIRTIO_QUEUE_NOTIFY, VMEM_BALLOON_INFLATE);
	before = counters_of(r);
	seen = pages_seen(r);
	atomic_store(&r->vm.stop, true);
	for (uint32_t i = 0; i < 4; i++) {
		set(r, VIRTIO_QUEUE_NOTIFY, i % 2);
		balloon_tick(&r->vm, runner_now_ns());
	}
	assert(counters_of(r).buffers == before.buffers && pages_seen(r) == seen);
	atomic_store(&r->vm.stop, false);
	balloon_tick(&r->vm, runner_now_ns());
	assert(pages_seen(r) > seen);
}

static struct vmem_discard_metrics metrics_of(const struct rig *r)
{
	struct vmem_discard_metrics m = { .size = sizeof(m) };

	assert(vmem_discard_get_metrics(r->b.discard, &m) == 0);
	return m;
}

/* A page that could not be given back goes later, without a notification. */
static void what_was_locked_goes_later(struct rig *r)
{
	uint32_t page = LOW_BYTES >> GUEST_PAGE_SHIFT;
	volatile uint8_t *at = r->vm.hva + LOW_BYTES;

	start_device(r, r->b.offered & ~VMEM_BALLOON_F_RANGES);
	make_chains(r, VMEM_BALLOON_INFLATE, 1, sizeof(page));
	memcpy(part_of(r, DATA_GPA), &page, sizeof(page));
	*at = 1;
	/* Sanitizers make nothing of mlock(). */
	assert(syscall(SYS_mlock, at, GUEST_PAGE_SIZE) == 0);
	split_ring_store_index(part_of(r, available_of(VMEM_BALLOON_INFLATE)), 1);
	set(r, VIRTIO_QUEUE_NOTIFY, VMEM_BALLOON_INFLATE);
	assert(metrics_of(r).inflated.pinned == GUEST_PAGE_SIZE && *at == 1);
	assert(syscall(SYS_munlock, at, GUEST_PAGE_SIZE) == 0);
	balloon_tick(&r->vm, 999999999); /* not a second after the last time */
	assert(!metrics_of(r).retried.asked && *at == 1);
	balloon_tick(&r->vm, 1000000000);
	assert(metrics_of(r).retried.released == GUEST_PAGE_SIZE && *at == 0);
}

static void *refill(void *argument)
{
	struct rig *r = argument;

	while (!atomic_load(&r->over))
		for (uint32_t queue = 0; queue < 2; queue++)
			fill_up(r, queue);
	return NULL;
}

static void *notify_for_ever(void *argument)
{
	struct rig *r = argument;

	for (uint32_t i = 0; !atomic_load(&r->vm.stop); i++)
		set(r, VIRTIO_QUEUE_NOTIFY, i % 2);
	return NULL;
}

/* A ring that is never empty does not keep a notification; until @most buffers are done. */
static void refilled_for_ever(struct rig *r, uint32_t pieces, uint32_t bytes, uint64_t most)
{
	uint64_t end_ms = vmemt_now_ms() + VMEMT_DEADLINE_MS, buffers = 0, before, seen;
	pthread_t thread;

	flood(r);
	for (uint32_t queue = 0; queue < 2; queue++)
		make_chains(r, queue, pieces, bytes);
	assert(pthread_create(&thread, NULL, refill, r) == 0);
	for (uint32_t i = 0; buffers < most; i++) {
		before = buffers;
		seen = pages_seen(r);
		set(r, VIRTIO_QUEUE_NOTIFY, i % 2);
		buffers = counters_of(r).buffers;
		assert(buffers - before <= BALLOON_TURN_PARTS);
		assert(pages_seen(r) - seen <= TURN_PAGES);
		VMEMT_NOT_AFTER(end_ms, "buffers of a ring that is filled up");
	}
	atomic_store(&r->over, true);
	pthread_join(thread, NULL);
	assert(!r->b.broken);
}

static void refilled_with_short_buffers(struct rig *r)
{
	refilled_for_ever(r, 1, sizeof(uint64_t), 4 * RING);
}

static void refilled_with_long_buffers(struct rig *r)
{
	refilled_for_ever(r, BALLOON_PIECES, DATA_BYTES, 4);
}

/* The main thread tells the VM to stop while two vCPUs notify for ever. */
static void stop_ends_a_flood(struct rig *r)
{
	pthread_t vcpus[2];

	flood(r);
	for (uint32_t i = 0; i < 2; i++)
		assert(pthread_create(&vcpus[i], NULL, notify_for_ever, r) == 0);
	VMEMT_UNTIL(used(r, VMEM_BALLOON_INFLATE) > 0);
	balloon_tick(&r->vm, runner_now_ns());
	atomic_store(&r->vm.stop, true);
	for (uint32_t i = 0; i < 2; i++)
		pthread_join(vcpus[i], NULL);
}

int main(void)
{
	static void (*const tests[])(struct rig *) = {
		what_was_locked_goes_later, the_rest_is_done_later,      long_buffers_in_parts,
		a_stopped_vm_does_nothing,  refilled_with_short_buffers, refilled_with_long_buffers,
		stop_ends_a_flood
	};

	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++) {
		struct rig *r = make_rig();

		tests[i](r);
		end_rig(r);
	}
	return 0;
}
