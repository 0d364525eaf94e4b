/* SPDX-License-Identifier: BSD-2-Clause */
/* Free page hints (VIRTIO 1.3, 5.5.6.6). A run: the id of a command is in the configuration space and the guard
 * watches; the driver sends the id, then ranges, then STOP; when all ranges are done with, the id becomes DONE and the
 * guest has its pages back. What comes under another id is of a run before and is left alone. */
#include "balloon/balloon_internal.h"
#include "base/mem.h"

static void show(vmem_balloon *b, uint32_t id)
{
	b->hint_id = id;
	vmemi_balloon_event(b, VMEM_BALLOON_EVENT_CONFIG);
}

static void watch_no_more(vmem_balloon *b)
{
	b->hint_running = b->hint_open = b->hint_ended = false;
	b->guard.end(b->guard.context);
	vmemi_balloon_event(b, VMEM_BALLOON_EVENT_HINTED);
}

static void end(vmem_balloon *b, uint32_t id)
{
	watch_no_more(b);
	show(b, id);
}

int vmem_balloon_hint_start(vmem_balloon *b)
{
	int err;

	if (!vmemi_balloon_has(b, VMEM_BALLOON_F_FREE_PAGE_HINT) ||
	    !(b->status & VMEM_VIRTIO_DRIVER_OK))
		return -VMEM_ENOTSUP;
	if (b->hint_running)
		return -VMEM_EBUSY;
	err = b->guard.begin(b->guard.context);
	if (err)
		return err;
	b->hint_last = b->hint_last == UINT32_MAX ? VMEM_BALLOON_HINT_FIRST : b->hint_last + 1;
	b->hint_running = true;
	show(b, b->hint_last);
	return 0;
}

void vmem_balloon_hint_stop(vmem_balloon *b)
{
	struct vmem_balloon_range range;

	if (!b->hint_running)
		return;
	/* What has not been taken yet is the guest's again. */
	while (b->due_operation == VMEM_BALLOON_DISCARD_HINTED && vmemi_balloon_pop(b, &range, 1))
		;
	end(b, VMEM_BALLOON_HINT_STOP);
}

void vmemi_balloon_hint_reset(vmem_balloon *b)
{
	if (b->hint_running)
		watch_no_more(b);
	b->hint_id = VMEM_BALLOON_HINT_STOP;
}

void vmemi_balloon_hint_command(vmem_balloon *b, const struct vmem_balloon_buffer *buffer)
{
	uint32_t id;

	if (buffer->count != sizeof(id)) {
		b->counters.malformed++;
		return;
	}
	memcpy(&id, buffer->bytes, sizeof(id));
	if (vmemi_balloon_big_endian(b))
		id = __builtin_bswap32(id);
	if (id == VMEM_BALLOON_HINT_STOP)
		b->hint_ended |= b->hint_open;
	b->hint_open = b->hint_running && id == b->hint_id && !b->hint_ended;
}

void vmemi_balloon_hint_settle(vmem_balloon *b)
{
	if (b->hint_running && b->hint_ended && !b->part.busy)
		end(b, VMEM_BALLOON_HINT_DONE);
}
