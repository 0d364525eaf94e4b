/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line, by argp. Called once, before anything else. */
#include "runner_options.h"

#include <argp.h>
#include <stdlib.h>
#include <string.h>

#include <vmem/region.h>

#include "common/units.h"

const char *const runner_workload_names[GUEST_WORKLOADS] = {
	[GUEST_SCAN] = "scan",       [GUEST_ZIPF] = "zipf",         [GUEST_CHURN] = "churn",
	[GUEST_HOTCOLD] = "hotcold", [GUEST_ZEROFILL] = "zerofill", [GUEST_IDLE] = "idle",
};

#define BALLOON_MOST_PERCENT 90u

enum option_key {
	KEY_VMS = 256,
	KEY_MEM,
	KEY_BUDGET,
	KEY_VCPUS,
	KEY_ATTACH,
	KEY_SHARING,
	KEY_RECOMPRESS,
	KEY_HUGE,
	KEY_IMAGE,
	KEY_RESTORE,
	KEY_LAZY,
	KEY_SAVE,
	KEY_WORKLOAD,
	KEY_SKEW,
	KEY_WRITES,
	KEY_SECONDS,
	KEY_SEED,
	KEY_BACKEND,
	KEY_FAULT_WAY,
	KEY_ALLOCATOR,
	KEY_JSON,
	KEY_QUIET,
	KEY_BALLOON,
	KEY_BALLOON_RATE,
	KEY_BALLOON_KEEP,
	KEY_BALLOON_RANGES,
	KEY_BALLOON_REPORT,
	KEY_BALLOON_OOM,
	KEY_INJECT
};

static const struct argp_option option_table[] = {
	{ NULL, 0, NULL, 0, "Virtual machines:", 1 },
	{ "vms", KEY_VMS, "N", 0, "how many, 1..64 (default 2)", 1 },
	{ "mem", KEY_MEM, "SIZE", 0, "memory of each, 4M..64G (default 256M)", 1 },
	{ "vcpus", KEY_VCPUS, "N", 0, "vCPUs of each, 1..16 (default 1)", 1 },
	{ "budget", KEY_BUDGET, "SIZE|PERCENT", 0,
	  "physical memory of all VMs with all that the library adds: a size, or percent of the sum of "
	  "their memory (default 60%)",
	  1 },
	{ "attach", KEY_ATTACH, "N", 0,
	  "so many of the VMs bring memory that the runner mapped itself, the others take it from "
	  "vmem_region_alloc() (default 1)",
	  1 },
	{ "sharing", KEY_SHARING, "vm|group", 0,
	  "whose stored pages may be kept once, or as differences from each other: those of one VM, or of all "
	  "of them (default vm)",
	  1 },
	{ "recompress", KEY_RECOMPRESS, "PAGES/S|off", 0,
	  "how many stored pages a second are made smaller when they have stayed for a while; off: none "
	  "(default no limit)",
	  1 },
	{ "huge", KEY_HUGE, NULL, 0,
	  "keep memory that is in use in huge pages of 2 MiB, where that can be had", 1 },
	{ "balloon", KEY_BALLOON, "SIZE|PERCENT", 0,
	  "memory that each VM is asked to give by its virtio balloon, up to 90% of it; after three quarters of "
	  "the time it is given back (default none)",
	  1 },
	{ "balloon-rate", KEY_BALLOON_RATE, "SIZE", 0,
	  "no faster than this a second, both ways (default no limit)", 1 },
	{ "balloon-keep", KEY_BALLOON_KEEP, NULL, 0, "it is not given back", 1 },
	{ "balloon-ranges", KEY_BALLOON_RANGES, NULL, 0,
	  "in ranges, which is not in the standard, instead of page by page", 1 },
	{ "balloon-report", KEY_BALLOON_REPORT, NULL, 0,
	  "guests free some of their memory from time to time, and report what is free", 1 },
	{ "balloon-oom", KEY_BALLOON_OOM, NULL, 0,
	  "guests that miss pages take some back, whatever they are asked for", 1 },
	{ NULL, 0, NULL, 0, "What they do:", 2 },
	{ "image", KEY_IMAGE, "FILE", 0,
	  "memory image that a VM starts with; may be given again, then VM i takes image i modulo their "
	  "number. Default: an image made of files of this machine (35 % executables, 25 % libraries, "
	  "10 % text) and 30 % same-filled pages, different for each VM",
	  2 },
	{ "restore", KEY_RESTORE, "PATH", 0,
	  "VM i starts with the memory that --save has left in PATH.i, instead of an image; --mem and --vcpus as there",
	  2 },
	{ "lazy", KEY_LAZY, NULL, 0,
	  "with --restore: start at once, and read pages when they are touched", 2 },
	{ "save", KEY_SAVE, "PATH", 0,
	  "when time is up and every page was right, write the memory of VM i to PATH.i", 2 },
	{ "workload", KEY_WORKLOAD, "NAME[,NAME...]", 0,
	  "scan, zipf, churn, hotcold, zerofill, idle, or mixed (one after the other); VM i takes name i "
	  "modulo their number (default zipf)",
	  2 },
	{ "skew", KEY_SKEW, "X", 0, "exponent of zipf, 0..4 (default 0.99)", 2 },
	{ "writes", KEY_WRITES, "PERCENT", 0,
	  "writes among the accesses of zipf, hotcold and zerofill (default 25)", 2 },
	{ "seconds", KEY_SECONDS, "N", 0, "how long they run (default 10)", 2 },
	{ "seed", KEY_SEED, "N", 0, "all that is random follows from it (default 1)", 2 },
	{ NULL, 0, NULL, 0, "How:", 3 },
	{ "backend", KEY_BACKEND, "kvm|thread", 0,
	  "virtual machines, or the same payloads as threads of this process (default kvm; thread, and it "
	  "says so, where there is no /dev/kvm, or no right to serve its faults)",
	  3 },
	{ "fault-way", KEY_FAULT_WAY, "thread|sigbus", 0,
	  "who serves a fault: a thread of the library, or the thread that faults, by SIGBUS (only with "
	  "--backend thread) (default thread)",
	  3 },
	{ "allocator", KEY_ALLOCATOR, "libc|jemalloc", 0,
	  "where the library's metadata comes from (default libc)", 3 },
	{ NULL, 0, NULL, 0, "Output:", 4 },
	{ "json", KEY_JSON, "FILE", 0, "write options, results and metrics as one JSON object", 4 },
	{ "quiet", KEY_QUIET, NULL, 0, "no live table", 4 },
	{ NULL, 0, NULL, 0, "For tests:", 5 },
	{ "inject", KEY_INJECT, "WHAT", 0,
	  "drop-page: discard a page of VM 0 behind the guest's back, which must find the wrong byte; "
	  "corrupt-page: flip a bit of a stored page of VM 0, which must be poisoned; bad-balloon: guests give "
	  "pages that are pinned, that are not there, and some twice, which must do no harm; flood-balloon: "
	  "they give their balloons work without end, which must not keep the runner; fail-alloc=N: the N-th "
	  "allocation fails",
	  5 },
	{ NULL, 0, NULL, 0, NULL, 0 },
};

