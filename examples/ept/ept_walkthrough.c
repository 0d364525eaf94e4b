/* SPDX-License-Identifier: BSD-2-Clause */
/* ept-walkthrough: builds the tables of a small guest, prints them as a tree, and lets the processor (the software
 * walker) try some accesses; then changes rights inside a large leaf and prints what became of it, and what must be
 * invalidated. Exit status 0 only if each access ended as it should. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "ept_machine.h"

#define KIB UINT64_C(1024)
#define MIB (KIB * KIB)
#define GIB (MIB * KIB)
#define READ_WRITE (VMEM_EPT_READ | VMEM_EPT_WRITE)

static const char *const format_names[VMEM_EPT_FORMATS] = { "intel", "amd", "vtd" };

/* The map of the guest: a PC with 3 GiB. Device pages have no memory behind them and stay violations. */
struct part {
	const char *name;
	uint64_t gpa, bytes, hpa;
	uint32_t rights, type;
};

static const struct part parts[] = {
	{ "low memory", 0, 640 * KIB, 8 * GIB, READ_WRITE | VMEM_EPT_EXEC, VMEM_EPT_WB },
	{ "firmware", 960 * KIB, 64 * KIB, 7 * GIB, VMEM_EPT_READ | VMEM_EPT_EXEC, VMEM_EPT_WB },
	{ "memory", 1 * MIB, GIB - MIB, 8 * GIB + MIB, READ_WRITE | VMEM_EPT_EXEC, VMEM_EPT_WB },
	{ "local APIC", 0xfee00000, 4 * KIB, 0xfee00000, READ_WRITE, VMEM_EPT_UC },
	{ "memory above 4 GiB", 4 * GIB, 2 * GIB, 10 * GIB, READ_WRITE | VMEM_EPT_EXEC,
	  VMEM_EPT_WB },
};

#define PAGED_OUT (64 * MIB) /* two pages that are elsewhere: their entries hold where */
#define PAYLOAD UINT64_C(0x1234)

static int map_part(struct ept_machine *machine, const struct part *part)
{
	struct vmem_ept_leaf leaf = { .hpa = part->hpa,
				      .rights = part->rights,
				      .type = part->type };
	struct vmem_ept_change change = { .size = sizeof(change) };
	int error;

	if (machine->processor.format == VMEM_EPT_VTD) { /* knows neither */
		leaf.rights &= READ_WRITE;
		leaf.type = VMEM_EPT_WB;
	}
	error = vmem_ept_map(machine->ept, part->gpa, part->bytes, &leaf, 0, &change);
	if (!error)
		printf("map %-20s %#12llx + %#-10llx: %llu leaves\n", part->name,
		       (unsigned long long)part->gpa, (unsigned long long)part->bytes,
		       (unsigned long long)change.leaves);
	return error;
}

/* What must be done before the change counts. */
static void print_owed(const struct vmem_ept_change *change)
{
	if (change->flush == VMEM_EPT_FLUSH_NONE)
		printf("  nothing must be invalidated\n");
	if (change->flush == VMEM_EPT_FLUSH_ALL)
		printf("  all must be invalidated\n");
	for (uint32_t i = 0; change->flush == VMEM_EPT_FLUSH_RANGES && i < change->range_count; i++)
		printf("  invalidate %#llx + %#llx\n", (unsigned long long)change->ranges[i].gpa,
		       (unsigned long long)change->ranges[i].bytes);
}

/* An entry as letters; "" if it is not present. */
static void describe(const struct ept_machine *machine, uint64_t entry, char *text)
{
	static const struct {
		uint64_t bit;
		char letter;
	} letters[VMEM_EPT_FORMATS][6] = {
		{ { VMEM_EPT_INTEL_READ, 'r' },
		  { VMEM_EPT_INTEL_WRITE, 'w' },
		  { VMEM_EPT_INTEL_EXEC, 'x' },
		  { VMEM_EPT_INTEL_ACCESSED, 'A' },
		  { VMEM_EPT_INTEL_DIRTY, 'D' },
		  { VMEM_EPT_INTEL_IGNORE_PAT, 'i' } },
		{ { VMEM_EPT_AMD_PRESENT, 'p' },
		  { VMEM_EPT_AMD_WRITE, 'w' },
		  { VMEM_EPT_AMD_USER, 'u' },
		  { VMEM_EPT_AMD_NO_EXEC, 'n' },
		  { VMEM_EPT_AMD_ACCESSED, 'A' },
		  { VMEM_EPT_AMD_DIRTY, 'D' } },
		{ { VMEM_EPT_VTD_READ, 'r' },
		  { VMEM_EPT_VTD_WRITE, 'w' },
		  { VMEM_EPT_VTD_ACCESSED, 'A' },
		  { VMEM_EPT_VTD_DIRTY, 'D' },
		  { VMEM_EPT_VTD_SNOOP, 's' },
		  { 0, ' ' } },
	};

	for (int i = 0; i < 6; i++)
		*text++ = entry & letters[machine->processor.format][i].bit
				  ? letters[machine->processor.format][i].letter
				  : '-';
	*text = '\0';
}

