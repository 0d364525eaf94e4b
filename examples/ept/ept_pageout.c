/* SPDX-License-Identifier: BSD-2-Clause */
/* ept-pageout: a guest with more memory than there are frames.
 *
 * A page that was not used of late (its accessed bit) loses all rights, so that it cannot change, is saved to a store,
 * and its entry keeps the store's reference as a payload. The next access is a violation: the reference is read from
 * the entry, the page loaded into a frame and installed, if the entry still says the same. No table beside
 * the second-stage tables says where a page is.
 * Every byte is compared with a plain copy; exit status 0 only if all held. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vmem/ept_track.h>
#include <vmem/store.h>

#include "ept_machine.h"

#define ALL_RIGHTS (VMEM_EPT_READ | VMEM_EPT_WRITE | VMEM_EPT_EXEC)
#define NO_PAYLOAD UINT64_MAX
#define MOST_PAGES 1000000u

struct pageout {
	struct ept_machine machine;
	vmem_store *store;
	uint32_t vm;    /* the store's number of the guest */
	uint32_t count; /* pages of the guest */
	uint32_t limit; /* of which so many may have a frame */
	uint32_t resident;
	uint32_t percent; /* the store takes of the guest's memory; 0: no cap */
	uint32_t hand;    /* of the clock */
	uint64_t *
		accessed; /* a bit a page: used between the last two times that the hand came round */
	uint8_t *copy;    /* what the guest's memory must be */
	uint64_t random;
	uint64_t saved, loaded;
	uint64_t now_ns; /* the store has no clock of its own: a ms for each 64 pages */
};

static uint64_t next_random(struct pageout *p)
{
	p->random = p->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return p->random >> 32;
}

/* Which pages were used since the last time. What processors remember of them may stay: a page that is used all the
 * time looks unused then, and comes back for the price of a violation. */
static int look_for_used(struct pageout *p)
{
	struct vmem_ept_harvest harvest = { .size = sizeof(harvest), .accessed = p->accessed };
	struct vmem_ept_change change = { .size = sizeof(change) };

	memset(p->accessed, 0, (p->count + 63) / 64 * sizeof(*p->accessed));
	return vmem_ept_harvest(p->machine.ept, 0, UINT64_C(4096) * p->count,
				VMEM_EPT_CLEAR_ACCESSED | VMEM_EPT_STALE_FINE, &harvest, &change);
}

/* The next page that was not used of late; after two rounds any. */
static int choose_victim(struct pageout *p, uint32_t *ret_page)
{
	for (uint64_t steps = 0; steps < UINT64_C(3) * p->count; steps++) {
		const uint32_t page = p->hand;
		struct vmem_ept_leaf leaf;
		int error = 0;

		if (page == 0)
			error = look_for_used(p);
		if (error)
			return error;
		p->hand = (page + 1) % p->count;
		if (steps < UINT64_C(2) * p->count && (p->accessed[page / 64] >> page % 64 & 1))
			continue;
		if (!vmem_ept_translate(p->machine.ept, UINT64_C(4096) * page, &leaf, NULL)) {
			*ret_page = page;
			return 0;
		}
	}
	return -VMEM_ENOMEM;
}

/* Into the store, with the reference in the entry; or nothing is changed. */
static int save_page(struct pageout *p, uint32_t page, uint64_t hpa, struct vmem_ept_change *change)
{
	vmem_store_ref ref;
	int error = vmem_store_save(p->store, p->vm, page, ept_frame(&p->machine, hpa), &ref);

	if (error)
		return error;
	error = vmem_ept_set_payload(p->machine.ept, UINT64_C(4096) * page, 4096, ref, 0,
				     VMEM_EPT_REPLACE, change);
	if (error)
		(void)vmem_store_drop(p->store, p->vm, ref);
	return error;
}

static int page_out(struct pageout *p, uint32_t page)
{
	const uint64_t gpa = UINT64_C(4096) * page;
	struct vmem_ept_change change = { .size = sizeof(change) };
	struct vmem_ept_leaf leaf;
	int error;

	error = vmem_ept_protect(p->machine.ept, gpa, 4096, ALL_RIGHTS, 0, &change);
	if (error)
		return error;
	ept_machine_flush(&p->machine, &change); /* now nobody reads or writes the frame but us */
	error = vmem_ept_translate(p->machine.ept, gpa, &leaf, NULL);
	if (!error)
		error = save_page(p, page, leaf.hpa, &change);
	if (error) { /* the guest keeps it */
		int back = vmem_ept_protect(p->machine.ept, gpa, 4096, 0, ALL_RIGHTS, &change);

		return back ? back : error;
	}
	ept_machine_flush(&p->machine, &change);
	ept_frame_give(&p->machine, leaf.hpa);
	p->resident--;
	if (++p->saved % 64 == 0) /* compaction of what pages left behind that came back */
		(void)vmem_store_work(p->store, 1000000, p->now_ns += 1000000);
	return 0;
}