static const char description[] =
	"Runs virtual machines in less memory than they have, on libvmem. The guests verify every page "
	"that they touch, and all pages at the end; the first wrong byte stops a VM."
	"\vSizes take K, M, G. Exit status: 0 every page was right; 1 a wrong byte, a poisoned page or a "
	"failure; 2 bad options or input, or no right: what to change was said, and nothing was run; 130 "
	"interrupted by Ctrl-C, nothing wrong until then.";

/* Options that need others to be known before they can be judged. */
struct parse {
	struct runner_options *options;
	const char *budget;
	const char *balloon; /* NULL: none */
};

static void need_number(struct argp_state *state, const char *name, const char *text,
			uint32_t least, uint32_t most, uint32_t *ret_number)
{
	uint64_t number = 0;

	if (units_parse_number(text, least, most, &number) != 0)
		argp_error(state, "--%s %s: give a whole number from %u to %u", name, text, least,
			   most);
	*ret_number = (uint32_t)number;
}

static void add_workload(struct argp_state *state, struct runner_options *o, const char *name)
{
	bool mixed = strcmp(name, "mixed") == 0;
	bool known = false;

	for (uint32_t i = 0; i < GUEST_WORKLOADS; i++) {
		if (!mixed && strcmp(name, runner_workload_names[i]) != 0)
			continue;
		if (o->workload_count == RUNNER_MAX_VMS)
			argp_error(state, "--workload: more than %u names", RUNNER_MAX_VMS);
		o->workloads[o->workload_count++] = i;
		known = true;
	}
	if (!known)
		argp_error(
			state,
			"--workload %s: there is scan, zipf, churn, hotcold, zerofill, idle and mixed",
			name);
}

static void parse_workloads(struct argp_state *state, struct runner_options *o, char *list)
{
	char *rest = NULL;

	o->workload_count = 0;
	for (char *name = strtok_r(list, ",", &rest); name; name = strtok_r(NULL, ",", &rest))
		add_workload(state, o, name);
	if (o->workload_count == 0)
		argp_error(state, "--workload needs a name");
}

/* Returns which of two words was given. */
static bool second_of(struct argp_state *state, const char *name, const char *text,
		      const char *first, const char *second)
{
	bool is_second = strcmp(text, second) == 0;

	if (!is_second && strcmp(text, first) != 0)
		argp_error(state, "--%s %s: there is %s and %s", name, text, first, second);
	return is_second;
}

