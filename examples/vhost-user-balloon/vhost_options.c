/* SPDX-License-Identifier: BSD-2-Clause */
#include "vhost_options.h"

#include <argp.h>
#include <stdlib.h>
#include <string.h>

#include "common/units.h"

enum option_key {
	KEY_SOCKET = 256,
	KEY_CONTROL,
	KEY_TARGET,
	KEY_RATE,
	KEY_STATS,
	KEY_MAP,
	KEY_WITHOUT,
	KEY_MEMORY,
	KEY_STALL,
	KEY_QUIET,
};

static const struct argp_option option_table[] = {
	{ "socket", KEY_SOCKET, "PATH", 0, "listen here for a VMM; must not be in use", 0 },
	{ "control", KEY_CONTROL, "PATH", 0, "listen here for commands", 0 },
	{ "target", KEY_TARGET, "SIZE", 0,
	  "how much the guest shall give up, such as 100M (default 0)", 0 },
	{ "rate", KEY_RATE, "SIZE", 0, "no more than this a second (default: at once)", 0 },
	{ "stats-every", KEY_STATS, "SECONDS", 0,
	  "ask the guest for statistics so often (default 5; 0: only when told to)", 0 },
	{ "queue-map", KEY_MAP, "MAP", 0,
	  "how queues are numbered: spec, offered, negotiated (default: negotiated, as Linux does)",
	  0 },
	{ "without", KEY_WITHOUT, "FEATURE", 0,
	  "do not offer it; again for more: tell-host, stats, oom, poison, reporting", 0 },
	{ "most-memory", KEY_MEMORY, "SIZE", 0, "refuse guests with more (default 256G)", 0 },
	{ "stall", KEY_STALL, "SECONDS", 0,
	  "no progress for so long is told (default 5, at least 1)", 0 },
	{ "quiet", KEY_QUIET, NULL, 0, "print no progress", 0 },
	{ NULL, 0, NULL, 0, NULL, 0 },
};

static const char description[] =
	"A memory balloon for a VMM that takes its devices by vhost-user, such as User-Mode Linux: what its guest "
	"gives up goes back to the host.\n"
	"To talk to one that runs: vmem-vhost-user-balloon ctl PATH COMMAND (ctl --help)."
	"\vThe next client may come when the one before has gone. Ctrl-C ends it. Exit status: 0 good; 1 failed; 2 bad "
	"options.";

static const struct {
	const char *name;
	uint64_t feature;
} names[] = {
	{ "tell-host", VMEM_BALLOON_F_MUST_TELL_HOST }, { "stats", VMEM_BALLOON_F_STATS_VQ },
	{ "oom", VMEM_BALLOON_F_DEFLATE_ON_OOM },       { "poison", VMEM_BALLOON_F_PAGE_POISON },
	{ "reporting", VMEM_BALLOON_F_PAGE_REPORTING },
};

static uint64_t need_bytes(struct argp_state *state, const char *text)
{
	uint64_t bytes = 0;

	if (units_parse_bytes(text, &bytes) != 0)
		argp_error(state, "%s: give a size, such as 100M", text);
	return bytes;
}

static uint64_t need_seconds(struct argp_state *state, const char *text, uint64_t least)
{
	uint64_t seconds = 0;

	if (units_parse_number(text, least, 86400, &seconds) != 0)
		argp_error(state, "%s: give seconds from %u to 86400", text, (unsigned)least);
	return seconds;
}

static enum vmem_balloon_queue_map need_map(struct argp_state *state, const char *text)
{
	if (strcmp(text, "spec") == 0)
		return VMEM_BALLOON_MAP_SPEC;
	if (strcmp(text, "offered") == 0)
		return VMEM_BALLOON_MAP_OFFERED;
	if (strcmp(text, "negotiated") != 0)
		argp_error(state, "%s: give spec, offered or negotiated", text);
	return VMEM_BALLOON_MAP_NEGOTIATED;
}

static uint64_t need_feature(struct argp_state *state, const char *text)
{
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(text, names[i].name) == 0)
			return names[i].feature;
	argp_error(state, "%s: give tell-host, stats, oom, poison or reporting", text);
	return 0;
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
	struct vhost_options *o = state->input;

	switch (key) {
	case KEY_SOCKET: o->socket = text; break;
	case KEY_CONTROL: o->control = text; break;
	case KEY_TARGET: o->target_bytes = need_bytes(state, text); break;
	case KEY_RATE: o->bytes_per_s = need_bytes(state, text); break;
	case KEY_STATS: o->stats_s = need_seconds(state, text, 0); break;
	case KEY_MAP: o->client.map = need_map(state, text); break;
	case KEY_WITHOUT: o->client.features &= ~need_feature(state, text); break;
	case KEY_MEMORY: o->client.most_memory = need_bytes(state, text); break;
	case KEY_STALL: o->client.stall_ns = need_seconds(state, text, 1) * 1000000000; break;
	case KEY_QUIET: o->quiet = true; break;
	case ARGP_KEY_ARG: argp_error(state, "%s: not an option", text); break;
	case ARGP_KEY_END:
		if (!o->socket)
			argp_error(state, "give --socket PATH");
		break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

void vhost_options_parse(struct vhost_options *o, int argc, char **argv)
{
	static const struct argp argp = { option_table, parse_option, NULL, description,
					  NULL,         NULL,         NULL };

	*o = (struct vhost_options){ .stats_s = 5,
				     .client = { .map = VMEM_BALLOON_MAP_NEGOTIATED,
						 .most_memory = UINT64_C(256) << 30 } };
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		o->client.features |= names[i].feature;
	argp_err_exit_status = VHOST_USAGE;
	if (argp_parse(&argp, argc, argv, 0, NULL, o) != 0)
		exit(VHOST_USAGE);
}
