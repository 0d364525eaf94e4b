/* SPDX-License-Identifier: BSD-2-Clause */
/* Arenas of libvmem-jemalloc: their figures, their independence, and whose malloc() it is. */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vmem/jemalloc.h>

#define MIB ((size_t)1 << 20)

static struct vmem_jemalloc_stats stats_of(vmem_jemalloc *j)
{
	struct vmem_jemalloc_stats s = { .size = sizeof(s) };

	cr_assert_eq(vmem_jemalloc_get_stats(j, &s), 0);
	return s;
}

static vmem_jemalloc *new_arena(void)
{
	vmem_jemalloc *j = NULL;

	cr_assert_eq(vmem_jemalloc_new(&j, NULL), 0);
	cr_assert_not_null(j);
	return j;
}

static void *take(vmem_jemalloc *j, size_t bytes, size_t align)
{
	const struct vmem_allocator *a = vmem_jemalloc_allocator(j);
	void *memory = a->alloc(a->context, bytes, align);

	cr_assert_not_null(memory);
	memset(memory, 0x5a, bytes);
	return memory;
}

static void give_back(vmem_jemalloc *j, void *memory, size_t bytes, size_t align)
{
	const struct vmem_allocator *a = vmem_jemalloc_allocator(j);

	a->free(a->context, memory, bytes, align);
}

Test(jemalloc, options)
{
	struct {
		struct vmem_jemalloc_opts known;
		uint64_t unknown;
	} o = { .known = { .size = sizeof(o) } };
	vmem_jemalloc *j = NULL;

	cr_assert_eq(vmem_jemalloc_new(&j, &o.known), 0);
	vmem_jemalloc_free(j);
	j = NULL;
	o.unknown = 1;
	cr_assert_eq(vmem_jemalloc_new(&j, &o.known), -VMEM_E2BIG);
	o.unknown = 0;
	o.known.flags = 1;
	cr_assert_eq(vmem_jemalloc_new(&j, &o.known), -VMEM_EINVAL);
	o.known.flags = 0;
	o.known.decay_ms = UINT64_MAX;
	cr_assert_eq(vmem_jemalloc_new(&j, &o.known), -VMEM_EINVAL);
	o.known.decay_ms = INT64_MAX;
	cr_assert_eq(vmem_jemalloc_new(&j, &o.known), -VMEM_EINVAL);
	cr_assert_null(j);
	vmem_jemalloc_free(NULL);
}

Test(jemalloc, allocator_is_complete)
{
	vmem_jemalloc *j = new_arena();
	const struct vmem_allocator *a = vmem_jemalloc_allocator(j);

	cr_assert_eq(a->size, sizeof(*a));
	cr_assert_null(a->alloc(a->context, SIZE_MAX / 2, 16));
	vmem_jemalloc_free(j);
}

Test(jemalloc, aligns)
{
	vmem_jemalloc *j = new_arena();

	for (size_t align = 1; align <= MIB; align *= 2) {
		for (size_t bytes = 1; bytes <= MIB; bytes *= 32) {
			void *memory = take(j, bytes, align);

			cr_assert_eq((uintptr_t)memory % align, 0u, "%zu bytes to %zu", bytes,
				     align);
			give_back(j, memory, bytes, align);
		}
	}
	cr_assert_eq(stats_of(j).allocated_bytes, 0u);
	vmem_jemalloc_free(j);
}

Test(jemalloc, stats_rise_and_fall)
{
	vmem_jemalloc *j = new_arena();
	struct vmem_jemalloc_stats before = stats_of(j), with, after;
	void *small, *large;

	cr_assert_eq(before.allocated_bytes, 0u);
	cr_assert_gt(before.metadata_bytes, 0u);
	small = take(j, 100, 8);
	large = take(j, 4 * MIB, 4096);
	with = stats_of(j);
	cr_assert_geq(with.allocated_bytes, 4 * MIB + 100);
	cr_assert_leq(with.allocated_bytes, 4 * MIB + 128);
	cr_assert_geq(with.active_bytes, with.allocated_bytes);
	cr_assert_geq(with.resident_bytes, before.resident_bytes + 4 * MIB);
	give_back(j, small, 100, 8);
	give_back(j, large, 4 * MIB, 4096);
	after = stats_of(j);
	cr_assert_eq(after.allocated_bytes, 0u);
	cr_assert_eq(after.active_bytes, 0u);
	cr_assert_lt(after.resident_bytes, before.resident_bytes + MIB,
		     "freed memory does not go back at once");
	vmem_jemalloc_free(j);
}

