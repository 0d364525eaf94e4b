/* SPDX-License-Identifier: BSD-2-Clause */
/* Bringing a working set back: piece by piece, each sorted by address, so that what several processors touched
 * in turn is brought in runs. */
#include "base/mem.h"
#include "base/opts.h"
#include "linux/fault/fetch.h"
#include "linux/working_set/working_set.h"

#define PIECE 16384u /* pages: 64 MiB */
#define TELL 2048u   /* pages between two calls of progress */

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
	struct vmemi_working_run piece[PIECE];
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

static void sink(struct vmemi_working_run *runs, unsigned at, unsigned count)
{
	struct vmemi_working_run run = runs[at];
	unsigned child;

	while ((child = 2 * at + 1) < count) {
		if (child + 1 < count && runs[child + 1].first > runs[child].first)
			child++;
		if (runs[child].first <= run.first)
			break;
		runs[at] = runs[child];
		at = child;
	}
	runs[at] = run;
}

/* By address: a heap (Williams, CACM 1964), which needs no memory and has no bad case. */
static void sort_piece(struct replay *p)
{
	for (unsigned at = p->count / 2; at-- > 0;)
		sink(p->piece, at, p->count);
	for (unsigned count = p->count; count-- > 1;) {
		struct vmemi_working_run last = p->piece[count];

		p->piece[count] = p->piece[0];
		p->piece[0] = last;
		sink(p->piece, 0, count);
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
static int fetch_range(struct replay *p, uint64_t first, uint64_t count, uint64_t end)
{
	int error = 0;

	while (count && !error) {
		uint64_t room = TELL - (p->done - p->told) % TELL, n = count < room ? count : room;

		error = vmemi_fetch_range(&p->fetch, first, n);
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
		error = fetch_range(p, first, end - first, done);
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
	error = run_replay(p);
	known.pages = p->done;
	known.brought = p->fetch.fetched;
	if (stats)
		vmemi_opts_give(stats, &known, sizeof(known));
	vmemi_fetch_end(&p->fetch);
	vmemi_free(a, p, sizeof(*p), 64);
	return error;
}
