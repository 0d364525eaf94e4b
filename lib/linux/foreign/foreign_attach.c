/* SPDX-License-Identifier: BSD-2-Clause */
/* Taking over the memory of another process, and letting it go: see <vmem/foreign.h>. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include "base/opts.h"
#include "linux/foreign/foreign_events.h"
#include "linux/kernel/uffd_abi.h"
#include "linux/manager/manager.h"

/* A child's memory and moved memory would have to be served, too; and signals are not messages. */
#define REFUSED (UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | VMEMI_UFFD_FEATURE_SIGBUS)

/* Its reads must not wait for what it does not send. */
static int set_nonblocking(const struct vmemi_kernel *k, int fd)
{
	int flags = k->fcntl(fd, F_GETFL, 0);

	if (flags < 0)
		return -VMEM_EIO;
	if (flags & O_NONBLOCK)
		return 0;
	return k->fcntl(fd, F_SETFL, flags | O_NONBLOCK) ? -VMEM_EIO : 0;
}

static int open_uffd(struct vmem_foreign *f, int fd)
{
	const struct vmemi_kernel *k = f->host->k;
	int error;

	f->uffd = (struct vmemi_uffd){ .k = k, .kernel_faults = true, .foreign = true };
	f->uffd.fd = k->fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (f->uffd.fd < 0)
		return f->uffd.fd == -EBADF ? -VMEM_EINVAL : -VMEM_EIO;
	error = vmemi_uffd_features(k, f->uffd.fd, &f->uffd.features);
	if (!error && (f->uffd.features & REFUSED))
		error = -VMEM_ENOTSUP;
	return error ? error : set_nonblocking(k, f->uffd.fd);
}

/* It neither grows, nor is there anything to know of its use: nothing is ever taken out. */
static bool asks_for_more(const struct vmem_region_opts *o)
{
	return (o->max_bytes && o->max_bytes != o->bytes) || o->active_samples || o->dirty_log;
}

/* Only what makes sense for memory that is served and no more. */
static bool is_served_only(const struct vmem_region_opts *o)
{
	const struct vmem_region_opts known = {
		.size = o->size,
		.flags = o->flags & VMEM_REGION_FROM_SOURCE,
		.gpa = o->gpa,
		.hva = o->hva,
		.bytes = o->bytes,
		.max_bytes = o->max_bytes,
		.fault_way = VMEM_FAULT_THREAD,
		.fault_around_pages = o->fault_around_pages,
		.fault_deadline_ms = o->fault_deadline_ms,
		.on_lost = o->on_lost,
		.context = o->context,
		.read_source = o->read_source,
	};

	return !memcmp(&known, o, sizeof(known));
}

static int check_range(const struct vmem_region_opts *o, const struct vmem_foreign *f)
{
	uint64_t base = (uintptr_t)o->hva;

	if (asks_for_more(o))
		return -VMEM_ENOTSUP;
	if (!is_served_only(o) || !base || base > UINT64_MAX - o->bytes)
		return -VMEM_EINVAL;
	for (unsigned i = 0; i < f->count; i++)
		if (base < f->range[i].base + f->range[i].bytes &&
		    f->range[i].base < base + o->bytes)
			return -VMEM_EEXIST;
	return 0;
}

static int attach_range(struct vmem_manager *m, struct vmem_foreign *f,
			const struct vmem_region_opts *given)
{
	struct vmem_region_opts o;
	int error;

	if (!given)
		return -VMEM_EINVAL;
	error = vmemi_opts_take(&o, sizeof(o), given);
	if (!error)
		error = check_range(&o, f);
	if (error)
		return error;
	o.same_vm_as = f->count ? f->range[0].region : NULL;
	error = vmemi_manager_attach_foreign(m, &o, f, &f->range[f->count].region);
	if (error)
		return error;
	f->range[f->count].base = (uintptr_t)o.hva;
	f->range[f->count].bytes = o.bytes;
	f->count++;
	return 0;
}

static int find_slot(const struct vmemi_host *host, uint32_t *ret_slot)
{
	for (uint32_t i = 0; i < VMEMI_FOREIGN_MAX; i++)
		if (!atomic_load(&host->foreign[i].it)) {
			*ret_slot = i;
			return 0;
		}
	return -VMEM_ENOSPC;
}

/* From here on its messages are read. Who waits already is sent back: his message may have been read by
 * somebody who is gone. */
static int publish(struct vmem_manager *m, struct vmem_foreign *f)
{
	struct vmemi_host *host = &m->host;
	int error;

	if (host->k->epoll_watch(m->epoll, f->uffd.fd, true))
		return -VMEM_EIO;
	/* The last that can fail: what is read then another pager would not hear of. */
	error = vmemi_foreign_judge(f);
	if (error) {
		host->k->epoll_watch(m->epoll, f->uffd.fd, false);
		return error;
	}
	atomic_store(&host->foreign[f->slot].fd, f->uffd.fd);
	atomic_store(&host->foreign[f->slot].it, f);
	if (f->slot >= atomic_load(&host->foreign_slots))
		atomic_store(&host->foreign_slots, f->slot + 1);
	vmemi_host_kick_handlers(host);
	for (unsigned i = 0; i < f->count; i++)
		vmemi_uffd_wake(&f->uffd, f->range[i].region->base, f->range[i].bytes);
	return 0;
}