static int present(const struct ept_machine *machine, uint64_t entry)
{
	return (entry & (machine->processor.format == VMEM_EPT_INTEL ? 7
			 : machine->processor.format == VMEM_EPT_VTD ? 3
								     : 1)) != 0;
}

/* Whether the next entry only goes on where this one ends: a leaf beside a leaf, or nothing beside nothing. */
static int goes_on(const struct ept_machine *machine, const uint64_t *table, uint32_t index,
		   uint32_t level)
{
	const uint64_t entry = table[index], next = table[index + 1];

	if (!present(machine, entry))
		return next == entry;
	return (level == 1 || (entry & VMEM_EPT_INTEL_LARGE)) &&
	       next == entry + VMEM_EPT_LEVEL_BYTES(level);
}

/* A place in a tree that is being printed: one frame for each level, instead of recursion. */
struct frame {
	const uint64_t *table;
	uint64_t gpa;
	uint32_t index;
};

/* A run of entries, from first to last. */
static void print_run(const struct ept_machine *machine, const struct frame *f, uint32_t first,
		      uint32_t last, uint32_t level)
{
	static const char *const sizes[] = { "", "4 KiB", "2 MiB", "1 GiB" };
	const uint64_t entry = f->table[first], bytes = VMEM_EPT_LEVEL_BYTES(level);
	const int leaf = level == 1 || (entry & VMEM_EPT_INTEL_LARGE);
	char letters[8];

	describe(machine, entry, letters);
	printf("%*s", (int)(2 * (machine->levels - level)), "");
	if (first == last)
		printf("[%u] ", first);
	else
		printf("[%u..%u] ", first, last);
	printf("%#llx ", (unsigned long long)(f->gpa + first * bytes));
	if (!present(machine, entry))
		printf("not present, payload\n");
	else if (leaf)
		printf("%s %s -> %#llx\n", letters, sizes[level],
		       (unsigned long long)(entry & VMEM_EPT_ADDRESS & ~(bytes - 1)));
	else
		printf("%s table\n", letters);
}

/* NULL: the entry is no table. */
static const uint64_t *table_below(const struct ept_machine *machine, uint64_t entry,
				   uint32_t level)
{
	if (level == 1 || !present(machine, entry) || (entry & VMEM_EPT_INTEL_LARGE))
		return NULL;
	return ept_frame(machine, entry & VMEM_EPT_ADDRESS);
}

/* The tree, runs of entries on a line each; only what is between two addresses. */
static void print_tree(const struct ept_machine *machine, uint64_t from, uint64_t to)
{
	struct frame stack[VMEM_EPT_LEVELS + 1] = { 0 };
	uint32_t level = machine->levels;

	stack[level].table = ept_frame(machine, vmem_ept_pointer(machine->ept) & VMEM_EPT_ADDRESS);
	while (level <= machine->levels) {
		struct frame *f = &stack[level];
		const uint64_t bytes = VMEM_EPT_LEVEL_BYTES(level), gpa = f->gpa + f->index * bytes;
		const uint32_t first = f->index;
		const uint64_t *below;

		if (first == VMEM_EPT_ENTRIES) {
			level++;
			continue;
		}
		while (f->index < VMEM_EPT_ENTRIES - 1 &&
		       goes_on(machine, f->table, f->index, level))
			f->index++;
		f->index++;
		if (!f->table[first] || gpa >= to || f->gpa + f->index * bytes <= from)
			continue;
		print_run(machine, f, first, f->index - 1, level);
		below = table_below(machine, f->table[first], level);
		if (below)
			stack[--level] = (struct frame){ below, gpa, 0 };
	}
}

struct probe {
	const char *what;
	uint64_t gpa;
	uint32_t kind;
	uint32_t outcome;
	uint64_t hpa; /* of what is allowed */
};

#define OK VMEM_EPT_WALK_OK
#define NO VMEM_EPT_WALK_VIOLATION

static const struct probe before[] = {
	{ "read low memory", 0x1234, VMEM_EPT_ACCESS_READ, OK, 8 * GIB + 0x1234 },
	{ "read a device", 0xb8000, VMEM_EPT_ACCESS_READ, NO, 0 },
	{ "write firmware", 0xf0010, VMEM_EPT_ACCESS_WRITE, NO, 0 },
	{ "run firmware", 0xffff0, VMEM_EPT_ACCESS_FETCH, OK, 7 * GIB + 0xfff0 },
	{ "read a page that is out", PAGED_OUT + 8, VMEM_EPT_ACCESS_READ, NO, 0 },
	{ "write the local APIC", 0xfee000b0, VMEM_EPT_ACCESS_WRITE, OK, 0xfee000b0 },
	{ "write high memory", 5 * GIB + 5 * MIB, VMEM_EPT_ACCESS_WRITE, OK, 11 * GIB + 5 * MIB },
	{ "read beyond", 6 * GIB, VMEM_EPT_ACCESS_READ, NO, 0 },
};

