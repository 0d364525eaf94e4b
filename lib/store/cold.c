/* SPDX-License-Identifier: BSD-2-Clause */
/* Recompression: LZ4 is quick when a page arrives, often under pressure; what is still there a pass or two
 * later is worth more time. A pass looks at all objects in the order of their handles. One that is new is
 * marked; one that was there in the pass before is encoded anew, and then has its final form.
 *
 * Only one thread is here, between the pieces of compaction. An object is held while it is worked on, and
 * replaced only if it has not been dropped meanwhile. */
#include "store/store_internal.h"
#include "base/mem.h"
#include "pool/pool_of.h"

#define DEFAULT_AFTER_MS 2000u
#define PIECE_PAGES 1u      /* encoded anew in a piece */
#define PIECE_HANDLES 8192u /* looked at */
#define TIMED_BITS 3u       /* the time of one in 8 pages is taken */
#define WORTH_SHIFT 5u      /* a new form must be a 32nd smaller */
#define NS_PER_SECOND 1000000000u

/* A delta is made if it fits into this part of what the page takes now, in 256ths. Both are LZ4 when that is
 * looked at; chosen with pages of real guests (docs/performance.md). */
#define DELTA_MOST 213u
/* What it costs each delta that a reference of several gets a form that is quick to decode, as a part of the
 * reference's bytes. */
#define QUICK_COST_SHIFT 5u

/* What c->pages is for. */
enum { PAGE, PLAIN, REFERENCE, DELTA, COLD_PAGES };

/* An object on its way. */
struct work {
	struct vmemi_domain *domain;
	struct vmemi_held held;
	struct vmemi_described is;
	struct vmem_similar_sketch sketch;
	bool is_first; /* delta against its reference */
};

static unsigned char *page_at(const vmem_store *store, unsigned n)
{
	return store->cold.pages + n * VMEM_PAGE_SIZE;
}

int vmemi_cold_init(vmem_store *store, const struct vmem_store_opts *o)
{
	struct vmemi_cold *c = &store->cold;
	int err = vmemi_lock_init(&c->lock, &store->env);

	c->enabled = vmemi_pool_has_codec(store->pool, VMEM_CODEC_ZSTD) &&
		     !(o->flags & VMEM_STORE_AS_SAVED);
	c->deltas = c->enabled && vmemi_pool_has_codec(store->pool, VMEM_CODEC_DELTA);
	c->after_ns = (uint64_t)(o->cold_after_ms ? o->cold_after_ms : DEFAULT_AFTER_MS) * 1000000;
	c->pages_per_second = o->cold_pages_per_second;
	if (err || !c->enabled)
		return err;
	vmemi_pool_will_replace(store->pool);
	c->bytes = COLD_PAGES * VMEM_PAGE_SIZE;
	c->pages = vmemi_zalloc(&store->allocator, c->bytes, 64);
	return c->pages ? 0 : -VMEM_ENOMEM;
}

void vmemi_cold_destroy(vmem_store *store)
{
	vmemi_free(&store->allocator, store->cold.pages, store->cold.bytes, 64);
	vmemi_lock_destroy(&store->cold.lock);
}

/* --- Deltas --- */

/* Reads a candidate and uses it, so that it stays. 0, -VMEM_ENOENT: it never can be one, -VMEM_EAGAIN: not now. */
static int take_reference(vmem_store *store, const struct work *w, uint32_t handle,
			  struct vmemi_described *ret_is)
{
	struct vmemi_held held;
	int err;

	if (handle == w->held.handle ||
	    !vmemi_pool_hold(store->pool, w->is.stream, handle, &held, ret_is))
		return -VMEM_ENOENT;
	if (ret_is->codec == VMEM_CODEC_DELTA || ret_is->codec == VMEM_CODEC_FILL ||
	    vmemi_pool_read(store->pool, &held, page_at(store, REFERENCE)))
		err = -VMEM_ENOENT;
	else
		err = vmemi_domain_use(w->domain, handle, ret_is->checksum);
	/* From the use on it stays; what was read is what stays only if it is there still. */
	if (!err && !vmemi_pool_is_current(store->pool, &held)) {
		vmemi_domain_unuse(w->domain, handle);
		err = -VMEM_EAGAIN;
	}
	vmemi_pool_let_go(store->pool, &held);
	return err;
}

/* A page that has features in common. 0: none. */
static uint32_t named_reference(vmem_store *store, struct work *w)
{
	uint32_t ids[VMEM_SIMILAR_CANDIDATES];

	if (!w->domain->similar)
		return 0;
	vmem_similar_sketch(page_at(store, PAGE), &w->sketch);
	return vmem_similar_find(w->domain->similar, &w->sketch, ids) ? ids[0] : 0;
}

