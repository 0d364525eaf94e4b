/* SPDX-License-Identifier: BSD-2-Clause */
/* Saving and restoring: libvmem writes and reads a stream, the runner has it in a file. A file becomes complete under
 * another name and is renamed then, so that it is whole or not there, and may be restored from meanwhile. */
#include "runner_saved.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <vmem/snapshot.h>

#include "runner_print.h"
#include "common/units.h"

#define NAME_MOST 4096

/* What the callbacks of one call share. */
struct stream {
	FILE *file;
	int (*progress)(void *context, uint64_t done_bytes, uint64_t vm_bytes);
	void *context;
	int error; /* errno of the file; 0: none */
};

static int name_of(char *name, const char *path, uint32_t index, const char *suffix)
{
	int length = snprintf(name, NAME_MOST, "%s.%u%s", path, index, suffix);

	if (length > 0 && length < NAME_MOST)
		return 0;
	print_error("%s: this name is too long.", path);
	return -VMEM_EINVAL;
}

/* A file that was not there: nothing that lies under this name is written to. */
static int create_new(const char *name)
{
	return open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
}

int saved_check(const struct runner_options *options)
{
	char name[NAME_MOST];

	for (uint32_t i = 0; i < options->vms; i++) {
		int fd;

		if (name_of(name, options->save, i, ".new"))
			return -VMEM_EINVAL;
		fd = create_new(name);
		if (fd < 0 && errno == EEXIST)
			continue; /* of an earlier run, or one beside this: not ours to remove yet */
		if (fd < 0) {
			print_error("--save: %s cannot be written: %s.", name, strerror(errno));
			return -VMEM_EINVAL;
		}
		close(fd);
		unlink(name);
	}
	return 0;
}

/* --- Save --- */

static int write_stream(void *context, const void *bytes, size_t count)
{
	struct stream *s = context;

	if (fwrite(bytes, 1, count, s->file) == count)
		return 0;
	s->error = errno;
	return -VMEM_EIO;
}

static int save_to(struct vm *vm, struct stream *s, struct vmem_snapshot_stats *stats)
{
	struct vmem_snapshot_save_opts opts = { .size = sizeof(opts),
						.write = write_stream,
						.context = s };
	int error = vmem_region_quiesce(vm->region);

	if (error)
		return error;
	error = vmem_snapshot_save(vm->region, &opts, stats);
	(void)vmem_region_resume(vm->region);
	if (!error && (fflush(s->file) != 0 || fsync(fileno(s->file)) != 0)) {
		s->error = errno;
		error = -VMEM_EIO;
	}
	return error;
}

/* What a guest has in its memory is nobody else's business. */
static FILE *create_file(const char *name)
{
	FILE *file;
	int fd;

	unlink(name); /* of an earlier run that was killed */
	fd = create_new(name);
	file = fd >= 0 ? fdopen(fd, "w") : NULL;
	if (fd >= 0 && !file)
		close(fd);
	return file;
}

int vm_save(struct vm *vm)
{
	struct vmem_snapshot_stats stats = { .size = sizeof(stats) };
	struct stream s = { 0 };
	char name[NAME_MOST], new_name[NAME_MOST];
	int error = name_of(name, vm->runner->options->save, vm->index, "");

	if (!error)
		error = name_of(new_name, vm->runner->options->save, vm->index, ".new");
	if (error)
		return error;
	s.file = create_file(new_name);
	if (s.file)
		error = save_to(vm, &s, &stats);
	if (!s.file || (fclose(s.file) != 0 && !error) || (!error && rename(new_name, name) != 0)) {
		s.error = errno;
		error = -VMEM_EIO;
	}
	if (!error) {
		print_line("vm %u: saved in %s: %s, %llu pages with contents, %llu of one word",
			   vm->index, name, UNITS_BYTES(stats.stream_bytes),
			   (unsigned long long)stats.pages, (unsigned long long)stats.pages_same);
		return 0;
	}
	print_error("vm %u: it cannot be saved in %s: %s.", vm->index, name,
		    s.error ? strerror(s.error) : vmem_strerror(error));
	if (s.file)
		unlink(new_name);
	return error;
}

/* --- Restore --- */

static int read_stream(void *context, void *bytes, size_t count)
{
	struct stream *s = context;

	if (fread(bytes, 1, count, s->file) == count)
		return 1;
	if (feof(s->file))
		return 0;
	s->error = errno;
	return -VMEM_EIO;
}

