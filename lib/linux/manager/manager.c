/* SPDX-License-Identifier: BSD-2-Clause */
/* Making a manager, and its budget: see manager.h. */
#include "linux/manager/manager.h"
#include "base/mem.h"
#include "base/opts.h"
#include "linux/kernel/pagemap.h"
#include "linux/kernel/uffd_abi.h"
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <vmem/pool.h>

#define MIB (UINT64_C(1) << 20)
#define BUDGET_MIN (4 * MIB)
/* A page that does not shrink by an eighth is not worth its way back. */
#define OBJECT_MAX 3584
/* What reclaim needs while it makes room: a segment with the two that the pool keeps spare, and the copies
 * of a scattered batch. */
#define FLOOR_MIN (3 * VMEM_POOL_SEGMENT_BYTES + (uint64_t)VMEMI_SCATTER_BATCH * VMEM_PAGE_SIZE)

static int take_opts(struct vmem_manager_opts *o, const struct vmem_manager_opts *opts)
{
	int error = vmemi_opts_take(o, sizeof(*o), opts);

	if (error)
		return error;
	if (o->flags & ~(VMEM_MANAGER_AS_SAVED | VMEM_MANAGER_ASYNC_WP) ||
	    o->max_object_bytes > VMEM_PAGE_SIZE ||
	    (o->budget_bytes && o->budget_bytes < BUDGET_MIN) ||
	    o->fault_threads > VMEMI_HANDLERS_MAX || o->save_threads > VMEMI_SAVERS_MAX ||
	    o->source_threads > VMEMI_SOURCE_THREADS || o->reserved)
		return -VMEM_EINVAL;
	if (!o->source_threads)
		o->source_threads = 1;
	if (!o->max_object_bytes)
		o->max_object_bytes = OBJECT_MAX;
	if (!o->fault_spin_us)
		o->fault_spin_us = 50;
	if (!o->fault_threads)
		o->fault_threads = 1;
	return 0;
}

static uint64_t clamp(uint64_t value, uint64_t low, uint64_t high)
{
	return value < low ? low : value > high ? high : value;
}

/* Half of the processors are left to the guests and those who serve them. */
static uint32_t default_savers(const struct vmemi_kernel *k)
{
	long processors = k->processors();

	return (uint32_t)clamp(processors > 0 ? (uint64_t)processors / 2 : 1, 1, 4);
}

/* Derives the marks from a budget; those given in the options stay as given. */
static void set_marks(struct vmem_manager *m, uint64_t budget)
{
	struct vmemi_frames *f = &m->host.frames;
	uint64_t reserve = m->opts.reserve_bytes, staging = m->opts.staging_bytes;

	if (!budget) {
		atomic_store(&f->budget_bytes, UINT64_MAX);
		atomic_store(&f->segments_most, UINT64_MAX);
		atomic_store(&f->reserve_bytes, 0);
		m->floor_bytes = 0;
		vmemi_segments_lend(m, false);
		m->reclaim->staging_pages = staging ? staging / VMEM_PAGE_SIZE : UINT64_MAX;
		vmemi_devices_set_share(m);
		return;
	}
	if (!reserve)
		reserve = clamp(budget / 64, MIB, 64 * MIB);
	reserve = budget / 3 < 3 * FLOOR_MIN / 2 ? budget / 3
						 : clamp(reserve, 3 * FLOOR_MIN / 2, budget / 3);
	if (!staging)
		staging = budget / 16;
	atomic_store(&f->budget_bytes, budget);
	atomic_store(&f->reserve_bytes, reserve);
	m->floor_bytes = clamp(reserve / 4, FLOOR_MIN, 4 * MIB);
	vmemi_segments_lend(m, false);
	vmemi_segments_come_down(f, m->floor_bytes);
	m->reclaim->staging_pages = clamp(staging, MIB / 2, budget / 2) / VMEM_PAGE_SIZE;
	vmemi_devices_set_share(m);
}

/* Of guest memory. *@wanted: without what is of no use alone. */
static int open_guest_uffd(struct vmemi_host *host, struct vmemi_uffd *u, uint64_t required,
			   uint64_t *wanted)
{
	int error = vmemi_uffd_open(u, host->k, required, *wanted);

	/* Such a one cannot take pages out by write-protection: it must be able to move them. */
	if (!error && (u->features & VMEMI_UFFD_FEATURE_WP_ASYNC) &&
	    (~u->features & (VMEMI_UFFD_FEATURE_WP | VMEMI_UFFD_FEATURE_MOVE))) {
		vmemi_uffd_close(u);
		*wanted &= ~VMEMI_UFFD_FEATURE_WP_ASYNC;
		error = vmemi_uffd_open(u, host->k, required, *wanted);
	}
	return error;
}

