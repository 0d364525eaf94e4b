/* SPDX-License-Identifier: BSD-2-Clause */
/* Snapshots of counters and gauges. Each number is right by itself; together they may be a moment apart. */
#include "base/opts.h"
#include "linux/manager/manager.h"

static uint64_t gauge(const _Atomic int64_t *value)
{
	int64_t v = atomic_load_explicit(value, memory_order_relaxed);

	return v > 0 ? (uint64_t)v : 0;
}

int vmem_region_get_metrics(vmem_region *region, struct vmem_region_metrics *metrics)
{
	const struct vmemi_region_counters *c = &region->counters;
	const struct vmemi_active *active = &region->ages.active;
	struct vmem_region_metrics m = {
		.size = sizeof(m),
		.bytes = vmemi_region_bytes(region),
		.pinned_pages = vmemi_region_pinned(region),
		.faults_zero = c->faults_zero,
		.faults_staged = c->faults_staged,
		.faults_stored = c->faults_stored,
		.faults_write = c->faults_write,
		.faults_redundant = c->faults_redundant,
		.prefetched = c->prefetched,
		.stalls = c->stalls,
		.stall_ns = c->stall_ns,
		.lost = c->lost,
		.fault_p50_ns = vmemi_latency_quantile(&region->latency, 500),
		.fault_p99_ns = vmemi_latency_quantile(&region->latency, 990),
		.fault_max_ns = region->latency.max_ns,
		.taken_run = c->taken_run,
		.taken_scattered = c->taken_scattered,
		.taken_clean = c->taken_clean,
		.taken_undone = c->taken_undone,
		.unmovable = c->unmovable,
		.saved = c->saved,
		.rejected = c->rejected,
		.discarded = c->discarded,
		.working_set_pages = region->ages.working_set,
		.cold_age = region->ages.cold_age,
		.cold_pages = region->ages.cold_pages,
		.taken_ahead = c->taken_ahead,
		.feed_asked = region->feed.asked,
		.feed_failed = region->feed.failed,
		.feed_pages = region->ages.seen,
		.feed_ns = region->feed.ns,
		.faults_source = c->faults_source,
		.faults_mapped = c->faults_mapped,
		.taken_unmapped = c->taken_unmapped,
		.active_bytes = active->active * VMEM_PAGE_SIZE,
		.active_now_bytes = active->now * VMEM_PAGE_SIZE,
		.active_low_bytes = active->low * VMEM_PAGE_SIZE,
		.active_high_bytes = active->high * VMEM_PAGE_SIZE,
		.active_samples = active->samples,
		.sampled = active->taken,
		.sampled_touched = active->touched,
		.sampled_ns = active->ns,
		.peers = region->peers,
		.faults_peer = c->faults_peer,
		.huge_bytes = region->huge.whole * VMEMI_HUGE_BYTES,
		.huge_collapsed = region->huge.collapsed,
		.huge_split = region->huge.split,
		.huge_failed = region->huge.failed,
		.peer_errors_left = c->peer_errors_left,
	};
	uint64_t copies = vmemi_region_copies(region), now = region->host->k->clock_ns();

	for (unsigned s = 0; s < VMEM_PAGE_STATES; s++)
		m.pages[s] = vmemi_region_count(region, (enum vmem_page_state)s);
	m.faults = m.faults_zero + m.faults_staged + m.faults_stored + m.faults_write +
		   m.faults_redundant + m.faults_source + m.faults_mapped;
	m.staging_copies = m.pages[VMEM_PAGE_STAGED] + m.pages[VMEM_PAGE_STORING];
	m.staging_copies = copies > m.staging_copies ? copies - m.staging_copies : 0;
	vmemi_pressure_tick(&region->pressure, now);
	m.blocked_ns = region->pressure.blocked_ns;
	m.pressure_ns = vmemi_pressure_some(&region->pressure, now);
	m.pressure_avg10_ppm = vmemi_pressure_avg(&region->pressure.avg10);
	m.pressure_avg60_ppm = vmemi_pressure_avg(&region->pressure.avg60);
	return vmemi_opts_give(metrics, &m, sizeof(m));
}

int vmem_region_get_account(vmem_region *region, struct vmem_store_account *account)
{
	return vmem_store_vm_account(region->host->store, region->vm, account);
}

int vmem_manager_get_metrics(vmem_manager *manager, struct vmem_manager_metrics *metrics)
{
	struct vmemi_host *host = &manager->host;
	struct vmemi_frames *f = &host->frames;
	struct vmem_manager_metrics m = {
		.size = sizeof(m),
		.budget_bytes = f->budget_bytes == UINT64_MAX ? 0 : f->budget_bytes,
		.resident_bytes = gauge(&f->resident_pages) * VMEM_PAGE_SIZE,
		.staging_bytes = gauge(&f->staging_pages) * VMEM_PAGE_SIZE,
		.pool_bytes = f->segment_bytes,
		.metadata_bytes = host->metadata.bytes + f->other_bytes,
		.reserve_bytes = f->reserve_bytes,
		.stalls = host->stalls,
		.stall_ns = host->stall_ns,
		.reclaim_ns = manager->reclaim_ns,
		.reclaim_rounds = manager->reclaim_rounds,
		.stuck = manager->stuck,
		.run_ns_per_page = manager->reclaim->cost.run_ns[6],
		.scattered_ns_per_page = manager->reclaim->cost.scattered_ns,
		.kernel_features = host->features,
		.save_ns = manager->reclaim->savers.cpu_ns,
		.save_threads = manager->opts.save_threads,
		.foreign_bytes = vmemi_host_foreign(host) * VMEM_PAGE_SIZE,
	};

	m.used_bytes = m.resident_bytes + m.staging_bytes + m.pool_bytes + m.metadata_bytes;
	return vmemi_opts_give(metrics, &m, sizeof(m));
}

int vmem_manager_get_account(vmem_manager *manager, struct vmem_store_account *account)
{
	return vmem_store_total_account(manager->host.store, account);
}

int vmem_region_page_state(const vmem_region *region, uint64_t gpa)
{
	uint64_t page, count;

	if (vmemi_region_span(region, gpa, 1, true, &page, &count))
		return -VMEM_ERANGE;
	return (int)vmemi_page_state(vmemi_region_word(region, page));
}
