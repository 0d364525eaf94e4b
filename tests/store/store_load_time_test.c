/* SPDX-License-Identifier: BSD-2-Clause */
/* The time of a load does not tell whether another domain has the same page. Two VMs, the one who measures
 * and another one: of the pages of the first, half, chosen at random, are stored by the other one as well,
 * and for the other half that has different ones. Loads of both kinds are timed in turn, each after the other
 * VM has loaded its page. The least time of each page goes into a rank test (Mann and Whitney 1947): if the
 * kinds are alike its p-values are evenly distributed, whatever else the machine does, as each page could as
 * well have been of the other kind. The p-values of 20 batches are compared with that (Kolmogorov and
 * Smirnov, one-sided): a test of which one in ten thousand runs fails by chance.
 *
 * That the test would see a difference is shown each time: by a codec that takes 50 ns longer for pages that
 * both have, and by VMs of one group, where the object that both use is in the cache.
 *
 * It measures: run it on a machine that does nothing else, by `sh tests/run.sh --label timing`. It is not
 * among the tests that are run without --label. store_load_work_test.c counts what this one measures. */
#include <math.h>
#include <stdbool.h>
#include <time.h>
#include <vmem/store.h>
#include "support/pages.h"

enum { BATCHES = 20, PAGES = 400, ROUNDS = 15, DELAY_NS = 50 };
/* Kolmogorov and Smirnov's D+ that is exceeded with this probability. */
#define CHANCE 1e-4
#define WORD 0x5ca1ab1eu /* fills the pages */

struct pages {
	bool both[PAGES]; /* the other VM has it too */
	vmem_store_ref ref[PAGES], other_ref[PAGES];
	uint32_t vm, other;
};

static struct pages pages;
static uint64_t random_state;
static unsigned delay_turns; /* of a loop that takes DELAY_NS */
static const struct vmem_codec *plain;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void need(bool good, const char *what)
{
	if (good)
		return;
	printf("failed: %s\n", what);
	exit(1);
}

/* --- A codec that may tell --- */

static void turn(unsigned turns)
{
	for (volatile unsigned i = 0; i < turns; i++)
		;
}

static unsigned turns_of(double ns)
{
	uint64_t least = UINT64_MAX;

	for (int i = 0; i < 50; i++) {
		uint64_t begun = now_ns(), took;

		turn(10000);
		took = now_ns() - begun;
		least = took < least ? took : least;
	}
	return (unsigned)(ns * 10000 / (double)least);
}

/* A page begins with its number. */
static int telling_decode(void *context, void *page, const void *src, size_t bytes,
			  const void *reference)
{
	int err = plain->decode(context, page, src, bytes, reference);
	uint32_t number;

	memcpy(&number, page, sizeof(number));
	turn(delay_turns * pages.both[number % PAGES]);
	return err;
}

/* --- Pages --- */

/* All are the same to a codec: noise, of which no two are equal, and a word. */
static void make_page(struct vmemt_page *page, uint32_t number, uint64_t noise)
{
	vmemt_page_make(page, VMEMT_PAGE_NOISE, noise);
	memcpy(page->bytes, &number, sizeof(number));
	for (size_t at = 1024; at < sizeof(page->bytes); at += sizeof(uint32_t))
		memcpy(page->bytes + at, &(uint32_t){ WORD }, sizeof(uint32_t));
}

static void shuffle(uint32_t *order, uint32_t count)
{
	for (uint32_t i = count; i > 1; i--) {
		uint32_t j = (uint32_t)(vmemt_rand(&random_state) % i), last = order[i - 1];

		order[i - 1] = order[j];
		order[j] = last;
	}
}

static void choose_kinds(void)
{
	uint32_t order[PAGES];

	for (uint32_t i = 0; i < PAGES; i++)
		order[i] = i;
	shuffle(order, PAGES);
	for (uint32_t i = 0; i < PAGES; i++)
		pages.both[order[i]] = i % 2;
}

static vmem_store_ref save(vmem_store *store, uint32_t vm, uint32_t number, uint64_t noise)
{
	struct vmemt_page page;
	vmem_store_ref ref = 0;

	make_page(&page, number, noise);
	need(!vmem_store_save(store, vm, number, &page, &ref), "a save");
	return ref;
}

static void save_all(vmem_store *store, uint32_t sharing)
{
	const struct vmem_store_vm_opts opts = { .size = sizeof(opts), .sharing = sharing };
	uint64_t noise = vmemt_rand(&random_state);

	need(!vmem_store_add_vm(store, &opts, &pages.vm) &&
		     !vmem_store_add_vm(store, &opts, &pages.other),
	     "adding VMs");
	choose_kinds();
	for (uint32_t i = 0; i < PAGES; i++) {
		pages.ref[i] = save(store, pages.vm, i, noise + i);
		pages.other_ref[i] =
			save(store, pages.other, i, noise + i + (pages.both[i] ? 0 : PAGES));
	}
}

