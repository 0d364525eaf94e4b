/* SPDX-License-Identifier: BSD-2-Clause */
/* All numbers as one JSON object, by cJSON. A failed allocation inside it leaves something out; what was asked
 * for is checked, so that no object is written that is not whole. */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "estimate.h"
#include "estimate_progress.h"

static bool incomplete; /* one thread */

static cJSON *need(cJSON *item)
{
	incomplete |= item == NULL;
	return item;
}

static void number(cJSON *object, const char *name, double value)
{
	need(cJSON_AddNumberToObject(object, name, value));
}

static void add_options(cJSON *root, const struct options *o)
{
	cJSON *object = need(cJSON_AddObjectToObject(root, "options"));

	number(object, "resident_percent", o->resident_percent);
	number(object, "change_percent", ESTIMATE_CHANGE_PERCENT);
	number(object, "sample_percent", o->sample_percent);
	number(object, "seed", (double)o->seed);
}

static void add_tally(cJSON *object, const struct tally *t, const struct options *o)
{
	char name[32];

	number(object, "pages", (double)t->pages);
	for (int k = 0; k < KINDS; k++) {
		snprintf(name, sizeof(name), "%s_pages", kind_names[k]);
		number(object, name, (double)t->kind[k]);
	}
	number(object, "stored_bytes", (double)t->stored_bytes);
	number(object, "metadata_bytes", (double)t->metadata_bytes);
	number(object, "stored_share", tally_stored_share(t));
	number(object, "safe_ratio", 1 / tally_need(t, o));
}

static void add_probe(cJSON *object, const struct probe *p)
{
	cJSON *codecs = need(cJSON_AddObjectToObject(object, "codecs"));

	number(codecs, "tried_pages", (double)p->pages);
	if (!p->pages)
		return;
	number(codecs, "lz4_ratio", (double)p->pages * VMEM_PAGE_SIZE / (double)p->lz4_bytes);
	number(codecs, "zstd_ratio", (double)p->pages * VMEM_PAGE_SIZE / (double)p->zstd_bytes);
}

static void add_vm(cJSON *array, const struct vm *vm, const struct options *o)
{
	cJSON *object = need(cJSON_CreateObject());

	if (!cJSON_AddItemToArray(array, object)) {
		incomplete = true;
		cJSON_Delete(object);
		return;
	}
	need(cJSON_AddStringToObject(object, "name", vm->name));
	need(cJSON_AddStringToObject(object, "kind", vm->is_process ? "process" : "image"));
	number(object, "memory_pages", (double)vm->memory_pages);
	number(object, "untouched_pages", (double)vm->untouched_pages);
	number(object, "swapped_pages", (double)vm->swapped_pages);
	number(object, "unreadable_pages", (double)vm->unreadable_pages);
	add_tally(object, &vm->tally, o);
	add_probe(object, &vm->probe);
}

static cJSON *make(const struct estimate *e)
{
	const struct options *o = e->options;
	cJSON *root = need(cJSON_CreateObject()), *vms, *object;

	add_options(root, o);
	vms = need(cJSON_AddArrayToObject(root, "vms"));
	for (uint32_t i = 0; i < o->vm_count; i++)
		add_vm(vms, &e->vms[i], o);
	object = need(cJSON_AddObjectToObject(root, "total"));
	add_tally(object, &e->total, o);
	add_probe(object, &e->probe);
	if (o->vm_count > 1) {
		object = need(cJSON_AddObjectToObject(root, "shared"));
		add_tally(object, &e->shared, o);
		number(object, "equal_across_pages", (double)estimate_equal_across(e));
	}
	number(root, "store_fixed_bytes", (double)e->fixed_bytes);
	return root;
}

int json_check(const char *path)
{
	char folder[PATH_MAX];
	struct stat st;
	bool there = stat(path, &st) == 0;

	snprintf(folder, sizeof(folder), "%s", path);
	if (there && S_ISDIR(st.st_mode))
		errno = EISDIR;
	else if (access(there ? path : dirname(folder), W_OK) == 0)
		return 0;
	say_error("%s cannot be written: %s.", path, strerror(errno));
	return -1;
}

/* A file that is not whole does not stay. */
static int write_file(const char *path, const char *json)
{
	FILE *file = fopen(path, "we");
	bool good = file && fputs(json, file) >= 0 && fputc('\n', file) != EOF;
	struct stat st;
	int error = good ? 0 : errno;

	if (file && fclose(file) != 0 && good)
		error = errno;
	if (!error)
		return 0;
	say_error("--json %s cannot be written: %s.", path, strerror(error));
	if (file && stat(path, &st) == 0 && S_ISREG(st.st_mode))
		(void)unlink(path);
	return -1;
}

int json_write(const struct estimate *e, const char *path)
{
	cJSON *root;
	char *json;
	int error = -1;

	incomplete = false;
	root = make(e);
	json = incomplete ? NULL : cJSON_Print(root);
	if (json)
		error = write_file(path, json);
	else
		say_error("Out of memory for --json %s: it was not written.", path);
	cJSON_free(json);
	cJSON_Delete(root);
	return error;
}
