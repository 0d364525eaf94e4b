/* SPDX-License-Identifier: BSD-2-Clause */
/* Attaching memory to a manager, and letting it go again. */
#include "base/mem.h"
#include "base/opts.h"
#include "linux/fault/source.h"
#include "linux/backing/backing.h"
#include "linux/foreign/foreign_events.h"
#include "linux/manager/manager.h"
#include "linux/kernel/uffd_abi.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#define REGION_BYTES_MAX (UINT64_C(16) << 40)
#define DEADLINE_MS_MAX 86400000
#define ACTIVE_PERIOD_MS_MAX 3600000
#define KNOWN_FLAGS                                                                    \
	(VMEM_REGION_DMA_PINNED | VMEM_REGION_FROM_SOURCE | VMEM_REGION_SOURCE_STAYS | \
	 VMEM_REGION_PROACTIVE | VMEM_REGION_FILE | VMEM_REGION_HUGE)

static int check_opts(struct vmem_region_opts *o)
{
	if (!o->fault_around_pages)
		o->fault_around_pages = 16;
	if (!o->active_period_ms)
		o->active_period_ms = 30000;
	if (!o->fault_deadline_ms)
		o->fault_deadline_ms = 10000;
	if (!o->max_bytes)
		o->max_bytes = o->bytes;
	if ((o->flags & ~KNOWN_FLAGS) || o->gpa % VMEM_PAGE_SIZE ||
	    (uintptr_t)o->hva % VMEM_PAGE_SIZE || o->bytes % VMEM_PAGE_SIZE || !o->bytes ||
	    o->max_bytes < o->bytes || o->max_bytes % VMEM_PAGE_SIZE ||
	    o->max_bytes > REGION_BYTES_MAX || o->max_bytes > UINTPTR_MAX - (uintptr_t)o->hva ||
	    o->gpa > UINT64_MAX - o->max_bytes || o->reserved || o->reserved_file ||
	    (o->file_offset && !(o->flags & VMEM_REGION_FILE)) || o->file_offset % VMEM_PAGE_SIZE ||
	    o->file_offset > INT64_MAX - o->max_bytes || o->fault_way > VMEM_FAULT_SIGBUS ||
	    o->fault_deadline_ms > DEADLINE_MS_MAX ||
	    ((o->flags & (VMEM_REGION_FROM_SOURCE | VMEM_REGION_SOURCE_STAYS)) &&
	     !o->read_source) ||
	    o->active_samples > VMEMI_ACTIVE_MOST || o->active_period_ms < 100 ||
	    o->active_period_ms > ACTIVE_PERIOD_MS_MAX || o->fault_around_pages > 64 ||
	    (o->fault_around_pages & (o->fault_around_pages - 1)))
		return -VMEM_EINVAL;
	return 0;
}

static bool in_one_file(const struct vmem_region *r, const struct vmem_region_opts *o,
			const struct vmemi_file *file)
{
	return file && r->file.fd >= 0 && file->device == r->file.device &&
	       file->inode == r->file.inode &&
	       file->offset < r->file.offset + vmemi_region_most_bytes(r) &&
	       r->file.offset < file->offset + o->max_bytes;
}

static bool at_one_address(const struct vmem_region *r, const struct vmem_region_opts *o)
{
	return !r->foreign && (uintptr_t)o->hva < (uintptr_t)r->base + vmemi_region_most_bytes(r) &&
	       (uintptr_t)r->base < (uintptr_t)o->hva + o->max_bytes;
}

/* Overlap with an attached region and all that it may become, in host addresses, in the VM's own or in its file;
 * and a free slot. */
static int find_slot(struct vmem_manager *m, const struct vmem_region_opts *o,
		     const struct vmemi_file *file, bool foreign, uint32_t *ret_slot)
{
	bool found = false;

	for (uint32_t i = VMEMI_REGIONS_MAX; i--;) {
		struct vmem_region *r = atomic_load(&m->host.regions[i]);

		if (!r) {
			*ret_slot = i;
			found = true;
			continue;
		}
		if (!foreign && at_one_address(r, o))
			return -VMEM_EEXIST;
		if (in_one_file(r, o, file))
			return -VMEM_EEXIST;
		if (o->same_vm_as && o->same_vm_as->vm == r->vm &&
		    o->gpa < r->opts.gpa + vmemi_region_most_bytes(r) &&
		    r->opts.gpa < o->gpa + o->max_bytes)
			return -VMEM_EEXIST;
	}
	return found ? 0 : -VMEM_ENOSPC;
}

