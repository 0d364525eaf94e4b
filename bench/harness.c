/* SPDX-License-Identifier: BSD-2-Clause */
/* Rows and notes are kept until the end of the bench; nothing here is called by two threads. */
#include "harness.h"
#include "machine.h"
#include "undo.h"
#include <cjson/cJSON.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#define ROUNDS 5
#define ROUNDS_QUICK 3
#define ROWS_MAX 64
#define NOTES_MAX 16
#define SIDES 3 /* ours, peer, limit */

struct row {
	struct bench_metric metric;
	const char *peer;
	double ours, peer_value, limit;
};

struct bench {
	const char *name;
	int (*body)(struct bench *bench);
	int quick;
	const char *images;
	const char *json; /* file to append to, or NULL */
	struct row rows[ROWS_MAX];
	size_t row_count;
	char *notes[NOTES_MAX];
	size_t note_count;
};

int bench_quick(const struct bench *bench)
{
	return bench->quick;
}

const char *bench_images(const struct bench *bench)
{
	return bench->images;
}

static size_t rounds_of(const struct bench *bench, const struct bench_comparison *comparison)
{
	const size_t usual = bench->quick ? ROUNDS_QUICK : ROUNDS;

	return comparison->rounds && comparison->rounds < usual ? comparison->rounds : usual;
}

static int compare_doubles(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;

	return (a > b) - (a < b);
}

static double median(const double *values, size_t count)
{
	double sorted[ROUNDS];

	memcpy(sorted, values, count * sizeof(*sorted));
	for (size_t i = 0; i < count; i++)
		if (isnan(sorted[i]))
			return NAN;
	qsort(sorted, count, sizeof(*sorted), compare_doubles);
	return sorted[count / 2];
}

static int compare_samples(const void *left, const void *right)
{
	uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

	return (a > b) - (a < b);
}

double bench_percentile(uint32_t *samples, size_t count, unsigned per_mille)
{
	qsort(samples, count, sizeof(*samples), compare_samples);
	return samples[(count - 1) * per_mille / 1000];
}

void bench_note(struct bench *bench, const char *format, ...)
{
	va_list arguments;
	char *text = NULL;

	va_start(arguments, format);
	if (vasprintf(&text, format, arguments) < 0)
		text = NULL;
	va_end(arguments);
	for (size_t i = 0; text && i < bench->note_count; i++) {
		if (strcmp(text, bench->notes[i]) == 0) {
			free(text);
			return;
		}
	}
	if (text && bench->note_count < NOTES_MAX)
		bench->notes[bench->note_count++] = text;
}

static void add_row(struct bench *bench, const struct bench_metric *metric, double ours,
		    const char *peer, double peer_value, double limit)
{
	if (bench->row_count == ROWS_MAX) {
		fprintf(stderr, "bench: more than %d rows\n", ROWS_MAX);
		exit(1);
	}
	bench->rows[bench->row_count++] = (struct row){ *metric, peer, ours, peer_value, limit };
}

/* How many times better ours is than the other. */
static double times_better(const struct row *row, double other)
{
	return row->metric.higher_is_better ? row->ours / other : other / row->ours;
}

static void add_number(cJSON *object, const char *name, double value)
{
	char text[32];

	/* Six digits, not the seventeen that cJSON would print. */
	snprintf(text, sizeof(text), "%.6g", value);
	if (isfinite(value))
		cJSON_AddRawToObject(object, name, text);
	else
		cJSON_AddNullToObject(object, name);
}

static void write_json(const struct bench *bench, const struct row *row, FILE *file)
{
	cJSON *line = cJSON_CreateObject();
	char *text;

	cJSON_AddStringToObject(line, "bench", bench->name);
	cJSON_AddStringToObject(line, "metric", row->metric.name);
	cJSON_AddStringToObject(line, "unit", row->metric.unit);
	cJSON_AddStringToObject(line, "better", row->metric.higher_is_better ? "higher" : "lower");
	add_number(line, "ours", row->ours);
	if (row->peer)
		cJSON_AddStringToObject(line, "peer", row->peer);
	else
		cJSON_AddNullToObject(line, "peer");
	add_number(line, "peer_value", row->peer_value);
	add_number(line, "ratio", times_better(row, row->peer_value));
	add_number(line, "limit", row->limit);
	if (row->metric.condition)
		cJSON_AddStringToObject(line, "case", row->metric.condition);
	text = cJSON_PrintUnformatted(line);
	fprintf(file, "%s\n", text ? text : "");
	cJSON_free(text);
	cJSON_Delete(line);
}

/* Large units for people, where values are large; lines of JSON keep the plain ones. */
static const char *shown_unit(const struct row *row)
{
	const char *unit = row->metric.unit;

	if (row->ours < 1 << 20)
		return unit;
	return strcmp(unit, "B/s") == 0 ? "MiB/s" : strcmp(unit, "B") == 0 ? "MiB" : unit;
}

static void print_value(const struct row *row, double value)
{
	if (shown_unit(row) != row->metric.unit)
		value /= 1 << 20;
	if (!isfinite(value))
		printf(" %10s", "-");
	else
		printf(" %10.*f", value >= 1000 ? 0 : value >= 10 ? 1 : 3, value);
}

