/* SPDX-License-Identifier: BSD-2-Clause */
/* The file of a working set: bytes as documented, there and back, damaged, cut short, and by who is hostile. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <vmem/working_set.h>
#include "linux/snapshot_tape.h"
#include "linux/working_set/working_set.h"
#include "support/fail_alloc.h"
#include "support/rng.h"

#define PAGE ((uint64_t)VMEM_PAGE_SIZE)

static struct vmemt_fail_alloc memory;

static void set_up(void)
{
	vmemt_fail_alloc_init(&memory);
}

static void all_freed(void)
{
	cr_assert_eq(memory.live_bytes, 0);
}

TestSuite(working_set_file, .init = set_up, .fini = all_freed);

static vmem_working_set *new_set(uint64_t gpa, uint64_t pages, uint64_t missed)
{
	vmem_working_set *set = NULL;

	cr_assert_eq(vmemi_working_set_new(&set, &memory.allocator), 0);
	set->gpa = gpa;
	set->region_pages = pages;
	set->missed = missed;
	return set;
}

static void save(const vmem_working_set *set, struct vmemt_tape *tape)
{
	vmemt_tape_init(tape);
	cr_assert_eq(vmem_working_set_save(set, vmemt_tape_write, tape), 0);
}

static int load(vmem_working_set **ret_set, struct vmemt_tape *tape, uint64_t max_pages)
{
	struct vmem_working_set_load_opts o = { .size = sizeof(o),
						.allocator = &memory.allocator,
						.max_pages = max_pages };

	tape->at = 0;
	tape->calls = 0;
	*ret_set = NULL;
	return vmem_working_set_load(ret_set, &o, vmemt_tape_read, tape);
}

static void assert_same(const vmem_working_set *a, const vmem_working_set *b)
{
	cr_assert(a->gpa == b->gpa && a->region_pages == b->region_pages &&
		  a->missed == b->missed && a->pages == b->pages && a->count == b->count);
	for (uint64_t i = 0; i < a->count; i++)
		cr_assert(a->runs[i].first == b->runs[i].first &&
			  a->runs[i].pages == b->runs[i].pages);
}

Test(working_set_file, bytes_are_as_documented)
{
	static const uint8_t want[] = { 'V', 'M', 'E', 'M', 'W',  'S', 'E',  'T', 1, 0x80, 0x20,
					2,   100, 5,   3,   0x14, 1,   0x0f, 2,   2, 0 };
	vmem_working_set *set = new_set(2 * PAGE, 100, 5);
	struct vmemt_tape tape;

	vmemi_working_set_add(set, 10, 1);
	vmemi_working_set_add(set, 11, 2); /* goes on: 3 pages from 10 on, 10 after 0 */
	vmemi_working_set_add(set, 5, 1);  /* 8 before 13 */
	vmemi_working_set_add(set, 7, 2);  /* 1 after 6 */
	save(set, &tape);
	cr_assert_eq(tape.size, sizeof(want) + 8);
	cr_assert_arr_eq(tape.bytes, want, sizeof(want));
	vmemt_tape_free(&tape);
	vmem_working_set_free(set);
}

Test(working_set_file, any_set_goes_there_and_back)
{
	uint64_t rng = vmemt_seed("any_set_goes_there_and_back");

	for (unsigned round = 0; round < 200; round++) {
		uint64_t pages = 1 + vmemt_rand(&rng) % (round % 2 ? UINT32_MAX : 64), left = pages;
		uint64_t most_gpa = (UINT64_MAX / PAGE - pages) * PAGE;
		uint64_t gpa = vmemt_rand(&rng) % (most_gpa / PAGE + 1) * PAGE;
		vmem_working_set *set = new_set(gpa, pages, vmemt_rand(&rng)), *again;
		struct vmemt_tape tape;

		for (unsigned i = 0; i < 300 && left; i++) {
			uint64_t first = vmemt_rand(&rng) % pages;
			uint64_t most = pages - first < left ? pages - first : left;
			uint64_t n = 1 + vmemt_rand(&rng) % (i % 2 ? most : 1);

			vmemi_working_set_add(set, (uint32_t)first, (uint32_t)n);
			left -= n;
		}
		save(set, &tape);
		cr_assert_eq(load(&again, &tape, 0), 0);
		cr_assert_eq(tape.at, tape.size);
		assert_same(set, again);
		vmem_working_set_free(again);
		if (set->pages > 1)
			cr_assert_eq(load(&again, &tape, set->pages - 1), -VMEM_ERANGE);
		cr_assert_eq(load(&again, &tape, set->pages ? set->pages : 1), 0);
		vmem_working_set_free(again);
		vmem_working_set_free(set);
		vmemt_tape_free(&tape);
	}
}

