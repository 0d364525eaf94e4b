/* SPDX-License-Identifier: BSD-2-Clause */
/* Bringing a working set back: piece by piece, each sorted by address, so that what several processors touched
 * in turn is brought in runs. */
#include "base/mem.h"
#include "base/opts.h"
#include "linux/fault/fetch.h"
#include "linux/working_set/working_set.h"

#define PIECE 16384u /* pages: 64 MiB */
#define TELL 2048u   /* pages between two calls of progress */
#define DIGIT_BITS 8 /* of an address, by which a piece is sorted */
#define DIGITS (1u << DIGIT_BITS)

struct replay {
	const struct vmem_working_set *set;
	struct vmem_working_set_replay_opts opts;
	uint64_t run;    /* that comes next */
	uint64_t within; /* pages of it that are done */
	uint64_t done;   /* pages */
	uint64_t told;   /* of them, by progress */
	unsigned count;  /* runs of the piece */
	uint32_t pages;  /* likewise */
	struct vmemi_fetch fetch;
	struct vmemi_working_run *piece, *other; /* the other is room to sort */
	struct vmemi_working_run room[2][PIECE];
};

/* Takes the next runs, or parts of them. False: there are none. */
static bool take_piece(struct replay *p)
{
	uint32_t room = PIECE;

	p->count = 0;
	while (room && p->run < p->set->count) {
		const struct vmemi_working_run *run = &p->set->runs[p->run];
		uint32_t left = run->pages - (uint32_t)p->within, n = left < room ? left : room;

		p->piece[p->count++] =
			(struct vmemi_working_run){ run->first + (uint32_t)p->within, n };
		room -= n;
		p->within += n;
		if (n == left) {
			p->run++;
			p->within = 0;
		}
	}
	p->pages = PIECE - room;
	return p->count > 0;
}

/* One pass of a radix sort: @from to @to by a digit of their addresses. False: all have the same there. */
static bool sort_by_digit(const struct vmemi_working_run *from, struct vmemi_working_run *to,
			  unsigned count, unsigned shift)
{
	unsigned at[DIGITS] = { 0 }, sum = 0;

	for (unsigned i = 0; i < count; i++)
		at[from[i].first >> shift & (DIGITS - 1)]++;
	if (at[from[0].first >> shift & (DIGITS - 1)] == count)
		return false;
	for (unsigned i = 0; i < DIGITS; i++) {
		unsigned n = at[i];

		at[i] = sum;
		sum += n;
	}
	for (unsigned i = 0; i < count; i++)
		to[at[from[i].first >> shift & (DIGITS - 1)]++] = from[i];
	return true;
}

/* By address, from the lowest digit on. */
static void sort_piece(struct replay *p)
{
	for (unsigned shift = 0; shift < 32; shift += DIGIT_BITS) {
		struct vmemi_working_run *sorted = p->other;

		if (!sort_by_digit(p->piece, sorted, p->count, shift))
			continue;
		p->other = p->piece;
		p->piece = sorted;
	}
}

static int tell(struct replay *p)
{
	if (!p->opts.progress || p->done == p->told)
		return 0;
	p->told = p->done;
	return p->opts.progress(p->opts.context, p->done, p->set->pages);
}

/* Of the piece, which ends when @end pages of the set are done. */
static int fetch_range(struct replay *p, uint64_t first, uint64_t count, uint64_t end,
		       uint64_t next)
{
	int error = 0;

	while (count && !error) {
		uint64_t room = TELL - (p->done - p->told) % TELL, n = count < room ? count : room;

		error = vmemi_fetch_range(&p->fetch, first, n, n < count ? first + n : next);
		if (error)
			break;
		first += n;
		count -= n;
		p->done = end - p->done < n ? end : p->done + n;
		if (p->done - p->told >= TELL)
			error = tell(p);
	}
	return error;
}

/* Runs that touch each other are brought as one. */
static int fetch_piece(struct replay *p)
{
	uint64_t done = p->done + p->pages;
	unsigned next;
	int error = 0;

	for (unsigned at = 0; at < p->count && !error; at = next) {
		uint64_t first = p->piece[at].first, end = first + p->piece[at].pages;

		for (next = at + 1; next < p->count && p->piece[next].first <= end; next++) {
			uint64_t its_end = (uint64_t)p->piece[next].first + p->piece[next].pages;

			end = its_end > end ? its_end : end;
		}
		error = fetch_range(p, first, end - first, done,
				    next < p->count ? p->piece[next].first : VMEMI_FETCH_NOTHING);
	}
	if (!error)
		p->done = done;
	return error;
}

static int run_replay(struct replay *p)
{
	int error = 0;

	while (!error && take_piece(p)) {
		sort_piece(p);
		error = fetch_piece(p);
	}
	return error ? error : tell(p);
}

/* 0, or why not. */
static int check(const struct vmem_region *r, const struct vmem_working_set *set,
		 const struct vmem_working_set_replay_opts *opts,
		 struct vmem_working_set_replay_opts *ret_opts)
{
	int error = r && set ? vmemi_opts_take(ret_opts, sizeof(*ret_opts), opts) : -VMEM_EINVAL;

	if (error)
		return error;
	if (ret_opts->flags)
		return -VMEM_EINVAL;
	return set->gpa == r->opts.gpa && set->region_pages == r->pages ? 0 : -VMEM_ERANGE;
}

int vmem_working_set_replay(vmem_region *region, const vmem_working_set *set,
			    const struct vmem_working_set_replay_opts *opts,
			    struct vmem_working_set_stats *stats)
{
	struct vmem_working_set_stats known = { .size = sizeof(known) };
	struct vmem_working_set_replay_opts o;
	const struct vmem_allocator *a;
	struct replay *p;
	int error = check(region, set, opts, &o);

	if (!error && stats) /* can it take them? */
		error = vmemi_opts_give(stats, &known, sizeof(known));
	if (error)
		return error;
	a = &region->host->metadata.allocator;
	p = vmemi_zalloc(a, sizeof(*p), 64);
	if (!p || vmemi_fetch_begin(&p->fetch, region)) {
		vmemi_free(a, p, sizeof(*p), 64);
		return -VMEM_ENOMEM;
	}
	p->set = set;
	p->opts = o;
	p->piece = p->room[0];
	p->other = p->room[1];
	error = run_replay(p);
	known.pages = p->done;
	known.brought = p->fetch.fetched;
	if (stats)
		vmemi_opts_give(stats, &known, sizeof(known));
	vmemi_fetch_end(&p->fetch);
	vmemi_free(a, p, sizeof(*p), 64);
	return error;
}
