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

static int attach(struct pager_vm *vm, vmem_manager *manager, const struct hand_over *h)
{
	struct vmem_region_opts range[VMEM_FOREIGN_RANGES_MAX];
	const struct vmem_region_opts *list[VMEM_FOREIGN_RANGES_MAX];
	struct vmem_foreign_opts o = {
		.size = sizeof(o), .uffd = h->uffd, .count = h->count, .ranges = list
	};

	for (uint32_t i = 0; i < h->count; i++) {
		const struct hand_over_range *r = &h->range[i];

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
	return vmem_foreign_attach(&vm->foreign, manager, &o);
}

/* NULL, or why not. */
static const char *begin(struct pager_vm *vm, vmem_manager *manager, const struct hand_over *h,
			 const struct pager_file *memory)
{
	int error;

	vm->ranges = h->count;
	for (uint32_t i = 0; i < h->count; i++)
		vm->source[i] = (struct vmem_source_file){ .fd = memory->fd,
							   .gpa = h->range[i].offset,
							   .offset = h->range[i].offset };
	if (h->files)
		return pager_files_begin(&vm->files, manager, h, vm->source);
	error = attach(vm, manager, h);
	return error ? vmem_strerror(error) : NULL;
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
	vm->socket = -1;
	vm->reported = false;
	vm->foreign = NULL;
	vm->files.count = 0;
	if (!why) {
		why = begin(vm, manager, &h, memory);
		hand_over_close(&h);
	}
	if (why) {
		fprintf(stderr, "process %d: not served: %s\n", (int)vm->pid, why);
		close(socket);
		return -1;
	}
	vm->socket = socket;
	printf("process %d: %u ranges%s\n", (int)vm->pid, vm->ranges, h.files ? " in files" : "");
	fflush(stdout);
	return 0;
}

bool pager_vm_is_there(const struct pager_vm *vm)
{
	return vm->foreign || vm->files.count;
}

bool pager_vm_is_gone(struct pager_vm *vm)
{
	return vm->foreign ? vmem_foreign_is_gone(vm->foreign) == 1
			   : pager_files_are_gone(&vm->files);
}

struct served {
	uint64_t loaded, zeros, in_place, taken, saved, lost, p99_ns;
};

static struct served sum(const struct pager_vm *vm)
{
	struct served s = { 0 };

	for (uint32_t i = 0; i < vm->ranges; i++) {
		struct vmem_region_metrics m = { .size = sizeof(m) };
		vmem_region *region = vm->foreign ? vmem_foreign_region(vm->foreign, i)
						  : vm->files.range[i].region;

		if (!region || vmem_region_get_metrics(region, &m) != 0)
			continue;
		s.loaded += m.faults_source;
		s.zeros += m.faults_zero;
		s.in_place +=
			(m.pages[VMEM_PAGE_RESIDENT] + m.pages[VMEM_PAGE_CLEAN]) * VMEM_PAGE_SIZE;
		s.taken += m.taken_unmapped + m.taken_clean;
		s.saved += m.saved;
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

	if (vm->foreign)
		(void)!vmem_foreign_get_metrics(vm->foreign, &f);
	printf("process %d: %llu pages from the file, %llu of zeros, %llu removed, %llu taken out, "
	       "%llu saved, %llu lost; 99 %% within %s\n",
	       (int)vm->pid, (unsigned long long)s.loaded, (unsigned long long)s.zeros,
	       (unsigned long long)f.removed_pages, (unsigned long long)s.taken,
	       (unsigned long long)s.saved, (unsigned long long)s.lost, UNITS_TIME(s.p99_ns));
	fflush(stdout);
	item = list ? json_append(list, cJSON_CreateObject()) : NULL;
	if (!item)
		return;
	json_number(item, "pid", vm->pid);
	json_number(item, "ranges", vm->ranges);
	json_number(item, "pages_from_file", (double)s.loaded);
	json_number(item, "pages_of_zeros", (double)s.zeros);
	json_number(item, "pages_removed", (double)f.removed_pages);
	json_number(item, "pages_taken_out", (double)s.taken);
	json_number(item, "pages_saved", (double)s.saved);
	json_number(item, "pages_lost", (double)s.lost);
	json_number(item, "bytes_in_place", (double)s.in_place);
	json_number(item, "fault_p99_ns", (double)s.p99_ns);
}

int pager_vm_end(struct pager_vm *vm, uint32_t how, cJSON *list)
{
	int error;

	if (!vm->reported)
		report(vm, list);
	vm->reported = true;
	if (vm->foreign)
		error = vmem_foreign_detach(vm->foreign, how);
	else
		error = pager_files_end(&vm->files,
					pager_vm_is_gone(vm) ? VMEM_DETACH_DISCARD : how);
	if (error < 0) {
		fprintf(stderr, "process %d: %s: %s\n", (int)vm->pid,
			how == VMEM_DETACH_RESTORE ? "not all could be brought in"
						   : "its memory could not be closed",
			vmem_strerror(error));
		return -1;
	}
	if (error)
		fprintf(stderr, "process %d: pages are lost; it meets SIGBUS there\n",
			(int)vm->pid);
	vm->foreign = NULL;
	if (vm->socket >= 0)
		close(vm->socket);
	vm->socket = -1;
	return 0;
}
