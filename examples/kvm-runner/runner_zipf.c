/* SPDX-License-Identifier: BSD-2-Clause */
/* See the header. Alias tables after Vose, "A linear algorithm for generating random numbers with a
 * given distribution" (1991). Pure. */
#include "runner_zipf.h"

#include <math.h>

#define SINGLE_RANKS 1024u

struct weights {
	double of[ZIPF_CLASSES_MOST];
	uint32_t small[ZIPF_CLASSES_MOST]; /* below the average */
	uint32_t large[ZIPF_CLASSES_MOST];
};

/* Cuts the ranks into classes. */
static uint32_t cut(struct guest_zipf *classes, uint64_t ranks)
{
	double growth = pow((double)ranks / SINGLE_RANKS, 1.0 / (ZIPF_CLASSES_MOST - SINGLE_RANKS));
	double edge = SINGLE_RANKS;
	uint64_t first = 0;
	uint32_t n = 0;

	while (first < ranks && n < ZIPF_CLASSES_MOST) {
		uint64_t end = first + 1;

		if (first >= SINGLE_RANKS) {
			edge *= growth;
			if ((double)end < edge)
				end = (uint64_t)edge;
		}
		if (end > ranks || n == ZIPF_CLASSES_MOST - 1)
			end = ranks;
		classes[n].first = (uint32_t)first;
		classes[n].count = (uint32_t)(end - first);
		first = end;
		n++;
	}
	return n;
}

/* Gives what is missing in a class below the average to one above, until none is left. */
static void share_out(struct guest_zipf *classes, struct weights *w, uint32_t n)
{
	uint32_t smalls = 0;
	uint32_t larges = 0;

	for (uint32_t i = 0; i < n; i++) {
		classes[i].threshold = UINT32_MAX;
		classes[i].alias = i;
		if (w->of[i] < 1)
			w->small[smalls++] = i;
		else
			w->large[larges++] = i;
	}
	while (smalls > 0 && larges > 0) {
		uint32_t s = w->small[--smalls];
		uint32_t l = w->large[larges - 1];

		classes[s].threshold = (uint32_t)(w->of[s] * UINT32_MAX);
		classes[s].alias = l;
		w->of[l] -= 1 - w->of[s];
		if (w->of[l] < 1) {
			larges--;
			w->small[smalls++] = l;
		}
	}
}

uint32_t zipf_fill(struct guest_zipf classes[ZIPF_CLASSES_MOST], uint64_t ranks, double skew)
{
	struct weights w;
	uint32_t n = cut(classes, ranks);
	double sum = 0;

	for (uint32_t i = 0; i < n; i++) {
		double middle = classes[i].first + (classes[i].count + 1) / 2.0;

		w.of[i] = classes[i].count * pow(middle, -skew);
		sum += w.of[i];
	}
	for (uint32_t i = 0; i < n; i++)
		w.of[i] *= n / sum;
	share_out(classes, &w, n);
	return n;
}
