/* SPDX-License-Identifier: BSD-2-Clause */
/* Protect, compare, commit.
 *
 * A reference is always taken before a page is merged, and its state says MERGED before the callback is
 * called: as soon as that has begun, the page may be written to, and a break comes from another thread. */
#include "base/mem.h"
#include "share/share_internal.h"

const void *vmemi_share_bytes(const struct vmem_share *s, struct vmemi_share_page page,
			      void *buffer)
{
	if (s->opts.page)
		return s->opts.page(s->opts.context, vmemi_share_key(page));
	return s->opts.read(s->opts.context, vmemi_share_key(page), buffer) ? NULL : buffer;
}

static const void *object_bytes(const struct vmem_share *s, uint32_t id)
{
	void *buffer = s->buffers + (VMEMI_SHARE_BATCH + 1) * VMEM_PAGE_SIZE;

	if (s->opts.object)
		return s->opts.object(s->opts.context, id);
	return s->opts.read_object(s->opts.context, id, buffer) ? NULL : buffer;
}

static void *other_buffer(const struct vmem_share *s)
{
	return s->buffers ? s->buffers + VMEMI_SHARE_BATCH * VMEM_PAGE_SIZE : NULL;
}

static bool equal(struct vmem_share *s, const void *a, const void *b)
{
	bool same = !memcmp(a, b, VMEM_PAGE_SIZE);

	vmemi_share_count(&s->compares, 1);
	vmemi_share_count(&s->compares_different, !same);
	return same;
}

static void set_state(struct vmemi_share_page page, enum vmemi_share_kind kind, uint32_t rung)
{
	atomic_store_explicit(&page.range->state[page.offset], vmemi_share_state_of(kind, rung),
			      memory_order_relaxed);
}

void vmemi_share_unhint(struct vmem_share *s, struct vmemi_share_page page,
			enum vmemi_share_kind kind, uint32_t rung, bool orphan)
{
	page.range->hinted--;
	s->orphans += orphan;
	set_state(page, kind, rung);
}

/* --- Protecting --- */

static void unprotect(struct vmem_share *s, struct vmemi_share_page page)
{
	s->opts.unprotect(s->opts.context, vmemi_share_key(page));
}

/* The bytes of a page, which cannot change from now on; or NULL, and it is not protected. */
static const void *protect(struct vmem_share *s, struct vmemi_share_page page, void *buffer)
{
	const void *bytes = NULL;

	if (!s->opts.protect(s->opts.context, vmemi_share_key(page))) {
		bytes = vmemi_share_bytes(s, page, buffer);
		if (!bytes)
			unprotect(s, page);
	}
	vmemi_share_count(&s->refused, !bytes);
	return bytes;
}

/* The visited page, unless it is already. Whether it worked. */
static bool protect_visited(struct vmem_share *s, struct vmemi_share_visit *v)
{
	const void *bytes;

	if (v->over || v->is_protected)
		return !v->over;
	bytes = protect(s, v->page, v->buffer);
	v->is_protected = bytes != NULL;
	v->over = !bytes;
	if (bytes)
		v->bytes = bytes;
	return !v->over;
}

/* Whether a visited page, protected now, is still what was looked up. */
static bool is_torn(struct vmem_share *s, struct vmemi_share_visit *v)
{
	v->over = vmem_dedup_hash(s->dedup, v->bytes) != v->hash;
	vmemi_share_count(&s->torn, v->over);
	return v->over;
}

/* --- Comparing --- */

int vmemi_share_compare(void *share, uint32_t id, const void *visit)
{
	struct vmemi_share_visit *v = (struct vmemi_share_visit *)visit;
	struct vmem_share *s = share;
	const void *object;

	if (!protect_visited(s, v))
		return 0;
	object = object_bytes(s, id);
	if (!object)
		return -VMEM_EIO;
	if (equal(s, v->bytes, object))
		return 1;
	is_torn(s, v);
	return 0;
}

/* The page of a good hint has another content than that. Whether it has changed, or is another page
 * with the same mix. */
static int different(struct vmem_share *s, struct vmemi_share_page page, uint32_t mix,
		     const void *bytes)
{
	uint32_t hash = vmem_dedup_hash(s->dedup, bytes);

	if (vmemi_dedup_mix(s->dedup, page.range->domain, hash) == mix)
		return 0;
	vmemi_share_unhint(s, page, VMEMI_SHARE_SEEN, vmemi_share_rung_of(vmemi_share_state(page)),
			   false);
	return -VMEM_ENOENT;
}