static void free_tables(struct vmem_region *r)
{
	const struct vmem_allocator *a = &r->host->metadata.allocator;
	struct vmemi_arrays *arrays = &r->arrays;

	vmemi_lock_destroy(&r->pin_lock);
	vmemi_array_free(arrays, r->words, 1, sizeof(*r->words));
	vmemi_array_free(arrays, r->pins, 1, sizeof(*r->pins));
	vmemi_page_set_destroy(&r->waste, arrays);
	vmemi_feed_close(r);
	vmemi_huge_destroy(r);
	vmemi_ages_destroy(&r->ages, a, arrays);
	vmemi_neighbours_destroy(&r->neighbours, arrays);
	vmemi_bitmap_free(arrays, r->wanted);
	for (unsigned i = 0; i < VMEMI_WATCHES; i++)
		vmemi_bitmap_free(arrays, r->watch[i].bits);
	vmemi_touches_drop(&r->touches, a);
	vmemi_source_free(r);
	vmemi_free(a, r, sizeof(*r), 64);
}

static struct vmem_region *new_tables(struct vmem_manager *m, const struct vmem_region_opts *o,
				      struct vmem_foreign *foreign)
{
	const struct vmem_allocator *a = &m->host.metadata.allocator;
	struct vmem_region *r = vmemi_zalloc(a, sizeof(*r), 64);

	if (!r)
		return NULL;
	r->host = &m->host;
	r->opts = *o;
	r->base = o->hva;
	r->foreign = foreign;
	r->uffd = foreign ? &foreign->uffd : &m->host.uffd[o->fault_way];
	r->own = (struct vmemi_at){ r->uffd, (uintptr_t)o->hva };
	r->backing = foreign                       ? &vmemi_backing_foreign
		     : o->flags & VMEM_REGION_FILE ? &vmemi_backing_file
						   : &vmemi_backing_private;
	r->file.fd = -1;
	r->async_wp = !foreign && (m->host.features & VMEM_KERNEL_ASYNC_WP);
	r->pages = o->bytes / VMEM_PAGE_SIZE;
	if (o->max_bytes > o->bytes)
		vmemi_arrays_reserve(&r->arrays, m->host.k, r->pages, o->max_bytes / VMEM_PAGE_SIZE,
				     &m->host.metadata.bytes);
	else
		vmemi_arrays_init(&r->arrays, a, r->pages);
	r->words = vmemi_array_new(&r->arrays, 1, sizeof(*r->words));
	r->pins = vmemi_array_new(&r->arrays, 1, sizeof(*r->pins));
	r->wanted = vmemi_bitmap_new(&r->arrays);
	if (!r->words || !r->pins || !r->wanted ||
	    vmemi_page_set_init(&r->waste, &r->arrays, r->pages) ||
	    vmemi_ages_init(&r->ages, a, &r->arrays, r->pages, m->host.k->clock_ns()) ||
	    vmemi_feed_open(r) || vmemi_huge_init(r) ||
	    vmemi_active_init(&r->ages.active, a, &r->arrays, r->pages, o->active_samples,
			      o->active_period_ms * UINT64_C(1000000)) ||
	    vmemi_neighbours_init(&r->neighbours, &r->arrays, r->pages, o->fault_around_pages) ||
	    (o->read_source && vmemi_source_new(r)) || vmemi_lock_init(&r->pin_lock, m->host.env)) {
		free_tables(r);
		return NULL;
	}
	return r;
}

void vmemi_attach_give_to_children(struct vmem_region *r, uint64_t first, uint64_t count)
{
	if (!r->was_kept_from_children)
		r->host->k->madvise(vmemi_region_page(r, first), count * VMEM_PAGE_SIZE,
				    MADV_DOFORK);
}

/* Without that it cannot be paged: a page that was shared with a child cannot be moved, one of a file would be
 * mapped there too, and one that was merged is written without a fault. Dumps and huge pages only cost. */
