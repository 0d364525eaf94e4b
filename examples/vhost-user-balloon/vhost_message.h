/* SPDX-License-Identifier: BSD-2-Clause */
/* Messages of the vhost-user protocol (QEMU's docs/interop/vhost-user.rst), as far as a balloon needs them, and
 * what of them can be judged by themselves. Fields are little-endian, as x86-64 has them. */
#ifndef VHOST_MESSAGE_H
#define VHOST_MESSAGE_H
#include <stdint.h>

#define VHOST_REGIONS 8u                            /* most of a memory table */
#define VHOST_PIECE_FDS 253u                        /* most that the kernel passes at once */
#define VHOST_FDS (VHOST_REGIONS + VHOST_PIECE_FDS) /* most that one has before it is refused */
#define VHOST_CONFIG_BYTES 256u                     /* most of a configuration space */

enum vhost_request {
	VHOST_GET_FEATURES = 1,
	VHOST_SET_FEATURES,
	VHOST_SET_OWNER,
	VHOST_RESET_OWNER,
	VHOST_SET_MEM_TABLE,
	VHOST_SET_VRING_NUM = 8,
	VHOST_SET_VRING_ADDR,
	VHOST_SET_VRING_BASE,
	VHOST_GET_VRING_BASE,
	VHOST_SET_VRING_KICK,
	VHOST_SET_VRING_CALL,
	VHOST_SET_VRING_ERR,
	VHOST_GET_PROTOCOL_FEATURES,
	VHOST_SET_PROTOCOL_FEATURES,
	VHOST_GET_QUEUE_NUM,
	VHOST_SET_VRING_ENABLE,
	VHOST_SET_BACKEND_REQ_FD = 21,
	VHOST_GET_CONFIG = 24,
	VHOST_SET_CONFIG,
	VHOST_RESET_DEVICE = 34,
};
#define VHOST_BACKEND_CONFIG_CHANGE 2u /* a request of ours */

#define VHOST_F_PROTOCOL_FEATURES (UINT64_C(1) << 30)
#define VHOST_PROTOCOL_F_MQ (UINT64_C(1) << 0)
#define VHOST_PROTOCOL_F_REPLY_ACK (UINT64_C(1) << 3)
#define VHOST_PROTOCOL_F_BACKEND_REQ (UINT64_C(1) << 5)
#define VHOST_PROTOCOL_F_CONFIG (UINT64_C(1) << 9)
#define VHOST_PROTOCOL_F_RESET_DEVICE (UINT64_C(1) << 13)

#define VHOST_VERSION 1u /* in the two lowest bits of the flags */
#define VHOST_VERSION_MASK 3u
#define VHOST_REPLY 4u
#define VHOST_NEED_REPLY 8u

#define VHOST_VRING_INDEX UINT64_C(0xff) /* of a number that comes with a descriptor */
#define VHOST_VRING_NO_FD UINT64_C(0x100)

struct vhost_header {
	uint32_t request, flags, size; /* size: of the payload */
};

struct vhost_vring_state {
	uint32_t index, number;
};

struct vhost_vring_address {
	uint32_t index, flags;
	uint64_t descriptors, used, available, log; /* in the client's address space */
};

struct vhost_table_region {
	uint64_t gpa, bytes, user, offset; /* offset: in its file */
};

struct vhost_table {
	uint32_t count, reserved;
	struct vhost_table_region region[VHOST_REGIONS];
};

struct vhost_config {
	uint32_t offset, size, flags;
	uint8_t bytes[VHOST_CONFIG_BYTES];
};
#define VHOST_CONFIG_HEAD 12u

struct vhost_message {
	struct vhost_header header;
	union {
		uint64_t number;
		struct vhost_vring_state state;
		struct vhost_vring_address address;
		struct vhost_table table;
		struct vhost_config config;
		uint8_t bytes[sizeof(struct vhost_config) > sizeof(struct vhost_table)
				      ? sizeof(struct vhost_config)
				      : sizeof(struct vhost_table)];
	} payload;
	int fd[VHOST_FDS];
	uint32_t fds;
};

/* Whether a payload may follow this header. NULL, or why not. */
const char *vhost_message_check_header(const struct vhost_header *header);

/* Whether a message that came whole is what its request asks for: its size, its descriptors, counts within it.
 * NULL, or why not. */
const char *vhost_message_check(const struct vhost_message *message);

/* "SET_MEM_TABLE"; "a request that is not known". */
const char *vhost_message_name(uint32_t request);

#endif
