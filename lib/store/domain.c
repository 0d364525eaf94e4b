/* SPDX-License-Identifier: BSD-2-Clause */
/* Sharing domains: see domain.h. The counts are in the dedup table, whose locks are its own. An object that
 * found no room in the table has one use and is never found: it goes with its only page. */
#include "store/domain.h"
#include "pool/pool_of.h"
#include "pool/pool_out.h"
#include "store/store_internal.h"

#define DOMAIN 1u /* of the table, which has only one */

enum vmemi_form vmemi_form_of(uint32_t codec)
{
	switch (codec) {
	case VMEM_CODEC_FILL: return VMEMI_FORM_FILL;
	case VMEM_CODEC_RAW: return VMEMI_FORM_RAW;
	case VMEM_CODEC_LZ4: return VMEMI_FORM_LZ4;
	case VMEM_CODEC_ZSTD: return VMEMI_FORM_ZSTD;
	case VMEM_CODEC_DELTA: return VMEMI_FORM_DELTA;
	default: return VMEMI_FORM_OTHER;
	}
}

/* --- Callbacks of the table --- */

static int compare(void *context, uint32_t handle, const void *page)
{
	struct vmemi_domain *d = context;

	return vmemi_pool_equal(d->store->pool, d->stream, handle, page);
}

/* Frees an object that nothing uses. Returns the reference that it used, if it was a delta. 0: none. */
static uint32_t free_object(struct vmemi_domain *d, uint32_t handle, int *ret_error)
{
	struct vmemi_dropped dropped;

	*ret_error = vmemi_pool_drop_of(d->store->pool, d->stream, handle, &dropped);
	if (*ret_error)
		return 0;
	vmemi_count(&d->objects[vmemi_form_of(dropped.codec)], -1);
	return (uint32_t)dropped.reference;
}

/* Whether an object that the table does not know really has no other uses: a checksum that was damaged in
 * memory must not make one go that others still use. Of a delta whose reference is out only the header is compared,
 * as of what is out itself. */
static bool is_alone(struct vmemi_domain *d, uint32_t handle, uint32_t checksum)
{
	struct vmemi_held held;
	struct vmemi_described described;
	uint32_t known;
	bool whole;

	if (!vmemi_out_checksum(d->store->pool, d->stream, handle, &known))
		return known == checksum; /* of its digest, which was made when it was whole */
	if (!vmemi_pool_hold(d->store->pool, d->stream, handle, &held, &described))
		return false;
	whole = vmemi_pool_is_whole(d->store->pool, &held) && described.checksum == checksum;
	vmemi_pool_let_go(d->store->pool, &held);
	return whole;
}

/* One use less of an object. 0, -VMEM_ENOENT. @ret_unused: it is to be freed. */
static int drop_use(struct vmemi_domain *d, uint32_t handle, bool *ret_unused)
{
	uint32_t checksum, left = 0;
	int err;

	*ret_unused = !d->dedup; /* one page, one object */
	if (!d->dedup)
		return 0;
	err = vmemi_pool_checksum_of(d->store->pool, d->stream, handle, &checksum);
	if (err == -VMEM_EBADMSG) /* it stays, as nobody knows who else uses it */
		return 0;
	if (err)
		return err;
	err = vmem_dedup_drop(d->dedup, DOMAIN, checksum, handle, &left);
	*ret_unused = err ? is_alone(d, handle, checksum) : !left;
	return 0;
}

/* Frees an object that nothing uses, and its reference, if nothing else uses that. */
static int free_unused(struct vmemi_domain *d, uint32_t handle)
{
	bool unused = false;
	int err, ignored;

	handle = free_object(d, handle, &err);
	if (!err && handle && !drop_use(d, handle, &unused) && unused)
		(void)free_object(d, handle, &ignored); /* a reference is no delta */
	return err;
}

static void release(void *context, uint32_t handle)
{
	(void)free_unused(context, handle);
}

/* --- Making --- */

static int make_table(struct vmemi_domain *d)
{
	const struct vmem_dedup_opts opts = {
		.size = sizeof(opts),
		.allocator = &d->store->allocator,
		.env = &d->store->env,
		.cpu = d->store->cpu,
		.seed = d->store->seed,
		.context = d,
		.compare = compare,
		.release = release,
	};

	return vmem_dedup_new(&d->dedup, &opts);
}

/* Objects that are there and may be references. What the index knows of others cannot be looked for when they
 * go: it has no more room than these need, and they crowd that out. */
static void limit_index(struct vmemi_domain *d)
{
	vmem_similar_set_pages(d->similar, vmemi_counter(&d->objects[VMEMI_FORM_RAW]) +
						   vmemi_counter(&d->objects[VMEMI_FORM_LZ4]) +
						   vmemi_counter(&d->objects[VMEMI_FORM_ZSTD]) +
						   vmemi_counter(&d->objects[VMEMI_FORM_OTHER]));
}

static void count_index(struct vmemi_domain *d)
{
	struct vmem_similar_stats stats = { .size = sizeof(stats) };

	vmem_similar_get_stats(d->similar, &stats);
	atomic_store_explicit(&d->similar_bytes, stats.bytes, memory_order_relaxed);
}