/* Both protected, and compared again. */
static int commit(struct vmem_share *s, struct vmemi_share_visit *v, struct vmemi_share_page other)
{
	const void *bytes;

	if (!protect_visited(s, v))
		return 0;
	bytes = protect(s, other, other_buffer(s));
	v->again = !bytes;
	if (!bytes)
		return 0;
	if (!is_torn(s, v) && equal(s, v->bytes, bytes)) {
		v->other = other;
		return 1;
	}
	unprotect(s, other);
	return 0;
}

int vmemi_share_compare_hint(void *share, uint32_t index, const void *visit)
{
	struct vmemi_share_visit *v = (struct vmemi_share_visit *)visit;
	struct vmem_share *s = share;
	struct vmemi_share_page other = vmemi_share_page_at(s, index);
	const void *bytes;

	if (v->over)
		return 0;
	if (!vmemi_share_hint_is_good(other, v->mix)) {
		/* Its own comes back to life when the page is hinted again. */
		if (other.range == v->page.range && other.offset == v->page.offset)
			return 0;
		s->orphans -= s->orphans > 0;
		return -VMEM_ENOENT;
	}
	if (other.range->domain != v->page.range->domain)
		return 0;
	bytes = vmemi_share_bytes(s, other, other_buffer(s));
	if (!bytes) {
		vmemi_share_unhint(s, other, VMEMI_SHARE_NEW, 0, false);
		return -VMEM_ENOENT;
	}
	if (!equal(s, v->bytes, bytes))
		return different(s, other, v->mix, bytes);
	return commit(s, v, other);
}

/* --- Joining --- */

static void drop(struct vmem_share *s, uint32_t domain, uint32_t hash, uint32_t id)
{
	uint32_t left = 1;

	if (!vmem_dedup_drop(s->dedup, domain, hash, id, &left) && !left)
		s->opts.release(s->opts.context, id);
}

/* Merges a protected page, for which there is a reference. */
static void merge(struct vmem_share *s, struct vmemi_share_page page, uint32_t rung, uint32_t hash,
		  uint32_t id)
{
	set_state(page, VMEMI_SHARE_MERGED, rung);
	vmemi_share_count(&page.range->merged, 1);
	vmemi_share_count(&s->merged, 1);
	if (!s->opts.merge(s->opts.context, vmemi_share_key(page), id)) {
		vmemi_share_count(&s->merges, 1);
		return;
	}
	/* It was not joined, so nobody can have broken it. */
	set_state(page, VMEMI_SHARE_SEEN, rung);
	atomic_fetch_sub_explicit(&page.range->merged, 1, memory_order_relaxed);
	atomic_fetch_sub_explicit(&s->merged, 1, memory_order_relaxed);
	drop(s, page.range->domain, hash, id);
	unprotect(s, page);
	vmemi_share_count(&s->refused, 1);
}

static void join_another(struct vmem_share *s, struct vmemi_share_page page, uint32_t rung,
			 uint32_t hash, uint32_t id)
{
	if (!vmem_dedup_take(s->dedup, page.range->domain, hash, id)) {
		merge(s, page, rung, hash, id);
		return;
	}
	set_state(page, VMEMI_SHARE_SEEN, rung);
	unprotect(s, page);
}

/* Two pages are the first of their content: an object is made of them. The scanner has a reference of
 * its own while they are merged. */
static void join_two(struct vmem_share *s, struct vmemi_share_visit *v)
{
	uint32_t domain = v->page.range->domain, id = 0;
	int err = s->opts.make(s->opts.context, vmemi_share_key(v->other), v->hash, &id);

	if (!err) /* fails if the id is 0 or in use */
		err = vmem_dedup_promote(s->dedup, domain, v->hash, vmemi_share_index(v->other),
					 id);
	if (err) {
		vmemi_share_count(&s->refused, 1);
		unprotect(s, v->other);
		unprotect(s, v->page);
		return;
	}
	v->other.range->hinted--;
	join_another(s, v->other, vmemi_share_rung_of(vmemi_share_state(v->other)), v->hash, id);
	join_another(s, v->page, v->rung, v->hash, id);
	drop(s, domain, v->hash, id);
}

void vmemi_share_join(struct vmem_share *s, struct vmemi_share_visit *v, int found, uint32_t id)
{
	if (found == VMEM_DEDUP_SHARED)
		merge(s, v->page, v->rung, v->hash, id);
	else if (found == VMEM_DEDUP_HINT)
		join_two(s, v);
	else if (v->is_protected)
		unprotect(s, v->page);
}
