/* SPDX-License-Identifier: BSD-2-Clause */
/* A host for tests: pages that map a frame of their own or a shared object, and may be protected. What a
 * page has is a number, of which its bytes are made. Keys are the numbers of the pages. */
#ifndef VMEMT_SHARE_TOOLS_H
#define VMEMT_SHARE_TOOLS_H
#include <criterion/criterion.h>
#include <string.h>
#include <vmem/share.h>
#include "share/share_internal.h"
#include "support/fail_alloc.h"
#include "support/rng.h"

enum { PAGES = 1024, OBJECTS = PAGES + 1, WORDS = VMEM_PAGE_SIZE / 8 };

struct object {
	uint64_t words[WORDS];
	uint32_t users;
	uint32_t hash;
	bool used;
};

/* What a test does in the middle of a callback. */
typedef void (*host_hook)(uint64_t key);

struct host {
	vmem_share *share;
	struct vmemt_fail_alloc heap;
	uint64_t number[PAGES]; /* what the guest has written */
	uint64_t frame[PAGES][WORDS];
	uint32_t object_of[PAGES]; /* 0: its own frame */
	bool is_protected[PAGES];
	bool absent[PAGES];
	bool pinned[PAGES];    /* protect says no */
	bool unmovable[PAGES]; /* merge says no */
	bool no_more;          /* make says no */
	unsigned reads[PAGES]; /* how often page() or read() was called */
	uint32_t free_ids[OBJECTS], free_count;
	host_hook on_page, on_protect, on_object, on_make, on_merge;
};

static struct host host;
static struct object object[OBJECTS];

/* Zero for 0; different pages for different numbers. */
static inline void make_content(uint64_t words[WORDS], uint64_t number)
{
	memset(words, 0, VMEM_PAGE_SIZE);
	words[number * 7 % WORDS] = number;
}

static inline void call(host_hook *hook, uint64_t key)
{
	host_hook now = *hook;

	if (now)
		now(key);
}

/* --- The guest --- */

static inline const uint64_t *guest_bytes(uint64_t key)
{
	return host.object_of[key] ? object[host.object_of[key]].words : host.frame[key];
}

static inline void free_object(uint32_t id)
{
	cr_assert(object[id].used && !object[id].users);
	object[id].used = false;
	host.free_ids[host.free_count++] = id;
}

static inline void leave(uint64_t key)
{
	uint32_t id = host.object_of[key], left = UINT32_MAX;

	memcpy(host.frame[key], object[id].words, VMEM_PAGE_SIZE);
	host.object_of[key] = 0;
	cr_assert_gt(object[id].users--, 0);
	cr_assert_eq(vmem_share_break(host.share, key, id, object[id].hash, &left), 0);
	cr_assert_geq(left, object[id].users);
	if (!left)
		free_object(id);
}

/* Whether it could: writes to protected pages wait. */
static inline bool write_page(uint64_t key, uint64_t number)
{
	if (host.is_protected[key])
		return false;
	if (host.object_of[key])
		leave(key);
	host.number[key] = number;
	make_content(host.frame[key], number);
	return true;
}

/* --- Callbacks --- */

static inline const void *host_page(void *context, uint64_t key)
{
	const void *bytes = host.absent[key] ? NULL : guest_bytes(key);

	(void)context;
	host.reads[key]++;
	call(&host.on_page, key);
	return bytes;
}

static inline int host_read(void *context, uint64_t key, void *buffer)
{
	(void)context;
	host.reads[key]++;
	if (host.absent[key])
		return -VMEM_ENOENT;
	memcpy(buffer, guest_bytes(key), VMEM_PAGE_SIZE);
	call(&host.on_page, key);
	return 0;
}

static inline const void *host_object(void *context, uint32_t id)
{
	(void)context;
	cr_assert(object[id].used);
	call(&host.on_object, id);
	return object[id].words;
}

static inline int host_read_object(void *context, uint32_t id, void *buffer)
{
	memcpy(buffer, host_object(context, id), VMEM_PAGE_SIZE);
	return 0;
}

static inline int host_protect(void *context, uint64_t key)
{
	(void)context;
	call(&host.on_protect, key);
	cr_assert(!host.is_protected[key] && !host.object_of[key]);
	if (host.pinned[key])
		return -VMEM_EBUSY;
	host.is_protected[key] = true;
	return 0;
}

