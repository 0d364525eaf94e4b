/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory images. A made image is laid out in runs as real memory is: parts of files behind each
 * other, same-filled pages in runs of random length.
 *
 * Files are read past the page cache, where they would count as memory of the runner; on a file system
 * that cannot do that, what a file left in the cache is dropped when it is closed.
 * One thread. */
#define _GNU_SOURCE
#include "runner_image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmem/codec.h>
#include <vmem/common.h>

#include "runner_alloc.h"
#include "runner_print.h"
#include "common/split_random.h"
#include "common/units.h"

#define PAGE VMEM_PAGE_SIZE
#define SAME_PERCENT 30u
#define BUFFER_PAGES 32u
#define KINDS (CORPUS_CLASSES + 1u) /* the last is: same-filled */
#define KIND_SAME CORPUS_CLASSES

/* One class of files, being read in an order of this image's own. */
struct reader {
	uint32_t *order; /* numbers of files in the corpus, shuffled */
	uint32_t next;   /* index in order of the file that comes next */
	int fd;          /* -1: none open */
	off_t offset;    /* of what comes behind the buffer */
	char *buffer;    /* BUFFER_PAGES pages */
	uint32_t filled; /* whole pages in it */
	uint32_t taken;  /* of them handed out */
	bool again;      /* all files were used: from now on pages repeat */
	bool none;       /* no file has a page: another class stands in */
};

struct image {
	const char *path; /* of an image file; NULL: made */
	int fd;
	uint64_t pages;
	uint64_t done;
	struct image_counts counts;

	const struct corpus *corpus;
	struct reader reader[CORPUS_CLASSES];
	uint64_t random;
	uint64_t left[KINDS]; /* pages of each kind still to come */
	uint32_t run_kind;
	uint64_t run_left; /* pages left in this run */
	uint64_t run_word; /* same-filled: the word */
};

static int bad_image(const char *path, const char *why, const char *remedy)
{
	print_error("Image %s: %s. %s", path, why, remedy);
	return -VMEM_EINVAL;
}

/* Past the page cache where the file system can. Does not wait for a pipe's other end. */
static int open_file(const char *path, int flags)
{
	int fd;

	flags |= O_RDONLY | O_CLOEXEC | O_NONBLOCK;
	fd = open(path, flags | O_DIRECT);
	return fd < 0 && errno == EINVAL ? open(path, flags) : fd;
}

/* Some file systems find out only at the first read that they cannot go past the cache. */
static bool use_cache(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags >= 0 && flags & O_DIRECT && fcntl(fd, F_SETFL, flags & ~O_DIRECT) == 0;
}

static ssize_t read_at(int fd, void *buffer, size_t bytes, off_t offset)
{
	ssize_t got;

	do
		got = pread(fd, buffer, bytes, offset);
	while (got < 0 && (errno == EINTR || (errno == EINVAL && use_cache(fd))));
	return got;
}

static void close_file(int fd)
{
	if (fd < 0)
		return;
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
}

static int check_file(const char *path, int fd, uint64_t mem_bytes, uint64_t *ret_bytes)
{
	static const char make[] =
		"Make images with bench/images.sh, or leave --image out: then one is "
		"made of files of this machine.";
	struct stat st;
	char why[120];

	if (fd < 0 || fstat(fd, &st) != 0)
		return bad_image(path, strerror(errno), make);
	if (!S_ISREG(st.st_mode))
		return bad_image(path, "not a regular file", make);
	if (st.st_size == 0)
		return bad_image(path, "the file is empty", make);
	if (st.st_size % (off_t)PAGE)
		return bad_image(
			path, "its size is not a multiple of the page, 4096 bytes",
			"An image is the raw memory of a guest, from its first byte on; this file is "
			"cut off, or of another format.");
	*ret_bytes = (uint64_t)st.st_size;
	if (*ret_bytes <= mem_bytes)
		return 0;
	snprintf(why, sizeof(why), "it is larger (%s) than the VM (%s)", UNITS_BYTES(*ret_bytes),
		 UNITS_BYTES(mem_bytes));
	return bad_image(path, why, "Give the VMs more with --mem, or a smaller image.");
}

