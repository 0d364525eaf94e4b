/* SPDX-License-Identifier: BSD-2-Clause */
/* What each message does. A client that says what cannot be is answered, if it asked for that, and left. */
#include "vhost_client.h"

/* Not the status: a client that pauses sets it to 0 as well as one whose driver has gone. */
static const uint64_t protocol_offered = VHOST_PROTOCOL_F_MQ | VHOST_PROTOCOL_F_REPLY_ACK |
					 VHOST_PROTOCOL_F_BACKEND_REQ | VHOST_PROTOCOL_F_CONFIG |
					 VHOST_PROTOCOL_F_RESET_DEVICE;

static uint64_t features_offered(const struct vhost_client *c)
{
	return c->o->features | VMEM_VIRTIO_F_VERSION_1 | VHOST_F_PROTOCOL_FEATURES;
}

static const char *set_features(struct vhost_client *c, uint64_t features)
{
	if (features & ~features_offered(c))
		return "features that were not offered";
	if (vhost_client_some_queue_runs(c) && features != c->features)
		return "other features while queues run";
	/* The same ones come again after a pause. */
	if (features != c->features)
		(void)vhost_client_set_status(c, 0);
	c->features = features;
	for (uint32_t i = 0; i < VHOST_QUEUES; i++)
		if (!(features & VHOST_F_PROTOCOL_FEATURES))
			c->queue[i].enabled = true;
	return NULL;
}

static const char *set_protocol(struct vhost_client *c, uint64_t protocol)
{
	if (protocol & ~protocol_offered)
		return "protocol features that were not offered";
	c->protocol = protocol;
	return NULL;
}

/* The same memory again changes nothing; other memory is another balloon's. */
static const char *set_memory(struct vhost_client *c, struct vhost_message *m)
{
	struct vhost_memory memory;
	const char *why = vhost_memory_open(&memory, &m->payload.table, m->fd, c->o->most_memory);

	if (why)
		return why;
	for (uint32_t i = 0; i < m->fds; i++)
		m->fd[i] = -1;
	if (vhost_memory_is_same(&memory, &c->memory)) {
		vhost_memory_close(&memory);
		return NULL;
	}
	if (vhost_client_some_queue_runs(c)) {
		vhost_memory_close(&memory);
		return "other memory while queues run";
	}
	for (uint32_t i = 0; i < VHOST_QUEUES; i++)
		(void)vhost_queue_stop(&c->queue[i]);
	vhost_memory_close(&c->memory);
	c->memory = memory;
	why = vhost_client_make_balloon(c);
	if (!why && vhost_client_set_target(c, c->target_pages, c->pages_per_s, c->now_ns) != 0)
		c->o->event(c->o->context, 0);
	return why;
}

/* Nothing of before is returned: what queues there are begins anew, when it is told to. */
static const char *reset(struct vhost_client *c)
{
	for (uint32_t i = 0; i < VHOST_QUEUES; i++) {
		(void)vhost_queue_stop(&c->queue[i]);
		c->queue[i].base = 0;
		c->queue[i].enabled = !(c->features & VHOST_F_PROTOCOL_FEATURES);
	}
	return vhost_client_set_status(c, 0);
}

static const char *set_queue_fd(struct vhost_client *c, struct vhost_message *m)
{
	uint32_t index = (uint32_t)(m->payload.number & VHOST_VRING_INDEX);
	int fd = m->fds ? m->fd[0] : -1;
	const char *why = NULL;
	struct vhost_queue *q;

	if (index >= VHOST_QUEUES)
		return "there is no such queue";
	if (vhost_channel_is_to_us(&c->channel, fd))
		return "its end of a connection to this back end";
	q = &c->queue[index];
	if (m->header.request == VHOST_SET_VRING_KICK)
		why = vhost_queue_set_kick(q, fd);
	else if (m->header.request == VHOST_SET_VRING_CALL)
		why = vhost_queue_set_call(q, fd);
	else
		return NULL; /* no error is ever told there: it is not kept */
	if (why)
		return why;
	m->fd[0] = -1;
	why = vhost_queue_start(q, &c->memory);
	return why ? why : vhost_client_guess_status(c, false);
}

/* After a pause queues go on where they stopped. Where all stand still and one does not, the driver is another. */
static const char *set_base(struct vhost_client *c, struct vhost_queue *q, uint32_t base)
{
	if (base != q->base && !vhost_client_some_queue_runs(c))
		(void)vhost_client_set_status(c, 0);
	return vhost_queue_set_base(q, base);
}

