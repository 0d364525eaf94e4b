/* SPDX-License-Identifier: BSD-2-Clause */
/* See page_explore.h. Worlds stand in an array in order of discovery, each with who led there from where; a
 * hash table of their numbers finds those that are known. A step is repeated with all choices that it
 * makes: a script says what to choose, and grows as it is asked for more. */
#include "linux/page_explore.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHOICES 16
#define NONE UINT32_MAX

struct found {
	struct vmemt_world world;
	uint32_t from;
	uint8_t program;
};

/* A step that ends something: none of those that begin something new. */
struct edge {
	uint32_t from, to;
};

/* A place in the hash table. */
struct entry {
	uint32_t number; /* NONE: free */
	uint32_t tag;    /* the other half of the hash: most that differ are told apart by it */
};

struct explorer {
	struct vmemt_exploration *e;
	struct vmemt_run run;
	struct found *found;
	uint32_t room;
	struct entry *table; /* by hash */
	uint32_t mask;
	struct edge *edges;
	size_t edge_count, edge_room;
	struct {
		uint8_t pick[CHOICES], of[CHOICES];
		unsigned next, length;
	} script;
};

static void *grown(void *memory, size_t bytes)
{
	memory = realloc(memory, bytes);
	assert(memory);
	return memory;
}

static unsigned choose(void *context, unsigned n, bool rare)
{
	struct explorer *x = context;
	unsigned i = x->script.next++;

	(void)rare;
	assert(i < CHOICES);
	if (i == x->script.length) {
		x->script.pick[i] = 0;
		x->script.of[i] = (uint8_t)n;
		x->script.length++;
	}
	return x->script.pick[i];
}

/* The next of all scripts of a step. False: that was the last. */
static bool next_script(struct explorer *x)
{
	unsigned n = x->script.length;

	while (n && x->script.pick[n - 1] + 1u == x->script.of[n - 1])
		n--;
	if (n)
		x->script.pick[n - 1]++;
	x->script.length = n;
	return n > 0;
}

static uint64_t hash(const struct vmemt_world *w)
{
	const unsigned char *bytes = (const unsigned char *)w;
	uint64_t h = sizeof(*w), word;
	size_t i = 0;

	for (; i < sizeof(*w); i += sizeof(word)) {
		size_t n = sizeof(*w) - i < sizeof(word) ? sizeof(*w) - i : sizeof(word);

		word = 0;
		memcpy(&word, bytes + i, n);
		h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
		h ^= h >> 29;
	}
	return h;
}

static void enter_table(struct explorer *x, uint32_t number)
{
	uint64_t h = hash(&x->found[number].world);
	uint32_t at = (uint32_t)h & x->mask;

	while (x->table[at].number != NONE)
		at = (at + 1) & x->mask;
	x->table[at] = (struct entry){ number, (uint32_t)(h >> 32) };
}

static void grow(struct explorer *x)
{
	size_t bytes;

	x->room = x->room ? x->room * 2 : 65536;
	x->found = grown(x->found, x->room * sizeof(*x->found));
	x->mask = x->room * 2 - 1;
	bytes = (size_t)x->room * 2 * sizeof(*x->table);
	x->table = grown(x->table, bytes);
	memset(x->table, 0xff, bytes);
	for (uint32_t i = 0; i < x->e->worlds; i++)
		enter_table(x, i);
}

/* The number of the world in x->run, which is entered if it is new. */
static uint32_t number_of(struct explorer *x, uint32_t from, unsigned program)
{
	uint64_t h = hash(&x->run.w);
	uint32_t at = (uint32_t)h & x->mask;

	for (; x->table[at].number != NONE; at = (at + 1) & x->mask)
		if (x->table[at].tag == (uint32_t)(h >> 32) &&
		    !memcmp(&x->found[x->table[at].number].world, &x->run.w, sizeof(x->run.w)))
			return x->table[at].number;
	if (x->e->worlds == x->room) {
		grow(x);
		return number_of(x, from, program);
	}
	x->found[x->e->worlds] =
		(struct found){ .world = x->run.w, .from = from, .program = (uint8_t)program };
	x->table[at] = (struct entry){ x->e->worlds, (uint32_t)(h >> 32) };
	return x->e->worlds++;
}

static void add_edge(struct explorer *x, uint32_t from, uint32_t to)
{
	if (x->edge_count == x->edge_room) {
		x->edge_room = x->edge_room ? x->edge_room * 2 : 4096;
		x->edges = grown(x->edges, x->edge_room * sizeof(*x->edges));
	}
	x->edges[x->edge_count++] = (struct edge){ from, to };
}

