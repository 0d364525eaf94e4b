/* SPDX-License-Identifier: BSD-2-Clause */
#include "common/json_file.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static bool incomplete; /* one thread */

void json_begin(void)
{
	incomplete = false;
}

cJSON *json_need(cJSON *item)
{
	incomplete |= item == NULL;
	return item;
}

bool json_is_whole(void)
{
	return !incomplete;
}

void json_number(cJSON *object, const char *name, double value)
{
	json_need(cJSON_AddNumberToObject(object, name, value));
}

void json_text(cJSON *object, const char *name, const char *value)
{
	json_need(cJSON_AddStringToObject(object, name, value));
}

cJSON *json_append(cJSON *array, cJSON *item)
{
	if (json_need(item) && cJSON_AddItemToArray(array, item))
		return item;
	incomplete = true;
	cJSON_Delete(item);
	return NULL;
}

int json_file_check(const char *path)
{
	char folder[PATH_MAX];
	struct stat st;
	bool there = stat(path, &st) == 0;

	snprintf(folder, sizeof(folder), "%s", path);
	if (there && S_ISDIR(st.st_mode))
		return EISDIR;
	return access(there ? path : dirname(folder), W_OK) == 0 ? 0 : errno;
}

static int write_text(const char *path, const char *text)
{
	FILE *file = fopen(path, "we");
	bool good = file && fputs(text, file) >= 0 && fputc('\n', file) != EOF;
	struct stat st;
	int error = good ? 0 : errno;

	if (file && fclose(file) != 0 && good)
		error = errno;
	if (error && file && stat(path, &st) == 0 && S_ISREG(st.st_mode))
		(void)unlink(path);
	return error;
}

int json_file_write(const char *path, const cJSON *root)
{
	char *text = incomplete ? NULL : cJSON_Print(root);
	int error = text ? write_text(path, text) : ENOMEM;

	cJSON_free(text);
	return error;
}