static uint64_t features_of(const struct vmemi_uffd *u)
{
	const uint64_t files = VMEMI_UFFD_FEATURE_MINOR_SHMEM | VMEMI_UFFD_FEATURE_WP_SHMEM;
	uint64_t features = VMEM_KERNEL_SIGBUS;

	if (u->features & VMEMI_UFFD_FEATURE_WP)
		features |= VMEM_KERNEL_WP;
	if (u->features & VMEMI_UFFD_FEATURE_POISON)
		features |= VMEM_KERNEL_POISON;
	if (u->features & VMEMI_UFFD_FEATURE_MOVE)
		features |= VMEM_KERNEL_MOVE;
	if (u->features & VMEMI_UFFD_FEATURE_WP_ASYNC)
		features |= VMEM_KERNEL_ASYNC_WP;
	else if ((features & VMEM_KERNEL_WP) && (u->features & files) == files)
		features |= VMEM_KERNEL_FILES;
	if (u->kernel_faults)
		features |= VMEM_KERNEL_KERNEL_FAULTS;
	return features;
}

static int open_userfaultfds(struct vmemi_host *host, bool async_wp)
{
	uint64_t wanted = VMEMI_UFFD_FEATURE_WP | VMEMI_UFFD_FEATURE_POISON |
			  VMEMI_UFFD_FEATURE_MOVE | VMEMI_UFFD_FEATURE_MINOR_SHMEM |
			  VMEMI_UFFD_FEATURE_WP_SHMEM;
	struct vmemi_uffd *thread = &host->uffd[VMEM_FAULT_THREAD];
	int error;

	if (async_wp)
		host->pagemap = vmemi_pagemap_open(host->k);
	if (host->pagemap >= 0)
		wanted |= VMEMI_UFFD_FEATURE_WP_ASYNC;
	error = open_guest_uffd(host, thread, 0, &wanted);
	if (error)
		return error;
	error = open_guest_uffd(host, &host->uffd[VMEM_FAULT_SIGBUS], VMEMI_UFFD_FEATURE_SIGBUS,
				&wanted);
	if (error)
		return error;
	error = vmemi_uffd_open(&host->staging, host->k, VMEMI_UFFD_FEATURE_SIGBUS,
				VMEMI_UFFD_FEATURE_MOVE);
	host->features = features_of(thread);
	return error;
}

static int map_buffers(struct vmemi_host *host)
{
	void *memory;
	size_t bytes = (size_t)(VMEMI_BUFFERS + 1) * VMEM_PAGE_SIZE;
	struct iovec probe[2];

	if (host->k->mmap(&memory, bytes, PROT_READ | PROT_WRITE, 0))
		return -VMEM_ENOMEM;
	host->k->madvise(memory, bytes, MADV_DONTDUMP);
	host->zero_page = memory;
	host->buffers = host->zero_page + VMEM_PAGE_SIZE;
	atomic_store(&host->frames.other_bytes, bytes);
	/* Nothing is there yet, so this discards nothing. */
	probe[0] = (struct iovec){ host->buffers, VMEM_PAGE_SIZE };
	probe[1] = (struct iovec){ host->buffers + 2 * VMEM_PAGE_SIZE, VMEM_PAGE_SIZE };
	if (host->k->madvise_vector(probe, 2, MADV_DONTNEED) == 2 * VMEM_PAGE_SIZE)
		host->features |= VMEM_KERNEL_VECTOR_DISCARD;
	if (vmemi_huge_is_known(host->k, memory))
		host->features |= VMEM_KERNEL_COLLAPSE;
	return 0;
}

