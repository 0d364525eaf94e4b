/* SPDX-License-Identifier: BSD-2-Clause */
/* The text of a hand-over, by cJSON: see pager_hand_over.h. */
#include <cjson/cJSON.h>
#include <stdbool.h>

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

/* In which file it is: one of those that follow the userfaultfd, or none. */
static const char *parse_file(struct hand_over_range *r, const cJSON *object, uint32_t *ret_number)
{
	uint64_t n = 0;

	r->file_offset = 0;
	*ret_number = 0;
	if (!cJSON_HasObjectItem(object, "memfd"))
		return cJSON_HasObjectItem(object, "memfd_offset")
			       ? "a memfd_offset without a memfd"
			       : NULL;
	if (number(object, "memfd", &n) || !n || n > HAND_OVER_FILES_MAX)
		return "a memfd that is no number from 1 to 8";
	if (number(object, "memfd_offset", &r->file_offset))
		return "a memfd without memfd_offset";
	if (r->file_offset % VMEM_PAGE_SIZE)
		return "a memfd_offset that is not at a page";
	*ret_number = (uint32_t)n;
	return NULL;
}

static bool overlap_in_file(const struct hand_over_range *a, const struct hand_over_range *b)
{
	return a->file == b->file && a->file_offset < b->file_offset + b->bytes &&
	       b->file_offset < a->file_offset + a->bytes;
}

/* The last range is in file @number; so are those before it in one, or none of them. */
static const char *add_to_file(struct hand_over *h, uint32_t number, uint32_t *files)
{
	struct hand_over_range *r = &h->range[h->count - 1];

	if (h->count > 1 && !number != !*files)
		return "some ranges have a memfd, and others have none";
	if (!number)
		return NULL;
	r->file = number - 1;
	*files |= 1u << r->file;
	for (uint32_t i = 0; i + 1 < h->count; i++)
		if (overlap_in_file(&h->range[i], r))
			return "two ranges overlap in a memfd";
	return NULL;
}

static const char *count_files(struct hand_over *h, uint32_t files)
{
	while (files >> h->files)
		h->files++;
	return files & (files + 1) ? "a memfd that no range is in" : NULL;
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

static const char *parse_list(struct hand_over *h, const cJSON *list, uint64_t memory_bytes)
{
	uint32_t files = 0, number;
	const cJSON *item;

	cJSON_ArrayForEach(item, list)
	{
		struct hand_over_range *r = &h->range[h->count++];
		const char *why = parse_range(r, item, memory_bytes);

		if (!why)
			why = parse_file(r, item, &number);
		if (!why)
			why = add_to_file(h, number, &files);
		if (why)
			return why;
	}
	return count_files(h, files);
}

const char *hand_over_parse(struct hand_over *ret, const char *text, size_t bytes,
			    uint64_t memory_bytes)
{
	const char *end = NULL, *why = NULL;
	cJSON *list = cJSON_ParseWithLengthOpts(text, bytes, &end, 0);

	ret->count = 0;
	ret->files = 0;
	while (list && end < text + bytes && (*end == ' ' || *end == '\n' || *end == '\r'))
		end++;
	if (!list || end != text + bytes)
		why = "no JSON, or more than one value";
	else if (!cJSON_IsArray(list) || !cJSON_GetArraySize(list))
		why = "no list of ranges";
	else if (cJSON_GetArraySize(list) > (int)VMEM_FOREIGN_RANGES_MAX)
		why = "too many ranges";
	else
		why = parse_list(ret, list, memory_bytes);
	cJSON_Delete(list);
	return why;
}