Test(jemalloc, decay_keeps_freed_memory_for_a_while)
{
	struct vmem_jemalloc_opts o = { .size = sizeof(o), .decay_ms = 3600 * 1000 };
	vmem_jemalloc *j = NULL;
	uint64_t resident;

	cr_assert_eq(vmem_jemalloc_new(&j, &o), 0);
	resident = stats_of(j).resident_bytes;
	give_back(j, take(j, 4 * MIB, 4096), 4 * MIB, 4096);
	cr_assert_geq(stats_of(j).resident_bytes, resident + 4 * MIB);
	vmem_jemalloc_free(j);
}

Test(jemalloc, stats_for_older_callers)
{
	struct vmem_jemalloc_stats s = { .size = 2 * sizeof(size_t), .active_bytes = 99 };
	vmem_jemalloc *j = new_arena();
	void *memory = take(j, MIB, 4096);

	cr_assert_eq(vmem_jemalloc_get_stats(j, &s), 0);
	cr_assert_geq(s.allocated_bytes, MIB);
	cr_assert_eq(s.active_bytes, 99u);
	cr_assert_eq(vmem_jemalloc_get_stats(j, NULL), -VMEM_EINVAL);
	give_back(j, memory, MIB, 4096);
	vmem_jemalloc_free(j);
}

Test(jemalloc, arenas_are_independent)
{
	vmem_jemalloc *a = new_arena(), *b = new_arena();
	void *of_a = take(a, 4 * MIB, 64);
	unsigned char *of_b = take(b, MIB, 64);

	cr_assert_leq(stats_of(b).allocated_bytes, 2 * MIB);
	give_back(a, of_a, 4 * MIB, 64);
	cr_assert_eq(stats_of(a).allocated_bytes, 0u);
	cr_assert_geq(stats_of(b).allocated_bytes, MIB);
	vmem_jemalloc_free(a);
	for (size_t i = 0; i < MIB; i++)
		cr_assert_eq(of_b[i], 0x5a);
	cr_assert_geq(stats_of(b).allocated_bytes, MIB);
	vmem_jemalloc_free(b);
}

static size_t process_resident_bytes(void)
{
	unsigned long pages, resident;
	FILE *f = fopen("/proc/self/statm", "r");

	cr_assert_not_null(f);
	cr_assert_eq(fscanf(f, "%lu %lu", &pages, &resident), 2);
	fclose(f);
	return resident * 4096;
}

/* What is not freed one by one goes with the arena, from the process as well. */
Test(jemalloc, free_frees_all)
{
	size_t before, with;
	vmem_jemalloc *j;

	vmem_jemalloc_free(new_arena()); /* what jemalloc keeps for good */
	before = process_resident_bytes();
	j = new_arena();
	for (int i = 0; i < 1024; i++) {
		take(j, 32768, 64);
		take(j, 100, 8);
	}
	with = process_resident_bytes();
	cr_assert_gt(with, before + 30 * MIB);
	vmem_jemalloc_free(j);
	cr_assert_lt(process_resident_bytes(), before + 4 * MIB);
}

/* More than jemalloc can have at once, one after the other. */
Test(jemalloc, arenas_are_used_again)
{
	for (int i = 0; i < 5000; i++) {
		vmem_jemalloc *j = new_arena();

		give_back(j, take(j, 100, 8), 100, 8);
		vmem_jemalloc_free(j);
	}
}

Test(jemalloc, arenas_run_out)
{
	static vmem_jemalloc *all[8192];
	vmem_jemalloc *none = NULL;
	int count = 0, result;

	while (count < 8192 && !(result = vmem_jemalloc_new(&all[count], NULL)))
		count++;
	cr_assert_lt(count, 8192);
	cr_assert_eq(result, -VMEM_ENOMEM);
	cr_assert_eq(vmem_jemalloc_new(&none, NULL), -VMEM_ENOMEM);
	cr_assert_null(none);
	vmem_jemalloc_free(all[--count]);
	all[count] = new_arena();
	for (count++; count; count--)
		vmem_jemalloc_free(all[count - 1]);
}

static const char *library_of(void *address)
{
	Dl_info info;

	cr_assert_neq(dladdr(address, &info), 0);
	return info.dli_fname;
}

/* An executable that is linked with libvmem-jemalloc keeps its malloc(). */
Test(jemalloc, malloc_stays_what_it_was)
{
	static const char *const names[] = { "malloc", "calloc",         "realloc",
					     "free",   "posix_memalign", "memalign" };

	vmem_jemalloc_free(new_arena());
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		void *f = dlsym(RTLD_DEFAULT, names[i]);

		cr_assert_not_null(f);
		cr_assert_null(strstr(library_of(f), "jemalloc"), "%s is of %s", names[i],
			       library_of(f));
	}
	cr_assert_not_null(strstr(library_of(dlsym(RTLD_DEFAULT, "mallocx")), "jemalloc"));
	cr_assert_null(strstr(library_of(dlsym(RTLD_DEFAULT, "_Znwm")), "jemalloc"));
}
