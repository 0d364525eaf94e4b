/* SPDX-License-Identifier: BSD-2-Clause */
/* The status that the back end tells: the whole of it or nothing, whichever allocation fails; and all that was not given
 * back. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <assert.h>
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "vhost/turns.h"

static struct turns t;
static uint64_t left; /* allocations of cJSON until one fails; 0: none does */

static void *allocate(size_t bytes)
{
	if (left && !--left)
		return NULL;
	return malloc(bytes);
}

static void each_allocation_fails(void)
{
	char *whole = vhost_status_text(&t.server), *text = NULL;
	uint64_t count = 0;

	assert(whole);
	do {
		assert(!text);
		left = ++count;
		text = vhost_status_text(&t.server);
	} while (!left);
	left = 0;
	assert(count > 60 && strcmp(text, whole) == 0);
	free(text);
	free(whole);
}

static uint64_t all_is_pinned(void *context, uint64_t gpa)
{
	(void)context;
	(void)gpa;
	return UINT64_MAX;
}

static double status_number(const char *name)
{
	char *text = vhost_status_text(&t.server);
	cJSON *o = cJSON_Parse(text);
	double value = cJSON_GetNumberValue(cJSON_GetObjectItem(o, name));

	cJSON_Delete(o);
	free(text);
	return value;
}

static void pinned(void)
{
	const struct vmem_discard_opts opts = { .size = sizeof(opts), .pinned = all_is_pinned };
	const struct vmem_discard_piece piece = { .size = sizeof(piece),
						  .bytes = TURNS_BYTES,
						  .kind = VMEM_DISCARD_FILE,
						  .fd = t.memory,
						  .block_bytes = TURNS_PAGE };
	const struct vmem_balloon_range range = { TURNS_FREE_AT, TURNS_PAGE, VMEM_BALLOON_DISCARD,
						  0 };
	vmem_discard **discard = &t.server.client.discard;

	assert(status_number("not_released_bytes") == 0);
	vmem_discard_free(*discard);
	assert(vmem_discard_new(discard, &opts) == 0 && vmem_discard_add(*discard, &piece) == 0);
	t.map[TURNS_FREE_AT] = 1;
	assert(vmem_discard_ranges(*discard, &range, 1, NULL) == -VMEM_EBUSY);
	assert(status_number("not_released_bytes") == TURNS_PAGE);
}

int main(void)
{
	cJSON_Hooks hooks = { .malloc_fn = allocate, .free_fn = free };

	cJSON_InitHooks(&hooks);
	turns_begin(&t);
	turns_set_up(&t, 0);
	each_allocation_fails();
	pinned();
	turns_end(&t);
	return 0;
}