int image_open(struct image **ret_image, const char *path, uint64_t mem_bytes)
{
	int fd = open_file(path, 0);
	uint64_t bytes = 0;
	int error = check_file(path, fd, mem_bytes, &bytes);
	struct image *image = error ? NULL : alloc_new(sizeof(*image));

	if (!image) {
		if (fd >= 0)
			close(fd);
		return error ? error : -VMEM_ENOMEM;
	}
	image->path = path;
	image->fd = fd;
	image->pages = bytes / PAGE;
	for (uint32_t i = 0; i < CORPUS_CLASSES; i++)
		image->reader[i].fd = -1;
	*ret_image = image;
	return 0;
}

static int open_reader(struct image *image, struct reader *reader, uint32_t count)
{
	reader->order = alloc_new((count + 1) * sizeof(*reader->order));
	reader->buffer = alloc_pages(BUFFER_PAGES * PAGE);
	if (!reader->order || !reader->buffer)
		return -VMEM_ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t j = (uint32_t)random_below(&image->random, i + 1);

		reader->order[i] = reader->order[j];
		reader->order[j] = i;
	}
	reader->none = count == 0;
	return 0;
}

int image_make(struct image **ret_image, const struct corpus *corpus, uint64_t pages, uint64_t seed)
{
	static const uint64_t percent[KINDS] = { 35, 25, 10, SAME_PERCENT };
	struct image *image = alloc_new(sizeof(*image));
	int error = 0;

	if (!image)
		return -VMEM_ENOMEM;
	image->fd = -1;
	for (uint32_t i = 0; i < CORPUS_CLASSES; i++)
		image->reader[i].fd = -1;
	image->pages = pages;
	image->corpus = corpus;
	image->random = seed;
	image->left[0] = pages;
	for (uint32_t i = 1; i < KINDS; i++) {
		image->left[i] = pages * percent[i] / 100;
		image->left[0] -= image->left[i];
	}
	for (uint32_t i = 0; i < CORPUS_CLASSES && !error; i++)
		error = open_reader(image, &image->reader[i], corpus->list[i].count);
	if (error) {
		image_close(image);
		return error;
	}
	*ret_image = image;
	return 0;
}

uint64_t image_pages(const struct image *image)
{
	return image->pages;
}

const struct image_counts *image_counts(const struct image *image)
{
	return &image->counts;
}

/* The next whole page of the file that is open, or NULL. */
static const char *next_page(struct reader *reader)
{
	if (reader->fd < 0)
		return NULL;
	if (reader->taken == reader->filled) {
		ssize_t got =
			read_at(reader->fd, reader->buffer, BUFFER_PAGES * PAGE, reader->offset);

		reader->taken = 0;
		reader->filled = got > 0 ? (uint32_t)got / PAGE : 0;
		reader->offset += reader->filled * PAGE;
		if (reader->filled == 0)
			return NULL;
	}
	return reader->buffer + reader->taken++ * PAGE;
}

void image_close(struct image *image)
{
	if (!image)
		return;
	close_file(image->fd);
	for (uint32_t i = 0; i < CORPUS_CLASSES; i++) {
		close_file(image->reader[i].fd);
		alloc_free(image->reader[i].buffer);
		alloc_free(image->reader[i].order);
	}
	alloc_free(image);
}

static int read_file(struct image *image, char *buffer, uint64_t bytes)
{
	uint64_t done = 0;

	while (done < bytes) {
		ssize_t got = read_at(image->fd, buffer + done, bytes - done,
				      (off_t)(image->done * PAGE + done));

		if (got <= 0) {
			print_error("Image %s: reading stopped after %s: %s.", image->path,
				    UNITS_BYTES(image->done * PAGE + done),
				    got < 0 ? strerror(errno) : "the file was cut off meanwhile");
			return -VMEM_EIO;
		}
		done += (uint64_t)got;
	}
	return 0;
}