int vmemi_backing_advise(struct vmemi_host *host, void *memory, uint64_t bytes, bool huge)
{
	int error = host->k->madvise(memory, bytes, MADV_DONTFORK);

	if (!error) {
		error = host->k->madvise(memory, bytes, MADV_UNMERGEABLE);
		if (error == -VMEM_EINVAL) /* a kernel without KSM */
			error = 0;
	}
	host->k->madvise(memory, bytes, MADV_DONTDUMP);
	if (!huge)
		host->k->madvise(memory, bytes, MADV_NOHUGEPAGE);
	if (error == -VMEM_EAGAIN || error == -VMEM_ENOMEM)
		return -VMEM_ENOMEM;
	return error ? -VMEM_EIO : 0;
}

void vmemi_attach_undo(struct vmem_region *r, uint64_t first, uint64_t count)
{
	vmemi_uffd_unregister(r->uffd, vmemi_region_page(r, first), count * VMEM_PAGE_SIZE);
	vmemi_attach_give_to_children(r, first, count);
	for (uint64_t page = first; page < first + count; page++)
		if (vmemi_region_word(r, page))
			atomic_store(&r->words[page], 0);
}

int64_t vmemi_attach_pages(struct vmem_region *r, uint64_t first, uint64_t count)
{
	enum vmem_page_state rest =
		r->opts.flags & VMEM_REGION_FROM_SOURCE ? VMEM_PAGE_SOURCE : VMEM_PAGE_ABSENT;
	uint64_t end = first + count, bytes = count * VMEM_PAGE_SIZE;
	int64_t present;
	int error = 0;

	if (!r->foreign)
		error = vmemi_backing_advise(r->host, vmemi_region_page(r, first), bytes,
					     r->huge.blocks);
	if (!error)
		error = r->backing->join(r, first, count);
	if (error) {
		vmemi_attach_give_to_children(r, first, count);
		return error;
	}
	present = r->backing->count(r, first, count);
	if (present < 0) {
		vmemi_attach_undo(r, first, count);
		return present;
	}
	for (uint64_t page = first; page < end && rest != VMEM_PAGE_ABSENT; page++)
		if (!vmemi_region_word(r, page))
			atomic_store(&r->words[page], vmemi_page_word(rest, 0, 0));
	return present;
}

void vmemi_attach_count(struct vmem_region *r, uint64_t count, int64_t present)
{
	enum vmem_page_state rest =
		r->opts.flags & VMEM_REGION_FROM_SOURCE ? VMEM_PAGE_SOURCE : VMEM_PAGE_ABSENT;

	atomic_fetch_add(&r->counts[0].state[rest], (int64_t)count - present);
	atomic_fetch_add(&r->counts[0].state[VMEM_PAGE_RESIDENT], present);
	atomic_fetch_add(&r->host->frames.resident_pages, present);
}

static void unmap(struct vmem_region *r)
{
	struct vmemi_host *host = r->host;
	uint64_t pages =
		vmemi_region_count(r, VMEM_PAGE_RESIDENT) + vmemi_region_count(r, VMEM_PAGE_CLEAN) +
		vmemi_region_count(r, VMEM_PAGE_SHARED) + vmemi_region_count(r, VMEM_PAGE_ARRIVING);

	r->backing->close(r);
	atomic_fetch_sub(&host->frames.resident_pages, (int64_t)pages);
	atomic_fetch_sub(&host->frames.staging_pages, (int64_t)vmemi_region_copies(r));
}

/* Without a cap: there is no swap device yet that would take what is over it, and what the store refuses stays
 * in the budget whole. */
static int add_vm(struct vmem_region *r)
{
	struct vmem_store_vm_opts vm = { .size = sizeof(vm),
					 .vm_bytes = r->opts.max_bytes,
					 .cap_percent = VMEM_STORE_NO_CAP,
					 .sharing = r->opts.sharing,
					 .group = r->opts.sharing_group };

	if (r->opts.same_vm_as) {
		r->vm = r->opts.same_vm_as->vm;
		return 0;
	}
	return vmem_store_add_vm(r->host->store, &vm, &r->vm);
}

static bool vm_is_used(const struct vmem_manager *m, uint32_t vm)
{
	for (uint32_t i = 0; i < VMEMI_REGIONS_MAX; i++) {
		struct vmem_region *r = atomic_load(&m->host.regions[i]);

		if (r && r->vm == vm)
			return true;
	}
	return false;
}

