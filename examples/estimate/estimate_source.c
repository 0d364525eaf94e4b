/* SPDX-License-Identifier: BSD-2-Clause */
/* See the header. A process is known by its open files of /proc: they stay those of its memory when its
 * number is given to another. */
#include "estimate_source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "estimate_progress.h"

#define PAGEMAP_PRESENT (UINT64_C(1) << 63)
#define PAGEMAP_SWAPPED (UINT64_C(1) << 62)

static int refuse_image(const char *path, const char *what)
{
	say_error("%s: %s", path, what);
	return -1;
}

static int open_image(struct source *s, const char *path, struct vm *vm)
{
	const char *slash = strrchr(path, '/');
	struct stat st;

	snprintf(vm->name, sizeof(vm->name), "%s", slash && slash[1] ? slash + 1 : path);
	s->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (s->fd < 0 || fstat(s->fd, &st) != 0)
		return refuse_image(path, errno == ENOENT
						  ? "No such file. For a running VM: --pid N."
						  : strerror(errno));
	if (!S_ISREG(st.st_mode))
		return refuse_image(path, "not a regular file. Give an image of raw memory.");
	if (st.st_size == 0)
		return refuse_image(path, "the file is empty. Give an image of raw memory.");
	if (st.st_size % VMEM_PAGE_SIZE)
		return refuse_image(path,
				    "not a multiple of the page of 4096 bytes, so it is not raw "
				    "memory. QEMU writes that with `pmemsave 0 SIZE FILE`.");
	s->pages = (uint64_t)st.st_size / VMEM_PAGE_SIZE;
	(void)posix_fadvise(s->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	return 0;
}

static int open_proc(int pid, const char *file)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* "1234 qemu-system-x86": what is cut off is not the number. */
static void name_process(struct vm *vm, int pid)
{
	char comm[17] = { 0 };
	int fd = open_proc(pid, "comm");
	ssize_t length = fd >= 0 ? read(fd, comm, sizeof(comm) - 1) : 0;

	if (fd >= 0)
		close(fd);
	comm[length > 0 ? strcspn(comm, "\n") : 0] = '\0';
	snprintf(vm->name, sizeof(vm->name), "%d %s", pid, comm);
}

static int open_process(struct source *s, int pid, const char *mapping, struct vm *vm)
{
	uint64_t bytes;

	name_process(vm, pid);
	vm->is_process = true;
	if (sysconf(_SC_PAGESIZE) != VMEM_PAGE_SIZE) {
		say_error("--pid needs a kernel with pages of 4096 bytes. Give an image.");
		return -1;
	}
	s->fd = open_proc(pid, "mem");
	if (s->fd >= 0)
		s->pagemap = open_proc(pid, "pagemap");
	if (s->pagemap < 0) {
		mapping_refused(pid);
		return -1;
	}
	if (mapping_find(pid, mapping, &s->first_byte, &bytes) != 0)
		return -1;
	s->pages = bytes / VMEM_PAGE_SIZE;
	return 0;
}

int source_open(struct source *source, const struct target *target, const struct options *options,
		struct vm *vm)
{
	int error;

	*source = (struct source){ .fd = -1, .pagemap = -1 };
	error = target->image ? open_image(source, target->image, vm)
			      : open_process(source, target->pid, options->mapping, vm);
	vm->memory_pages = source->pages;
	if (error)
		source_close(source);
	return error;
}

void source_close(struct source *source)
{
	if (source->fd >= 0)
		close(source->fd);
	if (source->pagemap >= 0)
		close(source->pagemap);
}

static int has_ended(const struct vm *vm)
{
	say_error("%s: the process has ended while it was read. Nothing was written.", vm->name);
	return -1;
}

int source_states(const struct source *s, const struct vm *vm, uint64_t page, uint32_t count,
		  enum source_state *states)
{
	uint64_t entries[SOURCE_CHUNK];
	size_t bytes = count * sizeof(*entries);

	if (s->pagemap < 0) {
		memset(states, 0, count * sizeof(*states));
		return 0;
	}
	if (pread(s->pagemap, entries, bytes,
		  (off_t)((s->first_byte / VMEM_PAGE_SIZE + page) * sizeof(*entries))) !=
	    (ssize_t)bytes)
		return has_ended(vm);
	for (uint32_t i = 0; i < count; i++)
		states[i] = entries[i] & PAGEMAP_PRESENT   ? PAGE_PRESENT
			    : entries[i] & PAGEMAP_SWAPPED ? PAGE_SWAPPED
							   : PAGE_UNTOUCHED;
	return 0;
}

/* A file may give less than was asked for; /proc/PID/mem gives less before a page that it cannot read, and
 * nothing when the process has ended. */
int source_read(const struct source *s, const struct vm *vm, uint64_t page, uint32_t count,
		void *buffer)
{
	size_t wanted = (size_t)count * VMEM_PAGE_SIZE, got = 0;
	off_t from = (off_t)(s->first_byte + page * VMEM_PAGE_SIZE);

	while (got < wanted) {
		ssize_t n = pread(s->fd, (char *)buffer + got, wanted - got, from + (off_t)got);

		if (n < 0 && errno == EINTR && !is_interrupted())
			continue;
		if (n < 0 && s->pagemap >= 0)
			break;
		if (n == 0 && s->pagemap >= 0)
			return has_ended(vm);
		if (n <= 0) {
			say_error("%s: page %llu cannot be read: %s. Is it still being written?",
				  vm->name, (unsigned long long)page,
				  n ? strerror(errno) : "the file ends there");
			return -1;
		}
		got += (size_t)n;
	}
	return (int)(got / VMEM_PAGE_SIZE);
}
