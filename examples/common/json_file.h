/* SPDX-License-Identifier: BSD-2-Clause */
/* One JSON object, in a file or a text, by cJSON. A failed allocation inside it leaves something out; what was asked for
 * is noted here, so that no object is written or sent that is not whole. One thread. */
#ifndef JSON_FILE_H
#define JSON_FILE_H
#include <cjson/cJSON.h>
#include <stdbool.h>

/* Another object begins: nothing of it is missing. */
void json_begin(void);

/* The item itself. NULL: something is missing. */
cJSON *json_need(cJSON *item);

/* Whether nothing is missing of the object that has begun last. */
bool json_is_whole(void);

void json_number(cJSON *object, const char *name, double value);
void json_text(cJSON *object, const char *name, const char *value);

/* At the end of an array, which owns it from now on, whatever happens. NULL if it is missing. */
cJSON *json_append(cJSON *array, cJSON *item);

/* Whether `path` can be written later. Returns 0, or an errno that says why not. */
int json_file_check(const char *path);

/* A file that is not whole does not stay. Returns 0, an errno, or ENOMEM: nothing was written. */
int json_file_write(const char *path, const cJSON *root);

#endif
