/* SPDX-License-Identifier: BSD-2-Clause */
/* All numbers as one JSON object. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/json_file.h"
#include "estimate.h"
#include "estimate_progress.h"

static void add_options(cJSON *root, const struct options *o)
{
	cJSON *object = json_need(cJSON_AddObjectToObject(root, "options"));

	json_number(object, "resident_percent", o->resident_percent);
	json_number(object, "change_percent", ESTIMATE_CHANGE_PERCENT);
	json_number(object, "sample_percent", o->sample_percent);
	json_number(object, "seed", (double)o->seed);
}

static void add_tally(cJSON *object, const struct tally *t, const struct options *o)
{
	char name[32];

	json_number(object, "pages", (double)t->pages);
	for (int k = 0; k < KINDS; k++) {
		snprintf(name, sizeof(name), "%s_pages", kind_names[k]);
		json_number(object, name, (double)t->kind[k]);
	}
	json_number(object, "stored_bytes", (double)t->stored_bytes);
	json_number(object, "metadata_bytes", (double)t->metadata_bytes);
	json_number(object, "cpu_save_ns", (double)t->cpu_save_ns);
	json_number(object, "cpu_work_ns", (double)t->cpu_work_ns);
	json_number(object, "stored_share", tally_stored_share(t));
	json_number(object, "safe_ratio", 1 / tally_need(t, o));
}

static void add_probe(cJSON *object, const struct probe *p)
{
	cJSON *codecs = json_need(cJSON_AddObjectToObject(object, "codecs"));

	json_number(codecs, "tried_pages", (double)p->pages);
	if (!p->pages)
		return;
	json_number(codecs, "lz4_ratio", (double)p->pages * VMEM_PAGE_SIZE / (double)p->lz4_bytes);
	json_number(codecs, "zstd_ratio",
		    (double)p->pages * VMEM_PAGE_SIZE / (double)p->zstd_bytes);
}

static void add_vm(cJSON *array, const struct vm *vm, const struct options *o)
{
	cJSON *object = json_append(array, cJSON_CreateObject());

	json_text(object, "name", vm->name);
	json_text(object, "kind", vm->is_process ? "process" : "image");
	json_number(object, "memory_pages", (double)vm->memory_pages);
	json_number(object, "untouched_pages", (double)vm->untouched_pages);
	json_number(object, "swapped_pages", (double)vm->swapped_pages);
	json_number(object, "unreadable_pages", (double)vm->unreadable_pages);
	add_tally(object, &vm->tally, o);
	add_probe(object, &vm->probe);
}

static cJSON *make(const struct estimate *e)
{
	const struct options *o = e->options;
	cJSON *root = json_need(cJSON_CreateObject()), *vms, *object;

	add_options(root, o);
	vms = json_need(cJSON_AddArrayToObject(root, "vms"));
	for (uint32_t i = 0; i < o->vm_count; i++)
		add_vm(vms, &e->vms[i], o);
	object = json_need(cJSON_AddObjectToObject(root, "total"));
	add_tally(object, &e->total, o);
	add_probe(object, &e->probe);
	if (o->vm_count > 1) {
		object = json_need(cJSON_AddObjectToObject(root, "shared"));
		add_tally(object, &e->shared, o);
		json_number(object, "equal_across_pages", (double)estimate_equal_across(e));
	}
	json_number(root, "store_fixed_bytes", (double)e->fixed_bytes);
	return root;
}

int json_check(const char *path)
{
	int error = json_file_check(path);

	if (error)
		say_error("%s cannot be written: %s.", path, strerror(error));
	return error ? -1 : 0;
}

int json_write(const struct estimate *e, const char *path)
{
	cJSON *root;
	int error;

	json_begin();
	root = make(e);
	error = json_file_write(path, root);
	cJSON_Delete(root);
	if (error == ENOMEM)
		say_error("Out of memory for --json %s: it was not written.", path);
	else if (error)
		say_error("--json %s cannot be written: %s.", path, strerror(error));
	return error ? -1 : 0;
}
