/* SPDX-License-Identifier: BSD-2-Clause */
/* The object, its RAM and its counters. balloon_internal.h says how it works. */
#include "balloon/balloon_internal.h"
#include "base/mem.h"
#include "base/opts.h"

#define KNOWN_FEATURES                                                                             \
	(VMEM_BALLOON_F_MUST_TELL_HOST | VMEM_BALLOON_F_STATS_VQ | VMEM_BALLOON_F_DEFLATE_ON_OOM | \
	 VMEM_BALLOON_F_FREE_PAGE_HINT | VMEM_BALLOON_F_PAGE_POISON |                              \
	 VMEM_BALLOON_F_PAGE_REPORTING | VMEM_BALLOON_F_RANGES | VMEM_VIRTIO_F_VERSION_1)
#define KNOWN_FLAGS (VMEM_BALLOON_REQUIRE_TELL | VMEM_BALLOON_LEGACY_BIG_ENDIAN)
#define DEFAULT_STALL_NS UINT64_C(5000000000)
#define DEFAULT_SWAP_BYTES (UINT64_C(256) << 10)

static int take_guard(struct vmem_balloon_guard *guard, const struct vmem_balloon_opts *o)
{
	int err;

	if (!(o->features & VMEM_BALLOON_F_FREE_PAGE_HINT))
		return 0;
	err = vmemi_callbacks_take(guard, sizeof(*guard),
				   VMEMI_BYTES_TO(struct vmem_balloon_guard, end), o->guard);
	if (!err && (!guard->begin || !guard->unwritten || !guard->end))
		err = -VMEM_EINVAL;
	return err;
}

int vmem_balloon_new(vmem_balloon **ret_balloon, const struct vmem_balloon_opts *opts)
{
	struct vmem_balloon_guard guard = { 0 };
	struct vmem_allocator allocator;
	uint32_t numbers[VMEM_BALLOON_QUEUES];
	struct vmem_balloon_opts o;
	vmem_balloon *b;
	int err;

	if (!ret_balloon)
		return -VMEM_EINVAL;
	if ((err = vmemi_opts_take(&o, sizeof(o), opts)) != 0 ||
	    (err = vmemi_alloc_take(&allocator, o.allocator)) != 0)
		return err;
	if ((o.flags & ~KNOWN_FLAGS) || (o.features & ~KNOWN_FEATURES))
		return -VMEM_EINVAL;
	if ((err = vmem_balloon_number_queues(o.map, o.features, o.features, o.numbers, numbers)) !=
		    0 ||
	    (err = take_guard(&guard, &o)) != 0)
		return err;
	b = vmemi_zalloc(&allocator, sizeof(*b), _Alignof(vmem_balloon));
	if (!b)
		return -VMEM_ENOMEM;
	b->allocator = allocator;
	b->guard = guard;
	b->offered = o.features;
	b->flags = o.flags;
	b->map = o.map;
	memcpy(b->given, o.numbers, sizeof(b->given));
	b->stall_ns = o.stall_ns ? o.stall_ns : DEFAULT_STALL_NS;
	b->swap_bytes_per_s = o.swap_bytes_per_s ? o.swap_bytes_per_s : DEFAULT_SWAP_BYTES;
	b->hint_last = VMEM_BALLOON_HINT_FIRST - 1;
	b->reached = true;
	*ret_balloon = b;
	return 0;
}

void vmem_balloon_free(vmem_balloon *b)
{
	struct vmem_allocator allocator;

	if (!b)
		return;
	vmemi_balloon_hint_reset(b);
	for (uint32_t i = 0; i < b->rams; i++)
		vmemi_balloon_ram_free(b, &b->ram[i]);
	allocator = b->allocator;
	vmemi_free(&allocator, b, sizeof(*b), _Alignof(vmem_balloon));
}

int vmem_balloon_add_ram(vmem_balloon *b, uint64_t gpa, uint64_t bytes, uint64_t block_bytes)
{
	const uint64_t end = UINT64_C(1) << (32 + VMEM_PAGE_SHIFT);
	struct vmemi_balloon_ram ram = { 0 };
	uint32_t at;
	int err;

	if (block_bytes < VMEM_PAGE_SIZE || block_bytes > UINT64_C(1) << 30 ||
	    (block_bytes & (block_bytes - 1)) || !bytes || (gpa | bytes) & (block_bytes - 1))
		return -VMEM_EINVAL;
	if (bytes > end || gpa > end - bytes)
		return -VMEM_ERANGE;
	ram.first = gpa >> VMEM_PAGE_SHIFT;
	ram.pages = bytes >> VMEM_PAGE_SHIFT;
	ram.block_shift = (uint32_t)__builtin_ctzll(block_bytes) - VMEM_PAGE_SHIFT;
	for (at = 0; at < b->rams && b->ram[at].first < ram.first; at++)
		;
	if ((at < b->rams && b->ram[at].first < ram.first + ram.pages) ||
	    (at > 0 && b->ram[at - 1].first + b->ram[at - 1].pages > ram.first))
		return -VMEM_EEXIST;
	if (b->rams == VMEM_BALLOON_RAMS)
		return -VMEM_ENOSPC;
	if (b->hint_running) /* the guard does not watch it */
		return -VMEM_EBUSY;
	err = vmemi_balloon_ram_init(b, &ram);
	if (err)
		return err;
	vmemi_balloon_unlist(b);
	memmove(&b->ram[at + 1], &b->ram[at], (b->rams - at) * sizeof(ram));
	b->ram[at] = ram;
	b->rams++;
	b->ram_pages += ram.pages;
	b->last = 0;
	b->due = 0;
	for (uint32_t i = 0; i < b->rams; i++)
		b->due |= (uint32_t)(b->ram[i].low <= b->ram[i].high) << i;
	return 0;
}

static const struct vmemi_balloon_ram *ram_of(const vmem_balloon *b, uint64_t gfn)
{
	for (uint32_t i = 0; i < b->rams; i++)
		if (gfn - b->ram[i].first < b->ram[i].pages)
			return &b->ram[i];
	return NULL;
}

int vmem_balloon_has(const vmem_balloon *b, uint64_t gpa)
{
	uint64_t gfn = gpa >> VMEM_PAGE_SHIFT;
	const struct vmemi_balloon_ram *ram = ram_of(b, gfn);

	if (!ram)
		return -VMEM_ERANGE;
	return ram->owned[(gfn - ram->base) / 64] >> (gfn - ram->base) % 64 & 1;
}

int vmem_balloon_next(const vmem_balloon *b, uint64_t gpa, struct vmem_balloon_range *ret_range)
{
	uint64_t gfn = gpa >> VMEM_PAGE_SHIFT, found, count;

	for (uint32_t i = 0; i < b->rams; i++) {
		const struct vmemi_balloon_ram *ram = &b->ram[i];

		found = vmemi_balloon_owned_from(ram, gfn > ram->base ? gfn - ram->base : 0,
						 &count);
		if (found == VMEMI_BALLOON_NO_FIRST)
			continue;
		*ret_range = (struct vmem_balloon_range){
			.gpa = (ram->base + found) << VMEM_PAGE_SHIFT,
			.bytes = count << VMEM_PAGE_SHIFT,
			.operation = VMEM_BALLOON_DISCARD,
		};
		return 0;
	}
	return -VMEM_ENOENT;
}

int vmem_balloon_get_counters(const vmem_balloon *b, struct vmem_balloon_counters *counters)
{
	return vmemi_opts_give(counters, &b->counters, sizeof(b->counters));
}
