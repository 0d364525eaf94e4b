/* SPDX-License-Identifier: BSD-2-Clause */
/* The text of a hand-over, by cJSON: see pager_hand_over.h. */
#include <cjson/cJSON.h>

#include "pager_hand_over.h"

#define MOST_NUMBER 9007199254740992.0 /* 2^53: up to there doubles are exact */

/* A whole number. 0, or -1. */
static int number(const cJSON *object, const char *name, uint64_t *ret)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

	if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) || item->valuedouble > MOST_NUMBER)
		return -1;
	*ret = (uint64_t)item->valuedouble;
	return (double)*ret == item->valuedouble ? 0 : -1;
}

static const char *parse_range(struct hand_over_range *r, const cJSON *object,
			       uint64_t memory_bytes)
{
	uint64_t page_bytes = VMEM_PAGE_SIZE;

	if (!cJSON_IsObject(object))
		return "a range is no object";
	if (number(object, "base_host_virt_addr", &r->base) || number(object, "size", &r->bytes) ||
	    number(object, "offset", &r->offset))
		return "a range without base_host_virt_addr, size or offset";
	if (number(object, "page_size", &page_bytes) && cJSON_HasObjectItem(object, "page_size"))
		return "a page_size that is no number";
	if (!cJSON_HasObjectItem(object, "page_size") &&
	    number(object, "page_size_kib", &page_bytes) &&
	    cJSON_HasObjectItem(object, "page_size_kib"))
		return "a page_size_kib that is no number";
	if (page_bytes != VMEM_PAGE_SIZE)
		return "huge pages cannot be served";
	if ((r->base | r->bytes | r->offset) % VMEM_PAGE_SIZE || !r->base || !r->bytes)
		return "a range that does not begin and end with a page";
	if (r->bytes > memory_bytes || r->offset > memory_bytes - r->bytes)
		return "a range that is not in the memory file";
	return NULL;
}

const char *hand_over_parse(struct hand_over *ret, const char *text, size_t bytes,
			    uint64_t memory_bytes)
{
	const char *end = NULL, *why = NULL;
	cJSON *list = cJSON_ParseWithLengthOpts(text, bytes, &end, 0), *item;

	ret->count = 0;
	while (list && end < text + bytes && (*end == ' ' || *end == '\n' || *end == '\r'))
		end++;
	if (!list || end != text + bytes)
		why = "no JSON, or more than one value";
	else if (!cJSON_IsArray(list) || !cJSON_GetArraySize(list))
		why = "no list of ranges";
	else if (cJSON_GetArraySize(list) > (int)VMEM_FOREIGN_RANGES_MAX)
		why = "too many ranges";
	else
		cJSON_ArrayForEach(item, list)
		{
			why = parse_range(&ret->range[ret->count++], item, memory_bytes);
			if (why)
				break;
		}
	cJSON_Delete(list);
	return why;
}