static void destroy(struct vmem_foreign *f)
{
	const struct vmem_allocator *a = &f->host->metadata.allocator;

	if (f->uffd.fd >= 0)
		f->host->k->close(f->uffd.fd);
	vmemi_lock_destroy(&f->lock);
	vmemi_free(a, f, sizeof(*f), 64);
}

/* The attach lock is held. */
static int attach_all(struct vmem_manager *m, struct vmem_foreign *f,
		      const struct vmem_foreign_opts *o)
{
	/* Of two that read it each would hear of half. */
	int error = vmemi_manager_has_uffd(m, f->uffd.fd) ? -VMEM_EEXIST
							  : find_slot(&m->host, &f->slot);

	for (uint32_t i = 0; i < o->count && !error; i++)
		error = attach_range(m, f, o->ranges[i]);
	if (!error)
		error = publish(m, f);
	while (error && f->count)
		vmemi_manager_abandon(m, f->range[--f->count].region);
	return error;
}

int vmem_foreign_attach(vmem_foreign **ret_foreign, vmem_manager *manager,
			const struct vmem_foreign_opts *opts)
{
	struct vmem_foreign_opts o;
	struct vmem_foreign *f;
	int error;

	if (!ret_foreign || !manager || !opts)
		return -VMEM_EINVAL;
	error = vmemi_opts_take(&o, sizeof(o), opts);
	if (error)
		return error;
	if (o.flags || !o.count || o.count > VMEM_FOREIGN_RANGES_MAX || !o.ranges)
		return -VMEM_EINVAL;
	f = vmemi_zalloc(&manager->host.metadata.allocator, sizeof(*f), 64);
	if (!f)
		return -VMEM_ENOMEM;
	f->host = &manager->host;
	f->uffd.fd = -1;
	vmemi_foreign_be_patient(f);
	error = vmemi_lock_init(&f->lock, manager->host.env);
	if (!error)
		error = open_uffd(f, o.uffd);
	if (!error) {
		vmemi_lock(&manager->attach_lock);
		error = attach_all(manager, f, &o);
		vmemi_unlock(&manager->attach_lock);
	}
	if (error)
		destroy(f);
	else
		*ret_foreign = f;
	return error;
}

vmem_region *vmem_foreign_region(vmem_foreign *foreign, uint32_t index)
{
	vmem_region *region = NULL;

	vmemi_lock(&foreign->lock);
	if (index < foreign->count)
		region = foreign->range[index].region;
	vmemi_unlock(&foreign->lock);
	return region;
}

/* No handler looks at it any more. */
static void unpublish(struct vmem_manager *m, struct vmem_foreign *f)
{
	m->host.k->epoll_watch(m->epoll, f->uffd.fd, false);
	atomic_store(&m->host.foreign[f->slot].it, NULL);
	atomic_store(&m->host.foreign[f->slot].fd, -1);
	for (uint32_t i = 0; i < m->host.handlers; i++)
		vmemi_handler_forget(m->handlers[i], NULL);
	vmemi_host_kick_handlers(&m->host);
}

int vmem_foreign_detach(vmem_foreign *foreign, uint32_t how)
{
	struct vmem_manager *m;
	int error = 0;

	if (!foreign || how > VMEM_DETACH_DISCARD)
		return -VMEM_EINVAL;
	m = (struct vmem_manager *)foreign->host;
	vmemi_foreign_be_patient(foreign);
	for (unsigned i = foreign->count; i--;) {
		struct vmem_region *r = vmem_foreign_region(foreign, i);
		int result = 0;

		if (vmemi_foreign_probe(foreign))
			how = VMEM_DETACH_DISCARD;
		if (r)
			result = vmemi_manager_detach(m, r, how);
		foreign->lost |= result > 0;
		error = result < 0 ? result : error;
		if (result == -VMEM_EBUSY) /* so would the others be */
			break;
	}
	if (error)
		return error;
	error = foreign->lost;
	vmemi_lock(&m->attach_lock);
	unpublish(m, foreign);
	vmemi_unlock(&m->attach_lock);
	vmemi_foreign_hear_out(foreign);
	destroy(foreign);
	return error;
}

int vmem_foreign_is_gone(vmem_foreign *foreign)
{
	return vmemi_foreign_probe(foreign);
}

int vmem_foreign_get_metrics(vmem_foreign *foreign, struct vmem_foreign_metrics *metrics)
{
	struct vmem_foreign_metrics m = {
		.size = sizeof(m),
		.gone = foreign->gone,
		.remove_events = foreign->remove_events,
		.removed_pages = foreign->removed_pages,
		.sent_back = foreign->sent_back,
		.strays = foreign->strays,
	};

	return vmemi_opts_give(metrics, &m, sizeof(m));
}
