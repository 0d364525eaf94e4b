/* SPDX-License-Identifier: BSD-2-Clause */
/* Loads from a device that is mapped: of what lies there, nothing is copied, and nobody waits. */
#include "store/out_tools.h"
#include "store/store_internal.h"

static void open_mapped(uint64_t flags)
{
	open_store(flags);
	vmemt_memory_device_init(&device, 32 * MIB, 32);
	device.device.flags = VMEM_DEVICE_MAPPED;
	cr_assert_eq(vmem_store_add_device(store, &device.device, NULL, NULL), 0);
}

static void open_plain(void)
{
	open_mapped(VMEM_STORE_AS_SAVED);
	save_all();
	settle();
	cr_assert_gt(out_stats().segments, 8);
}

TestSuite(store_mapped, .init = open_plain, .fini = close_store);

static bool is_out(vmem_store_ref r)
{
	struct vmemi_located at;

	if (vmemi_pool_locate(store->pool, vm, vmemi_ref_payload(r), &at))
		return false;
	vmemi_pool_located_end(store->pool, &at);
	return true;
}

static uint32_t first_on_device(void)
{
	for (uint32_t i = 0; i < PAGES; i++)
		if (ref[i] && is_out(ref[i]))
			return i;
	cr_assert_fail("nothing is out");
	return 0;
}

/* All that are out, without a token. Returns how many are. */
static uint32_t load_now(enum vmemt_page_kind kind, uint64_t (*made_by)(uint32_t i))
{
	uint32_t out = 0;

	for (uint32_t i = 0; i < PAGES; i++) {
		struct vmemt_page page;

		if (!ref[i] || !is_out(ref[i]))
			continue;
		memset(&page, 0x77, sizeof(page));
		cr_assert_eq(vmem_store_load(store, vm, i, ref[i], page.bytes, NULL), 0);
		cr_assert(is_page(&page, kind, made_by(i)));
		out++;
	}
	return out;
}

static uint64_t seed_of_noise(uint32_t i)
{
	return i * EDITS;
}

static uint64_t seed_of_text(uint32_t i)
{
	return version_of(i);
}

Test(store_mapped, pages_are_loaded_at_once)
{
	uint32_t out = load_now(VMEMT_PAGE_NOISE, seed_of_noise);

	cr_assert_gt(out, PAGES / 4);
	cr_assert_eq(atomic_load(&device.reads), 0);
	cr_assert_eq(out_stats().loads, out);
	cr_assert_eq(out_stats().warm_loads, 0);
	cr_assert_eq(out_stats().offers, 0);
	cr_assert_eq(out_stats().lost, 0);
	cr_assert_gt(stats_of(0).read_bytes, out * UINT64_C(4096));
	cr_assert_eq(stats_of(0).read_errors, 0);
	cr_assert_eq(atomic_load(&store->out->idle), UINT32_MAX);
	/* As they are peeked. */
	for (uint32_t i = 0; i < PAGES; i++) {
		struct vmemt_page page;

		cr_assert_eq(vmem_store_peek(store, vm, i, ref[i], page.bytes, NULL), 0);
		cr_assert(is_page(&page, VMEMT_PAGE_NOISE, i * EDITS));
	}
	/* And nothing of it comes home, since there it would cost the same. */
	for (int turn = 0; turn < 10; turn++) {
		(void)load_now(VMEMT_PAGE_NOISE, seed_of_noise);
		work();
	}
	settle();
	cr_assert_eq(out_stats().came_home, 0);
}

Test(store_mapped, deltas_too)
{
	uint32_t out;

	vmemt_store_close(store, &heap);
	open_mapped(0);
	save_deltas();
	out = load_now(VMEMT_PAGE_TEXT, seed_of_text);
	cr_assert_gt(out, DELTAS);
	/* Two objects make some of the pages. */
	cr_assert_gt(atomic_load(&device.maps), out + DELTAS / 4);
	cr_assert_eq(atomic_load(&device.reads), 0);
	cr_assert_eq(out_stats().loads, out);
	expect_deltas();
}

static void flip(void)
{
	for (uint64_t at = 0; at < 32 * MIB; at += 64)
		device.bytes[at] ^= 4;
}

Test(store_mapped, wrong_bytes_are_errors)
{
	uint32_t i = first_on_device();
	struct vmemt_page page;

	flip();
	cr_assert_eq(vmem_store_load(store, vm, i, ref[i], page.bytes, NULL), -VMEM_EAGAIN);
	cr_assert_eq(out_stats().lost, 0); /* nobody has waited for the end */
	for (uint32_t k = 0; k < PAGES; k++)
		cr_assert_eq(load(ref[k], page.bytes), is_out(ref[k]) ? -VMEM_EIO : 0);
	cr_assert_gt(out_stats().lost, PAGES / 4);
	cr_assert_eq(out_stats().loads, out_stats().lost);
	cr_assert_gt(atomic_load(&store->out->device[0].doubt), 0);
	flip();
	expect_all();
	cr_assert_eq(atomic_load(&store->out->device[0].doubt), 0);
}

/* As when somebody writes there just then: it is read once more, as from other devices. */
Test(store_mapped, what_was_wrong_for_a_moment_is_read_again)
{
	struct vmem_store_event event = { .token = 0 };
	uint32_t i = first_on_device();
	vmem_store_token token;
	struct vmemt_page page;

	flip();
	atomic_store(&device.hold, 1);
	cr_assert_eq(vmem_store_load(store, vm, i, ref[i], page.bytes, &token), -VMEM_EINPROGRESS);
	flip();
	atomic_store(&device.hold, 0);
	for (int turn = 0; !poll_loaded(&event, 1); turn++)
		cr_assert_lt(turn, TURNS);
	cr_assert(event.token == token && !event.result);
	cr_assert(is_page(&page, VMEMT_PAGE_NOISE, i * EDITS));
	cr_assert_eq(atomic_load(&device.reads), 1);
}

/* What answers nothing can be read nevertheless. */
Test(store_mapped, nobody_waits_for_a_device_that_leaves)
{
	int rc;

	add(&second, 32 * MIB, -1);
	while ((rc = vmem_store_remove_device(store, 0)) == -VMEM_EBUSY) {
		atomic_store(&device.hold, 1);
		work();
		for (uint32_t i = 0; i < PAGES; i += 50) {
			struct vmemt_page page;

			rc = vmem_store_load(store, vm, i, ref[i], page.bytes, NULL);
			cr_assert(rc == -VMEM_EAGAIN /* it has moved */ ||
				  (!rc && is_page(&page, VMEMT_PAGE_NOISE, i * EDITS)));
		}
		atomic_store(&device.hold, 0);
		settle();
	}
	cr_assert_eq(rc, 0);
	cr_assert(atomic_load(&device.closed));
	cr_assert_gt(out_stats().moved, 0);
	expect_all();
}

/* One that shows nothing after all is read as others are. */
Test(store_mapped, what_is_not_shown_is_read)
{
	atomic_store(&device.refuse_map, 1);
	(void)first_out();
	expect_all();
	cr_assert_gt(atomic_load(&device.reads), 0);
}
