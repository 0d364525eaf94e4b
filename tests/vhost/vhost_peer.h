/* SPDX-License-Identifier: BSD-2-Clause */
/* A vhost-user client in a few calls: as good as wanted. Its memory is a memfd, the rings at its end. */
#ifndef VHOST_PEER_H
#define VHOST_PEER_H
#include <stdbool.h>
#include <stddef.h>

#include "common/split_ring.h"
#include "vhost-user-balloon/vhost_message.h"

#define PEER_PAGE UINT64_C(4096)
#define PEER_PAGES UINT64_C(512) /* of its memory: 2 MiB */
#define PEER_BYTES (PEER_PAGES * PEER_PAGE)
#define PEER_GPA UINT64_C(0x7654321000) /* not what rings look like as page numbers */
#define PEER_USER UINT64_C(0x7f0000000000)
#define PEER_RING 16u /* entries */
#define PEER_QUEUES 4u
#define PEER_FEATURES (UINT64_C(0x27) | UINT64_C(1) << 32 | VHOST_F_PROTOCOL_FEATURES)
/* Of each queue a page for its ring, behind it one for what it sends. */
#define PEER_RING_AT(queue) (PEER_BYTES - (8 - (uint64_t)(queue)) * PEER_PAGE)
#define PEER_DATA_AT(queue) (PEER_BYTES - (16 - (uint64_t)(queue)) * PEER_PAGE)

struct vhost_peer {
	int socket;
	int memory;
	uint8_t *map;
	int kick[PEER_QUEUES], call[PEER_QUEUES];
	uint16_t given[PEER_QUEUES]; /* index of what is available */
};

/* Connects, with memory of its own that it has touched. */
void vhost_peer_open(struct vhost_peer *p, const char *path);
void vhost_peer_close(struct vhost_peer *p);

/* Sends bytes and descriptors as they are. False: the other side has closed. */
bool vhost_peer_send(struct vhost_peer *p, const void *bytes, size_t count, const int *fds,
		     uint32_t fd_count);

/* Sends a request of version 1 with a payload. */
bool vhost_peer_ask(struct vhost_peer *p, uint32_t request, const void *payload, uint32_t size,
		    const int *fds, uint32_t fd_count);
bool vhost_peer_number(struct vhost_peer *p, uint32_t request, uint64_t number);
bool vhost_peer_state(struct vhost_peer *p, uint32_t request, uint32_t index, uint32_t number);

/* Receives an answer. False: the other side has closed. */
bool vhost_peer_answer(struct vhost_peer *p, struct vhost_message *m);

/* Waits until the other side closes, and reads what comes before. */
void vhost_peer_until_closed(struct vhost_peer *p);

/* Its memory as a table of one region. */
struct vhost_table vhost_peer_table(void);

/* All that a driver sets up, or the first @steps messages of it. @return how many there were */
uint32_t vhost_peer_set_up(struct vhost_peer *p, uint32_t steps);

/* Makes a buffer of one piece available, and kicks. */
void vhost_peer_give(struct vhost_peer *p, uint32_t queue, uint64_t gpa, uint32_t bytes,
		     uint16_t flags);
/* Waits until all were returned. */
void vhost_peer_until_returned(struct vhost_peer *p, uint32_t queue);

/* Bytes of memory that its file has. */
uint64_t vhost_peer_file_bytes(const struct vhost_peer *p);

/* Inflates a MiB and sees it go, and deflates it. */
void vhost_peer_is_served(struct vhost_peer *p);

#endif
