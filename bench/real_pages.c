/* SPDX-License-Identifier: BSD-2-Clause */
#include "real_pages.h"
#include "machine.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <lz4.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXTRA ((size_t)2048) /* most pages behind the mixture */
#define RUN ((size_t)64)     /* pages taken from one place of an image */
#define FILE_PAGES 256       /* at most, of one file */
#define ENOUGH ((size_t)1024)

static struct real_pages *walked; /* nftw() hands no context to its callback */

static enum page_class classify(const uint8_t *page)
{
	char packed[4096];
	int bytes;

	if (memcmp(page, page + 8, PAGE - 8) == 0)
		return PAGE_SAME;
	bytes = LZ4_compress_fast((const char *)page, packed, (int)PAGE, (int)PAGE - 1, 1);
	return bytes == 0 ? PAGE_INCOMPRESSIBLE : bytes > 3072 ? PAGE_MIDDLING : PAGE_COMPRESSIBLE;
}

/* The page at bytes + total * PAGE is in place. */
static void add_page(struct real_pages *pages)
{
	enum page_class found = classify(pages->bytes + pages->total * PAGE);

	pages->class_of[pages->total++] = (uint8_t)found;
	pages->of_class[found]++;
}

static void add_zero_page(struct real_pages *pages)
{
	memset(pages->bytes + pages->total * PAGE, 0, PAGE);
	add_page(pages);
}

/* Runs from all over all images, so that each guest has its share. */
static int load_images(struct real_pages *pages, size_t count, const char *folder)
{
	char pattern[4096];
	size_t of_each, have = 0;
	glob_t found;

	snprintf(pattern, sizeof(pattern), "%s/*.img", folder);
	if (glob(pattern, 0, NULL, &found) != 0) {
		fprintf(stderr, "bench: no *.img in %s: make some with bench/images.sh\n", folder);
		return -ENOENT;
	}
	of_each = (count / found.gl_pathc + RUN) / RUN * RUN;
	for (size_t i = 0; i < found.gl_pathc; i++) {
		int fd = open(found.gl_pathv[i], O_RDONLY | O_CLOEXEC);
		struct stat status = { .st_size = 0 };

		if (fd < 0 || fstat(fd, &status) != 0 || status.st_size < (off_t)(RUN * PAGE)) {
			fprintf(stderr, "bench: cannot use %s\n", found.gl_pathv[i]);
			globfree(&found);
			if (fd >= 0)
				close(fd);
			return -EINVAL;
		}
		for (size_t n = 0; n < of_each && have < count; n++) {
			size_t runs = of_each / RUN, in_image = (size_t)status.st_size / PAGE / RUN;
			size_t page = n / RUN * in_image / runs * RUN + n % RUN;

			if (pread(fd, pages->bytes + pages->total * PAGE, PAGE,
				  (off_t)(page * PAGE)) != (ssize_t)PAGE)
				break;
			add_page(pages);
			have++;
		}
		close(fd);
	}
	globfree(&found);
	return 0;
}

static int add_file(const char *path, const struct stat *status, int type, struct FTW *place)
{
	size_t most = (size_t)status->st_size / PAGE;
	int fd;

	(void)place;
	if (type != FTW_F || most < 8)
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	for (size_t n = 0; fd >= 0 && n < most && n < FILE_PAGES; n++) {
		if (walked->total == walked->count)
			break;
		if (walked->total / 16 % 10 < 3) {
			add_zero_page(walked);
			continue;
		}
		if (read(fd, walked->bytes + walked->total * PAGE, PAGE) != (ssize_t)PAGE)
			break;
		add_page(walked);
	}
	if (fd >= 0)
		close(fd);
	return walked->total == walked->count;
}

static int add_incompressible(const char *path, const struct stat *status, int type,
			      struct FTW *place)
{
	const char *end = strrchr(path, '.');
	int fd;

	(void)place;
	if (type != FTW_F || !end || status->st_size < 4 * (off_t)PAGE ||
	    (strcmp(end, ".gz") != 0 && strcmp(end, ".xz") != 0 && strcmp(end, ".png") != 0 &&
	     strcmp(end, ".deb") != 0))
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && walked->total < walked->count + EXTRA) {
		uint8_t *page = walked->bytes + walked->total * PAGE;

		if (read(fd, page, PAGE) != (ssize_t)PAGE)
			break;
		if (classify(page) == PAGE_INCOMPRESSIBLE)
			add_page(walked);
	}
	if (fd >= 0)
		close(fd);
	return walked->of_class[PAGE_INCOMPRESSIBLE] >= ENOUGH ||
	       walked->total == walked->count + EXTRA;
}

static void walk(struct real_pages *pages,
		 int (*visit)(const char *, const struct stat *, int, struct FTW *))
{
	const char *folders[] = { "/usr/bin", "/usr/lib", "/usr/share", "/var/cache/apt" };
	int done = 0;

	walked = pages;
	for (size_t i = 0; !done && i < sizeof(folders) / sizeof(*folders); i++)
		done = nftw(folders[i], visit, 32, FTW_PHYS) > 0;
}

int real_pages_load(struct real_pages *pages, size_t count, const char *images)
{
	int result = 0;

	*pages = (struct real_pages){ .count = count };
	pages->bytes = machine_map((count + EXTRA) * PAGE);
	pages->class_of = malloc(count + EXTRA);
	if (!pages->bytes || !pages->class_of)
		return -ENOMEM;
	if (images)
		result = load_images(pages, count, images);
	else
		walk(pages, add_file);
	pages->count = pages->total;
	if (result == 0 && pages->of_class[PAGE_INCOMPRESSIBLE] < ENOUGH)
		walk(pages, add_incompressible);
	if (pages->of_class[PAGE_SAME] == 0)
		add_zero_page(pages);
	for (int i = 0; i < PAGE_CLASSES && result == 0; i++) {
		if (pages->of_class[i] == 0 && i != PAGE_MIDDLING) {
			fprintf(stderr, "bench: found no page of class %d\n", i);
			result = -ENOENT;
		}
	}
	return result;
}

void real_pages_pick(const struct real_pages *pages, enum page_class class_wanted, uint8_t *to,
		     size_t count)
{
	for (size_t from = 0, done = 0; done < count; from = (from + 1) % pages->total) {
		if (pages->class_of[from] != class_wanted)
			continue;
		memcpy(to + done * PAGE, pages->bytes + from * PAGE, PAGE);
		done++;
	}
}

void real_pages_mix(const struct real_pages *pages, uint8_t *to, size_t count)
{
	for (size_t i = 0; i < count; i++)
		memcpy(to + i * PAGE, pages->bytes + i % pages->count * PAGE, PAGE);
}

void real_pages_mix_compressible(const struct real_pages *pages, uint8_t *to, size_t count)
{
	for (size_t i = 0, from = 0; i < count; i++, from++) {
		while (pages->class_of[from % pages->count] > PAGE_COMPRESSIBLE)
			from++;
		memcpy(to + i * PAGE, pages->bytes + from % pages->count * PAGE, PAGE);
	}
}