/* A delta, with a use of its reference. False: there is none that is worth it. */
static bool encode_delta(vmem_store *store, struct work *w, struct vmemi_encoded *best)
{
	uint32_t handle = named_reference(store, w), most = w->is.bytes * DELTA_MOST >> 8;
	uint32_t bytes = 0, extra = sizeof(uint32_t);
	struct vmemi_described reference;
	int err;

	if (!handle)
		return false;
	err = take_reference(store, w, handle, &reference);
	if (err == -VMEM_ENOENT)
		vmemi_domain_unlearn(w->domain, &w->sketch, handle);
	if (err)
		return false;
	if (reference.codec == VMEM_CODEC_ZSTD)
		extra += reference.bytes >> QUICK_COST_SHIFT;
	if (most > extra)
		bytes = vmemi_pool_encode(store->pool, VMEM_CODEC_DELTA, page_at(store, PAGE),
					  page_at(store, REFERENCE), page_at(store, DELTA),
					  most - extra);
	if (!bytes) {
		vmemi_domain_unuse(w->domain, handle);
		return false;
	}
	w->is_first = reference.mark != VMEMI_MARK_REFERENCE;
	*best = (struct vmemi_encoded){ VMEM_CODEC_DELTA, bytes, page_at(store, DELTA), handle };
	return true;
}

/* Replaces an object, and counts it: the new form first, as it may be dropped at once. */
static int put_in_place(vmem_store *store, struct vmemi_domain *d, const struct vmemi_held *held,
			uint32_t codec, const struct vmemi_encoded *e)
{
	enum vmemi_form form = vmemi_form_of(e->codec);
	int err;

	vmemi_count(&d->objects[form], 1);
	err = vmemi_pool_replace(store->pool, held, e);
	vmemi_count(&d->objects[err ? form : vmemi_form_of(codec)], -1);
	return err;
}

/* A reference is read for each of its deltas: one of several goes back to what is quick to decode. */
static void make_quick(vmem_store *store, const struct work *w, uint32_t handle)
{
	struct vmemi_encoded e = { .codec = VMEM_CODEC_LZ4, .payload = page_at(store, PLAIN) };
	struct vmemi_described is;
	struct vmemi_held held;

	if (!vmemi_pool_hold(store->pool, w->is.stream, handle, &held, &is))
		return;
	if (is.codec == VMEM_CODEC_ZSTD &&
	    !vmemi_pool_read(store->pool, &held, page_at(store, REFERENCE)))
		e.bytes = vmemi_pool_encode(store->pool, VMEM_CODEC_LZ4, page_at(store, REFERENCE),
					    NULL, page_at(store, PLAIN), VMEM_PAGE_SIZE - 1);
	if (e.bytes)
		(void)put_in_place(store, w->domain, &held, is.codec, &e);
	vmemi_pool_let_go(store->pool, &held);
}

/* --- One object --- */

/* The page alone, if that is worth it; else what it is now. */
static void encode_alone(vmem_store *store, const struct work *w, struct vmemi_encoded *best)
{
	uint32_t most = w->is.bytes - (w->is.bytes >> WORTH_SHIFT) - 1, bytes = 0;

	if (w->is.codec != VMEM_CODEC_RAW ||
	    !vmem_page_looks_incompressible(page_at(store, PAGE), store->cpu))
		bytes = vmemi_pool_encode(store->pool, VMEM_CODEC_ZSTD, page_at(store, PAGE), NULL,
					  page_at(store, PLAIN), most);
	*best = (struct vmemi_encoded){ w->is.codec, w->is.bytes, NULL, 0 };
	if (bytes)
		*best = (struct vmemi_encoded){ VMEM_CODEC_ZSTD, bytes, page_at(store, PLAIN), 0 };
}

/* Puts the form in place. 0: the object is settled; or as vmemi_pool_replace(). */
static int replace(vmem_store *store, struct work *w, const struct vmemi_encoded *best)
{
	int err = 0;

	/* A reference must not become a delta: its handle may be in the index since it was another's. */
	if (best->reference)
		vmemi_pool_mark(store->pool, best->reference, VMEMI_MARK_REFERENCE);
	if (best->payload)
		err = put_in_place(store, w->domain, &w->held, w->is.codec, best);
	if (err) {
		if (best->reference)
			vmemi_domain_unuse(w->domain, best->reference);
		return err;
	}
	if (best->reference && !w->is_first)
		make_quick(store, w, best->reference);
	if (!best->reference && w->domain->similar)
		vmemi_domain_learn(w->domain, &w->sketch, w->held.handle);
	return 0;
}

