/* SPDX-License-Identifier: BSD-2-Clause */
/* See the header. Every second on a terminal, every five elsewhere. The main thread. */
#include "runner_table.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <vmem/common.h>

#include "runner_alloc.h"
#include "runner_balloon.h"
#include "runner_print.h"
#include "runner_sample.h"
#include "common/units.h"
#include "runner_vcpu.h"

#define SECOND UINT64_C(1000000000)
#define TEXT_BYTES 16384u
#define ROW "%6s %-8s %9s %9s %9s %9s %7s %6s %8s %8s %8s %7s %10s %s%s\n"
#define SWAP_ROW "%9s %10s "
#define BALLOON_ROW "%9s "
#define OTHER_LINES 4u /* header, total, the library's own, swap */

/* What rates are made of. */
struct before {
	uint64_t faults;
	uint64_t accesses;
	uint64_t cpu_ns;
};

struct table {
	struct runner *runner;
	uint64_t last_ns;
	struct before before[RUNNER_MAX_VMS];
	uint64_t swap_read_bytes;
	uint64_t swap_written_bytes;
	size_t length;
	char text[TEXT_BYTES];
};

struct row {
	const char *name;
	const char *workload;
	const char *state;
	uint64_t size;
	uint64_t resident;
	uint64_t staged;
	uint64_t stored;
	uint64_t logical;
	uint64_t physical;
	double cpu; /* of the store, in percent of one processor */
	double faults;
	double accesses;
	uint64_t p50_ns; /* of the total: the worst of the VMs */
	uint64_t p99_ns;
	uint64_t blocked_ppm; /* of the last ten seconds; of the total: the worst of the VMs */
	uint64_t balloon;     /* bytes in it */
	uint64_t reported;    /* bytes, so far */
	char more[64];        /* columns of balloons and of swap devices, where there are any */
};

int table_new(struct table **ret_table, struct runner *runner)
{
	struct table *table = alloc_new(sizeof(*table));

	if (!table)
		return -VMEM_ENOMEM;
	table->runner = runner;
	table->last_ns = runner->start_ns;
	*ret_table = table;
	return 0;
}

void table_free(struct table *table)
{
	alloc_free(table);
}

static void add(struct table *table, const char *format, ...) PRINT_FORMAT(2);

static void add(struct table *table, const char *format, ...)
{
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(table->text + table->length, TEXT_BYTES - table->length, format,
			   arguments);
	va_end(arguments);
	table->length += (size_t)length;
	if (table->length >= TEXT_BYTES)
		table->length = TEXT_BYTES - 1;
}

static const char *state_of(const struct vm *vm, const struct vm_progress *progress)
{
	static const char *const phases[] = {
		[GUEST_PHASE_START] = "starts", [GUEST_PHASE_FILL] = "fills",
		[GUEST_PHASE_WORK] = "works",   [GUEST_PHASE_SWEEP] = "sweeps",
		[GUEST_PHASE_END] = "ends",
	};
	const struct vcpu *vcpu;
	enum vcpu_end end = vm_end(vm, &vcpu);

	if (end != END_RUNS)
		return vm_end_names[end];
	return phases[progress->phase <= GUEST_PHASE_END ? progress->phase : GUEST_PHASE_END];
}

static void add_row(struct table *table, const struct row *r)
{
	char ratio[16] = "-", cpu[16], blocked[16];

	if (r->physical)
		snprintf(ratio, sizeof(ratio), "%.2f", sample_ratio(r->logical, r->physical));
	snprintf(cpu, sizeof(cpu), "%.1f%%", r->cpu);
	snprintf(blocked, sizeof(blocked), "%.1f%%", (double)r->blocked_ppm / 10000);
	add(table, ROW, r->name, r->workload, UNITS_BYTES(r->size), UNITS_BYTES(r->resident),
	    UNITS_BYTES(r->staged), UNITS_BYTES(r->stored), ratio, cpu, UNITS_COUNT(r->faults),
	    UNITS_TIME(r->p50_ns), UNITS_TIME(r->p99_ns), blocked, UNITS_COUNT(r->accesses),
	    r->more, r->state);
}

