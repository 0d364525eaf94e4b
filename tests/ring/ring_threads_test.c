/* SPDX-License-Identifier: BSD-2-Clause */
/* A driver and a device on two threads, who sleep until the other one notifies them: none waits for ever, and what was
 * written before a buffer was given is there when it is taken. */
#include <assert.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>

#include "ring_tools.h"
#include "support/deadline.h"

enum { SIZE = 16, BUFFERS = 20000 };

struct ends {
	struct guest guest;
	struct split_ring_slot slots[SIZE];
	uint64_t features;
	sem_t kick, call;
};

static void *device_thread(void *argument)
{
	struct ends *e = argument;
	struct vmem_balloon_piece pieces[2];
	struct split_ring_buffer b = { .pieces = pieces, .most = 2 };
	struct split_ring_device_opts opts = guest_opts(&e->guest, e->features);
	struct split_ring_device device;
	uint32_t seen = 0;

	assert(split_ring_device_start(&device, &opts) == 0);
	while (seen < BUFFERS) {
		uint32_t number = 0;

		split_ring_device_be_quiet(&device);
		while (split_ring_device_take(&device, &b) == 1) {
			assert(b.readable == 1 && b.writable == 0);
			assert(split_ring_device_read(&device, &b, 0, &number, sizeof(number)) ==
			       sizeof(number));
			assert(number == seen);
			seen++;
			split_ring_device_return(&device, b.head, number);
			if (split_ring_device_must_notify(&device))
				sem_post(&e->call);
		}
		if (seen < BUFFERS && !split_ring_device_listen(&device))
			sem_wait(&e->kick);
	}
	assert(device.malformed == 0 && !device.broken);
	return NULL;
}

static void add(struct ends *e, struct split_ring_driver *driver, uint32_t number)
{
	struct vmem_balloon_piece piece = { GUEST_GPA + DATA_AT + number % SIZE * sizeof(number),
					    sizeof(number) };

	*(uint32_t *)guest_at(&e->guest, piece.gpa) = number;
	assert(split_ring_driver_add(driver, &piece, 1, 0, number) == 0);
	if (split_ring_driver_must_kick(driver))
		sem_post(&e->kick);
}

static void run(uint64_t features)
{
	static struct ends ends;
	struct ends *e = &ends;
	struct split_ring_driver driver;
	uint32_t given = 0, back = 0, token, written;
	pthread_t thread;

	assert(guest_make(&e->guest, SIZE) == 0);
	e->features = features;
	sem_init(&e->kick, 0, 0);
	sem_init(&e->call, 0, 0);
	assert(split_ring_driver_start(&driver, &e->guest.parts, e->slots, features) == 0);
	assert(pthread_create(&thread, NULL, device_thread, e) == 0);
	while (back < BUFFERS) {
		while (given < BUFFERS && given - back < SIZE)
			add(e, &driver, given++);
		split_ring_driver_be_quiet(&driver);
		while (split_ring_driver_take(&driver, &token, &written) == 1) {
			assert(token == back && written == token);
			back++;
		}
		if (back < given && (given - back == SIZE || given == BUFFERS) &&
		    !split_ring_driver_listen(&driver))
			sem_wait(&e->call);
	}
	pthread_join(thread, NULL);
	guest_free(&e->guest);
	sem_destroy(&e->kick);
	sem_destroy(&e->call);
}

int main(void)
{
	run(0);
	run(SPLIT_RING_F_EVENT_IDX);
	puts("no notification was lost");
	return 0;
}