static int open_descriptors(struct vmem_manager *m)
{
	const struct vmemi_kernel *k = m->host.k;
	int fds[4 + VMEMI_HANDLERS_MAX];

	m->host.reclaim_fd = k->eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->host.reclaim_fd < 0)
		return -VMEM_EIO;
	fds[0] = m->host.uffd[VMEM_FAULT_THREAD].fd;
	fds[1] = m->host.reclaim_fd;
	for (uint32_t i = 0; i < m->host.handlers; i++) {
		fds[2 + i] = k->eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		m->host.handler[i].fd = fds[2 + i];
		if (fds[2 + i] < 0)
			return -VMEM_EIO;
	}
	m->host.peers_epoll = k->epoll(NULL, 0);
	m->host.devices.epoll = k->epoll(NULL, 0);
	if (m->host.peers_epoll < 0 || m->host.devices.epoll < 0)
		return -VMEM_EIO;
	fds[2 + m->host.handlers] = m->host.peers_epoll;
	fds[3 + m->host.handlers] = m->host.devices.epoll;
	m->epoll = k->epoll(fds, 4 + m->host.handlers);
	return m->epoll < 0 ? -VMEM_EIO : 0;
}

static void close_fd(const struct vmemi_kernel *k, int fd)
{
	if (fd >= 0)
		k->close(fd);
}

/* Frees what there is of a manager, in the reverse order of making it. */
static void destroy(struct vmem_manager *m)
{
	const struct vmem_allocator inner = m->host.metadata.inner;
	const struct vmemi_kernel *k = m->host.k;

	close_fd(k, m->epoll);
	close_fd(k, m->host.peers_epoll);
	close_fd(k, m->host.devices.epoll);
	for (uint32_t i = 0; i < m->host.handlers; i++)
		close_fd(k, m->host.handler[i].fd);
	close_fd(k, m->host.reclaim_fd);
	close_fd(k, m->host.pagemap);
	vmem_store_free(m->host.store);
	for (uint32_t i = 0; i < m->host.handlers; i++)
		vmemi_handler_free(m->handlers[i]);
	vmemi_reclaim_free(m->reclaim);
	vmemi_lock_destroy(&m->host.loads.lock);
	vmemi_lock_destroy(&m->attach_lock);
	vmemi_lock_destroy(&m->host.source_lock);
	if (m->host.zero_page)
		k->munmap(m->host.zero_page, (size_t)(VMEMI_BUFFERS + 1) * VMEM_PAGE_SIZE);
	vmemi_uffd_close(&m->host.staging);
	vmemi_uffd_close(&m->host.uffd[VMEM_FAULT_SIGBUS]);
	vmemi_uffd_close(&m->host.uffd[VMEM_FAULT_THREAD]);
	vmemi_free(&inner, m, sizeof(*m), _Alignof(struct vmem_manager));
}

/* Pages that are encoded or decoded at once: each takes a context (145 KiB), and more wait in turn. Savers have one each;
 * handlers of faults too, but not more than can run, for a load does not sleep; then there is the reclaim thread, and a
 * call of the VMM. */
static uint32_t store_parallel(const struct vmem_manager *m)
{
	long processors = m->host.k->processors();
	uint32_t handlers = m->host.handlers;

	if (processors > 0 && (unsigned long)processors < handlers)
		handlers = (uint32_t)processors;
	return m->opts.save_threads + handlers + 2;
}

static int make_store(struct vmem_manager *m)
{
	struct vmemi_host *host = &m->host;
	struct vmem_store_account account = { .size = sizeof(account) };
	uint64_t before = atomic_load(&host->metadata.bytes), from_us;
	struct vmem_store_opts store = {
		.size = sizeof(store),
		.flags = m->opts.flags & VMEM_MANAGER_AS_SAVED ? VMEM_STORE_AS_SAVED : 0,
		.allocator = &host->metadata.allocator,
		.segments = &host->segments,
		.cpu = vmem_cpu_detect(),
		.max_object_bytes = m->opts.max_object_bytes,
		.parallel = store_parallel(m),
		.seed = (uint32_t)(host->k->clock_ns() ^ (uintptr_t)m >> 12),
		.cold_after_ms = m->opts.cold_after_ms,
		.cold_pages_per_second = m->opts.cold_pages_per_second,
	};
	int error = vmem_store_new(&host->store, &store);

	if (!error)
		error = vmem_store_total_account(host->store, &account);
	if (error)
		return error;
	/* What it has not got from us, codecs have taken from libc, once and for all. */
	from_us = atomic_load(&host->metadata.bytes) - before;
	atomic_fetch_add(&host->frames.other_bytes, account.metadata_bytes - from_us);
	return 0;
}

