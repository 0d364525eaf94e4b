/* SPDX-License-Identifier: BSD-2-Clause */
#include "guest_pages.h"
#include "machine.h"
#include "real_pages.h"
#include "zram_peer.h"
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_GUESTS 2
#define FILE_GUEST_PAGES ((size_t)49152) /* 192 MiB */

/* Read from the start, so that no reading from the disk is measured. */
static int map_image(struct guest_pages *guests, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat status = { .st_size = 0 };
	void *memory = MAP_FAILED;

	if (fd >= 0 && fstat(fd, &status) == 0 && status.st_size >= (off_t)PAGE)
		memory = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE,
			      fd, 0);
	if (fd >= 0)
		close(fd);
	if (memory == MAP_FAILED) {
		fprintf(stderr, "bench: cannot use %s\n", path);
		return -EINVAL;
	}
	guests->pages[guests->guests] = memory;
	guests->count[guests->guests] = (size_t)status.st_size / PAGE;
	guests->total += guests->count[guests->guests++];
	return 0;
}

static int map_images(struct guest_pages *guests, const char *folder, int quick)
{
	char pattern[4096];
	int result = 0;
	size_t count;
	glob_t found;

	snprintf(pattern, sizeof(pattern), "%s/*.img", folder);
	if (glob(pattern, 0, NULL, &found) != 0) {
		fprintf(stderr, "bench: no *.img in %s: make some with bench/images.sh\n", folder);
		return -ENOENT;
	}
	count = quick ? (found.gl_pathc + 2) / 3 : found.gl_pathc;
	if (count > GUESTS_MAX)
		count = GUESTS_MAX;
	for (size_t i = 0; i < count && result == 0; i++)
		result = map_image(guests, found.gl_pathv[i]);
	globfree(&found);
	return result;
}

static int take_files(struct guest_pages *guests, int quick)
{
	const size_t each = quick ? FILE_GUEST_PAGES / 3 : FILE_GUEST_PAGES;
	struct real_pages pages;
	int result = real_pages_load(&pages, FILE_GUESTS * each, NULL);

	for (size_t i = 0; i < FILE_GUESTS && result == 0; i++) {
		guests->pages[i] = pages.bytes + i * (pages.count / FILE_GUESTS) * PAGE;
		guests->count[i] = pages.count / FILE_GUESTS;
		guests->total += guests->count[i];
		guests->guests++;
	}
	return result;
}

int guest_pages_load(struct guest_pages *guests, const char *images, int quick)
{
	int result;

	*guests = (struct guest_pages){ .guests = 0 };
	result = images ? map_images(guests, images, quick) : take_files(guests, quick);
	if (result == 0 && guests->total > ZRAM_PAGES) {
		fprintf(stderr, "bench: too many images: at most %zu MiB in all\n",
			ZRAM_PAGES * PAGE >> 20);
		result = -EFBIG;
	}
	return result;
}

const uint8_t *guest_page(const struct guest_pages *guests, size_t number)
{
	size_t i = 0;

	while (number >= guests->count[i])
		number -= guests->count[i++];
	return guests->pages[i] + number * PAGE;
}

void guest_pages_copy(const struct guest_pages *guests, uint8_t *to)
{
	for (size_t i = 0; i < guests->guests; to += guests->count[i++] * PAGE)
		memcpy(to, guests->pages[i], guests->count[i] * PAGE);
}

int guest_pages_equal(const struct guest_pages *guests, const uint8_t *pages)
{
	for (size_t i = 0; i < guests->guests; pages += guests->count[i++] * PAGE)
		if (memcmp(pages, guests->pages[i], guests->count[i] * PAGE) != 0)
			return 0;
	return 1;
}