static inline void host_unprotect(void *context, uint64_t key)
{
	(void)context;
	cr_assert(host.is_protected[key]);
	host.is_protected[key] = false;
}

static inline int host_make(void *context, uint64_t key, uint32_t hash, uint32_t *ret_id)
{
	uint32_t id;

	(void)context;
	cr_assert(host.is_protected[key]);
	call(&host.on_make, key);
	if (host.no_more)
		return -VMEM_ENOMEM;
	id = host.free_ids[--host.free_count];
	cr_assert(!object[id].used);
	object[id].used = true;
	object[id].users = 0;
	object[id].hash = hash;
	memcpy(object[id].words, host.frame[key], VMEM_PAGE_SIZE);
	*ret_id = id;
	return 0;
}

/* The check that counts: two become one only if their bytes are equal, at this moment. */
static inline int host_merge(void *context, uint64_t key, uint32_t id)
{
	(void)context;
	cr_assert(host.is_protected[key] && object[id].used);
	cr_assert_eq(memcmp(guest_bytes(key), object[id].words, VMEM_PAGE_SIZE), 0);
	if (host.unmovable[key])
		return -VMEM_EBUSY;
	host.is_protected[key] = false;
	host.object_of[key] = id;
	object[id].users++;
	call(&host.on_merge, key);
	return 0;
}

static inline void host_release(void *context, uint32_t id)
{
	(void)context;
	free_object(id);
}

/* --- Making one --- */

static inline void host_reset(void)
{
	memset(&host, 0, sizeof(host));
	memset(object, 0, sizeof(object));
	for (uint32_t id = OBJECTS - 1; id; id--)
		host.free_ids[host.free_count++] = id;
	vmemt_fail_alloc_init(&host.heap);
}

static inline struct vmem_share_opts host_opts(void)
{
	return (struct vmem_share_opts){ .size = sizeof(struct vmem_share_opts),
					 .allocator = &host.heap.allocator,
					 .page = host_page,
					 .object = host_object,
					 .protect = host_protect,
					 .unprotect = host_unprotect,
					 .make = host_make,
					 .merge = host_merge,
					 .release = host_release };
}

static inline void host_open_with(struct vmem_share_opts opts)
{
	host_reset();
	cr_assert_eq(vmem_share_new(&host.share, &opts), 0);
}

static inline void host_open(void)
{
	host_open_with(host_opts());
}

static inline struct vmem_share_stats host_stats(void)
{
	struct vmem_share_stats stats = { .size = sizeof(stats) };

	cr_assert_eq(vmem_share_get_stats(host.share, &stats), 0);
	return stats;
}

/* The scanner is sound, the guest sees what it wrote, and both count the same. */
static inline void expect_host_sound(void)
{
	const char *wrong = vmemi_share_check(host.share);
	uint32_t users[OBJECTS] = { 0 }, merged = 0, objects = 0;
	uint64_t want[WORDS];

	cr_assert_null(wrong, "%s", wrong);
	for (uint64_t key = 0; key < PAGES; key++) {
		cr_assert(!host.is_protected[key]);
		make_content(want, host.number[key]);
		cr_assert_eq(memcmp(guest_bytes(key), want, VMEM_PAGE_SIZE), 0);
		users[host.object_of[key]]++;
		merged += host.object_of[key] != 0;
	}
	for (uint32_t id = 1; id < OBJECTS; id++) {
		cr_assert_eq(object[id].users, users[id]);
		cr_assert_eq(object[id].used, users[id] != 0);
		objects += object[id].used;
	}
	cr_assert_eq(host_stats().merged, merged);
	cr_assert_eq(host_stats().objects, objects);
}

static inline void host_close(void)
{
	expect_host_sound();
	vmem_share_free(host.share);
	cr_assert_eq(host.heap.live_bytes, 0);
}

/* Whole passes, without limits. */
static inline void scan_passes(uint64_t passes)
{
	uint64_t until = host_stats().passes + passes;

	while (host_stats().passes < until)
		vmem_share_scan(host.share, 0, UINT64_MAX, NULL);
}

static inline void add_range(uint64_t first, uint64_t pages, uint32_t domain)
{
	cr_assert_eq(vmem_share_add_range(host.share, first, pages, domain), 0);
}

#endif