/* As replace(). */
static int encode_anew(vmem_store *store, struct work *w)
{
	struct vmemi_encoded best;

	if (w->is.codec == VMEM_CODEC_FILL || w->is.codec == VMEM_CODEC_DELTA ||
	    vmemi_pool_read(store->pool, &w->held, page_at(store, PAGE)))
		return 0; /* nothing is to be won, or nothing can be */
	if (!encode_delta(store, w, &best))
		encode_alone(store, w, &best);
	return replace(store, w, &best);
}

/* The domain of a stream, which stays while cold is locked. NULL: it is going. */
static struct vmemi_domain *domain_of(vmem_store *store, uint32_t stream)
{
	struct vmemi_vm *vm = vmemi_store_vm(store, stream);
	struct vmemi_domain *d = vm ? vm->domain : NULL;

	if (d && !d->is_group)
		return d;
	vmemi_lock(&store->vm_lock);
	for (d = store->groups; d && d->stream != stream; d = d->next)
		;
	vmemi_unlock(&store->vm_lock);
	return d;
}

/* 0, -VMEM_EAGAIN (in another pass), -VMEM_ENOSPC, -VMEM_ENOMEM. */
static int work_on(vmem_store *store, uint32_t handle)
{
	/* Asking the clock is not free. Of handles in a row it must not be always those of one VM. */
	bool timed = !(handle * UINT32_C(0x9e3779b9) >> (32 - TIMED_BITS));
	uint64_t begun = timed ? vmemi_store_cpu_ns(store) : 0;
	struct work w;
	int err = 0;

	vmemi_lock(&store->cold.lock);
	if (vmemi_pool_hold(store->pool, VMEMI_ANY_STREAM, handle, &w.held, &w.is)) {
		w.domain = domain_of(store, w.is.stream);
		if (w.domain)
			err = vmemi_pool_is_sealed(store->pool, &w.held) ? encode_anew(store, &w)
									 : -VMEM_EAGAIN;
		if (w.domain && !err) {
			vmemi_pool_mark(store->pool, handle, VMEMI_MARK_SETTLED);
			if (timed)
				vmemi_domain_charge_work(w.domain, (vmemi_store_cpu_ns(store) -
								    begun) << TIMED_BITS);
		}
		vmemi_pool_let_go(store->pool, &w.held);
	}
	vmemi_unlock(&store->cold.lock);
	return err == -VMEM_ENOENT ? 0 : err;
}

/* --- Passes --- */

/* Whether a pass is under way or begins now. */
static bool in_pass(vmem_store *store, uint64_t now_ns)
{
	struct vmemi_cold *c = &store->cold;

	if (c->hand)
		return true;
	if (c->started && now_ns - c->pass_ns < c->after_ns)
		return false;
	c->started = true;
	c->pass_ns = now_ns;
	c->hand = 1;
	vmemi_pool_look(store->pool);
	return true;
}

/* Whether the limit allows one more page. */
static bool is_allowed(struct vmemi_cold *c, uint64_t now_ns)
{
	if (!c->pages_per_second)
		return true;
	if (now_ns - c->spent_ns >= NS_PER_SECOND) {
		c->spent_ns = now_ns;
		c->spent = 0;
	}
	return c->spent < c->pages_per_second;
}

enum vmemi_cold_result vmemi_cold_work(vmem_store *store, uint64_t now_ns)
{
	struct vmemi_cold *c = &store->cold;
	uint32_t handle, pages = 0, handles = 0;
	bool full = false;
	enum vmemi_mark mark;

	if (!c->enabled || !in_pass(store, now_ns) || !is_allowed(c, now_ns))
		return VMEMI_COLD_DONE;
	atomic_store_explicit(&c->interrupted, 0, memory_order_relaxed);
	atomic_store_explicit(&c->working, 1, memory_order_relaxed);
	while (c->hand && !full && pages < PIECE_PAGES && handles < PIECE_HANDLES &&
	       is_allowed(c, now_ns) &&
	       !atomic_load_explicit(&c->interrupted, memory_order_relaxed)) {
		uint32_t first = c->hand;

		handle = vmemi_pool_next(store->pool, first, PIECE_HANDLES, &c->hand, &mark);
		handles += c->hand ? c->hand - first : 0;
		if (handle && mark == VMEMI_MARK_NEW) {
			vmemi_pool_mark(store->pool, handle, VMEMI_MARK_SEEN);
		} else if (handle) {
			int err = work_on(store, handle);

			pages += !err;
			c->spent += !err;
			full = err && err != -VMEM_EAGAIN;
		}
		if (full) /* once compaction has made room */
			c->hand = handle;
	}
	atomic_store_explicit(&c->working, 0, memory_order_relaxed);
	if (atomic_load_explicit(&c->interrupted, memory_order_relaxed))
		return VMEMI_COLD_STOPPED;
	return c->hand && !full && is_allowed(c, now_ns) ? VMEMI_COLD_MORE : VMEMI_COLD_DONE;
}
