/* SPDX-License-Identifier: BSD-2-Clause */
/* What each request brings. Nothing is looked at beyond the bytes that the header says and that came. */
#include "vhost_message.h"

#include <stddef.h>

struct form {
	const char *name;
	uint32_t least, most; /* bytes of payload */
	uint32_t fds;         /* most; SET_MEM_TABLE and those of a vring have rules of their own */
};

#define NUMBER sizeof(uint64_t), sizeof(uint64_t)
#define STATE sizeof(struct vhost_vring_state), sizeof(struct vhost_vring_state)
#define EMPTY 0, 0

static const struct form forms[] = {
	[VHOST_GET_FEATURES] = { "GET_FEATURES", EMPTY, 0 },
	[VHOST_SET_FEATURES] = { "SET_FEATURES", NUMBER, 0 },
	[VHOST_SET_OWNER] = { "SET_OWNER", EMPTY, 0 },
	[VHOST_RESET_OWNER] = { "RESET_OWNER", EMPTY, 0 },
	[VHOST_SET_MEM_TABLE] = { "SET_MEM_TABLE", offsetof(struct vhost_table, region[1]),
				  sizeof(struct vhost_table), VHOST_REGIONS },
	[VHOST_SET_VRING_NUM] = { "SET_VRING_NUM", STATE, 0 },
	[VHOST_SET_VRING_ADDR] = { "SET_VRING_ADDR", sizeof(struct vhost_vring_address),
				   sizeof(struct vhost_vring_address), 0 },
	[VHOST_SET_VRING_BASE] = { "SET_VRING_BASE", STATE, 0 },
	[VHOST_GET_VRING_BASE] = { "GET_VRING_BASE", STATE, 0 },
	[VHOST_SET_VRING_KICK] = { "SET_VRING_KICK", NUMBER, 1 },
	[VHOST_SET_VRING_CALL] = { "SET_VRING_CALL", NUMBER, 1 },
	[VHOST_SET_VRING_ERR] = { "SET_VRING_ERR", NUMBER, 1 },
	[VHOST_GET_PROTOCOL_FEATURES] = { "GET_PROTOCOL_FEATURES", EMPTY, 0 },
	[VHOST_SET_PROTOCOL_FEATURES] = { "SET_PROTOCOL_FEATURES", NUMBER, 0 },
	[VHOST_GET_QUEUE_NUM] = { "GET_QUEUE_NUM", EMPTY, 0 },
	[VHOST_SET_VRING_ENABLE] = { "SET_VRING_ENABLE", STATE, 0 },
	[VHOST_SET_BACKEND_REQ_FD] = { "SET_BACKEND_REQ_FD", 0, sizeof(uint64_t), 1 },
	[VHOST_GET_CONFIG] = { "GET_CONFIG", VHOST_CONFIG_HEAD, sizeof(struct vhost_config), 0 },
	[VHOST_SET_CONFIG] = { "SET_CONFIG", VHOST_CONFIG_HEAD, sizeof(struct vhost_config), 0 },
	[VHOST_RESET_DEVICE] = { "RESET_DEVICE", EMPTY, 0 },
};

static const struct form *form_of(uint32_t request)
{
	if (request >= sizeof(forms) / sizeof(forms[0]) || !forms[request].name)
		return NULL;
	return &forms[request];
}

const char *vhost_message_name(uint32_t request)
{
	const struct form *form = form_of(request);

	return form ? form->name : "a request that is not known";
}

const char *vhost_message_check_header(const struct vhost_header *header)
{
	const struct form *form = form_of(header->request);

	if ((header->flags & VHOST_VERSION_MASK) != VHOST_VERSION || header->flags & VHOST_REPLY)
		return "its flags are not those of a request of version 1";
	if (!form)
		return "it was not offered";
	if (header->size < form->least || header->size > form->most)
		return "its length is wrong";
	return NULL;
}

static const char *check_table(const struct vhost_message *m)
{
	const struct vhost_table *t = &m->payload.table;

	if (!t->count || t->count > VHOST_REGIONS)
		return "it has no region, or more than 8";
	if (m->header.size <
	    offsetof(struct vhost_table, region) + t->count * sizeof(struct vhost_table_region))
		return "it has fewer regions than it says";
	return m->fds == t->count ? NULL : "it does not come with a descriptor for each region";
}

/* A client may send more room than it asks for. */
static const char *check_config(const struct vhost_message *m)
{
	const struct vhost_config *c = &m->payload.config;

	if (c->size > VHOST_CONFIG_BYTES || m->header.size - VHOST_CONFIG_HEAD < c->size)
		return "it has fewer bytes than it says";
	return NULL;
}

const char *vhost_message_check(const struct vhost_message *m)
{
	const char *why = vhost_message_check_header(&m->header);
	uint32_t need;

	if (why)
		return why;
	switch (m->header.request) {
	case VHOST_SET_MEM_TABLE: return check_table(m);
	case VHOST_GET_CONFIG:
	case VHOST_SET_CONFIG: why = check_config(m); break;
	case VHOST_SET_VRING_KICK:
	case VHOST_SET_VRING_CALL:
	case VHOST_SET_VRING_ERR:
		if (m->payload.number & ~(VHOST_VRING_INDEX | VHOST_VRING_NO_FD))
			return "it names no vring";
		need = m->payload.number & VHOST_VRING_NO_FD ? 0 : 1;
		return m->fds == need ? NULL : "its descriptor is missing, or one too many";
	case VHOST_SET_BACKEND_REQ_FD: return m->fds == 1 ? NULL : "its descriptor is missing";
	default: break;
	}
	if (!why && m->fds)
		why = "it comes with descriptors";
	return why;
}
