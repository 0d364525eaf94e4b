/* SPDX-License-Identifier: BSD-2-Clause */
/* struct ucred */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "pager_vm.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/units.h"

#define HAND_OVER_MS 2000 /* others wait meanwhile */

static void on_lost(void *context, uint64_t gpa, int error)
{
	(void)context; /* on the path of faults nothing is said; the counters tell */
	(void)gpa;
	(void)error;
}

static int attach(struct pager_vm *vm, vmem_manager *manager, const struct hand_over *h,
		  const struct pager_file *memory)
{
	struct vmem_region_opts range[VMEM_FOREIGN_RANGES_MAX];
	const struct vmem_region_opts *list[VMEM_FOREIGN_RANGES_MAX];
	struct vmem_foreign_opts o = {
		.size = sizeof(o), .uffd = h->uffd, .count = h->count, .ranges = list
	};

	for (uint32_t i = 0; i < h->count; i++) {
		const struct hand_over_range *r = &h->range[i];

		vm->source[i] = (struct vmem_source_file){ .fd = memory->fd,
							   .gpa = r->offset,
							   .offset = r->offset };
		range[i] = (struct vmem_region_opts){
			.size = sizeof(range[i]),
			.flags = VMEM_REGION_FROM_SOURCE,
			.gpa = r->offset,
			.hva = (void *)(uintptr_t)r->base,
			.bytes = r->bytes,
			.on_lost = on_lost,
			.context = &vm->source[i],
			.read_source = vmem_source_file_read,
		};
		list[i] = &range[i];
	}
	vm->ranges = h->count;
	return vmem_foreign_attach(&vm->foreign, manager, &o);
}

static pid_t peer(int socket)
{
	struct ucred c = { .pid = 0 };
	socklen_t bytes = sizeof(c);

	return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &c, &bytes) == 0 ? c.pid : 0;
}

int pager_vm_begin(struct pager_vm *vm, vmem_manager *manager, const struct pager_file *memory,
		   int socket)
{
	struct hand_over h;
	const char *why = hand_over_receive(&h, socket, memory->bytes, HAND_OVER_MS);

	vm->pid = peer(socket);
	vm->foreign = NULL;
	if (!why) {
		int error = attach(vm, manager, &h, memory);

		if (error)
			why = vmem_strerror(error);
		close(h.uffd);
	}
	if (why) {
		fprintf(stderr, "process %d: not served: %s\n", (int)vm->pid, why);
		close(socket);
		return -1;
	}
	vm->socket = socket;
	printf("process %d: %u ranges\n", (int)vm->pid, vm->ranges);
	fflush(stdout);
	return 0;
}

struct served {
	uint64_t loaded, zeros, in_place, lost, p99_ns;
};

static struct served sum(const struct pager_vm *vm)
{
	struct served s = { 0 };

	for (uint32_t i = 0; i < vm->ranges; i++) {
		struct vmem_region_metrics m = { .size = sizeof(m) };
		vmem_region *region = vmem_foreign_region(vm->foreign, i);

		if (!region || vmem_region_get_metrics(region, &m) != 0)
			continue;
		s.loaded += m.faults_source;
		s.zeros += m.faults_zero;
		s.in_place += m.pages[VMEM_PAGE_RESIDENT] * VMEM_PAGE_SIZE;
		s.lost += m.lost;
		s.p99_ns = m.fault_p99_ns > s.p99_ns ? m.fault_p99_ns : s.p99_ns;
	}
	return s;
}

static void report(const struct pager_vm *vm, cJSON *list)
{
	struct vmem_foreign_metrics f = { .size = sizeof(f) };
	struct served s = sum(vm);
	cJSON *item;

	(void)!vmem_foreign_get_metrics(vm->foreign, &f);
	printf("process %d: %llu pages from the file, %llu of zeros, %llu removed, %llu lost; 99 %% within %s\n",
	       (int)vm->pid, (unsigned long long)s.loaded, (unsigned long long)s.zeros,
	       (unsigned long long)f.removed_pages, (unsigned long long)s.lost,
	       UNITS_TIME(s.p99_ns));
	fflush(stdout);
	item = list ? json_append(list, cJSON_CreateObject()) : NULL;
	if (!item)
		return;
	json_number(item, "pid", vm->pid);
	json_number(item, "ranges", vm->ranges);
	json_number(item, "pages_from_file", (double)s.loaded);
	json_number(item, "pages_of_zeros", (double)s.zeros);
	json_number(item, "pages_removed", (double)f.removed_pages);
	json_number(item, "pages_lost", (double)s.lost);
	json_number(item, "bytes_in_place", (double)s.in_place);
	json_number(item, "fault_p99_ns", (double)s.p99_ns);
}

int pager_vm_end(struct pager_vm *vm, uint32_t how, cJSON *list)
{
	int error;

	report(vm, list);
	error = vmem_foreign_detach(vm->foreign, how);
	if (error) {
		fprintf(stderr, "process %d: %s\n", (int)vm->pid, vmem_strerror(error));
		return -1;
	}
	vm->foreign = NULL;
	if (vm->socket >= 0)
		close(vm->socket);
	return 0;
}