static vmem_working_set *some_set(void)
{
	vmem_working_set *set = new_set(77 * PAGE, 1000, 0);

	for (uint32_t i = 0; i < 200; i++)
		vmemi_working_set_add(set, i * 37 % 1000, 1 + i % 3);
	return set;
}

Test(working_set_file, damage_and_a_missing_end_are_found)
{
	vmem_working_set *set = some_set(), *again;
	struct vmemt_tape tape;

	save(set, &tape);
	for (size_t bit = 0; bit < tape.size * 8; bit++) {
		int error;

		tape.bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
		error = load(&again, &tape, 0);
		cr_assert(error == -VMEM_EBADMSG || error == -VMEM_ENOTSUP, "bit %zu: %d", bit,
			  error);
		cr_assert_null(again);
		tape.bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
	}
	for (size_t size = tape.size, all = size; size-- > 0; tape.size = all) {
		tape.size = size;
		cr_assert_eq(load(&again, &tape, 0), -VMEM_EBADMSG);
	}
	cr_assert_eq(load(&again, &tape, 0), 0);
	vmem_working_set_free(again);
	vmem_working_set_free(set);
	vmemt_tape_free(&tape);
}

Test(working_set_file, errors_of_the_caller_are_passed_on)
{
	vmem_working_set *set = some_set(), *again;
	struct vmemt_tape tape, half;
	int error;

	save(set, &tape);
	vmemt_tape_init(&half);
	half.error = -77;
	for (half.fail_after = 0;; half.fail_after++) {
		half.at = half.size = 0;
		half.calls = 0;
		error = vmem_working_set_save(set, vmemt_tape_write, &half);
		if (!error)
			break;
		cr_assert_eq(error, -77);
	}
	cr_assert_gt(half.fail_after, 2);
	tape.error = -78;
	for (tape.fail_after = 0;; tape.fail_after++) {
		error = load(&again, &tape, 0);
		if (!error)
			break;
		cr_assert_eq(error, -78);
	}
	assert_same(set, again);
	vmem_working_set_free(again);
	for (long n = 0;; n++) {
		memory.calls = memory.failed = 0;
		memory.fail_after = n;
		error = load(&again, &tape, 0);
		memory.fail_after = -1;
		if (!error)
			break;
		cr_assert_eq(error, -VMEM_ENOMEM);
	}
	vmem_working_set_free(again);
	vmem_working_set_free(set);
	vmemt_tape_free(&tape);
	vmemt_tape_free(&half);
}

/* With a right checksum. */
static void write_file(struct vmemt_tape *tape, const uint64_t *numbers, size_t count)
{
	struct vmemi_stream s;

	vmemt_tape_init(tape);
	vmemi_stream_write(&s, vmemt_tape_write, tape);
	vmemi_stream_put_bytes(&s, "VMEMWSET", 8);
	for (size_t i = 0; i < count; i++)
		vmemi_stream_put(&s, numbers[i]);
	vmemi_stream_put_end(&s);
	cr_assert_eq(s.err, 0);
}

