/* SPDX-License-Identifier: BSD-2-Clause */
/* The guest's statistics (VIRTIO 1.3, 5.5.6.3). The driver's one buffer stays here until somebody asks: returning it
 * is the question, and the answer comes in it. */
#include "balloon/balloon_internal.h"
#include "base/mem.h"
#include "base/opts.h"

#define MOST_ENTRIES 256u /* of a buffer that are looked at */

struct entry {
	uint16_t tag;
	uint64_t value;
};

static struct entry entry_at(const vmem_balloon *b, const uint8_t *bytes)
{
	struct entry e;

	memcpy(&e.tag, bytes, sizeof(e.tag));
	memcpy(&e.value, bytes + sizeof(e.tag), sizeof(e.value));
	if (vmemi_balloon_big_endian(b)) {
		e.tag = (uint16_t)(e.tag >> 8 | e.tag << 8);
		e.value = __builtin_bswap64(e.value);
	}
	return e;
}

static void keep_other(struct vmem_balloon_guest *guest, const struct entry *e)
{
	uint32_t i = 0;

	while (i < guest->other_count && guest->other_tags[i] != e->tag)
		i++;
	if (i == VMEM_BALLOON_OTHER_TAGS)
		return;
	guest->other_tags[i] = e->tag;
	guest->other_values[i] = e->value;
	if (i == guest->other_count)
		guest->other_count++;
}

static void read_entries(const vmem_balloon *b, const struct vmem_balloon_buffer *buffer,
			 struct vmem_balloon_guest *guest)
{
	uint64_t count = buffer->count / VMEM_BALLOON_STAT_BYTES;
	const uint8_t *bytes = buffer->bytes;

	for (uint64_t i = 0; i < count && i < MOST_ENTRIES; i++) {
		struct entry e = entry_at(b, bytes + i * VMEM_BALLOON_STAT_BYTES);

		if (e.tag < VMEM_BALLOON_TAGS) {
			guest->values[e.tag] = e.value;
			guest->known |= UINT64_C(1) << e.tag;
		} else {
			keep_other(guest, &e);
		}
	}
}

/* Counts a second between two readings; one that fell began anew. */
static uint64_t per_second(const struct vmem_balloon_guest *old,
			   const struct vmem_balloon_guest *new, uint32_t tag)
{
	uint64_t rise, ns = new->told_ns - old->told_ns;

	if (!(old->known & new->known &UINT64_C(1) << tag) || new->told_ns <= old->told_ns ||
	    new->values[tag] < old->values[tag])
		return 0;
	rise = new->values[tag] - old->values[tag];
	if (rise > UINT64_MAX / 1000000000)
		return rise / ns > UINT64_MAX / 1000000000 ? UINT64_MAX : rise / ns * 1000000000;
	return rise * 1000000000 / ns;
}

static void take_answer(vmem_balloon *b, const struct vmem_balloon_buffer *buffer)
{
	struct vmem_balloon_guest new = { .told_ns = buffer->now_ns };

	read_entries(b, buffer, &new);
	new.swap_in_per_s = per_second(&b->guest, &new, VMEM_BALLOON_SWAP_IN);
	new.swap_out_per_s = per_second(&b->guest, &new, VMEM_BALLOON_SWAP_OUT);
	new.major_faults_per_s = per_second(&b->guest, &new, VMEM_BALLOON_MAJOR_FAULTS);
	b->guest = new;
	b->stats_told = true;
	b->counters.stats++;
	vmemi_balloon_event(b, VMEM_BALLOON_EVENT_STATS);
	if (b->owned &&
	    (new.swap_in_per_s >= b->swap_bytes_per_s || new.swap_out_per_s >= b->swap_bytes_per_s))
		vmemi_balloon_event(b, VMEM_BALLOON_EVENT_SWAPS);
}

void vmemi_balloon_take_stats(vmem_balloon *b, const struct vmem_balloon_buffer *buffer)
{
	/* 5.5.6.3: the first buffer of a legacy driver may hold anything. */
	bool ignored = !b->stats_seen && !(b->features & VMEM_VIRTIO_F_VERSION_1);

	b->counters.malformed += buffer->count % VMEM_BALLOON_STAT_BYTES != 0 ||
				 buffer->count / VMEM_BALLOON_STAT_BYTES > MOST_ENTRIES;
	if (b->stats_held) {
		b->counters.unexpected++;
		vmemi_balloon_done(b, VMEM_BALLOON_STATS, b->stats_token);
	}
	b->stats_held = b->stats_seen = true;
	b->stats_token = buffer->token;
	if (!ignored && buffer->count >= VMEM_BALLOON_STAT_BYTES)
		take_answer(b, buffer);
}

int vmem_balloon_ask_stats(vmem_balloon *b)
{
	if (!vmemi_balloon_has(b, VMEM_BALLOON_F_STATS_VQ))
		return -VMEM_ENOTSUP;
	if (!b->stats_held || b->done_count == VMEM_BALLOON_BATCH)
		return -VMEM_EAGAIN;
	b->stats_held = false;
	vmemi_balloon_done(b, VMEM_BALLOON_STATS, b->stats_token);
	return 0;
}

int vmem_balloon_get_guest(const vmem_balloon *b, struct vmem_balloon_guest *guest)
{
	if (!b->stats_told)
		return -VMEM_ENOENT;
	return vmemi_opts_give(guest, &b->guest, sizeof(b->guest));
}