static int make_index(struct vmemi_domain *d)
{
	const struct vmem_similar_opts opts = { .size = sizeof(opts),
						.allocator = &d->store->allocator };

	int err = vmem_similar_new(&d->similar, &opts);

	if (err)
		return err;
	limit_index(d);
	count_index(d);
	return 0;
}

void vmemi_domain_learn(struct vmemi_domain *d, const struct vmem_similar_sketch *sketch,
			uint32_t handle)
{
	limit_index(d);
	vmem_similar_add(d->similar, sketch, handle);
	count_index(d);
}

void vmemi_domain_unlearn(struct vmemi_domain *d, const struct vmem_similar_sketch *sketch,
			  uint32_t handle)
{
	vmem_similar_forget(d->similar, sketch, handle);
	count_index(d);
}

bool vmemi_domain_shrink(struct vmemi_domain *d, uint32_t lines)
{
	bool more = vmem_dedup_work(d->dedup, lines);

	if (more || !d->similar)
		return more;
	limit_index(d);
	more = vmem_similar_work(d->similar, lines);
	count_index(d);
	return more;
}

int vmemi_domain_new(struct vmemi_domain **ret_domain, vmem_store *store, const uint64_t *group,
		     uint32_t stream, bool shares)
{
	struct vmemi_domain *d = vmemi_zalloc(&store->allocator, sizeof(*d), 64);
	int err = 0;

	if (!d)
		return -VMEM_ENOMEM;
	d->store = store;
	d->is_group = group != NULL;
	d->group = group ? *group : 0;
	d->stream = stream;
	if (shares)
		err = make_table(d);
	if (!err && shares && store->cold.deltas)
		err = make_index(d);
	if (!err && group)
		err = vmem_pool_stream_new(store->pool, &d->stream);
	if (err) {
		vmem_similar_free(d->similar);
		vmem_dedup_free(d->dedup);
		vmemi_free(&store->allocator, d, sizeof(*d), 64);
		return err;
	}
	*ret_domain = d;
	return 0;
}

void vmemi_domain_free(struct vmemi_domain *d)
{
	if (!d)
		return;
	vmem_dedup_free(d->dedup);
	vmem_similar_free(d->similar);
	/* Last: with the stream the number of a VM may be another's. */
	vmem_pool_stream_drop(d->store->pool, d->stream);
	vmemi_free(&d->store->allocator, d, sizeof(*d), 64);
}

/* --- Objects --- */

int vmemi_domain_find(struct vmemi_domain *d, uint32_t checksum, const void *page,
		      uint32_t *ret_handle)
{
	if (!d->dedup ||
	    vmem_dedup_find(d->dedup, DOMAIN, checksum, page, ret_handle) != VMEM_DEDUP_SHARED)
		return 0;
	vmemi_count(&d->pages, 1);
	return 1;
}

int vmemi_domain_add(struct vmemi_domain *d, struct vmemi_page_save *page, uint32_t *ret_handle)
{
	vmem_pool_handle handle;
	int err = vmemi_pool_save_of(d->store->pool, d->stream, page, &handle);

	if (err == -VMEM_EFBIG) {
		err = vmemi_out_takes_raw(d->store);
		page->max_bytes = VMEM_PAGE_SIZE;
		page->codec = VMEM_CODEC_RAW;
		page->transit = true;
		if (!err)
			err = vmemi_pool_save_of(d->store->pool, d->stream, page, &handle);
	}
	if (err)
		return err;
	vmemi_count(&d->objects[vmemi_form_of(page->codec)], 1);
	vmemi_count(&d->pages, 1);
	if (d->dedup)
		err = vmem_dedup_add(d->dedup, DOMAIN, page->checksum, (uint32_t)handle);
	(void)err; /* without room in the table it is this page's alone */
	*ret_handle = (uint32_t)handle;
	return 0;
}

int vmemi_domain_drop(struct vmemi_domain *d, uint32_t handle)
{
	bool unused;
	int err = drop_use(d, handle, &unused);

	if (!err && unused)
		err = free_unused(d, handle);
	if (!err)
		vmemi_count(&d->pages, -1);
	return err;
}

int vmemi_domain_use(struct vmemi_domain *d, uint32_t handle, uint32_t checksum)
{
	return d->dedup ? vmem_dedup_take(d->dedup, DOMAIN, checksum, handle) : -VMEM_ENOTSUP;
}

void vmemi_domain_unuse(struct vmemi_domain *d, uint32_t handle)
{
	bool unused;

	if (!drop_use(d, handle, &unused) && unused)
		(void)free_unused(d, handle);
}

uint64_t vmemi_domain_bytes(struct vmemi_domain *d)
{
	struct vmem_dedup_stats table = { .size = sizeof(table) };

	if (d->dedup)
		vmem_dedup_get_stats(d->dedup, &table);
	return table.bytes + vmemi_counter(&d->similar_bytes) + sizeof(*d);
}
