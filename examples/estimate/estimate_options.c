/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line, by argp. Called once, before anything else. */
#include "estimate_options.h"

#include <argp.h>
#include <limits.h>
#include <stdlib.h>

#include "common/units.h"

#define MOST_SEED (UINT64_C(1) << 53) /* that a number of JSON holds */

enum option_key {
	KEY_PID = 256,
	KEY_MAPPING,
	KEY_RESIDENT,
	KEY_SAMPLE,
	KEY_SEED,
	KEY_JSON,
	KEY_PLOT,
	KEY_QUIET
};

static const struct argp_option option_table[] = {
	{ NULL, 0, NULL, 0, "What to look at, besides images:", 1 },
	{ "pid", KEY_PID, "N", 0,
	  "the process of a running VM; may be given again. It is only read, and goes on meanwhile",
	  1 },
	{ "mapping", KEY_MAPPING, "NAME|ADDRESS", 0,
	  "its memory is the mapping of /proc/PID/maps whose name contains NAME, or that has the byte at "
	  "ADDRESS (0x...) (default: the largest of anonymous or shared memory)",
	  1 },
	{ "sample", KEY_SAMPLE, "PERCENT", 0,
	  "only so many of the pages, chosen at random: quick, but equal and alike pages are found only if "
	  "both are chosen (default 100)",
	  1 },
	{ "seed", KEY_SEED, "N", 0, "the choice follows from it (default 1)", 1 },
	{ NULL, 0, NULL, 0, "How to judge:", 2 },
	{ "resident", KEY_RESIDENT, "PERCENT", 0,
	  "of a VM's memory that is in use, and is kept as it is (default 50)", 2 },
	{ NULL, 0, NULL, 0, "Output:", 3 },
	{ "json", KEY_JSON, "FILE", 0, "write all numbers as one JSON object", 3 },
	{ "plot", KEY_PLOT, "FILE.png", 0, "draw where the pages go; needs gnuplot", 3 },
	{ "quiet", KEY_QUIET, NULL, 0, "no progress", 3 },
	{ NULL, 0, NULL, 0, NULL, 0 },
};

static const char description[] =
	"Says what memory overcommit with libvmem would save: give images of raw guest memory, or processes "
	"of running VMs."
	"\vThe suggested ratio is 1 / (R + (1 - R) * S + 0.1), at least 1, where R is --resident, S is what "
	"the store takes of the pages (each VM for itself), and 0.1 is kept free for change. Exit status: 0 "
	"good; 1 failed; 2 bad options or input; 130 interrupted by Ctrl-C.";

struct parse {
	struct options *options;
	struct target *targets;
};

static double need_decimal(struct argp_state *state, const char *name, const char *text,
			   double least)
{
	double number = 0;

	if (units_parse_decimal(text, least, 100, &number) != 0)
		argp_error(state, "--%s %s: give a number from %g to 100", name, text, least);
	return number;
}

static uint64_t need_number(struct argp_state *state, const char *name, const char *text,
			    uint64_t least, uint64_t most)
{
	uint64_t number = 0;

	if (units_parse_number(text, least, most, &number) != 0)
		argp_error(state, "--%s %s: give a whole number from %llu to %llu", name, text,
			   (unsigned long long)least, (unsigned long long)most);
	return number;
}

static void add_target(struct parse *parse, struct target target)
{
	parse->targets[parse->options->vm_count++] = target;
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
	struct parse *parse = state->input;
	struct options *o = parse->options;

	switch (key) {
	case KEY_PID:
		add_target(parse, (struct target){ .pid = (int)need_number(state, "pid", text, 1,
									   INT_MAX) });
		break;
	case KEY_RESIDENT:
		o->resident_percent = (uint32_t)need_number(state, "resident", text, 0, 100);
		break;
	case KEY_SAMPLE: o->sample_percent = need_decimal(state, "sample", text, 0.001); break;
	case KEY_SEED: o->seed = need_number(state, "seed", text, 0, MOST_SEED); break;
	case KEY_MAPPING: o->mapping = text; break;
	case KEY_JSON: o->json = text; break;
	case KEY_PLOT: o->plot = text; break;
	case KEY_QUIET: o->quiet = true; break;
	case ARGP_KEY_ARG: add_target(parse, (struct target){ .image = text }); break;
	case ARGP_KEY_END:
		if (o->vm_count == 0)
			argp_error(state,
				   "give images of guest memory, or --pid N of a running VM");
		break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

void options_parse(struct options *options, struct target *targets, int argc, char **argv)
{
	static const struct argp argp = { option_table, parse_option, "[IMAGE...]", description,
					  NULL,         NULL,         NULL };
	struct parse parse = { .options = options, .targets = targets };

	*options = (struct options){ .resident_percent = 50, .sample_percent = 100, .seed = 1 };
	argp_err_exit_status = EXIT_USAGE;
	if (argp_parse(&argp, argc, argv, 0, NULL, &parse) != 0)
		exit(EXIT_USAGE);
}
