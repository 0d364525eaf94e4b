/* SPDX-License-Identifier: BSD-2-Clause */
/* The results as one JSON object. */
#include "runner_result.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/json_file.h"
#include "runner_alloc.h"
#include "runner_balloon.h"
#include "runner_print.h"
#include "runner_sample.h"
#include "runner_vcpu.h"

static void number(cJSON *object, const char *name, uint64_t value)
{
	json_number(object, name, (double)value);
}

/* More bits than a double holds. */
static void hex(cJSON *object, const char *name, uint64_t value)
{
	char digits[24];

	snprintf(digits, sizeof(digits), "%#llx", (unsigned long long)value);
	json_text(object, name, digits);
}

static void add_options(cJSON *root, const struct runner *runner)
{
	const struct runner_options *o = runner->options;
	cJSON *object = json_need(cJSON_AddObjectToObject(root, "options"));
	cJSON *images = json_need(cJSON_AddArrayToObject(object, "images"));

	number(object, "vms", o->vms);
	number(object, "vcpus", o->vcpus);
	number(object, "mem_bytes", o->mem_bytes);
	number(object, "budget_bytes", o->budget_bytes);
	number(object, "attach", o->attach);
	number(object, "seconds", o->seconds);
	hex(object, "seed", o->seed);
	json_number(object, "skew", o->skew);
	number(object, "write_percent", o->write_percent);
	json_text(object, "backend", runner->backend == BACKEND_KVM ? "kvm" : "thread");
	json_text(object, "fault_way", o->fault_way == VMEM_FAULT_SIGBUS ? "sigbus" : "thread");
	json_text(object, "sharing", o->sharing == VMEM_STORE_SHARE_GROUP ? "group" : "vm");
	json_text(object, "recompress", o->as_saved ? "off" : "on");
	number(object, "recompress_per_second", o->recompress_per_second);
	json_text(object, "swap",
		  o->swap.count == 0 ? "none"
		  : o->swap.plain    ? "plain"
				     : "enciphered");
	number(object, "balloon_bytes", o->balloon_pages << GUEST_PAGE_SHIFT);
	number(object, "balloon_bytes_per_second", o->balloon_rate << GUEST_PAGE_SHIFT);
	json_text(object, "balloon_unit", o->balloon_ranges ? "range" : "page");
	json_text(object, "allocator", o->jemalloc ? "jemalloc" : "libc");
	for (uint32_t i = 0; i < o->image_count; i++)
		json_append(images, cJSON_CreateString(o->images[i]));
}

static void add_image(cJSON *vm_object, const struct image_counts *c)
{
	cJSON *object = json_need(cJSON_AddObjectToObject(vm_object, "image"));

	number(object, "pages", c->pages);
	number(object, "from_image_file", c->file);
	number(object, "executable", c->made[CORPUS_EXECUTABLE]);
	number(object, "library", c->made[CORPUS_LIBRARY]);
	number(object, "text", c->made[CORPUS_TEXT]);
	number(object, "repeated", c->repeated);
	number(object, "zero", c->zero);
	number(object, "other_same_filled", c->same);
}

static void add_region(cJSON *vm_object, const struct vmem_region_metrics *m)
{
	cJSON *object = json_need(cJSON_AddObjectToObject(vm_object, "region"));

#define ADD(field) number(object, #field, m->field)
	ADD(pinned_pages);
	ADD(staging_copies);
	ADD(faults);
	ADD(faults_zero);
	ADD(faults_staged);
	ADD(faults_stored);
	ADD(faults_source);
	ADD(faults_write);
	ADD(faults_redundant);
	ADD(prefetched);
	ADD(stalls);
	ADD(stall_ns);
	ADD(lost);
	ADD(fault_p50_ns);
	ADD(fault_p99_ns);
	ADD(fault_max_ns);
	ADD(taken_run);
	ADD(taken_scattered);
	ADD(taken_clean);
	ADD(taken_undone);
	ADD(unmovable);
	ADD(saved);
	ADD(rejected);
	ADD(discarded);
	ADD(huge_bytes);
	ADD(huge_collapsed);
	ADD(huge_split);
	ADD(huge_failed);
#undef ADD
}