static const char *set_queue(struct vhost_client *c, const struct vhost_message *m)
{
	uint32_t index = m->payload.state.index, number = m->payload.state.number;
	struct vhost_queue *q;
	const char *why;

	if (index >= VHOST_QUEUES)
		return "there is no such queue";
	q = &c->queue[index];
	/* User-Mode Linux stops no queue of a driver that goes, and sets all up for the next. */
	if (q->started && m->header.request != VHOST_SET_VRING_ENABLE)
		(void)reset(c);
	switch (m->header.request) {
	case VHOST_SET_VRING_NUM: return vhost_queue_set_size(q, number);
	case VHOST_SET_VRING_BASE: return set_base(c, q, number);
	case VHOST_SET_VRING_ADDR: vhost_queue_set_address(q, &m->payload.address); return NULL;
	default: break;
	}
	q->enabled = number != 0;
	why = vhost_queue_start(q, &c->memory);
	q->due = q->started;
	return why ? why : vhost_client_guess_status(c, false);
}

static const char *set_request_fd(struct vhost_client *c, struct vhost_message *m)
{
	if (!vhost_channel_fd_is(m->fd[0], "socket:["))
		return "what requests are to be sent to is no socket";
	if (vhost_channel_is_to_us(&c->channel, m->fd[0]))
		return "its end of a connection to this back end";
	vhost_queue_set_fd(&c->request, m->fd[0]);
	m->fd[0] = -1;
	c->config_due = true;
	return NULL;
}

static const char *set_config(struct vhost_client *c, const struct vhost_config *config)
{
	/* What a driver may not write stays, and is counted. */
	(void)vmem_balloon_config_write(c->balloon, config->offset, config->bytes, config->size);
	if (config->offset + (uint64_t)config->size > VMEM_BALLOON_CONFIG_POISON &&
	    config->size <= VHOST_CONFIG_BYTES)
		return vhost_client_guess_status(c, true);
	return NULL;
}

static const char *answer(struct vhost_client *c, uint64_t number)
{
	struct vhost_message *m = &c->channel.message;

	m->header.size = sizeof(number);
	m->payload.number = number;
	return vhost_channel_reply(&c->channel, m) == 0 ? NULL : "it does not read answers";
}

static const char *answer_config(struct vhost_client *c)
{
	struct vhost_message *m = &c->channel.message;
	struct vhost_config *config = &m->payload.config;
	uint32_t size = config->size;

	/* Beyond the end there are zeros. */
	(void)vmem_balloon_config_read(c->balloon, config->offset, config->bytes, size);
	m->header.size = VHOST_CONFIG_HEAD + size;
	return vhost_channel_reply(&c->channel, m) == 0 ? NULL : "it does not read answers";
}

static const char *answer_base(struct vhost_client *c)
{
	struct vhost_message *m = &c->channel.message;
	uint32_t index = m->payload.state.index;

	if (index >= VHOST_QUEUES)
		return "there is no such queue";
	m->payload.state.number = vhost_queue_stop(&c->queue[index]);
	m->header.size = sizeof(m->payload.state);
	return vhost_channel_reply(&c->channel, m) == 0 ? NULL : "it does not read answers";
}

/* Requests that are questions. False: it is none. */
static bool is_asked(struct vhost_client *c, const char **ret_why)
{
	switch (c->channel.message.header.request) {
	case VHOST_GET_FEATURES: *ret_why = answer(c, features_offered(c)); break;
	case VHOST_GET_PROTOCOL_FEATURES: *ret_why = answer(c, protocol_offered); break;
	case VHOST_GET_QUEUE_NUM: *ret_why = answer(c, VHOST_QUEUES); break;
	case VHOST_GET_VRING_BASE: *ret_why = answer_base(c); break;
	case VHOST_GET_CONFIG: *ret_why = answer_config(c); break;
	default: return false;
	}
	return true;
}

static const char *told(struct vhost_client *c)
{
	struct vhost_message *m = &c->channel.message;

	switch (m->header.request) {
	case VHOST_SET_OWNER: return NULL;
	case VHOST_RESET_OWNER:
	case VHOST_RESET_DEVICE: return reset(c);
	case VHOST_SET_FEATURES: return set_features(c, m->payload.number);
	case VHOST_SET_PROTOCOL_FEATURES: return set_protocol(c, m->payload.number);
	case VHOST_SET_MEM_TABLE: return set_memory(c, m);
	case VHOST_SET_VRING_KICK:
	case VHOST_SET_VRING_CALL:
	case VHOST_SET_VRING_ERR: return set_queue_fd(c, m);
	case VHOST_SET_BACKEND_REQ_FD: return set_request_fd(c, m);
	case VHOST_SET_CONFIG: return set_config(c, &m->payload.config);
	default: return set_queue(c, m);
	}
}

const char *vhost_client_handle(struct vhost_client *c)
{
	struct vhost_message *m = &c->channel.message;
	bool wants_answer = m->header.flags & VHOST_NEED_REPLY;
	const char *why;

	if (is_asked(c, &why))
		return why;
	why = told(c);
	if (wants_answer && c->protocol & VHOST_PROTOCOL_F_REPLY_ACK) {
		const char *unread = answer(c, why ? 1 : 0);

		why = why ? why : unread;
	}
	return why;
}