static void print_ratio(double value, double scale, const char *mark)
{
	if (isfinite(value))
		printf(" %5.*f%s", scale > 1 ? 0 : 2, value * scale, mark);
	else
		printf(" %5s%*s", "-", (int)strlen(mark), "");
}

static void print_table(const struct bench *bench)
{
	printf("\n%s\n%-30s %-25s %-7s %10s %10s %-16s %6s %10s %6s\n", bench->name, "metric",
	       "case", "unit", "ours", "peer", "", "ratio", "limit", "share");
	for (size_t i = 0; i < bench->row_count; i++) {
		const struct row *row = &bench->rows[i];

		printf("%-30s %-25s %-7s", row->metric.name,
		       row->metric.condition ? row->metric.condition : "", shown_unit(row));
		print_value(row, row->ours);
		print_value(row, row->peer_value);
		printf(" %-16s", row->peer ? row->peer : "");
		print_ratio(times_better(row, row->peer_value), 1, "x");
		print_value(row, row->limit);
		print_ratio(times_better(row, row->limit), 100, "%");
		printf("\n");
	}
	for (size_t i = 0; i < bench->note_count; i++)
		printf("  %s\n", bench->notes[i]);
	fflush(stdout);
}

static int measure_side(struct bench *bench, const struct bench_comparison *comparison,
			const struct bench_side *side, double *values)
{
	int result;

	for (size_t i = 0; i < comparison->metric_count; i++)
		values[i] = NAN;
	if (!side->name)
		return 0;
	if (side->missing) {
		bench_note(bench, "no %s: %s", side->name, side->missing);
		return 0;
	}
	result = side->measure(comparison->context, values);
	if (result != 0)
		fprintf(stderr, "bench: %s: %s: %s failed: %s\n", bench->name,
			comparison->metrics[0].name, side->name, strerror(abs(result)));
	return result;
}

int bench_compare(struct bench *bench, const struct bench_comparison *comparison)
{
	const struct bench_side *sides[SIDES] = { &comparison->ours, &comparison->peer,
						  &comparison->limit };
	double values[BENCH_METRICS_MAX][SIDES][ROUNDS];
	double run[BENCH_METRICS_MAX];
	const size_t rounds = rounds_of(bench, comparison);

	fprintf(stderr, "%s: %s %s\n", bench->name, comparison->metrics[0].name,
		comparison->metrics[0].condition ? comparison->metrics[0].condition : "");
	for (size_t round = comparison->rounds ? 1 : 0; round <= rounds; round++) {
		for (size_t s = 0; s < SIDES; s++) {
			int result = measure_side(bench, comparison, sides[s], run);

			if (result != 0)
				return result;
			for (size_t i = 0; round > 0 && i < comparison->metric_count; i++)
				values[i][s][round - 1] = run[i];
		}
	}
	for (size_t i = 0; i < comparison->metric_count; i++)
		add_row(bench, &comparison->metrics[i], median(values[i][0], rounds),
			comparison->peer.name, median(values[i][1], rounds),
			median(values[i][2], rounds));
	return 0;
}

/* Two benches at once would measure each other. */
static void wait_for_turn(void)
{
	static const char path[] = "/tmp/vmem-bench.lock";
	int lock =
		open(path, O_RDONLY | O_CLOEXEC); /* another user's may not be opened to create */

	if (lock < 0)
		lock = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0644);
	if (lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) != 0) {
		fprintf(stderr, "bench: waiting for another bench to end\n");
		flock(lock, LOCK_EX);
	}
	/* Kept open, and so locked, until the process ends: after the machine was restored. */
}

static int run_body(void *context)
{
	struct bench *bench = context;
	FILE *json = NULL;
	int result;

	if (bench->json && !(json = fopen(bench->json, "ae"))) {
		perror(bench->json);
		return 1;
	}
	if (machine_cpus() < 2)
		bench_note(bench, "one processor only: who serves and who is served share it");
	result = bench->body(bench);
	if (result != 0)
		fprintf(stderr, "bench: %s failed: %s\n", bench->name, strerror(abs(result)));
	print_table(bench);
	for (size_t i = 0; json && i < bench->row_count; i++)
		write_json(bench, &bench->rows[i], json);
	if (json && fclose(json) != 0)
		result = -1;
	return result != 0;
}

static void usage(const char *program)
{
	printf("Usage: %s [--quick] [--images DIR] [--json FILE]\n"
	       "  --quick       a third of the work\n"
	       "  --images DIR  pages of the guest images DIR/*.img, not of this machine's files\n"
	       "  --json FILE   append a line for each metric\n",
	       program);
}

int bench_main(int argc, char **argv, const char *name, int (*body)(struct bench *bench))
{
	static const struct option options[] = { { "quick", no_argument, NULL, 'q' },
						 { "images", required_argument, NULL, 'i' },
						 { "json", required_argument, NULL, 'j' },
						 { "help", no_argument, NULL, 'h' },
						 { NULL, 0, NULL, 0 } };
	static struct bench bench;
	int option;

	bench.name = name;
	bench.body = body;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'q': bench.quick = 1; break;
		case 'i': bench.images = optarg; break;
		case 'j': bench.json = optarg; break;
		case 'h': usage(argv[0]); return 0;
		default: return 2;
		}
	}
	wait_for_turn();
	return undo_supervise(run_body, &bench);
}