static int make_room(struct pageout *p)
{
	int error = 0;

	while (p->resident >= p->limit && !error) {
		uint32_t victim;

		error = choose_victim(p, &victim);
		if (!error)
			error = page_out(p, victim);
	}
	return error;
}

static int bring_in(struct pageout *p, uint64_t gpa, uint64_t payload, void *frame)
{
	vmem_store_token token;

	if (payload == NO_PAYLOAD) {
		memset(frame, 0, 4096);
		return 0;
	}
	return vmem_store_load(p->store, p->vm, gpa / 4096, payload, frame, &token);
}

/* On a machine of several processors a lock is held here: paging out is by serial calls. */
static int violation(void *context, uint64_t gpa, const struct vmem_ept_walked *walked)
{
	struct pageout *p = context;
	struct vmem_ept_leaf leaf = { .rights = ALL_RIGHTS, .type = VMEM_EPT_WB };
	uint64_t payload = NO_PAYLOAD;
	int error, found;

	if (walked->rights || gpa >= UINT64_C(4096) * p->count)
		return -VMEM_EFAULT;
	gpa &= ~UINT64_C(4095);
	/* Mapped: another processor has brought it in. The guest tries again. */
	found = vmem_ept_translate(p->machine.ept, gpa, &leaf, &payload);
	if (found != -VMEM_ENOENT)
		return found;
	error = make_room(p);
	if (!error)
		error = ept_frame_take(&p->machine, &leaf.hpa);
	if (error)
		return error;
	error = bring_in(p, gpa, payload, ept_frame(&p->machine, leaf.hpa));
	if (!error)
		error = vmem_ept_install(p->machine.ept, gpa, &leaf, &payload);
	if (error) {
		ept_frame_give(&p->machine, leaf.hpa);
		/* On a real machine another processor may have been first: then all is well. */
		return error == -VMEM_EEXIST || error == -VMEM_EAGAIN ? 0 : error;
	}
	p->resident++;
	if (payload == NO_PAYLOAD)
		return 0;
	p->loaded++;
	return vmem_store_drop(p->store, p->vm, payload);
}

/* Words as programs have them: small numbers, and a few large ones. */
static int fill(struct pageout *p)
{
	uint64_t words[512];

	for (uint32_t page = 0; page < p->count; page++) {
		int error;

		for (uint32_t i = 0; i < 512; i++)
			words[i] = i % 8 ? page % 7 * i / 16 : next_random(p);
		if (page % 5 == 0)
			memset(words, 0, sizeof(words));
		memcpy(p->copy + (size_t)4096 * page, words, 4096);
		error = ept_guest_write(&p->machine, UINT64_C(4096) * page, words, 4096);
		if (error)
			return error;
	}
	return 0;
}

/* Four of five accesses are to a fifth of the memory; one of three is a write. */
static int work(struct pageout *p, uint32_t accesses)
{
	for (uint32_t i = 0; i < accesses; i++) {
		const uint32_t span = next_random(p) % 5 ? p->count / 5 + 1 : p->count;
		const uint64_t gpa = next_random(p) % (UINT64_C(4096) * span - 8);
		uint64_t word = next_random(p);
		int error;

		if (word % 3 == 0) {
			memcpy(p->copy + gpa, &word, sizeof(word));
			error = ept_guest_write(&p->machine, gpa, &word, sizeof(word));
		} else {
			error = ept_guest_read(&p->machine, gpa, &word, sizeof(word));
			if (!error && memcmp(&word, p->copy + gpa, sizeof(word)) != 0)
				error = -VMEM_EBADMSG;
		}
		if (error)
			return error;
	}
	return 0;
}

static int verify(struct pageout *p)
{
	uint8_t page[4096];

	for (uint32_t i = 0; i < p->count; i++) {
		int error = ept_guest_read(&p->machine, UINT64_C(4096) * i, page, sizeof(page));

		if (!error && memcmp(page, p->copy + (size_t)4096 * i, 4096) != 0)
			error = -VMEM_EBADMSG;
		if (error)
			return error;
	}
	return 0;
}