/* Everything after the checks; on error nothing is left. */
static int attach(struct vmem_manager *m, const struct vmem_region_opts *o, uint32_t slot,
		  const struct vmemi_memory_kind *kind, const struct vmemi_file *file,
		  struct vmem_region **ret_region)
{
	struct vmem_region *r = new_tables(m, o, kind->foreign_memory);
	int64_t present = 0;
	int error;

	if (!r)
		return -VMEM_ENOMEM;
	r->slot = slot;
	if (file)
		r->file = *file;
	r->was_kept_from_children = kind->kept_from_children;
	error = add_vm(r);
	if (error) {
		free_tables(r);
		return error;
	}
	error = r->uffd->fd < 0 ? -VMEM_ENODEV : 0;
	if (!error && r->source && m->running)
		error = vmemi_manager_start_sources(m);
	if (!error)
		error = r->backing->open(r);
	if (!error) {
		present = vmemi_attach_pages(r, 0, r->pages);
		error = present < 0 ? (int)present : 0;
	}
	if (error) {
		unmap(r);
		if (!o->same_vm_as)
			vmem_store_drop_vm(m->host.store, r->vm);
		free_tables(r);
		return error;
	}
	vmemi_attach_count(r, r->pages, present);
	atomic_store(&m->host.regions[slot], r);
	if (slot >= atomic_load(&m->host.region_slots))
		atomic_store(&m->host.region_slots, slot + 1);
	*ret_region = r;
	return 0;
}

int vmemi_attach_identify(const struct vmemi_kernel *k, const struct vmem_region_opts *o,
			  struct vmemi_file *file)
{
	int flags = k->fcntl(o->file_fd, F_GETFL, 0);
	struct stat stat;

	if (flags == -EBADF)
		return -VMEM_EINVAL;
	if (flags < 0 || k->fstat(o->file_fd, &stat))
		return -VMEM_EIO;
	if ((flags & O_ACCMODE) != O_RDWR || !S_ISREG(stat.st_mode) ||
	    (uint64_t)stat.st_size < o->file_offset + o->bytes)
		return -VMEM_EINVAL;
	*file = (struct vmemi_file){
		.fd = -1, .device = stat.st_dev, .inode = stat.st_ino, .offset = o->file_offset
	};
	return 0;
}

int vmem_region_attach(vmem_region **ret_region, vmem_manager *manager,
		       const struct vmem_region_opts *opts)
{
	struct vmem_region_opts o;
	struct vmemi_file identity, *file = NULL;
	struct vmemi_memory_kind kind;
	uint32_t slot = 0;
	int error;

	if (!ret_region || !manager || !opts)
		return -VMEM_EINVAL;
	error = vmemi_opts_take(&o, sizeof(o), opts);
	if (!error)
		error = o.hva ? check_opts(&o) : -VMEM_EINVAL;
	if (!error && o.same_vm_as && o.same_vm_as->host != &manager->host)
		error = -VMEM_EINVAL;
	if (!error && (o.flags & VMEM_REGION_FILE)) {
		file = &identity;
		error = vmemi_attach_identify(manager->host.k, &o, file);
	}
	if (error)
		return error;
	if ((o.flags & VMEM_REGION_HUGE) && *vmemi_huge_why(&manager->host, &o))
		return -VMEM_ENOTSUP;
	vmemi_lock(&manager->attach_lock);
	error = find_slot(manager, &o, file, false, &slot);
	if (!error && *vmemi_memory_why(manager->host.k, o.hva, o.bytes, file, &kind))
		error = kind.foreign ? -VMEM_EBUSY : kind.other_file ? -VMEM_EINVAL : -VMEM_ENOTSUP;
	if (!error)
		error = attach(manager, &o, slot, &kind, file, ret_region);
	vmemi_unlock(&manager->attach_lock);
	return error;
}

int vmemi_manager_attach_foreign(struct vmem_manager *m, const struct vmem_region_opts *opts,
				 struct vmem_foreign *foreign, struct vmem_region **ret_region)
{
	const struct vmemi_memory_kind kind = { .foreign_memory = foreign,
						.kept_from_children = true };
	struct vmem_region_opts o = *opts;
	uint32_t slot = 0;
	int error = check_opts(&o);

	if (!error)
		error = find_slot(m, &o, NULL, true, &slot);
	return error ? error : attach(m, &o, slot, &kind, NULL, ret_region);
}