static void parse_recompress(struct argp_state *state, struct runner_options *o, const char *text)
{
	uint64_t number = 0;

	o->as_saved = strcmp(text, "off") == 0;
	if (!o->as_saved && units_parse_number(text, 1, UINT32_MAX, &number) != 0)
		argp_error(state, "--recompress %s: give a number of pages a second, or off", text);
	o->recompress_per_second = (uint32_t)number;
}

static void parse_injection(struct argp_state *state, struct runner_options *o, const char *text)
{
	static const char fail[] = "fail-alloc=";

	if (strcmp(text, "drop-page") == 0)
		o->injection = INJECT_DROP_PAGE;
	else if (strcmp(text, "corrupt-page") == 0)
		o->injection = INJECT_CORRUPT_PAGE;
	else if (strcmp(text, "bad-balloon") == 0)
		o->injection = INJECT_BAD_BALLOON;
	else if (strcmp(text, "flood-balloon") == 0)
		o->injection = INJECT_FLOOD_BALLOON;
	else if (strncmp(text, fail, strlen(fail)) == 0 &&
		 units_parse_number(text + strlen(fail), 1, UINT32_MAX, &o->injection_number) == 0)
		o->injection = INJECT_FAIL_ALLOC;
	else
		argp_error(
			state,
			"--inject %s: there is drop-page, corrupt-page, bad-balloon, flood-balloon and fail-alloc=N",
			text);
}

/* A size, or percent of @whole. Returns 0, or -1 when it is neither. */
static int parse_share(const char *text, uint64_t whole, double most_percent, uint64_t *ret_bytes)
{
	size_t length = strlen(text);
	char digits[16] = { 0 };
	double percent = 0;

	if (length < 2 || length >= sizeof(digits) || text[length - 1] != '%')
		return units_parse_bytes(text, ret_bytes);
	memcpy(digits, text, length - 1);
	if (units_parse_decimal(digits, 1, most_percent, &percent) != 0)
		return -1;
	*ret_bytes = (uint64_t)((double)whole * percent / 100);
	return 0;
}

static void finish_balloon(struct argp_state *state, const struct parse *parse)
{
	struct runner_options *o = parse->options;
	uint64_t bytes = 0;

	if (!parse->balloon) {
		if (o->balloon_rate || o->balloon_keep || o->balloon_ranges || o->balloon_report ||
		    o->balloon_oom || o->injection == INJECT_BAD_BALLOON ||
		    o->injection == INJECT_FLOOD_BALLOON)
			argp_error(state, "what is said about a balloon needs --balloon");
		return;
	}
	if (parse_share(parse->balloon, o->mem_bytes, BALLOON_MOST_PERCENT, &bytes) != 0 ||
	    bytes < GUEST_PAGE_SIZE || bytes > o->mem_bytes - o->mem_bytes / 10)
		argp_error(state,
			   "--balloon %s: give a size such as 64M, or percent such as 25%%, up to "
			   "%u%% of a VM's memory",
			   parse->balloon, BALLOON_MOST_PERCENT);
	o->balloon_pages = bytes >> GUEST_PAGE_SHIFT;
}