static int stream_progress(void *context, uint64_t done_bytes, uint64_t vm_bytes)
{
	struct stream *s = context;

	return s->progress(s->context, done_bytes, vm_bytes);
}

/* On threads of the library. */
static int read_at(void *context, uint64_t offset, void *bytes, size_t count)
{
	const struct vm *vm = context;
	unsigned char *to = bytes;

	for (size_t done = 0; done < count;) {
		ssize_t got =
			pread(vm->snapshot_fd, to + done, count - done, (off_t)(offset + done));

		if (got == 0)
			return 0;
		if (got < 0 && errno != EINTR)
			return -VMEM_EIO;
		if (got > 0)
			done += (size_t)got;
	}
	return 1;
}

/* Says what is wrong with a file. What another file would mend is -VMEM_EINVAL. */
static int explain(const struct vm *vm, const char *name, const struct stream *s, int error)
{
	switch (error) {
	case -VMEM_EAGAIN: return error; /* interrupted */
	case -VMEM_EBADMSG:
		print_error("vm %u: %s is no saved VM, damaged, or cut short.", vm->index, name);
		return -VMEM_EINVAL;
	case -VMEM_ERANGE:
		print_error("vm %u: %s is of a VM with another --mem than %s.", vm->index, name,
			    UNITS_BYTES(vm->runner->options->mem_bytes));
		return -VMEM_EINVAL;
	case -VMEM_ENOTSUP:
		print_error("vm %u: %s is of another version of libvmem.", vm->index, name);
		return -VMEM_EINVAL;
	case -VMEM_ENOSPC:
		print_error(
			"vm %u: the budget, %s, does not hold what is in %s, even compressed. Give "
			"more with --budget.",
			vm->index, UNITS_BYTES(vm->runner->options->budget_bytes), name);
		return error;
	default:
		print_error("vm %u: it cannot be restored from %s: %s.", vm->index, name,
			    s->error ? strerror(s->error) : vmem_strerror(error));
		return error;
	}
}

static int restore_lazily(struct vm *vm, struct vmem_snapshot_info *info)
{
	struct vmem_snapshot_open_opts opts = { .size = sizeof(opts),
						.read_at = read_at,
						.context = vm };
	int error = vmem_snapshot_open(&vm->snapshot, &opts);

	if (!error)
		error = vmem_snapshot_get_info(vm->snapshot, info);
	if (!error)
		error = vmem_snapshot_restore(vm->snapshot, vm->region);
	return error;
}

static int restore_now(struct vm *vm, struct stream *s, struct vmem_snapshot_info *info)
{
	struct vmem_snapshot_load_opts opts = {
		.size = sizeof(opts), .read = read_stream, .progress = stream_progress, .context = s
	};
	struct vmem_snapshot_stats stats = { .size = sizeof(stats) };
	int error = vmem_snapshot_load(vm->region, &opts, &stats);

	info->pages = stats.pages;
	info->pages_same = stats.pages_same;
	return error;
}

int vm_restore(struct vm *vm,
	       int (*progress)(void *context, uint64_t done_bytes, uint64_t vm_bytes),
	       void *context)
{
	const struct runner_options *o = vm->runner->options;
	struct vmem_snapshot_info info = { .size = sizeof(info) };
	struct stream s = { .progress = progress, .context = context };
	char name[NAME_MOST];
	int error = name_of(name, o->restore, vm->index, "");

	if (error)
		return error;
	s.file = fopen(name, "re");
	if (!s.file) {
		print_error("vm %u: %s cannot be opened: %s.", vm->index, name, strerror(errno));
		return -VMEM_EINVAL;
	}
	if (o->lazy) {
		vm->snapshot_fd = dup(fileno(s.file));
		error = vm->snapshot_fd < 0 ? -VMEM_ENOMEM : restore_lazily(vm, &info);
	} else {
		error = restore_now(vm, &s, &info);
	}
	fclose(s.file);
	if (error)
		return explain(vm, name, &s, error);
	print_line(
		"vm %u: %s, %u vCPU, restored%s from %s: %llu pages with contents, %llu of one word",
		vm->index, UNITS_BYTES(o->mem_bytes), o->vcpus, o->lazy ? " as it is touched" : "",
		name, (unsigned long long)info.pages, (unsigned long long)info.pages_same);
	return 0;
}

void vm_saved_close(struct vm *vm)
{
	vmem_snapshot_close(vm->snapshot);
	vm->snapshot = NULL;
	if (vm->snapshot_fd >= 0)
		close(vm->snapshot_fd);
	vm->snapshot_fd = -1;
}