static int make_parts(struct vmem_manager *m)
{
	struct vmemi_host *host = &m->host;
	int error = vmemi_lock_init(&m->attach_lock, host->env);

	if (!error)
		error = vmemi_lock_init(&host->loads.lock, host->env);
	if (!error)
		error = vmemi_lock_init(&host->source_lock, host->env);
	if (!error)
		error = open_userfaultfds(host, m->opts.flags & VMEM_MANAGER_ASYNC_WP);
	if (!error)
		error = map_buffers(host);
	if (!error)
		error = open_descriptors(m);
	if (!error)
		error = vmemi_reclaim_new(&m->reclaim, host);
	for (uint32_t i = 0; i < host->handlers && !error; i++)
		error = vmemi_handler_new(&m->handlers[i], host, i, m->opts.fault_spin_us);
	if (error)
		return error;
	set_marks(m, m->opts.budget_bytes);
	return make_store(m);
}

int vmemi_manager_new(struct vmem_manager **ret_manager, const struct vmem_manager_opts *opts,
		      const struct vmemi_kernel *k)
{
	struct vmem_allocator allocator;
	struct vmem_manager_opts o;
	struct vmem_manager *m;
	int error;

	if (!ret_manager)
		return -VMEM_EINVAL;
	error = take_opts(&o, opts);
	if (error)
		return error;
	error = vmemi_alloc_take(&allocator, o.allocator);
	if (error)
		return error;
	if (k->page_size() != VMEM_PAGE_SIZE)
		return -VMEM_ENOTSUP;
	m = vmemi_zalloc(&allocator, sizeof(*m), _Alignof(struct vmem_manager));
	if (!m)
		return -VMEM_ENOMEM;
	vmemi_counting_init(&m->host.metadata, &allocator);
	vmemi_segments_init(&m->host.segments, &m->host);
	if (!o.save_threads)
		o.save_threads = default_savers(k);
	m->opts = o;
	m->host.k = k;
	m->host.env = vmemi_env_default();
	m->host.frames.k = k;
	m->host.frames.metadata = &m->host.metadata;
	atomic_store(&m->host.frames.budget_bytes, UINT64_MAX);
	atomic_store(&m->host.frames.segments_most, UINT64_MAX);
	m->host.uffd[0].fd = m->host.uffd[1].fd = m->host.staging.fd = -1;
	m->host.reclaim_fd = m->host.peers_epoll = m->epoll = m->host.pagemap = -1;
	m->host.devices.epoll = -1;
	for (uint32_t i = 0; i < VMEMI_FOREIGN_MAX; i++)
		atomic_store(&m->host.foreign[i].fd, -1);
	m->host.handlers = o.fault_threads;
	for (uint32_t i = 0; i < m->host.handlers; i++)
		m->host.handler[i].fd = -1;
	atomic_store(&m->host.make_room, vmemi_manager_make_room);
	atomic_store(&m->host.serve_faults, vmemi_manager_serve_faults);
	error = make_parts(m);
	if (error) {
		destroy(m);
		return error;
	}
	*ret_manager = m;
	return 0;
}

int vmem_manager_new(vmem_manager **ret_manager, const struct vmem_manager_opts *opts)
{
	return vmemi_manager_new(ret_manager, opts, &vmemi_kernel_linux);
}

int vmem_manager_free(vmem_manager *manager)
{
	if (!manager)
		return 0;
	for (uint32_t i = 0; i < VMEMI_REGIONS_MAX; i++)
		if (atomic_load(&manager->host.regions[i]))
			return -VMEM_EBUSY;
	vmem_manager_thread_stop(manager);
	destroy(manager);
	return 0;
}

int vmem_manager_set_budget(vmem_manager *manager, uint64_t budget_bytes)
{
	struct vmemi_host *host;
	uint64_t held = BUDGET_MIN;

	if (!manager)
		return -VMEM_EINVAL;
	host = &manager->host;
	vmemi_reclaim_enter(manager->reclaim);
	held += (vmemi_host_pinned(host) + vmemi_host_foreign(host)) * VMEM_PAGE_SIZE +
		atomic_load(&host->metadata.bytes);
	if (!budget_bytes || budget_bytes >= held) {
		uint64_t before = atomic_load(&host->frames.budget_bytes);

		set_marks(manager, budget_bytes);
		/* What was added may be used up before anybody looks, and that is told anew. */
		if (atomic_load(&host->frames.budget_bytes) > before)
			vmemi_manager_set_stuck(manager, false);
	}
	vmemi_reclaim_leave(manager->reclaim);
	if (budget_bytes && budget_bytes < held)
		return -VMEM_EINVAL;
	vmemi_host_freed(host);
	vmemi_host_kick_reclaim(host);
	return 0;
}