static const struct probe after[] = {
	{ "write the page", 5 * GIB + 5 * MIB + 8, VMEM_EPT_ACCESS_WRITE, NO, 0 },
	{ "read it", 5 * GIB + 5 * MIB + 8, VMEM_EPT_ACCESS_READ, OK, 11 * GIB + 5 * MIB + 8 },
	{ "write the next", 5 * GIB + 5 * MIB + 4096, VMEM_EPT_ACCESS_WRITE, OK,
	  11 * GIB + 5 * MIB + 4096 },
};

/* 0 if all ended as they should. */
static int probe(const struct ept_machine *machine, const struct probe *probes, size_t count)
{
	int wrong = 0;

	for (size_t i = 0; i < count; i++) {
		const struct probe *p = &probes[i];
		struct vmem_ept_walked w = ept_machine_walk(machine, p->gpa, p->kind);

		printf("%-24s %#12llx: ", p->what, (unsigned long long)p->gpa);
		if (w.outcome == OK)
			printf("%#llx, a leaf of level %u\n", (unsigned long long)w.hpa, w.level);
		else if (w.outcome == NO)
			printf("violation at level %u, qualification %#llx\n", w.level,
			       (unsigned long long)w.qualification);
		else
			printf("outcome %u\n", w.outcome);
		wrong |= w.outcome != p->outcome || (w.outcome == OK && w.hpa != p->hpa);
	}
	if (wrong)
		fprintf(stderr, "that is not what it should be\n");
	return wrong;
}

static int run(struct ept_machine *machine)
{
	struct vmem_ept_change change = { .size = sizeof(change) };
	int error = 0;

	printf("%s, %u levels, pointer %#llx\n", format_names[machine->processor.format],
	       machine->levels, (unsigned long long)vmem_ept_pointer(machine->ept));
	for (size_t i = 0; i < sizeof(parts) / sizeof(*parts) && !error; i++)
		error = map_part(machine, &parts[i]);
	if (!error)
		error = vmem_ept_set_payload(machine->ept, PAGED_OUT, 8 * KIB, PAYLOAD, 1,
					     VMEM_EPT_REPLACE, &change);
	if (error)
		return ept_failed("mapping", error);
	printf("two pages at %#llx are paged out\n", (unsigned long long)PAGED_OUT);
	print_owed(&change);
	ept_machine_flush(machine, &change);

	printf("\nThe tree:\n");
	print_tree(machine, 0, UINT64_MAX);
	printf("\nAccesses:\n");
	if (probe(machine, before, sizeof(before) / sizeof(*before)))
		return 1;

	printf("\nNo writes to one page of a leaf of 1 GiB:\n");
	error = vmem_ept_protect(machine->ept, 5 * GIB + 5 * MIB, 4 * KIB, VMEM_EPT_WRITE, 0,
				 &change);
	if (error)
		return ept_failed("vmem_ept_protect", error);
	print_owed(&change);
	ept_machine_flush(machine, &change);
	print_tree(machine, 5 * GIB, 5 * GIB + 8 * MIB);
	if (probe(machine, after, sizeof(after) / sizeof(*after)))
		return 1;
	return !ept_machine_sound(machine);
}

static int usage(const char *name, FILE *to)
{
	fprintf(to,
		"Usage: %s [--format intel|amd|vtd] [--levels N]\n"
		"Builds second-stage tables, prints them as a tree, and walks them.\n"
		"Letters: r read, w write, x execute, A accessed, D dirty, i ignore PAT;\n"
		"AMD: p present, u user, n no execute; VT-d: s snoop.\n",
		name);
	return to == stdout ? 0 : 2;
}

static int take_format(const char *text, uint32_t *ret_format)
{
	for (uint32_t format = 0; format < VMEM_EPT_FORMATS; format++)
		if (!strcmp(text, format_names[format])) {
			*ret_format = format;
			return 0;
		}
	fprintf(stderr, "--format: '%s' is no format\n", text);
	return 1;
}

static int take_option(int option, const char *text, uint32_t *ret_format, uint32_t *ret_levels)
{
	switch (option) {
	case 'f': return take_format(text, ret_format);
	case 'l': return ept_option_number("--levels", text, 3, VMEM_EPT_LEVELS, ret_levels);
	default: return 1;
	}
}

/* What options are in themselves, they must be together. */
static int options_fit(uint32_t format, uint32_t levels)
{
	if (levels > 3 || format == VMEM_EPT_VTD)
		return 1;
	fprintf(stderr, "--levels: %s has no tables of 3\n", format_names[format]);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "format", required_argument, NULL, 'f' },
						 { "levels", required_argument, NULL, 'l' },
						 { "help", no_argument, NULL, 'h' },
						 { NULL, 0, NULL, 0 } };
	uint32_t format = VMEM_EPT_INTEL, levels = 4;
	struct ept_machine machine;
	int option, status;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'h')
			return usage(argv[0], stdout);
		if (take_option(option, optarg, &format, &levels))
			return usage(argv[0], stderr);
	}
	if (ept_options_end(argc, argv, optind) || !options_fit(format, levels))
		return usage(argv[0], stderr);
	status = ept_machine_begin(&machine, 64, format, levels);
	if (status)
		return ept_failed("beginning", status);
	status = run(&machine);
	ept_machine_end(&machine);
	return status;
}
