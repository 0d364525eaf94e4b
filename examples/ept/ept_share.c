/* SPDX-License-Identifier: BSD-2-Clause */
/* ept-share: equal pages of a guest are kept once, and parted when the guest writes.
 *
 * A hypervisor that owns its tables does this with three calls: it takes the right to write from a page, so that the
 * page cannot change while it is compared; vmem_dedup_find() says whether an equal one is known; then the page
 * is mapped, read-only, to the frame of that one. A write is a violation: the page gets a frame of its own again.
 * Every byte is compared with a plain copy in the end; exit status 0 only if all held. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vmem/dedup.h>

#include "ept_machine.h"

#define SHARING_DOMAIN 1u /* one VM: its pages are shared with each other only */

#define MOST_PAGES 1000000u

struct guest_page {
	uint64_t hpa;
	uint32_t hash; /* by which it was entered */
	int shared;    /* it has a reference to the object hpa / 4096 */
};

struct share {
	struct ept_machine machine;
	vmem_dedup *dedup;
	struct guest_page *pages;
	uint8_t *copy; /* what the guest's memory must be */
	uint32_t count;
	uint64_t parted_by_copy, parted_alone;
};

/* The callbacks of the table: objects are frames that pages share. */
static int same_bytes(void *context, uint32_t id, const void *page)
{
	const struct share *s = context;

	return memcmp(ept_frame(&s->machine, UINT64_C(4096) * id), page, 4096) == 0;
}

static void release(void *context, uint32_t id)
{
	struct share *s = context;

	ept_frame_give(&s->machine, UINT64_C(4096) * id);
}

static int map_page(struct share *s, uint32_t page, uint64_t hpa, uint32_t rights)
{
	const struct vmem_ept_leaf leaf = { .hpa = hpa, .rights = rights, .type = VMEM_EPT_WB };
	struct vmem_ept_change change = { .size = sizeof(change) };
	int error = vmem_ept_map(s->machine.ept, UINT64_C(4096) * page, 4096, &leaf,
				 VMEM_EPT_REPLACE, &change);

	if (!error) {
		ept_machine_flush(&s->machine, &change);
		s->pages[page].hpa = hpa;
	}
	return error;
}

static int first_touch(struct share *s, uint32_t page)
{
	uint64_t hpa;
	int error = ept_frame_take(&s->machine, &hpa);

	if (error)
		return error;
	memset(ept_frame(&s->machine, hpa), 0, 4096);
	return map_page(s, page, hpa, VMEM_EPT_READ | VMEM_EPT_WRITE | VMEM_EPT_EXEC);
}

/* A write to a shared page. The last page of an object keeps its frame; others get a copy. */
static int part(struct share *s, uint32_t page)
{
	struct guest_page *p = &s->pages[page];
	uint64_t hpa;
	uint32_t left;
	int error = ept_frame_take(&s->machine, &hpa);

	if (error)
		return error;
	memcpy(ept_frame(&s->machine, hpa), ept_frame(&s->machine, p->hpa), 4096);
	error = vmem_dedup_drop(s->dedup, SHARING_DOMAIN, p->hash, (uint32_t)(p->hpa / 4096),
				&left);
	if (error || !left) {
		ept_frame_give(&s->machine, hpa);
		hpa = p->hpa;
	}
	if (error)
		return error;
	*(left ? &s->parted_by_copy : &s->parted_alone) += 1;
	p->shared = 0;
	return map_page(s, page, hpa, VMEM_EPT_READ | VMEM_EPT_WRITE | VMEM_EPT_EXEC);
}

static int violation(void *context, uint64_t gpa, const struct vmem_ept_walked *walked)
{
	struct share *s = context;
	const uint32_t page = (uint32_t)(gpa / 4096);

	if (page >= s->count)
		return -VMEM_EFAULT;
	if (!walked->rights) /* not present: never touched */
		return first_touch(s, page);
	if ((walked->qualification & VMEM_EPT_QUAL_WRITE) && s->pages[page].shared)
		return part(s, page);
	return -VMEM_EFAULT;
}

/* Looks whether a page is known. The guest may run all the while: it cannot write to this page. */
static int share_page(struct share *s, uint32_t page)
{
	struct vmem_ept_change change = { .size = sizeof(change) };
	struct guest_page *p = &s->pages[page];
	const void *bytes = ept_frame(&s->machine, p->hpa);
	const uint64_t own = p->hpa;
	uint32_t id = (uint32_t)(own / 4096);
	int found;

	found = vmem_ept_protect(s->machine.ept, UINT64_C(4096) * page, 4096, VMEM_EPT_WRITE, 0,
				 &change);
	if (found)
		return found;
	ept_machine_flush(&s->machine, &change); /* now no processor can write any more */
	p->hash = vmem_dedup_hash(s->dedup, bytes);
	found = vmem_dedup_find(s->dedup, SHARING_DOMAIN, p->hash, bytes, &id);
	if (found == VMEM_DEDUP_NONE)
		found = vmem_dedup_add(s->dedup, SHARING_DOMAIN, p->hash, id);
	if (found < 0)
		return found;
	p->shared = 1;
	if (UINT64_C(4096) * id == own)
		return 0;
	found = map_page(s, page, UINT64_C(4096) * id, VMEM_EPT_READ | VMEM_EPT_EXEC);
	if (!found)
		ept_frame_give(&s->machine, own);
	return found;
}