/* A page that could not be saved is the guest's again: what has a frame has all rights, and its bytes. */
static int check_resident(struct pageout *p)
{
	for (uint32_t page = 0; page < p->count; page++) {
		struct vmem_ept_leaf leaf;

		if (vmem_ept_translate(p->machine.ept, UINT64_C(4096) * page, &leaf, NULL))
			continue;
		if (leaf.rights == ALL_RIGHTS &&
		    !memcmp(ept_frame(&p->machine, leaf.hpa), p->copy + (size_t)4096 * page, 4096))
			continue;
		fprintf(stderr, "page %u has rights %u, or is wrong\n", page, leaf.rights);
		return 1;
	}
	fprintf(stderr, "what has a frame has all rights, every byte checked\n");
	return 0;
}

static int run(struct pageout *p)
{
	struct vmem_store_account account = { .size = sizeof(account) };
	int error = fill(p);

	if (!error)
		error = work(p, p->count * 8);
	if (error == -VMEM_ENOSPC)
		(void)check_resident(p);
	if (error)
		return ept_failed("running the guest", error);
	error = vmem_store_total_account(p->store, &account);
	if (error)
		return ept_failed("vmem_store_total_account", error);
	printf("%u pages, %u of them with a frame, %llu in %llu KiB of the store\n", p->count,
	       p->resident, (unsigned long long)account.pages,
	       (unsigned long long)(account.segment_bytes + account.metadata_bytes) / 1024);
	error = verify(p);
	if (error)
		return ept_failed("verifying", error);
	printf("%llu accesses, %llu violations: %llu pages saved, %llu loaded, every byte checked\n",
	       (unsigned long long)p->machine.accesses, (unsigned long long)p->machine.violations,
	       (unsigned long long)p->saved, (unsigned long long)p->loaded);
	return !ept_machine_sound(&p->machine);
}

static int begin(struct pageout *p)
{
	const struct vmem_store_vm_opts vm = {
		.size = sizeof(vm),
		.vm_bytes = UINT64_C(4096) * p->count,
		.cap_percent = p->percent ? p->percent : VMEM_STORE_NO_CAP,
	};
	int error = vmem_store_new(&p->store, NULL);

	p->accessed = calloc((p->count + 63) / 64, sizeof(*p->accessed));
	p->copy = calloc(p->count, 4096);
	if (!error && (!p->accessed || !p->copy))
		error = -VMEM_ENOMEM;
	if (!error)
		error = vmem_store_add_vm(p->store, &vm, &p->vm);
	if (!error) /* the tables take a frame for each 512 pages, and some */
		error = ept_machine_begin(&p->machine, p->limit + p->count / 512 + 16,
					  VMEM_EPT_INTEL, 0);
	p->machine.violation = violation;
	p->machine.context = p;
	return error;
}

static int usage(const char *name, FILE *to)
{
	fprintf(to,
		"Usage: %s [--pages N] [--frames N] [--store PERCENT]\n"
		"A guest of N pages (default 4000) runs in N frames (default a quarter of them).\n"
		"The store takes as much of its memory as it is told (default: no limit).\n",
		name);
	return to == stdout ? 0 : 2;
}

static int take_option(struct pageout *p, int option, const char *text)
{
	switch (option) {
	case 'p': return ept_option_number("--pages", text, 1, MOST_PAGES, &p->count);
	case 'f': return ept_option_number("--frames", text, 1, MOST_PAGES, &p->limit);
	case 's': return ept_option_number("--store", text, 1, 100, &p->percent);
	default: return 1;
	}
}

static int run_and_end(struct pageout *p)
{
	int status = begin(p);

	status = status ? ept_failed("beginning", status) : run(p);
	if (p->machine.memory)
		ept_machine_end(&p->machine);
	vmem_store_free(p->store);
	free(p->accessed);
	free(p->copy);
	return status;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "pages", required_argument, NULL, 'p' },
						 { "frames", required_argument, NULL, 'f' },
						 { "store", required_argument, NULL, 's' },
						 { "help", no_argument, NULL, 'h' },
						 { NULL, 0, NULL, 0 } };
	struct pageout p = { .count = 4000 };
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'h')
			return usage(argv[0], stdout);
		if (take_option(&p, option, optarg))
			return usage(argv[0], stderr);
	}
	if (ept_options_end(argc, argv, optind))
		return usage(argv[0], stderr);
	if (!p.limit)
		p.limit = p.count / 4 + 1;
	return run_and_end(&p);
}
