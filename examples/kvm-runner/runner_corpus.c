/* SPDX-License-Identifier: BSD-2-Clause */
/* See the header. Walks a few folders in the order of names; a class ends at FILES_MOST files. Files
 * are not looked at: each that is costs the kernel memory, which counts as the runner's. */
#include "runner_corpus.h"

#include <fts.h>
#include <string.h>

#include <vmem/common.h>

#include "runner_alloc.h"

#define FILES_MOST 4096u

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int make_room(struct corpus_list *list, uint32_t name_bytes)
{
	if (list->count == list->room) {
		uint32_t room = list->room ? list->room * 4 : 512;
		uint32_t *at = alloc_grow(list->at, list->count * sizeof(*at), room * sizeof(*at));

		if (!at)
			return -VMEM_ENOMEM;
		list->at = at;
		list->room = room;
	}
	if (list->names_bytes + name_bytes > list->names_room) {
		uint32_t room = (list->names_room + name_bytes) * 4 + 16384;
		char *names = alloc_grow(list->names, list->names_bytes, room);

		if (!names)
			return -VMEM_ENOMEM;
		list->names = names;
		list->names_room = room;
	}
	return 0;
}

static int add(struct corpus_list *list, const char *name)
{
	uint32_t bytes = (uint32_t)strlen(name) + 1;
	int error = make_room(list, bytes);

	if (error)
		return error;
	memcpy(list->names + list->names_bytes, name, bytes);
	list->at[list->count++] = list->names_bytes;
	list->names_bytes += bytes;
	return 0;
}

/* Folders of libraries hold other things, too. Whether it is a regular file is seen when it is opened. */
static bool is_wanted(enum corpus_class class, const FTSENT *entry)
{
	if (entry->fts_info != FTS_NSOK && entry->fts_info != FTS_F)
		return false;
	return class != CORPUS_LIBRARY || strstr(entry->fts_name, ".so");
}

static int walk(struct corpus_list *list, enum corpus_class class, char *const *folders, int depth)
{
	FTS *fts = fts_open(folders, FTS_PHYSICAL | FTS_NOCHDIR | FTS_NOSTAT, by_name);
	FTSENT *entry;
	int error = 0;

	if (!fts)
		return -VMEM_ENOMEM;
	while (!error && list->count < FILES_MOST && (entry = fts_read(fts)) != NULL) {
		if (entry->fts_info == FTS_D && entry->fts_level >= depth)
			fts_set(fts, entry, FTS_SKIP);
		else if (is_wanted(class, entry))
			error = add(list, entry->fts_path);
	}
	fts_close(fts);
	return error;
}

int corpus_find(struct corpus *corpus)
{
	static const struct {
		const char *folders[4];
		int depth;
	} places[CORPUS_CLASSES] = {
		[CORPUS_EXECUTABLE] = { { "/usr/bin", "/usr/sbin", NULL }, 1 },
		[CORPUS_LIBRARY] = { { "/usr/lib", "/usr/lib64", NULL }, 2 },
		[CORPUS_TEXT] = { { "/usr/include", "/usr/share/perl", "/usr/share/doc", NULL },
				  4 },
	};
	int error = 0;

	*corpus = (struct corpus){ 0 };
	for (uint32_t i = 0; i < CORPUS_CLASSES && !error; i++)
		error = walk(&corpus->list[i], (enum corpus_class)i,
			     (char *const *)(uintptr_t)places[i].folders, places[i].depth);
	if (error)
		corpus_free(corpus);
	return error;
}

void corpus_free(struct corpus *corpus)
{
	for (uint32_t i = 0; i < CORPUS_CLASSES; i++) {
		alloc_free(corpus->list[i].names);
		alloc_free(corpus->list[i].at);
	}
	*corpus = (struct corpus){ 0 };
}

bool corpus_belongs(enum corpus_class class, const char *page)
{
	if (class == CORPUS_TEXT)
		return memchr(page, 0, VMEM_PAGE_SIZE) == NULL;
	return memcmp(page, "\177ELF", 4) == 0;
}