Test(working_set_file, lies_are_refused)
{
	static const struct {
		int error;
		uint64_t numbers[10]; /* version, page size, gfn, pages, missed, runs */
		size_t count;
	} files[] = {
		{ 0, { 1, 4096, 0, 8, 0, 0 }, 6 },
		{ 0, { 1, 4096, 0, 8, 0, 8, 0, 0 }, 8 },
		{ -VMEM_ENOTSUP, { 2, 4096, 0, 8, 0, 0 }, 6 },
		{ -VMEM_ENOTSUP, { 1, 16384, 0, 8, 0, 0 }, 6 },
		{ -VMEM_EBADMSG, { 1, 4096, 0, 0, 0, 0 }, 6 },
		{ -VMEM_EBADMSG, { 1, 4096, 0, UINT64_C(1) << 32, 0, 0 }, 6 },
		{ -VMEM_EBADMSG, { 1, 4096, UINT64_MAX / 4096, 1, 0, 0 }, 6 },
		{ 0, { 1, 4096, UINT64_MAX / 4096 - 1, 1, 0, 0 }, 6 },
		{ -VMEM_EBADMSG, { 1, 4096, 0, 8, 0, 9, 0, 0 }, 8 },  /* longer than the region */
		{ -VMEM_EBADMSG, { 1, 4096, 0, 8, 0, 1, 16, 0 }, 8 }, /* behind it */
		{ -VMEM_EBADMSG, { 1, 4096, 0, 8, 0, 2, 14, 0 }, 8 }, /* its end */
		{ -VMEM_EBADMSG, { 1, 4096, 0, 8, 0, 1, 1, 0 }, 8 },  /* before it */
		{ -VMEM_EBADMSG, { 1, 4096, 0, 8, 0, 1, UINT64_MAX, 0 }, 8 },
		{ -VMEM_EBADMSG, { 1, 4096, 0, 8, 0, 1, UINT64_MAX - 1, 0 }, 8 },
		{ -VMEM_EBADMSG, { 1, 4096, 0, 8, 0, UINT64_MAX, 0, 0 }, 8 },
		{ 0, { 1, 4096, 0, 8, 0, 5, 0, 3, 9, 0 }, 10 },             /* twice: no harm */
		{ -VMEM_EBADMSG, { 1, 4096, 0, 8, 0, 5, 0, 4, 9, 0 }, 10 }, /* too many */
	};

	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
		vmem_working_set *set;
		struct vmemt_tape tape;

		write_file(&tape, files[i].numbers, files[i].count);
		cr_assert_eq(load(&set, &tape, 0), files[i].error, "file %zu", i);
		vmem_working_set_free(set);
		vmemt_tape_free(&tape);
	}
}

Test(working_set_file, bad_arguments_are_refused)
{
	struct vmem_working_set_load_opts o = { .size = sizeof(o), .flags = 1 };
	struct vmem_working_set_info info = { .size = 1 };
	vmem_working_set *set = some_set(), *again = NULL;
	struct vmemt_tape tape;

	save(set, &tape);
	cr_assert_eq(vmem_working_set_load(&again, &o, vmemt_tape_read, &tape), -VMEM_EINVAL);
	cr_assert_eq(vmem_working_set_load(NULL, NULL, vmemt_tape_read, &tape), -VMEM_EINVAL);
	cr_assert_eq(vmem_working_set_load(&again, NULL, NULL, &tape), -VMEM_EINVAL);
	cr_assert_eq(vmem_working_set_save(NULL, vmemt_tape_write, &tape), -VMEM_EINVAL);
	cr_assert_eq(vmem_working_set_save(set, NULL, &tape), -VMEM_EINVAL);
	cr_assert_eq(vmem_working_set_get_info(set, &info), -VMEM_EINVAL);
	cr_assert_eq(vmem_working_set_get_info(NULL, &info), -VMEM_EINVAL);
	cr_assert_eq(vmem_working_set_iterate(set, NULL, NULL), -VMEM_EINVAL);
	cr_assert_null(again);
	vmem_working_set_free(NULL);
	vmem_working_set_free(set);
	vmemt_tape_free(&tape);
}