/* What can only be judged when all is known. */
static void finish(struct argp_state *state, struct parse *parse)
{
	struct runner_options *o = parse->options;

	if (parse_share(parse->budget, o->mem_bytes * o->vms, 1000, &o->budget_bytes) != 0 ||
	    o->budget_bytes == 0)
		argp_error(state,
			   "--budget %s: give a size such as 600M, or percent such as 60%%, 1%% to "
			   "1000%%",
			   parse->budget);
	finish_balloon(state, parse);
	if (o->lazy && !o->restore)
		argp_error(state, "--lazy needs --restore: it says how that is done");
	if (o->restore && o->image_count)
		argp_error(state, "--restore and --image: a VM starts with one of them");
	if (o->fault_way == VMEM_FAULT_SIGBUS && o->backend != BACKEND_THREAD)
		argp_error(state,
			   "--fault-way sigbus needs --backend thread: KVM reads and writes guest "
			   "memory inside the kernel, where no signal can bring a page back");
#ifndef RUNNER_JEMALLOC
	if (o->jemalloc)
		argp_error(state,
			   "--allocator jemalloc: this runner was built without libvmem-jemalloc "
			   "(configure with -DVMEM_JEMALLOC=ON)");
#endif
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
	struct parse *parse = state->input;
	struct runner_options *o = parse->options;

	switch (key) {
	case KEY_VMS: need_number(state, "vms", text, 1, RUNNER_MAX_VMS, &o->vms); break;
	case KEY_VCPUS: need_number(state, "vcpus", text, 1, GUEST_MAX_VCPUS, &o->vcpus); break;
	case KEY_ATTACH: need_number(state, "attach", text, 0, RUNNER_MAX_VMS, &o->attach); break;
	case KEY_WRITES: need_number(state, "writes", text, 0, 100, &o->write_percent); break;
	case KEY_SECONDS: need_number(state, "seconds", text, 1, 1000000, &o->seconds); break;
	case KEY_BUDGET: parse->budget = text; break;
	case KEY_BALLOON: parse->balloon = text; break;
	case KEY_BALLOON_KEEP: o->balloon_keep = true; break;
	case KEY_BALLOON_RANGES: o->balloon_ranges = true; break;
	case KEY_BALLOON_REPORT: o->balloon_report = true; break;
	case KEY_BALLOON_OOM: o->balloon_oom = true; break;
	case KEY_BALLOON_RATE:
		if (units_parse_bytes(text, &o->balloon_rate) != 0 ||
		    (o->balloon_rate >>= GUEST_PAGE_SHIFT) == 0)
			argp_error(state, "--balloon-rate %s: give a size, at least 4K", text);
		break;
	case KEY_RESTORE: o->restore = text; break;
	case KEY_LAZY: o->lazy = true; break;
	case KEY_HUGE: o->huge = true; break;
	case KEY_SAVE: o->save = text; break;
	case KEY_JSON: o->json = text; break;
	case KEY_QUIET: o->quiet = true; break;
	case KEY_WORKLOAD: parse_workloads(state, o, text); break;
	case KEY_RECOMPRESS: parse_recompress(state, o, text); break;
	case KEY_INJECT: parse_injection(state, o, text); break;
	case KEY_ALLOCATOR:
		o->jemalloc = second_of(state, "allocator", text, "libc", "jemalloc");
		break;
	case KEY_SHARING:
		o->sharing = second_of(state, "sharing", text, "vm", "group")
				     ? VMEM_STORE_SHARE_GROUP
				     : VMEM_STORE_SHARE_VM;
		break;
	case KEY_BACKEND:
		o->backend = second_of(state, "backend", text, "kvm", "thread") ? BACKEND_THREAD
										: BACKEND_KVM;
		break;
	case KEY_FAULT_WAY:
		o->fault_way = second_of(state, "fault-way", text, "thread", "sigbus")
				       ? VMEM_FAULT_SIGBUS
				       : VMEM_FAULT_THREAD;
		break;
	case KEY_MEM:
		if (units_parse_bytes(text, &o->mem_bytes) != 0 || o->mem_bytes % GUEST_PAGE_SIZE ||
		    o->mem_bytes < RUNNER_MIN_MEM || o->mem_bytes > RUNNER_MAX_MEM)
			argp_error(state, "--mem %s: give whole pages of 4K, from 4M to 64G", text);
		break;
	case KEY_SKEW:
		if (units_parse_decimal(text, 0, 4, &o->skew) != 0)
			argp_error(state, "--skew %s: give a number from 0 to 4", text);
		break;
	case KEY_SEED:
		if (units_parse_number(text, 0, UINT64_MAX, &o->seed) != 0)
			argp_error(state, "--seed %s: give a whole number", text);
		break;
	case KEY_IMAGE:
		if (o->image_count == RUNNER_MAX_VMS)
			argp_error(state, "--image: more than %u images", RUNNER_MAX_VMS);
		o->images[o->image_count++] = text;
		break;
	case ARGP_KEY_INIT: state->child_inputs[0] = &o->swap; break;
	case ARGP_KEY_ARG: argp_error(state, "%s: not an option", text); break;
	case ARGP_KEY_END: finish(state, parse); break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

void runner_options_parse(struct runner_options *options, int argc, char **argv)
{
	static const struct argp_child children[] = { { &swap_argp, 0, NULL, 0 },
						      { NULL, 0, NULL, 0 } };
	static const struct argp argp = { option_table, parse_option, NULL, description,
					  children,     NULL,         NULL };
	struct parse parse = { .options = options, .budget = "60%" };

	*options = (struct runner_options){
		.vms = 2,
		.vcpus = 1,
		.seconds = 10,
		.attach = 1,
		.mem_bytes = UINT64_C(256) << 20,
		.workloads = { GUEST_ZIPF },
		.workload_count = 1,
		.write_percent = 25,
		.skew = 0.99,
		.fault_way = VMEM_FAULT_THREAD,
		.seed = 1,
	};
	argp_err_exit_status = RUNNER_EXIT_USAGE;
	if (argp_parse(&argp, argc, argv, 0, NULL, &parse) != 0)
		exit(RUNNER_EXIT_USAGE);
}
