/* SPDX-License-Identifier: BSD-2-Clause */
/* Loading: pin the low part of a VM, write what the guest and the host must know into it, fill the
 * rest from the VM's image; or restore all of it from a snapshot, and write what is new into the low part.
 *
 * A thread of its own does it, because it waits in the library while there is no room: so the main
 * thread can hear Ctrl-C. It ends such a wait by discarding what was loaded. What both threads use is
 * atomic. */
#include "runner_load.h"

#include <pthread.h>
#include <string.h>

#include "page_sum.h"
#include "runner_alloc.h"
#include "runner_low.h"
#include "runner_print.h"
#include "runner_result.h"
#include "runner_saved.h"
#include "runner_signals.h"
#include "common/units.h"
#include "runner_vcpu.h"
#include "common/split_random.h"

#define CHUNK_PAGES 256u
#define TICK_NS UINT64_C(100000000)

struct loader {
	struct runner *runner;
	_Atomic uint64_t pages; /* loaded so far */
	uint64_t before;        /* of the VM that is restored */
	_Atomic bool cancelled;
	_Atomic bool done; /* the thread is; error is final */
	int error;
};

/* Adds pages to those that are loaded. -VMEM_EAGAIN: it shall end. */
static int restored_to(void *context, uint64_t done_bytes, uint64_t vm_bytes)
{
	struct loader *loader = context;

	(void)vm_bytes;
	atomic_store(&loader->pages, loader->before + (done_bytes >> GUEST_PAGE_SHIFT));
	return atomic_load(&loader->cancelled) ? -VMEM_EAGAIN : 0;
}

static int pin_low_part(struct vm *vm)
{
	int error = vmem_region_pin(vm->region, 0, vm->layout.pinned_bytes);

	if (error == -VMEM_ENOSPC)
		print_error(
			"vm %u: the budget does not hold the %s that stay pinned (page tables, and 16 bytes "
			"a page to know what it must hold). Give more with --budget.",
			vm->index, UNITS_BYTES(vm->layout.pinned_bytes));
	else if (error)
		print_error("vm %u: its low part cannot be pinned: %s.", vm->index,
			    vmem_strerror(error));
	return error;
}

/* Pages of the image that lie where the low part is are left out. */
static int load_chunk(struct loader *loader, struct vm *vm, uint64_t gfn, const uint64_t *words,
		      uint64_t pages)
{
	const struct runner_options *o = vm->runner->options;
	uint64_t first = vm_first_page(vm);
	uint64_t skip = gfn >= first ? 0 : first - gfn < pages ? first - gfn : pages;
	int error;

	for (uint64_t i = skip; i < pages; i++)
		vm->truth[gfn + i].sum = page_sum(words + i * GUEST_PAGE_WORDS);
	if (skip == pages)
		return 0;
	error = vmem_region_write(vm->region, (gfn + skip) << GUEST_PAGE_SHIFT,
				  words + skip * GUEST_PAGE_WORDS,
				  (pages - skip) << GUEST_PAGE_SHIFT);
	if (!error || atomic_load(&loader->cancelled))
		return error;
	if (error == -VMEM_ENOSPC)
		print_error("The budget, %s, does not hold what the VMs are loaded with, even "
			    "compressed: loading stopped after %s of %s. Give more with --budget.",
			    UNITS_BYTES(o->budget_bytes),
			    UNITS_BYTES(atomic_load(&loader->pages) << GUEST_PAGE_SHIFT),
			    UNITS_BYTES(o->mem_bytes * o->vms));
	else
		print_error("vm %u: its image cannot be loaded at frame %#llx: %s.", vm->index,
			    (unsigned long long)gfn, vmem_strerror(error));
	return error;
}