static void add_account(cJSON *parent, const struct vmem_store_account *a)
{
	cJSON *object = json_need(cJSON_AddObjectToObject(parent, "store"));

#define ADD(field) number(object, #field, a->field)
	ADD(pages);
	ADD(pages_same);
	ADD(pages_compressed);
	ADD(pages_raw);
	ADD(pages_equal);
	ADD(pages_lz4);
	ADD(pages_zstd);
	ADD(pages_delta);
	ADD(logical_bytes);
	ADD(physical_bytes);
	ADD(metadata_bytes);
	ADD(segment_bytes);
	ADD(saves);
	ADD(loads);
	ADD(rejects);
	ADD(corrupt);
	ADD(cpu_save_ns);
	ADD(cpu_load_ns);
	ADD(cpu_work_ns);
#undef ADD
}

static void add_way(cJSON *balloon, const char *name, const struct balloon_way *way)
{
	cJSON *object = json_need(cJSON_AddObjectToObject(balloon, name));

	number(object, "asked", way->asked_ns != 0);
	number(object, "done", way->done_ns != 0);
	number(object, "ns", way->done_ns ? way->done_ns - way->begun_ns : 0);
	number(object, "since_asked_ns", way->done_ns ? way->done_ns - way->asked_ns : 0);
}

static void add_balloon(cJSON *vm_object, struct balloon *b)
{
	cJSON *object = json_need(cJSON_AddObjectToObject(vm_object, "balloon"));
	struct balloon_sample s;

	balloon_sample(b, &s);
	number(object, "asked_bytes", b->vm->runner->options->balloon_pages << GUEST_PAGE_SHIFT);
	number(object, "most_bytes", b->pages_most << GUEST_PAGE_SHIFT);
	number(object, "bytes", s.progress.pages << GUEST_PAGE_SHIFT);
	number(object, "actual_bytes", s.progress.actual << GUEST_PAGE_SHIFT);
	add_way(object, "inflate", &b->in);
	add_way(object, "deflate", &b->out);
	number(object, "released_bytes", s.discard.inflated.released + s.discard.retried.released);
	number(object, "pinned_bytes", s.discard.inflated.pinned);
	number(object, "failed_bytes", s.discard.inflated.failed);
	number(object, "returned_bytes", s.discard.returned);
	number(object, "guest_free_bytes", s.guest.values[VMEM_BALLOON_FREE]);
	number(object, "guest_total_bytes", s.guest.values[VMEM_BALLOON_TOTAL]);
	number(object, "guest_available_bytes", s.guest.values[VMEM_BALLOON_AVAILABLE]);
	number(object, "reported_released_bytes", s.discard.reported.released);
	number(object, "stalls", b->stalls);
	number(object, "leaks", b->leaks);
	number(object, "missed", b->vm->params->missed);
	number(object, "bad_buffers", b->bad_buffers);
#define ADD(field) number(object, #field, s.counters.field)
	ADD(buffers);
	ADD(inflated);
	ADD(deflated);
	ADD(reported);
	ADD(stats);
	ADD(resets);
	ADD(outside);
	ADD(inflated_twice);
	ADD(not_inflated);
	ADD(free_inflated);
	ADD(malformed);
	ADD(unexpected);
	ADD(late_writes);
#undef ADD
}

static void add_wrong(cJSON *vm_object, const struct guest_wrong *wrong)
{
	cJSON *object = json_need(cJSON_AddObjectToObject(vm_object, "wrong"));

	hex(object, "frame", wrong->gfn);
	hex(object, "expected_sum", wrong->expected_sum);
	hex(object, "found_sum", wrong->found_sum);
	number(object, "is_zero", wrong->is_zero);
	number(object, "writes", wrong->version);
}

