/* SPDX-License-Identifier: BSD-2-Clause */
/* The scanner: making it, its limits, pages that leave, counters. How it all fits together is said in
 * share_internal.h. */
#include "base/opts.h"
#include "share/share_internal.h"

#define DEFAULT_PAGE_NS 1000u
#define BUFFERS (VMEMI_SHARE_BATCH + 2)
#define BUFFER_ALIGN 64u

/* --- Making --- */

int vmem_share_set_limits(vmem_share *s, const struct vmem_share_limits *given)
{
	struct vmem_share_limits limits;
	int err = vmemi_opts_take(&limits, sizeof(limits), given);

	if (err)
		return err;
	if (limits.cpu_percent > 100)
		return -VMEM_EINVAL;
	if (!limits.cpu_percent)
		limits.cpu_percent = 100;
	if (!limits.page_ns)
		limits.page_ns = DEFAULT_PAGE_NS;
	s->limits = limits;
	s->not_before_ns = 0;
	return 0;
}

static void release(void *context, uint32_t id)
{
	struct vmem_share *s = context;

	s->opts.release(s->opts.context, id);
}

static int make_table(struct vmem_share *s)
{
	struct vmem_dedup_opts opts = { .size = sizeof(opts),
					.allocator = &s->memory.allocator,
					.env = &s->env,
					.cpu = s->opts.cpu,
					.seed = s->opts.seed,
					.context = s,
					.compare = vmemi_share_compare,
					.compare_hint = vmemi_share_compare_hint,
					.release = release };

	return vmem_dedup_new(&s->dedup, &opts);
}

static int take_opts(struct vmem_share *s, const struct vmem_share_opts *opts)
{
	int err = vmemi_env_take(&s->env, opts->env);

	if (err)
		return err;
	if (opts->flags || !(opts->page || opts->read) || !(opts->object || opts->read_object) ||
	    !opts->protect || !opts->unprotect || !opts->make || !opts->merge || !opts->release)
		return -VMEM_EINVAL;
	s->opts = *opts;
	return vmem_share_set_limits(s, opts->limits);
}

int vmem_share_new(vmem_share **ret_share, const struct vmem_share_opts *given)
{
	struct vmem_allocator allocator;
	struct vmem_share_opts opts;
	struct vmem_share *s;
	int err = ret_share ? vmemi_opts_take(&opts, sizeof(opts), given) : -VMEM_EINVAL;

	if (!err)
		err = vmemi_alloc_take(&allocator, opts.allocator);
	if (err)
		return err;
	s = vmemi_zalloc(&allocator, sizeof(*s), _Alignof(struct vmem_share));
	if (!s)
		return -VMEM_ENOMEM;
	vmemi_counting_init(&s->memory, &allocator);
	err = take_opts(s, &opts);
	if (!err)
		err = vmemi_lock_init(&s->lock, &s->env);
	if (!err)
		err = make_table(s);
	if (!err && !(s->opts.page && s->opts.object)) {
		s->buffers =
			vmemi_alloc(&s->memory.allocator, BUFFERS * VMEM_PAGE_SIZE, BUFFER_ALIGN);
		err = s->buffers ? 0 : -VMEM_ENOMEM;
	}
	if (err)
		vmem_share_free(s);
	else
		*ret_share = s;
	return err;
}

void vmem_share_free(vmem_share *s)
{
	struct vmem_allocator allocator;

	if (!s)
		return;
	vmemi_share_ranges_free(s);
	vmemi_free(&s->memory.allocator, s->buffers, BUFFERS * VMEM_PAGE_SIZE, BUFFER_ALIGN);
	vmem_dedup_free(s->dedup);
	vmemi_lock_destroy(&s->lock);
	allocator = s->memory.inner;
	vmemi_free(&allocator, s, sizeof(*s), _Alignof(struct vmem_share));
}

/* --- Leaving --- */

/* Makes a merged page one that was seen: if it has changed when it is next visited, it goes up the
 * ladder, so that a page which is joined and broken again and again is visited less and less. Locked. */
static int unmerge(struct vmem_share *s, uint64_t key, uint32_t id, uint32_t hash,
		   uint32_t *ret_left)
{
	uint32_t at = vmemi_share_range_from(s, key);
	struct vmemi_share_range *r = at < s->range_count ? s->ranges[at] : NULL;
	uint8_t state;
	int err;

	if (!r || key < r->first)
		return -VMEM_ENOENT;
	state = atomic_load_explicit(&r->state[key - r->first], memory_order_relaxed);
	if (vmemi_share_kind_of(state) != VMEMI_SHARE_MERGED)
		return -VMEM_ENOENT;
	err = vmem_dedup_drop(s->dedup, r->domain, hash, id, ret_left);
	if (err)
		return err;
	atomic_store_explicit(&r->state[key - r->first],
			      vmemi_share_state_of(VMEMI_SHARE_SEEN, vmemi_share_rung_of(state)),
			      memory_order_relaxed);
	atomic_fetch_sub_explicit(&r->merged, 1, memory_order_relaxed);
	atomic_fetch_sub_explicit(&s->merged, 1, memory_order_relaxed);
	return 0;
}

int vmem_share_break(vmem_share *s, uint64_t key, uint32_t id, uint32_t hash, uint32_t *ret_left)
{
	int err;

	if (!ret_left)
		return -VMEM_EINVAL;
	vmemi_lock(&s->lock);
	err = unmerge(s, key, id, hash, ret_left);
	vmemi_unlock(&s->lock);
	if (!err)
		vmemi_share_count(&s->breaks, 1);
	return err;
}

/* --- Counters --- */

static uint64_t read_counter(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

int vmem_share_get_stats(vmem_share *s, struct vmem_share_stats *ret_stats)
{
	struct vmem_share_stats stats = { .size = sizeof(stats) };
	struct vmem_dedup_stats table = { .size = sizeof(table) };
	int err = vmem_dedup_get_stats(s->dedup, &table);

	if (err)
		return err;
	stats.objects = table.shared;
	stats.merged = read_counter(&s->merged);
	stats.saved_pages = stats.merged > stats.objects ? stats.merged - stats.objects : 0;
	stats.bytes = sizeof(*s) + read_counter(&s->memory.bytes);
	stats.passes = read_counter(&s->passes);
	stats.pass_ns = read_counter(&s->pass_ns);
	stats.visited = read_counter(&s->visited);
	stats.skipped = read_counter(&s->skipped);
	stats.changed = read_counter(&s->changed);
	stats.merges = read_counter(&s->merges);
	stats.breaks = read_counter(&s->breaks);
	stats.refused = read_counter(&s->refused);
	stats.torn = read_counter(&s->torn);
	stats.hints = table.hints;
	stats.hints_stale = table.hints_stale;
	stats.compares = read_counter(&s->compares);
	stats.compares_different = read_counter(&s->compares_different);
	return vmemi_opts_give(ret_stats, &stats, sizeof(stats));
}