/* Maps private memory for a region, where blocks of it can be huge if it asks for that. */
static int map_private(const struct vmemi_kernel *k, struct vmem_region_opts *o,
		       uint64_t *ret_front, uint64_t *ret_behind)
{
	uint64_t spare = o->flags & VMEM_REGION_HUGE ? VMEMI_HUGE_BYTES : 0;
	void *memory;

	if (k->mmap(&memory, o->max_bytes + spare, PROT_READ | PROT_WRITE, MAP_NORESERVE))
		return -VMEM_ENOMEM;
	*ret_front = spare ? vmemi_huge_shift((uintptr_t)memory, o->gpa) : 0;
	*ret_behind = spare - *ret_front;
	o->hva = (char *)memory + *ret_front;
	return 0;
}

int vmem_region_alloc(vmem_region **ret_region, vmem_manager *manager,
		      const struct vmem_region_opts *opts)
{
	const struct vmemi_kernel *k;
	uint64_t front = 0, behind = 0;
	struct vmem_region_opts o;
	int error;

	if (!ret_region || !manager || !opts)
		return -VMEM_EINVAL;
	k = manager->host.k;
	error = vmemi_opts_take(&o, sizeof(o), opts);
	o.hva = NULL;
	o.file_fd = -1;
	o.file_offset = 0;
	if (!error)
		error = check_opts(&o);
	if (error)
		return error;
	if (o.flags & VMEM_REGION_FILE)
		error = vmemi_file_make(k, o.max_bytes, &o.hva, &o.file_fd);
	else
		error = map_private(k, &o, &front, &behind);
	if (error)
		return error;
	/* What it has not grown to cannot be touched: the kernel alone would answer there. */
	if (o.max_bytes > o.bytes &&
	    k->mprotect((char *)o.hva + o.bytes, o.max_bytes - o.bytes, PROT_NONE))
		error = -VMEM_ENOMEM;
	if (!error)
		error = vmem_region_attach(ret_region, manager, &o);
	if (error) {
		k->munmap((char *)o.hva - front, front + o.max_bytes + behind);
	} else {
		(*ret_region)->allocated = true;
		(*ret_region)->front = front;
		(*ret_region)->behind = behind;
	}
	if (o.file_fd >= 0)
		k->close(o.file_fd);
	return error;
}

/* A foreign VM goes on by itself, and what it lost stays an error: nothing here could mend that. A VMM can, in its
 * own memory, which stays attached. */
static bool may_go_with_losses(const struct vmem_region *r)
{
	return r->foreign && (r->host->features & VMEM_KERNEL_POISON);
}

/* Of memory of ours also what it has not grown to, and what is beside it. */
static int unmap_guest(struct vmem_region *r)
{
	uint64_t bytes = r->allocated ? vmemi_region_most_bytes(r) : vmemi_region_bytes(r);

	return r->host->k->munmap(r->base - r->front, r->front + bytes + r->behind);
}

/* Takes all access away before the kernel may answer faults again: never zeros. */
static int close_memory(struct vmem_manager *m, struct vmem_region *r, bool *ret_unmapped)
{
	const struct vmemi_kernel *k = m->host.k;

	*ret_unmapped = false;
	if (r->foreign)
		return vmemi_foreign_shut(r);
	if (!k->mprotect(r->base, vmemi_region_bytes(r), PROT_NONE))
		return 0;
	*ret_unmapped = !unmap_guest(r);
	return *ret_unmapped ? 0 : -VMEM_EIO;
}

/* No handler has come upon the region since it was removed: what they hold of it now is all. True if some of
 * that is slow loads. */
static bool forget(struct vmem_manager *m, const struct vmem_region *r)
{
	bool loading = false;

	for (uint32_t i = 0; i < m->host.handlers; i++)
		loading |= vmemi_handler_forget(m->handlers[i], r);
	return loading;
}

/* Makes memory such that nobody need serve it. 0; 1: pages are lost; or an error: it is served still. */
static int prepare(struct vmem_manager *m, struct vmem_region *r, uint32_t how, bool *ret_unmapped)
{
	int result;

	if (how != VMEM_DETACH_RESTORE)
		return close_memory(m, r, ret_unmapped);
	atomic_store(&r->restoring, 1);
	result = vmemi_manager_restore(r);
	atomic_store(&r->restoring, 0);
	return result > 0 && !may_go_with_losses(r) ? -VMEM_EIO : result;
}

