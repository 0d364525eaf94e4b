/* SPDX-License-Identifier: BSD-2-Clause */
/* A back end in this process, whose turns are called one by one, and a client of it: rings as large as they may be, in
 * memory of which most is never touched. Time is a count of turns. */
#ifndef TURNS_H
#define TURNS_H
#include "common/split_ring.h"
#include "vhost-user-balloon/vhost_control.h"
#include "vhost-user-balloon/vhost_server.h"

#define TURNS_PAGE UINT64_C(4096)
#define TURNS_GIB (UINT64_C(1) << 30)
#define TURNS_BYTES (4 * TURNS_GIB) /* of memory, from 0 on */
#define TURNS_QUEUES 4u
#define TURNS_DATA_AT UINT64_C(0x400000) /* what buffers hold; before it the rings */
#define TURNS_DATA_BYTES UINT64_C(0x1000000)
#define TURNS_FREE_AT TURNS_GIB /* from here on it may be given away */
#define TURNS_COMMANDERS 2u

struct turns {
	struct vhost_server server;
	struct vhost_control control;
	int socket;                    /* the client's end */
	int command[TURNS_COMMANDERS]; /* who controls */
	int memory, kick[TURNS_QUEUES];
	uint8_t *map;
};

/* Connects. Nothing is set up. */
void turns_begin(struct turns *t);
void turns_end(struct turns *t);

void turns_send(struct turns *t, uint32_t request, const void *payload, uint32_t size, int fd);
/* An answer that is there already. */
bool turns_take_answer(struct turns *t, struct vhost_message *m);

/* Features and memory; then queues, whose rings are as they are in memory. @protocol: features of the protocol. */
void turns_set_up(struct turns *t, uint64_t protocol);
void turns_place(struct turns *t, uint32_t queue, uint32_t size, uint16_t base);
void turns_enable(struct turns *t, uint32_t queue);

/* Parts of a ring that starts, for all sizes at the same place. */
struct split_ring_descriptor *turns_descriptors(const struct turns *t, uint32_t queue);
void *turns_available(const struct turns *t, uint32_t queue);
void *turns_used(const struct turns *t, uint32_t queue);
void turns_kick(struct turns *t, uint32_t queue);

/* One turn, in which there must be something to do. */
void turns_turn(struct turns *t);
/* Whether there is. */
bool turns_is_busy(struct turns *t);
/* Turns until there is not. */
void turns_settle(struct turns *t);

/* Sends a command. */
void turns_tell(struct turns *t, uint32_t commander, const char *line);
/* An answer that is there already: whether it is a good one. -1: none is. */
int turns_told(struct turns *t, uint32_t commander);

#endif