static uint64_t larger(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static void sum_up(struct row *total, const struct row *r)
{
	total->size += r->size;
	total->resident += r->resident;
	total->staged += r->staged;
	total->stored += r->stored;
	total->logical += r->logical;
	total->physical += r->physical;
	total->cpu += r->cpu;
	total->balloon += r->balloon;
	total->reported += r->reported;
	total->faults += r->faults;
	total->accesses += r->accesses;
	total->p50_ns = larger(total->p50_ns, r->p50_ns);
	total->p99_ns = larger(total->p99_ns, r->p99_ns);
	total->blocked_ppm = larger(total->blocked_ppm, r->blocked_ppm);
}

/* Since the last look. A VM's part of its group's gets less when others have saved more. */
static double cpu_percent(uint64_t before_ns, uint64_t now_ns, double seconds)
{
	return now_ns > before_ns ? 100 * (double)(now_ns - before_ns) / SECOND / seconds : 0;
}

/* Columns that not all runs have. */
struct more {
	const char *balloon, *reported, *in, *out;
};

static void set_more(const struct table *table, char *text, size_t bytes, const struct more *more)
{
	const struct runner *runner = table->runner;
	size_t length = 0;

	*text = '\0';
	if (runner->options->balloon_pages)
		length = (size_t)snprintf(text, bytes, BALLOON_ROW, more->balloon);
	if (runner->options->balloon_report && length < bytes)
		length += (size_t)snprintf(text + length, bytes - length, BALLOON_ROW,
					   more->reported);
	if (runner->swap.count && length < bytes)
		snprintf(text + length, bytes - length, SWAP_ROW, more->in, more->out);
}

static void add_vm(struct table *table, struct vm *vm, double seconds, struct row *total)
{
	struct before *before = &table->before[vm->index];
	struct sample sample;
	uint64_t cpu_ns;
	char name[16];
	struct row row;

	sample_vm(vm, &sample);
	cpu_ns = sample.account.cpu_save_ns + sample.account.cpu_load_ns +
		 sample.account.cpu_work_ns;
	snprintf(name, sizeof(name), "%u", vm->index);
	row = (struct row){
		.name = name,
		.workload = runner_workload_names[vm->workload],
		.state = state_of(vm, &sample.progress),
		.size = sample.region.bytes,
		.resident = sample.resident_bytes,
		.staged = sample.staged_bytes,
		.stored = sample.stored_bytes,
		.logical = sample.account.logical_bytes,
		.physical = sample.account.physical_bytes,
		.cpu = cpu_percent(before->cpu_ns, cpu_ns, seconds),
		.faults = (double)(sample.region.faults - before->faults) / seconds,
		.accesses = (double)(sample.progress.accesses - before->accesses) / seconds,
		.p50_ns = sample.region.fault_p50_ns,
		.p99_ns = sample.region.fault_p99_ns,
		.blocked_ppm = sample.region.pressure_avg10_ppm,
		.balloon = balloon_bytes(vm),
		.reported = balloon_reported_bytes(vm),
	};
	*before = (struct before){ sample.region.faults, sample.progress.accesses, cpu_ns };
	/* What is written and read is of all VMs. */
	set_more(table, row.more, sizeof(row.more),
		 &(struct more){ UNITS_BYTES(row.balloon), UNITS_BYTES(row.reported), "", "" });
	add_row(table, &row);
	sum_up(total, &row);
}

static void add_library(struct table *table)
{
	struct vmem_manager_metrics m = { .size = sizeof(m) };

	if (vmem_manager_get_metrics(table->runner->manager, &m) != 0)
		return;
	add(table,
	    "budget %s, used %s: guest pages %s, staging %s; the library's own: pool %s, metadata %s%s\n",
	    UNITS_BYTES(m.budget_bytes), UNITS_BYTES(m.used_bytes), UNITS_BYTES(m.resident_bytes),
	    UNITS_BYTES(m.staging_bytes), UNITS_BYTES(m.pool_bytes), UNITS_BYTES(m.metadata_bytes),
	    atomic_load(&table->runner->stuck) ? "; STUCK: nothing more can be taken, faults wait"
					       : "");
}

/* The columns of the total. */
static void rate_more(struct table *table, const struct swap_sample *sample, double seconds,
		      struct row *total)
{
	double in = (double)(sample->read_bytes - table->swap_read_bytes) / seconds;
	double out = (double)(sample->written_bytes - table->swap_written_bytes) / seconds;

	table->swap_read_bytes = sample->read_bytes;
	table->swap_written_bytes = sample->written_bytes;
	set_more(table, total->more, sizeof(total->more),
		 &(struct more){ UNITS_BYTES(total->balloon), UNITS_BYTES(total->reported),
				 UNITS_BYTES((uint64_t)in), UNITS_BYTES((uint64_t)out) });
}

static void add_swap(struct table *table, const struct swap_sample *sample)
{
	add(table, "swap %s: taken %s, holding %s of pages; loads %s, lost %s%s\n",
	    UNITS_BYTES(sample->size_bytes), UNITS_BYTES(sample->taken_bytes),
	    UNITS_BYTES(sample->out.live_bytes), UNITS_COUNT((double)sample->out.loads),
	    UNITS_COUNT((double)sample->out.lost), sample->bad ? "; a device is BAD" : "");
}

static void show(struct table *table, uint64_t now_ns)
{
	const struct swap *swap = &table->runner->swap;
	struct swap_sample sample = { 0 };
	struct row total = { .name = "total", .workload = "", .state = "" };
	double seconds = (double)(now_ns - table->last_ns) / SECOND;
	uint32_t most = print_table_most();
	uint32_t rows = most > OTHER_LINES ? most - OTHER_LINES : 0;
	char titles[64];
	char since[32];

	snprintf(since, sizeof(since), "%.0f s",
		 (double)(now_ns - table->runner->start_ns) / SECOND);
	seconds = seconds > 0 ? seconds : 1;
	if (swap->count)
		swap_sample(swap, table->runner->manager, &sample);
	set_more(table, titles, sizeof(titles),
		 &(struct more){ "balloon", "reported", "swap in/s", "swap out/s" });
	table->length = 0;
	add(table, ROW, since, "workload", "size", "resident", "staged", "stored", "ratio", "cpu",
	    "faults/s", "p50", "p99", "blocked", "accesses/s", titles, "state");
	for (uint32_t i = 0; i < table->runner->options->vms; i++) {
		size_t before = table->length;

		add_vm(table, &table->runner->vms[i], seconds, &total);
		if (i >= rows)
			table->length = before; /* counts, but is not shown */
	}
	rate_more(table, &sample, seconds, &total);
	add_row(table, &total);
	add_library(table);
	if (swap->count)
		add_swap(table, &sample);
	table->last_ns = now_ns;
	print_table(table->text);
}

void table_tick(struct table *table, uint64_t now_ns)
{
	uint64_t period = print_is_live() ? SECOND : 5 * SECOND;

	if (!table->runner->options->quiet && now_ns - table->last_ns >= period)
		show(table, now_ns);
}

void table_end(struct table *table)
{
	if (!table->runner->options->quiet)
		show(table, runner_now_ns());
	print_table_end();
}