/* Contents like those of systems of one kind: a third zeros, a third some pages again and again, a third unlike. */
static void fill(uint8_t *page, uint32_t number)
{
	uint64_t word =
		number % 3 == 1 ? number / 3 % 50 + 1 : number * UINT64_C(0x9e3779b97f4a7c15);

	memset(page, 0, 4096);
	if (number % 3 == 0)
		return;
	for (size_t at = 0; at < 4096; at += 8) {
		word = word * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		memcpy(page + at, &word, 8);
	}
}

static int guest_write(struct share *s, uint64_t gpa, const void *bytes, size_t count)
{
	memcpy(s->copy + gpa, bytes, count);
	return ept_guest_write(&s->machine, gpa, bytes, count);
}

static int verify(struct share *s, const char *when)
{
	uint8_t page[4096];

	for (uint32_t i = 0; i < s->count; i++) {
		int error = ept_guest_read(&s->machine, UINT64_C(4096) * i, page, sizeof(page));

		if (error)
			return ept_failed("reading the guest's memory", error);
		if (memcmp(page, s->copy + (size_t)4096 * i, 4096) != 0) {
			fprintf(stderr, "page %u is wrong %s\n", i, when);
			return 1;
		}
	}
	printf("%-28s %8u frames in use, %6llu violations, every byte checked\n", when,
	       s->machine.frames - s->machine.free_frames,
	       (unsigned long long)s->machine.violations);
	return 0;
}

static int run(struct share *s)
{
	uint64_t random = 1;
	uint8_t page[4096];
	int error = 0;

	for (uint32_t i = 0; i < s->count && !error; i++) {
		fill(page, i);
		error = guest_write(s, UINT64_C(4096) * i, page, sizeof(page));
	}
	if (error)
		return ept_failed("filling the guest's memory", error);
	if (verify(s, "after it was filled"))
		return 1;
	for (uint32_t i = 0; i < s->count && !error; i++)
		error = share_page(s, i);
	if (error)
		return ept_failed("sharing", error);
	if (verify(s, "after sharing"))
		return 1;
	for (uint32_t i = 0; i < s->count / 4 && !error; i++) {
		random = random * UINT64_C(6364136223846793005) + 1;
		error = guest_write(s, (random >> 32) % (UINT64_C(4096) * s->count - 8), &random,
				    8);
	}
	if (error)
		return ept_failed("writing to the guest's memory", error);
	if (verify(s, "after a quarter was written"))
		return 1;
	printf("parted: %llu by a copy, %llu were the last of their kind; %llu invalidations\n",
	       (unsigned long long)s->parted_by_copy, (unsigned long long)s->parted_alone,
	       (unsigned long long)s->machine.invalidations);
	return !ept_machine_sound(&s->machine);
}

static int begin(struct share *s)
{
	const struct vmem_dedup_opts opts = {
		.size = sizeof(opts), .context = s, .compare = same_bytes, .release = release
	};
	int error = vmem_dedup_new(&s->dedup, &opts);

	s->pages = calloc(s->count, sizeof(*s->pages));
	s->copy = calloc(s->count, 4096);
	if (!error && (!s->pages || !s->copy))
		error = -VMEM_ENOMEM;
	if (!error) /* the tables take a frame for each 512 pages, and some */
		error = ept_machine_begin(&s->machine, s->count + s->count / 512 + 16,
					  VMEM_EPT_INTEL, 0);
	s->machine.violation = violation;
	s->machine.context = s;
	return error;
}

static int usage(const char *name, FILE *to)
{
	fprintf(to,
		"Usage: %s [--pages N]\n"
		"Equal pages of a guest of N pages (default 6000) are kept once, and parted when it writes.\n",
		name);
	return to == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "pages", required_argument, NULL, 'p' },
						 { "help", no_argument, NULL, 'h' },
						 { NULL, 0, NULL, 0 } };
	struct share s = { .count = 6000 };
	int option, status;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'h')
			return usage(argv[0], stdout);
		if (option != 'p' || ept_option_number("--pages", optarg, 1, MOST_PAGES, &s.count))
			return usage(argv[0], stderr);
	}
	if (ept_options_end(argc, argv, optind))
		return usage(argv[0], stderr);
	status = begin(&s);
	status = status ? ept_failed("beginning", status) : run(&s);
	vmem_dedup_free(s.dedup);
	if (s.machine.memory)
		ept_machine_end(&s.machine);
	free(s.pages);
	free(s.copy);
	return status;
}