/* Open the file after this one, or the first again; none if it is not what its class should be. */
static void next_file(struct image *image, enum corpus_class class)
{
	struct reader *reader = &image->reader[class];
	const struct corpus_list *list = &image->corpus->list[class];
	const char *page;

	close_file(reader->fd);
	if (reader->next == list->count) {
		reader->next = 0;
		reader->again = true;
	}
	reader->fd = open_file(list->names + list->at[reader->order[reader->next++]], O_NOFOLLOW);
	reader->offset = 0;
	reader->taken = reader->filled = 0;
	page = next_page(reader);
	if (page && corpus_belongs(class, page)) {
		reader->taken = 0;
	} else {
		close_file(reader->fd);
		reader->fd = -1;
	}
}

/* The next page of a class that is not same-filled: those come from elsewhere, so that their share
 * is exact. Returns false when a whole round found none. */
static bool file_page(struct image *image, enum corpus_class class, void *page)
{
	struct reader *reader = &image->reader[class];
	uint32_t files = 0;
	uint64_t word;

	while (!reader->none) {
		const char *next = next_page(reader);

		if (!next) {
			reader->none = files++ > image->corpus->list[class].count;
			next_file(image, class);
		} else if (!vmem_page_same_filled(next, &word)) {
			memcpy(page, next, PAGE);
			image->counts.made[class]++;
			image->counts.repeated += reader->again;
			return true;
		}
	}
	return false;
}

static uint64_t same_word(struct image *image)
{
	static const uint64_t words[] = {
		UINT64_MAX,
		UINT64_C(0x0101010101010101),
		UINT64_C(0x2020202020202020),
		UINT64_C(0xcccccccccccccccc),
		UINT64_C(0x0000000100000001),
	};

	if (random_below(&image->random, 100) < 85)
		return 0;
	return words[random_below(&image->random, sizeof(words) / sizeof(words[0]))];
}

/* Which kind comes next, by how much of it is left, and for how many pages. */
static void next_run(struct image *image)
{
	uint64_t draw = random_below(&image->random, image->pages - image->done);
	uint64_t most;
	uint32_t kind = 0;

	while (draw >= image->left[kind])
		draw -= image->left[kind++];
	most = kind == KIND_SAME ? 32 : 64;
	image->run_kind = kind;
	image->run_left = 1 + random_below(&image->random, most);
	if (image->run_left > image->left[kind])
		image->run_left = image->left[kind];
	image->left[kind] -= image->run_left;
	if (kind == KIND_SAME)
		image->run_word = same_word(image);
}

static int make_page(struct image *image, void *page)
{
	if (image->run_left == 0)
		next_run(image);
	image->run_left--;
	if (image->run_kind == KIND_SAME) {
		vmem_page_fill(page, image->run_word);
		return 0;
	}
	/* A machine without, say, any text is still a machine. */
	for (uint32_t i = 0; i < CORPUS_CLASSES; i++)
		if (file_page(image, (enum corpus_class)((image->run_kind + i) % CORPUS_CLASSES),
			      page))
			return 0;
	print_error(
		"This machine has no files to make a memory image of (looked in /usr/bin, /usr/lib and "
		"/usr/include). Give one with --image.");
	return -VMEM_EIO;
}

int image_read(struct image *image, void *buffer, uint64_t pages)
{
	char *page = buffer;
	uint64_t word;

	if (image->path) {
		int error = read_file(image, buffer, pages * PAGE);

		if (error)
			return error;
		image->counts.file += pages;
	}
	for (uint64_t i = 0; i < pages; i++, page += PAGE) {
		int error = image->path ? 0 : make_page(image, page);

		if (error)
			return error;
		image->done++;
		image->counts.pages++;
		if (!vmem_page_same_filled(page, &word))
			continue;
		if (word)
			image->counts.same++;
		else
			image->counts.zero++;
	}
	return 0;
}
