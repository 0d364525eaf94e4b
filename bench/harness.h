/* SPDX-License-Identifier: BSD-2-Clause */
/* Measures ours, a peer and a physical limit side by side: one run of each in turn, several rounds,
 * medians; a table for people, JSON lines for programs. README.md has the rules. */
#ifndef BENCH_HARNESS_H
#define BENCH_HARNESS_H
#include <stddef.h>
#include <stdint.h>

struct bench; /* one bench: options and the rows so far */

/* main() of a bench. The body is run in a process of its own (undo.h). @return for main() to return */
int bench_main(int argc, char **argv, const char *name, int (*body)(struct bench *bench));

int bench_quick(const struct bench *bench);          /* a third of the work */
const char *bench_images(const struct bench *bench); /* folder of guest images, or NULL */

struct bench_metric {
	const char *name;
	const char *unit;      /* "ns", "us", "B/s", ... */
	const char *condition; /* one of several of the same name: "threads=4"; or NULL */
	int higher_is_better;
};

/* One of those that are compared. */
struct bench_side {
	const char *name; /* as it stands in "peer"; NULL: there is no such side */
	/* One run. Sets values[i] for metric i, or leaves it NAN. @return 0, or an error: the bench fails */
	int (*measure)(void *context, double *values);
	const char *missing; /* why it cannot be measured on this machine; NULL: it can */
};

#define BENCH_METRICS_MAX 16

struct bench_comparison {
	const struct bench_metric *metrics; /* what one run measures */
	size_t metric_count;                /* at most BENCH_METRICS_MAX */
	size_t rounds; /* that many, all of which count: where one takes long; 0: as usual */
	void *context;
	struct bench_side ours, peer, limit;
};

/* Measure all sides in turn, as a rule after one round that does not count, and keep a row for each metric.
 * @return 0, or the error of a side, which has been printed */
int bench_compare(struct bench *bench, const struct bench_comparison *comparison);

/* A line below the table, once. */
void bench_note(struct bench *bench, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Sorts the samples. @param per_mille  500 is the median */
double bench_percentile(uint32_t *samples, size_t count, unsigned per_mille);

#endif