static void print_world(const struct explorer *x, uint32_t number)
{
	const struct found *f = &x->found[number];
	const struct vmemt_world *w = &f->world;

	fprintf(stderr,
		"  %-14s state %2d flags %x ref %d %s%s%s guest %d staging %d truth %d cpu %d,%d\n",
		f->from == NONE ? "" : vmemt_program_name((enum vmemt_program)f->program),
		w->word & 15, w->word >> 4 & 15, w->word >> 8, w->mapped ? "m" : "-",
		w->is_protected ? "p" : "-", w->marker ? "!" : "-", w->guest, w->staging, w->truth,
		w->cpu[0].at, w->cpu[1].at);
}

/* The way to @number, first step first. */
static void print_way(const struct explorer *x, uint32_t number)
{
	uint32_t length = 0, *way;

	for (uint32_t i = number; i != NONE; i = x->found[i].from)
		length++;
	way = grown(NULL, length * sizeof(*way));
	for (uint32_t i = number, k = length; i != NONE; i = x->found[i].from)
		way[--k] = i;
	for (uint32_t k = 0; k < length; k++)
		print_world(x, way[k]);
	free(way);
}

static void fail(struct explorer *x, uint32_t from, unsigned program, const char *what)
{
	x->e->failure = what;
	if (x->e->silent)
		return;
	fprintf(stderr, "%s, after these steps%s%s:\n", what,
		program < VMEMT_PROGRAMS ? " and then " : "",
		program < VMEMT_PROGRAMS ? vmemt_program_name((enum vmemt_program)program) : "");
	print_way(x, from);
}

/* All that one step of @program leads to. */
static void expand(struct explorer *x, uint32_t from, unsigned program)
{
	x->script.length = 0;
	do {
		uint32_t to;

		x->script.next = 0;
		x->run.w = x->found[from].world;
		vmemt_world_step(&x->run, (enum vmemt_program)program);
		if (x->run.failure) {
			fail(x, from, program, x->run.failure);
			return;
		}
		if (!memcmp(&x->run.w, &x->found[from].world, sizeof(x->run.w)))
			continue; /* nothing to do for it */
		vmemt_world_normalize(&x->run);
		to = number_of(x, from, program);
		if (to != from && !x->run.began)
			add_edge(x, from, to);
	} while (next_script(x));
}

/* --- from each world there is a way to rest --- */

/* The sources of all edges, by target: those to world i stand at [first[i], first[i + 1]). */
struct sources {
	uint32_t *first, *from;
};

static struct sources sources_of(const struct explorer *x)
{
	uint32_t worlds = x->e->worlds;
	struct sources s = { .first = calloc(worlds + 2, sizeof(*s.first)) };

	s.from = grown(NULL, (x->edge_count + 1) * sizeof(*s.from));
	assert(s.first);
	for (size_t i = 0; i < x->edge_count; i++)
		s.first[x->edges[i].to + 2]++;
	for (uint32_t i = 2; i < worlds + 2; i++)
		s.first[i] += s.first[i - 1];
	for (size_t i = 0; i < x->edge_count; i++)
		s.from[s.first[x->edges[i].to + 1]++] = x->edges[i].from;
	return s;
}

/* Backwards from all worlds at rest. */
static void find_ends(struct explorer *x)
{
	uint32_t worlds = x->e->worlds, *queue = grown(NULL, worlds * sizeof(*queue)), n = 0;
	struct sources s = sources_of(x);
	unsigned char *ends = calloc(worlds, 1);

	assert(ends);
	for (uint32_t i = 0; i < worlds; i++) {
		x->run.w = x->found[i].world;
		if (vmemt_world_is_at_rest(&x->run)) {
			ends[i] = 1;
			queue[n++] = i;
		}
	}
	for (uint32_t k = 0; k < n; k++)
		for (uint32_t i = s.first[queue[k]]; i < s.first[queue[k] + 1]; i++)
			if (!ends[s.from[i]]) {
				ends[s.from[i]] = 1;
				queue[n++] = s.from[i];
			}
	for (uint32_t i = 0; i < worlds && n < worlds; i++)
		if (!ends[i]) {
			fail(x, i, VMEMT_PROGRAMS, "what is under way does not end");
			break;
		}
	free(ends);
	free(queue);
	free(s.first);
	free(s.from);
}

void vmemt_explore(struct vmemt_exploration *e)
{
	struct explorer x = { .e = e };
	uint32_t next;

	x.run.programs = e->programs;
	x.run.may = e->may;
	x.run.choose = choose;
	x.run.context = &x;
	e->worlds = 0;
	e->failure = NULL;
	vmemt_world_make(&x.run);
	grow(&x);
	number_of(&x, NONE, 0);
	for (next = 0; next < e->worlds && e->worlds < e->most && !e->failure; next++)
		for (unsigned p = 0; p < VMEMT_PROGRAMS && !e->failure; p++)
			if (e->programs >> p & 1)
				expand(&x, next, p);
	e->complete = next == e->worlds && !e->failure;
	if (e->complete)
		find_ends(&x);
	memcpy(e->events, x.run.events, sizeof(e->events));
	free(x.found);
	free(x.table);
	free(x.edges);
}
