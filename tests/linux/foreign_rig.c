/* SPDX-License-Identifier: BSD-2-Clause */
/* See foreign_rig.h. */
#include "linux/foreign_rig.h"
#include <sched.h>
#include <unistd.h>

#define PAGE VMEM_PAGE_SIZE
#define GPA VMEMT_FOREIGN_GPA
#define PAGES VMEMT_FOREIGN_PAGES
#define EVENTS VMEMT_FOREIGN_EVENTS

struct vmemt_foreign_rig vmemt_foreign = { .stopped = -1 };

static void on_lost(void *context, uint64_t gpa, int error)
{
	(void)context;
	assert(gpa >= GPA && error < 0);
	atomic_fetch_add(&vmemt_foreign.lost, 1);
}

int vmemt_foreign_read(void *context, uint64_t gpa, void *buffer)
{
	uint64_t page = (gpa - GPA) / PAGE;

	(void)context;
	atomic_fetch_add(&vmemt_foreign.asked, 1);
	atomic_fetch_add(&vmemt_foreign.held, 1);
	if (vmemt_foreign.stopped >= 0 && gpa >= GPA + 10 * PAGE)
		assert(write(vmemt_foreign.stopped, "", 1) == 1);
	while (atomic_load(&vmemt_foreign.hold) ||
	       (vmemt_foreign.stopped >= 0 && gpa >= GPA + 10 * PAGE))
		sched_yield();
	atomic_fetch_sub(&vmemt_foreign.held, 1);
	if (page >= atomic_load(&vmemt_foreign.bad_first) &&
	    page < atomic_load(&vmemt_foreign.bad_end))
		return -VMEM_EIO;
	if (!atomic_load(&vmemt_foreign.answer))
		vmemt_make(buffer, page, 1);
	return atomic_load(&vmemt_foreign.answer);
}

struct vmem_region_opts vmemt_foreign_range(const struct vmemt_client *c, uint64_t first,
					    uint64_t count, uint64_t flags)
{
	return (struct vmem_region_opts){
		.size = sizeof(struct vmem_region_opts),
		.flags = flags,
		.gpa = GPA + first * PAGE,
		.hva = c->base + first * PAGE,
		.bytes = count * PAGE,
		.on_lost = on_lost,
		.read_source = vmemt_foreign_read,
	};
}

int vmemt_foreign_attach(const struct vmemt_client *c, const struct vmem_region_opts *ranges,
			 uint32_t count)
{
	const struct vmem_region_opts *list[VMEM_FOREIGN_RANGES_MAX];
	struct vmem_foreign_opts o = {
		.size = sizeof(o), .uffd = c->uffd, .count = count, .ranges = list
	};

	for (uint32_t i = 0; i < count && i < VMEM_FOREIGN_RANGES_MAX; i++)
		list[i] = &ranges[i];
	return vmem_foreign_attach(&vmemt_foreign.foreign, vmemt_foreign.manager, &o);
}

int vmemt_foreign_whole(const struct vmemt_client *c)
{
	struct vmem_region_opts o = vmemt_foreign_range(c, 0, c->pages, VMEM_REGION_FROM_SOURCE);
	int error = vmemt_foreign_attach(c, &o, 1);

	vmemt_foreign.region = error ? NULL : vmem_foreign_region(vmemt_foreign.foreign, 0);
	return error;
}

void vmemt_foreign_begin(vmem_manager *m, uint64_t pages, uint64_t features)
{
	atomic_store(&vmemt_foreign.hold, 0);
	atomic_store(&vmemt_foreign.asked, 0);
	atomic_store(&vmemt_foreign.lost, 0);
	atomic_store(&vmemt_foreign.answer, 0);
	atomic_store(&vmemt_foreign.bad_end, 0);
	vmemt_foreign.manager = m;
	vmemt_client_start(&vmemt_foreign.client, pages, features);
}

void vmemt_foreign_serve(void)
{
	assert(!vmem_manager_thread_start(vmemt_foreign.manager));
	assert(!vmemt_foreign_whole(&vmemt_foreign.client));
}

void vmemt_foreign_make(uint64_t budget)
{
	vmemt_foreign_begin(vmemt_manager(budget), PAGES, EVENTS);
	vmemt_foreign_serve();
}

struct vmem_foreign_metrics vmemt_foreign_metrics(void)
{
	struct vmem_foreign_metrics m = { .size = sizeof(m) };

	assert(!vmem_foreign_get_metrics(vmemt_foreign.foreign, &m));
	return m;
}

void vmemt_foreign_end(void)
{
	vmemt_client_end(&vmemt_foreign.client, false);
	VMEMT_UNTIL(vmem_foreign_is_gone(vmemt_foreign.foreign));
	vmemt_check(vmemt_foreign.manager, vmemt_foreign.region);
	assert(!vmem_foreign_detach(vmemt_foreign.foreign, VMEM_DETACH_DISCARD));
	assert(!vmem_manager_free(vmemt_foreign.manager));
}

void vmemt_foreign_expect(enum vmemt_order order, uint64_t first, uint64_t count, uint64_t version)
{
	assert(vmemt_order(&vmemt_foreign.client, order, first, count, version) == (int64_t)count);
}

struct vmemt_refused vmemt_refused = { .fd = -1 };

int vmemt_refuse_ioctl(int fd, unsigned long request, void *argument)
{
	const struct uffdio_copy *copy =
		argument; /* begins as uffdio_zeropage and uffdio_poison do */
	uint64_t first = atomic_load(&vmemt_refused.address), end = atomic_load(&vmemt_refused.end);
	int only = atomic_load(&vmemt_refused.fd);

	if ((only >= 0 && only != fd) ||
	    (request != UFFDIO_COPY && request != UFFDIO_ZEROPAGE &&
	     request != VMEMI_UFFDIO_POISON) ||
	    copy->dst < first || copy->dst >= end)
		return vmemi_kernel_linux.ioctl(fd, request, argument);
	atomic_fetch_add(&vmemt_refused.count, 1);
	return -VMEM_EAGAIN;
}

void vmemt_refuse(const struct vmemt_client *c, uint64_t page, uint64_t count)
{
	atomic_store(&vmemt_refused.address, (uintptr_t)c->base + page * PAGE);
	atomic_store(&vmemt_refused.end, (uintptr_t)c->base + (page + count) * PAGE);
}