static int load_image(struct loader *loader, struct vm *vm, struct image *image)
{
	uint64_t *chunk = alloc_pages(CHUNK_PAGES * GUEST_PAGE_SIZE);
	uint64_t pages = image_pages(image);
	uint64_t zero_sum;
	int error = 0;

	if (!chunk) {
		print_error("Out of memory while vm %u was loaded.", vm->index);
		return -VMEM_ENOMEM;
	}
	for (uint64_t gfn = 0; gfn < pages && !error; gfn += CHUNK_PAGES) {
		uint64_t count = pages - gfn < CHUNK_PAGES ? pages - gfn : CHUNK_PAGES;

		error = image_read(image, chunk, count);
		if (!error)
			error = load_chunk(loader, vm, gfn, chunk, count);
		if (!error)
			atomic_fetch_add(&loader->pages, count);
		if (!error && atomic_load(&loader->cancelled))
			error = -VMEM_EAGAIN;
	}
	memset(chunk, 0, GUEST_PAGE_SIZE);
	zero_sum = page_sum(chunk);
	alloc_free(chunk);
	for (uint64_t gfn = pages; gfn < vm_pages(vm); gfn++)
		vm->truth[gfn].sum = zero_sum;
	return error;
}

/* All of a VM is in its snapshot, but for what depends on this process: where its memory lies, how long it runs. */
static int restore_vm(struct loader *loader, struct vm *vm)
{
	int error;

	loader->before = atomic_load(&loader->pages);
	error = vm_restore(vm, restored_to, loader);
	if (!error)
		error = pin_low_part(vm);
	if (error)
		return error;
	if (vm->params->truth_gpa != vm->layout.truth_gpa) {
		print_error(
			"vm %u: what was saved is of a VM with another number of --vcpus than %u.",
			vm->index, vm->runner->options->vcpus);
		return -VMEM_EINVAL;
	}
	low_part_fill(vm, true);
	return 0;
}

static int load_vm(struct loader *loader, struct vm *vm)
{
	const struct runner_options *o = vm->runner->options;
	uint64_t seed = o->seed + vm->index;
	struct image *image = NULL;
	int error = pin_low_part(vm);

	if (error)
		return error;
	if (o->image_count)
		error = image_open(&image, o->images[vm->index % o->image_count], o->mem_bytes);
	else
		error = image_make(&image, &vm->runner->corpus, vm_pages(vm), random_next(&seed));
	if (error) {
		if (error == -VMEM_ENOMEM)
			print_error("Out of memory while the image of vm %u was opened.",
				    vm->index);
		return error;
	}
	low_part_fill(vm, false);
	error = load_image(loader, vm, image);
	vm->image = *image_counts(image);
	image_close(image);
	return error;
}

static void *load_thread(void *argument)
{
	struct loader *loader = argument;
	struct runner *runner = loader->runner;

	for (uint32_t i = 0; i < runner->options->vms && !loader->error; i++) {
		if (runner->options->restore)
			loader->error = restore_vm(loader, &runner->vms[i]);
		else
			loader->error = load_vm(loader, &runner->vms[i]);
		if (!loader->error && !runner->options->restore)
			result_print_image(&runner->vms[i]);
	}
	atomic_store(&loader->done, true);
	signals_wake();
	return NULL;
}

/* The thread may wait for room: make some. */
static void cancel(struct loader *loader)
{
	struct runner *runner = loader->runner;

	atomic_store(&loader->cancelled, true);
	for (uint32_t i = 0; i < runner->options->vms; i++)
		vm_empty(&runner->vms[i]);
}

int load_vms(struct runner *runner)
{
	struct loader loader = { .runner = runner };
	pthread_t thread;

	if (pthread_create(&thread, NULL, load_thread, &loader) != 0) {
		print_error("There is no memory for a thread that loads the VMs.");
		return -VMEM_ENOMEM;
	}
	while (!atomic_load(&loader.done) && !signals_interrupted())
		signals_wait(TICK_NS);
	while (!atomic_load(&loader.done)) {
		cancel(&loader);
		signals_wait(TICK_NS);
	}
	pthread_join(thread, NULL);
	if (loader.error && atomic_load(&loader.cancelled))
		print_line("Until then %s of %s were loaded; no VM has run.",
			   UNITS_BYTES(atomic_load(&loader.pages) << GUEST_PAGE_SHIFT),
			   UNITS_BYTES(runner->options->mem_bytes * runner->options->vms));
	return loader.error;
}
