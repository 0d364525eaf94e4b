/* SPDX-License-Identifier: BSD-2-Clause */
/* What kind of memory a range is, from /proc/self/smaps: private anonymous memory can be paged, and a shared
 * mapping of the file that the VMM names.
 */
#include "base/mem.h"
#include "linux/kernel/maps.h"
#include "linux/manager/manager.h"
#include <fcntl.h>
#include <sys/sysmacros.h>

/* Whether it maps @file so that @hva is where that begins. */
static bool maps(const struct vmemi_mapping *m, uint64_t hva, const struct vmemi_file *file)
{
	return m->permissions[3] == 's' && m->inode == file->inode &&
	       m->major == major(file->device) && m->minor == minor(file->device) &&
	       m->offset - m->start == file->offset - hva;
}

static const char *judge_mapping(const struct vmemi_mapping *m, uint64_t hva,
				 const struct vmemi_file *file, struct vmemi_memory_kind *kind)
{
	if (file && !maps(m, hva, file)) {
		kind->other_file = true;
		return "not a shared mapping of that file at that offset";
	}
	if (!file && m->permissions[3] == 's')
		return "shared memory (memfd, shmem or a shared file mapping)";
	if (!file && m->inode)
		return "a private file mapping";
	if (m->permissions[0] != 'r' || m->permissions[1] != 'w')
		return "memory without read and write access";
	return "";
}

static const char *judge_flags(const char *flags, struct vmemi_memory_kind *kind)
{
	kind->kept_from_children |= strstr(flags, " dc") != NULL;
	if (strstr(flags, " ht"))
		return "hugetlbfs memory";
	if (strstr(flags, " lo"))
		return "mlocked memory";
	if (strstr(flags, " io") || strstr(flags, " pf"))
		return "device memory";
	if (strstr(flags, " um") || strstr(flags, " uw") || strstr(flags, " ui")) {
		kind->foreign = true;
		return "memory registered with another userfaultfd";
	}
	return "";
}

const char *vmemi_memory_why(const struct vmemi_kernel *k, const void *hva, uint64_t bytes,
			     const struct vmemi_file *file, struct vmemi_memory_kind *ret_kind)
{
	uint64_t at = (uintptr_t)hva, end = at + bytes;
	struct vmemi_maps in = { .k = k };
	const char *why = "";
	struct vmemi_mapping m;
	bool inside = false;
	char line[512];

	*ret_kind = (struct vmemi_memory_kind){ 0 };
	in.fd = k->open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
	if (in.fd < 0)
		return "memory of unknown kind (/proc/self/smaps cannot be read)";
	while (!*why && vmemi_maps_line(&in, line, sizeof(line))) {
		if (vmemi_maps_parse(line, &m)) {
			if (m.start >= end)
				break;
			inside = m.stop > (uintptr_t)hva;
			if (!inside)
				continue;
			if (m.start > at)
				break;
			at = m.stop;
			why = judge_mapping(&m, (uintptr_t)hva, file, ret_kind);
		} else if (inside && !strncmp(line, "VmFlags:", 8)) {
			why = judge_flags(line, ret_kind);
		}
	}
	k->close(in.fd);
	if (!*why && at < end)
		return "memory that is not mapped";
	return why;
}

const char *vmem_region_why(const void *hva, uint64_t bytes)
{
	struct vmemi_memory_kind kind;

	if ((uintptr_t)hva % VMEM_PAGE_SIZE || bytes % VMEM_PAGE_SIZE || !bytes)
		return "memory that is not aligned to pages";
	return vmemi_memory_why(&vmemi_kernel_linux, hva, bytes, NULL, &kind);
}