static uint64_t time_load(vmem_store *store, uint32_t i)
{
	struct vmemt_page page;
	uint64_t begun, took;
	int rc = vmem_store_load(store, pages.other, i, pages.other_ref[i], &page, NULL);

	begun = now_ns();
	rc |= vmem_store_load(store, pages.vm, i, pages.ref[i], &page, NULL);
	took = now_ns() - begun;
	need(!rc, "a load");
	return took;
}

/* --- Statistics --- */

struct sample {
	uint64_t ns;
	bool both;
};

static int by_time(const void *a, const void *b)
{
	const struct sample *x = a, *y = b;

	return (x->ns > y->ns) - (x->ns < y->ns);
}

/* Two-sided, by the normal distribution with ties counted. */
static double mann_whitney(struct sample *s, size_t count)
{
	double half = (double)count / 2, ranks = 0, ties = 0, u, deviation;

	qsort(s, count, sizeof(*s), by_time);
	for (size_t first = 0, end; first < count; first = end) {
		double equal;

		for (end = first; end < count && s[end].ns == s[first].ns; end++)
			;
		equal = (double)(end - first);
		ties += equal * equal * equal - equal;
		for (size_t i = first; i < end; i++)
			ranks += s[i].both ? (double)(first + 1) + (equal - 1) / 2 : 0;
	}
	u = ranks - half * (half + 1) / 2;
	deviation = sqrt(half * half / 12 *
			 ((double)count + 1 - ties / ((double)count * ((double)count - 1))));
	return deviation > 0 ? erfc(fabs(u - half * half / 2) / deviation / sqrt(2)) : 1;
}

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* How far there are more small ones than by chance: 0..1. */
static double excess(double p[BATCHES])
{
	double most = 0;

	qsort(p, BATCHES, sizeof(*p), by_value);
	for (int i = 0; i < BATCHES; i++)
		most = fmax(most, (double)(i + 1) / BATCHES - p[i]);
	return most;
}

/* --- Batches --- */

static double median_of(const struct sample *sorted, bool both)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < PAGES; i++)
		if (sorted[i].both == both && n++ == PAGES / 4)
			return (double)sorted[i].ns;
	return 0;
}

/* The p-value of new pages. @ret_difference: of the medians, in ns. */
static double batch(vmem_store *store, uint32_t sharing, double *ret_difference)
{
	struct sample sample[PAGES];
	uint32_t order[PAGES];
	double p;

	save_all(store, sharing);
	for (uint32_t i = 0; i < PAGES; i++) {
		sample[i] = (struct sample){ UINT64_MAX, pages.both[i] };
		order[i] = i;
	}
	for (int round = 0; round < ROUNDS; round++) {
		shuffle(order, PAGES);
		for (uint32_t n = 0; n < PAGES; n++) {
			uint32_t i = order[n];
			uint64_t took = time_load(store, i);

			sample[i].ns = took < sample[i].ns ? took : sample[i].ns;
		}
	}
	p = mann_whitney(sample, PAGES);
	*ret_difference = median_of(sample, true) - median_of(sample, false);
	need(!vmem_store_drop_vm(store, pages.vm) && !vmem_store_drop_vm(store, pages.other),
	     "dropping VMs");
	return p;
}

/* Whether the times tell. @delay_ns: how much longer a page takes that both have; 0: the codec as it is. */
static bool tells(const struct vmem_codec *codec, uint32_t sharing, double delay_ns)
{
	struct vmem_codec telling = *codec;
	const struct vmem_codec *const codecs[] = { delay_ns > 0 ? &telling : codec };
	struct vmem_store_opts opts = { .size = sizeof(opts), .codecs = codecs, .codec_count = 1 };
	double p[BATCHES], difference = 0, found, limit = sqrt(-log(CHANCE) / 2 / BATCHES);
	vmem_store *store;

	plain = codec;
	telling.decode = telling_decode;
	delay_turns = turns_of(delay_ns);
	need(!vmem_store_new(&store, &opts), "a store");
	for (int i = 0; i < BATCHES; i++) {
		double one;

		p[i] = batch(store, sharing, &one);
		difference += one / BATCHES;
	}
	vmem_store_free(store);
	found = excess(p);
	printf("%s, %s, %2.0f ns more if both have it: excess %.2f of %.2f, least p %.2g, median %.2g, "
	       "difference %.1f ns\n",
	       codec->name, sharing == VMEM_STORE_SHARE_GROUP ? "one group" : "two domains",
	       delay_ns, found, limit, p[0], p[BATCHES / 2], difference);
	return found > limit;
}

int main(void)
{
	const struct vmem_codec *const codecs[] = { vmem_codec_lz4(), vmem_codec_zstd(1) };

	random_state = vmemt_seed("store_load_time");
	for (size_t i = 0; i < sizeof(codecs) / sizeof(*codecs); i++) {
		need(tells(codecs[i], VMEM_STORE_SHARE_VM, DELAY_NS), "what takes longer is seen");
		need(tells(codecs[i], VMEM_STORE_SHARE_GROUP, 0), "what is shared is seen");
		need(!tells(codecs[i], VMEM_STORE_SHARE_VM, 0), "other domains are not seen");
	}
	return 0;
}
