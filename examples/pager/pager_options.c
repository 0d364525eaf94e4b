/* SPDX-License-Identifier: BSD-2-Clause */
#include "pager_options.h"

#include <argp.h>
#include <stdlib.h>

#include "common/units.h"

#define BUDGET_LEAST (UINT64_C(4) << 20)

enum option_key { KEY_SOCKET = 256, KEY_MEMORY, KEY_BUDGET, KEY_JSON, KEY_THREADS, KEY_SOURCES };

static const struct argp_option option_table[] = {
	{ "socket", KEY_SOCKET, "PATH", 0, "listen here; must not exist yet", 0 },
	{ "memory", KEY_MEMORY, "FILE", 0, "the memory file of the snapshot", 0 },
	{ "budget", KEY_BUDGET, "BYTES", 0,
	  "most memory that VMs and what the pager keeps for them take, such as 2G", 0 },
	{ "fault-threads", KEY_THREADS, "N", 0, "threads that serve faults (default 1)", 0 },
	{ "source-threads", KEY_SOURCES, "N", 0, "threads that read the file (default 4)", 0 },
	{ "json", KEY_JSON, "FILE", 0, "write what was served as one JSON object at the end", 0 },
	{ NULL, 0, NULL, 0, NULL, 0 },
};

static const char description[] =
	"Serves the memory of VMMs that load a snapshot from FILE and hand a userfaultfd over at PATH: "
	"Firecracker's mem_backend of type Uffd."
	"\vPages leave within the budget where the memory is a memfd that is handed over too; private memory stays.\n\n"
	"Ctrl-C brings all that is missing into every VM that lives, so that none needs a pager any more, and "
	"ends; pressed again it ends at once, and VMs wait at what they miss. Exit status: 0 good; 1 failed; 2 "
	"bad options.";

static uint32_t need_threads(struct argp_state *state, const char *text)
{
	uint64_t n = 0;

	if (units_parse_number(text, 1, 16, &n) != 0)
		argp_error(state, "%s: give a number of threads from 1 to 16", text);
	return (uint32_t)n;
}

static uint64_t need_budget(struct argp_state *state, const char *text)
{
	uint64_t bytes = 0;

	if (units_parse_bytes(text, &bytes) != 0 || bytes < BUDGET_LEAST)
		argp_error(state, "%s: give a budget of at least 4M", text);
	return bytes;
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
	struct pager_options *o = state->input;

	switch (key) {
	case KEY_SOCKET: o->socket = text; break;
	case KEY_MEMORY: o->memory = text; break;
	case KEY_BUDGET: o->budget = need_budget(state, text); break;
	case KEY_JSON: o->json = text; break;
	case KEY_THREADS: o->fault_threads = need_threads(state, text); break;
	case KEY_SOURCES: o->source_threads = need_threads(state, text); break;
	case ARGP_KEY_INIT: state->child_inputs[0] = &o->swap; break;
	case ARGP_KEY_END:
		if (!o->socket || !o->memory)
			argp_error(state, "give --socket PATH and --memory FILE");
		if (o->swap.count && !o->budget)
			argp_error(state, "--swap needs --budget: nothing leaves without one");
		break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

void pager_options_parse(struct pager_options *o, int argc, char **argv)
{
	static const struct argp_child children[] = { { &swap_argp, 0, NULL, 0 },
						      { NULL, 0, NULL, 0 } };
	static const struct argp argp = { option_table, parse_option, NULL, description,
					  children,     NULL,         NULL };

	*o = (struct pager_options){ .fault_threads = 1, .source_threads = 4 };
	argp_err_exit_status = PAGER_USAGE;
	if (argp_parse(&argp, argc, argv, 0, NULL, o) != 0)
		exit(PAGER_USAGE);
}
