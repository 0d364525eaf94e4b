/* SPDX-License-Identifier: BSD-2-Clause */
/* Sets of pages in an order: made, told, written and read. See <vmem/working_set.h>. */
#include "linux/working_set/working_set.h"
#include "base/alloc.h"
#include "base/mem.h"
#include "base/opts.h"

#define FIRST_CAPACITY 64u

int vmemi_working_set_new(struct vmem_working_set **ret_set, const struct vmem_allocator *a)
{
	struct vmem_working_set *set = vmemi_zalloc(a, sizeof(*set), 16);

	if (!set)
		return -VMEM_ENOMEM;
	set->allocator = *a;
	*ret_set = set;
	return 0;
}

void vmem_working_set_free(vmem_working_set *set)
{
	struct vmem_allocator a;

	if (!set)
		return;
	a = set->allocator;
	vmemi_free(&a, set->runs, (size_t)set->capacity * sizeof(*set->runs), 16);
	vmemi_free(&a, set, sizeof(*set), 16);
}

static int grow(struct vmem_working_set *set)
{
	uint64_t capacity = set->capacity ? set->capacity * 2 : FIRST_CAPACITY;
	struct vmemi_working_run *runs =
		vmemi_alloc(&set->allocator, (size_t)capacity * sizeof(*runs), 16);

	if (!runs)
		return -VMEM_ENOMEM;
	if (set->count)
		memcpy(runs, set->runs, (size_t)set->count * sizeof(*runs));
	vmemi_free(&set->allocator, set->runs, (size_t)set->capacity * sizeof(*runs), 16);
	set->runs = runs;
	set->capacity = capacity;
	return 0;
}

int vmemi_working_set_add(struct vmem_working_set *set, uint32_t first, uint32_t pages)
{
	struct vmemi_working_run *last = set->count ? &set->runs[set->count - 1] : NULL;

	if (last && (uint64_t)last->first + last->pages == first) {
		last->pages += pages;
	} else {
		if (set->count == set->capacity && grow(set))
			return -VMEM_ENOMEM;
		set->runs[set->count++] = (struct vmemi_working_run){ first, pages };
	}
	set->pages += pages;
	return 0;
}

int vmem_working_set_get_info(const vmem_working_set *set, struct vmem_working_set_info *info)
{
	struct vmem_working_set_info known = { .size = sizeof(known) };

	if (!set)
		return -VMEM_EINVAL;
	known.region_gpa = set->gpa;
	known.region_bytes = set->region_pages * VMEM_PAGE_SIZE;
	known.pages = set->pages;
	known.runs = set->count;
	known.missed_pages = set->missed;
	return vmemi_opts_give(info, &known, sizeof(known));
}

int vmem_working_set_iterate(const vmem_working_set *set,
			     int (*run)(void *context, uint64_t gpa, uint64_t bytes), void *context)
{
	int error = 0;

	if (!set || !run)
		return -VMEM_EINVAL;
	for (uint64_t i = 0; i < set->count && !error; i++)
		error = run(context, set->gpa + (uint64_t)set->runs[i].first * VMEM_PAGE_SIZE,
			    (uint64_t)set->runs[i].pages * VMEM_PAGE_SIZE);
	return error;
}

int vmem_working_set_save(const vmem_working_set *set,
			  int (*write)(void *context, const void *bytes, size_t count),
			  void *context)
{
	struct vmemi_stream s;

	if (!set || !write)
		return -VMEM_EINVAL;
	vmemi_stream_write(&s, write, context);
	vmemi_working_set_put(set, &s);
	return s.err;
}

int vmem_working_set_load(vmem_working_set **ret_set, const struct vmem_working_set_load_opts *opts,
			  int (*read)(void *context, void *bytes, size_t count), void *context)
{
	struct vmem_working_set_load_opts o;
	struct vmem_working_set *set;
	struct vmem_allocator a;
	struct vmemi_stream s;
	int error = ret_set && read ? vmemi_opts_take(&o, sizeof(o), opts) : -VMEM_EINVAL;

	if (!error && o.flags)
		error = -VMEM_EINVAL;
	if (!error)
		error = vmemi_alloc_take(&a, o.allocator);
	if (!error)
		error = vmemi_working_set_new(&set, &a);
	if (error)
		return error;
	vmemi_stream_read(&s, read, context);
	vmemi_working_set_get(set, o.max_pages ? o.max_pages : UINT64_MAX, &s);
	if (s.err)
		vmem_working_set_free(set);
	else
		*ret_set = set;
	return s.err;
}