/* What the region has is ended and freed; its slot is empty. */
static void end(struct vmem_manager *m, struct vmem_region *r, uint32_t how, bool unmapped,
		struct vmem_peer **peers, uint32_t peer_count)
{
	if (r->foreign)
		vmemi_foreign_drop(r->foreign, r);
	vmemi_savers_forget(&m->reclaim->savers, r);
	/* Slow loads write into our buffers and hold refs. */
	while (forget(m, r)) {
		vmemi_manager_step_loads(m);
		vmemi_relax(m->host.env);
	}
	vmemi_source_end(r);
	if (r->source && how == VMEM_DETACH_DISCARD) /* who waits for one finds no memory */
		vmemi_uffd_wake(r->uffd, r->base, vmemi_region_bytes(r));
	if (how == VMEM_DETACH_DISCARD && (!unmapped || r->backing->one_frame))
		r->backing->empty(r);
	vmemi_manager_end_peers(r, how, peers, peer_count);
	if (how == VMEM_DETACH_DISCARD && r->allocated) {
		if (!unmapped)
			unmap_guest(r);
	} else if (!unmapped) {
		if (how != VMEM_DETACH_DISCARD)
			vmemi_attach_give_to_children(r, 0, r->pages);
		vmemi_uffd_unregister(r->uffd, r->base, vmemi_region_bytes(r));
	}
	/* Unmapping wakes nobody. Whoever waits there finds no access. */
	if (how == VMEM_DETACH_DISCARD)
		vmemi_uffd_wake(r->uffd, r->base, vmemi_region_bytes(r));
	unmap(r);
	if (vm_is_used(m, r->vm))
		vmemi_region_drop_all(r);
	else
		vmem_store_drop_vm(m->host.store, r->vm);
	free_tables(r);
}

/* The attach lock is held. @result: of prepare(), if that was called. */
static int detach(struct vmem_manager *m, struct vmem_region *r, uint32_t how, int result)
{
	struct vmem_peer *peers[VMEMI_PEERS_MAX];
	uint32_t peer_count = 0;
	bool unmapped = false;

	/* No page is taken from here on. */
	vmemi_reclaim_enter(m->reclaim);
	if (!r->foreign)
		result = prepare(m, r, how, &unmapped);
	if (result >= 0) {
		peer_count = vmemi_manager_hide_peers(r, peers);
		vmemi_host_remove(&m->host, r->slot);
	}
	vmemi_reclaim_leave(m->reclaim);
	if (result >= 0)
		end(m, r, how, unmapped, peers, peer_count);
	return result;
}

int vmemi_manager_detach(struct vmem_manager *m, struct vmem_region *r, uint32_t how)
{
	bool unmapped;
	int result = 0;

	atomic_fetch_add(&m->detaching, 1);
	/* Another process may keep us for long. Of its pages none is ever taken, so nobody need wait for that. */
	if (r->foreign)
		result = prepare(m, r, how, &unmapped);
	if (result >= 0) {
		vmemi_lock(&m->attach_lock);
		result = detach(m, r, how, result);
		vmemi_unlock(&m->attach_lock);
	}
	atomic_fetch_sub(&m->detaching, 1);
	if (result >= 0)
		vmemi_host_freed(&m->host);
	return result;
}

/* Nothing of it was ever served, and no handler has heard of it. */
void vmemi_manager_abandon(struct vmem_manager *m, struct vmem_region *r)
{
	vmemi_host_remove(&m->host, r->slot);
	vmemi_reclaim_enter(m->reclaim); /* who had come upon it has left it then */
	vmemi_reclaim_leave(m->reclaim);
	forget(m, r);
	unmap(r);
	if (!vm_is_used(m, r->vm))
		vmem_store_drop_vm(m->host.store, r->vm);
	free_tables(r);
}

int vmem_region_detach(vmem_region *region, uint32_t how)
{
	if (!region || how > VMEM_DETACH_DISCARD || region->foreign)
		return -VMEM_EINVAL;
	return vmemi_manager_detach((struct vmem_manager *)region->host, region, how);
}

void *vmem_region_hva(const vmem_region *region)
{
	return region->foreign ? NULL : region->base;
}

int vmem_region_file(const vmem_region *region)
{
	return region->file.fd >= 0 ? region->file.fd : -VMEM_ENOENT;
}