static void add_vm(cJSON *vms, struct vm *vm)
{
	cJSON *object = json_append(vms, cJSON_CreateObject());
	const struct vcpu *vcpu;
	enum vcpu_end end = vm_end(vm, &vcpu);
	struct sample sample;

	sample_vm(vm, &sample);
	json_text(object, "workload", runner_workload_names[vm->workload]);
	json_text(object, "memory", vm->mapped ? "attached" : "allocated");
	json_text(object, "end", vm_end_names[end]);
	number(object, "pages", vm_pages(vm) - vm_first_page(vm));
	number(object, "pages_verified", sample.progress.verified);
	number(object, "pages_left_out", sample.progress.left_out);
	number(object, "accesses", sample.progress.accesses);
	number(object, "writes", sample.progress.writes);
	number(object, "resident_bytes", sample.resident_bytes);
	number(object, "staged_bytes", sample.staged_bytes);
	number(object, "stored_bytes", sample.stored_bytes);
	if (end == END_WRONG)
		add_wrong(object, &vm->params->vcpu[vcpu->index].wrong);
	if (end == END_POISONED)
		hex(object, "poisoned_frame",
		    (vcpu->poisoned ? vcpu->poison_gpa : atomic_load(&vm->lost_gpa)) >>
			    GUEST_PAGE_SHIFT);
	add_image(object, &vm->image);
	add_region(object, &sample.region);
	add_account(object, &sample.account);
	if (vm->balloon)
		add_balloon(object, vm->balloon);
}

static void add_manager(cJSON *root, struct runner *runner)
{
	cJSON *object = json_need(cJSON_AddObjectToObject(root, "manager"));
	struct vmem_manager_metrics m = { .size = sizeof(m) };
	struct vmem_store_account account = { .size = sizeof(account) };

	(void)vmem_manager_get_metrics(runner->manager, &m);
	(void)vmem_manager_get_account(runner->manager, &account);
#define ADD(field) number(object, #field, m.field)
	ADD(budget_bytes);
	ADD(used_bytes);
	ADD(resident_bytes);
	ADD(staging_bytes);
	ADD(pool_bytes);
	ADD(metadata_bytes);
	ADD(reserve_bytes);
	ADD(stalls);
	ADD(stall_ns);
	ADD(reclaim_ns);
	ADD(reclaim_rounds);
	ADD(stuck);
	ADD(run_ns_per_page);
	ADD(scattered_ns_per_page);
	ADD(kernel_features);
#undef ADD
	add_account(object, &account);
}

int result_check_json(const char *path)
{
	int error = json_file_check(path);

	if (!error)
		return 0;
	print_error("--json %s cannot be written: %s.", path, strerror(error));
	return -VMEM_EINVAL;
}

int result_write_json(struct runner *runner, enum runner_exit status, const char *path)
{
	cJSON_Hooks hooks = { .malloc_fn = alloc_new, .free_fn = alloc_free };
	cJSON *root;
	cJSON *vms;
	int error;

	cJSON_InitHooks(&hooks);
	json_begin();
	root = json_need(cJSON_CreateObject());
	number(root, "exit_status", (uint64_t)status);
	json_number(root, "run_seconds", (double)(runner_now_ns() - runner->start_ns) / 1e9);
	add_options(root, runner);
	vms = json_need(cJSON_AddArrayToObject(root, "vms"));
	for (uint32_t i = 0; i < runner->options->vms; i++)
		add_vm(vms, &runner->vms[i]);
	add_manager(root, runner);
	swap_add_json(root, &runner->swap, runner->manager);
	error = json_file_write(path, root);
	cJSON_Delete(root);
	if (error == ENOMEM) {
		print_error("Out of memory for --json %s: it was not written.", path);
		return -VMEM_ENOMEM;
	}
	if (error)
		print_error("--json %s cannot be written: %s.", path, strerror(error));
	return error ? -VMEM_EIO : 0;
}
