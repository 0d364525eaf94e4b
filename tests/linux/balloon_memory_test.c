/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory of each kind is really given back: measured from outside, by the kernel's own tables and by the blocks of
 * files. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux/balloon_rig.h"
#include "linux/failing_kernel.h"
#include "linux/kernel/pagemap.h"
#include "linux/kernel/uffd.h"
#include "linux/kernel/uffd_abi.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool kernel_scans(void)
{
	int fd = vmemi_pagemap_open(&vmemi_kernel_linux);

	return fd >= 0 && !close(fd);
}

/* Scattered ranges by one call, as a balloon hands them out; every second page in them is there. @scans: the kernel
 * can tell its page of zeros from others. */
static void private_memory(const struct vmemi_kernel *k, bool scans)
{
	unsigned char *base = mapped(PAGES, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct vmem_balloon_range r[PAGES / 8];
	vmem_discard *d = made(k);
	uint64_t released = 0;

	add(d,
	    &(struct vmem_discard_piece){
		    .gpa = GPA, .bytes = PAGES * PAGE, .kind = VMEM_DISCARD_PRIVATE, .hva = base });
	fill(base, PAGES, 2);
	for (unsigned i = 0; i < PAGES / 8; i++)
		r[i] = (struct vmem_balloon_range){ .gpa = GPA + i * 8 * PAGE,
						    .bytes = 4 * PAGE,
						    .operation = VMEM_BALLOON_DISCARD_REPORTED };
	assert(!vmem_discard_ranges(d, r, PAGES / 8, &released));
	assert(released == PAGES / 8 * 2 * PAGE);
	assert(present(base, PAGES) == PAGES / 4);
	for (unsigned i = 0; i < PAGES; i++)
		assert(i % 8 < 4 || i % 2 ? is_zero(base + i * PAGE)
					  : is_filled(base + i * PAGE, i));
	assert(metrics(d).reported.asked == PAGES / 2 * PAGE);
	assert(metrics(d).reported.released == released && !metrics(d).reported.failed);
	/* Pages that were only read are the kernel's page of zeros: nothing to be had. */
	assert(!discard(d, 0, 8, &released));
	assert(scans ? released == 2 * PAGE : released >= 2 * PAGE && released <= 8 * PAGE);
	vmem_discard_free(d);
	assert(!munmap(base, PAGES * PAGE));
}

/* @here: it is mapped where the discarding is done; else only elsewhere, by somebody else. */
static void file_memory(bool here)
{
	const uint64_t offset = 16 * PAGE;
	int fd = file_of(PAGES + 16);
	unsigned char *guest = mapped(PAGES, MAP_SHARED, fd, offset);
	unsigned char *ours = here ? mapped(PAGES, MAP_SHARED, fd, offset) : NULL;
	vmem_discard *d = made(NULL);
	uint64_t released;

	assert(pwrite(fd, "x", 1, 0) == 1);
	fill(guest, PAGES, 1);
	assert(blocks(fd) == (PAGES + 1) * PAGE);
	add(d, &(struct vmem_discard_piece){ .gpa = GPA,
					     .bytes = PAGES * PAGE,
					     .kind = VMEM_DISCARD_FILE,
					     .fd = fd,
					     .offset = offset,
					     .hva = ours });
	assert(!discard(d, 0, PAGES / 2, &released));
	assert(released == PAGES / 2 * PAGE && blocks(fd) == (PAGES / 2 + 1) * PAGE);
	assert(!discard(d, 1, 8, &released) && released == 0);
	assert(is_zero(guest) && is_zero(guest + (PAGES / 2 - 1) * PAGE));
	for (unsigned i = PAGES / 2; i < PAGES; i++)
		assert(is_filled(guest + i * PAGE, i));
	vmem_discard_free(d);
	assert(!munmap(guest, PAGES * PAGE) && (!ours || !munmap(ours, PAGES * PAGE)));
	assert(!close(fd));
}

static void locked_memory(void)
{
	int fd = file_of(8);
	unsigned char *base = mapped(8, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char *shared = mapped(8, MAP_SHARED, fd, 0);
	vmem_discard *d = made(NULL);
	uint64_t released;

	fill(base, 8, 1);
	fill(shared, 8, 1);
	add(d, &(struct vmem_discard_piece){
		       .gpa = GPA, .bytes = 8 * PAGE, .kind = VMEM_DISCARD_PRIVATE, .hva = base });
	add(d, &(struct vmem_discard_piece){ .gpa = GPA + 8 * PAGE,
					     .bytes = 8 * PAGE,
					     .kind = VMEM_DISCARD_FILE,
					     .fd = fd,
					     .hva = shared });
	/* Sanitizers make nothing of mlock(). */
	if (syscall(SYS_mlock, base, 8 * PAGE) || syscall(SYS_mlock, shared, 8 * PAGE))
		vmemt_skip("no memory may be locked");
	assert(discard(d, 0, 8, &released) == -VMEM_EBUSY && !released);
	assert(metrics(d).inflated.pinned == 8 * PAGE);
	assert(discard(d, 4, 8, &released) == -VMEM_EBUSY && !released);
	assert(metrics(d).inflated.pinned == 16 * PAGE && !metrics(d).inflated.failed);
	for (unsigned i = 0; i < 8; i++)
		assert(is_filled(base + i * PAGE, i) && is_filled(shared + i * PAGE, i));
	assert(!syscall(SYS_munlock, base, 8 * PAGE) && !syscall(SYS_munlock, shared, 8 * PAGE));
	assert(!discard(d, 0, 16, &released) && released == 16 * PAGE && !blocks(fd));
	vmem_discard_free(d);
	assert(!munmap(base, 8 * PAGE) && !munmap(shared, 8 * PAGE) && !close(fd));
}

/* Two pieces with a gap between them, given in the wrong order, and a range over all. */
static void pieces(void)
{
	unsigned char *base = mapped(16, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	vmem_discard *d = made(NULL);
	struct vmem_discard_piece p = { .size = sizeof(p),
					.gpa = GPA + 12 * PAGE,
					.bytes = 4 * PAGE,
					.kind = VMEM_DISCARD_PRIVATE,
					.hva = base + 12 * PAGE };
	uint64_t released;

	add(d, &p);
	assert(vmem_discard_add(d, &p) == -VMEM_EEXIST);
	p.gpa = GPA;
	p.bytes = 13 * PAGE;
	p.hva = base;
	assert(vmem_discard_add(d, &p) == -VMEM_EEXIST);
	p.bytes = 8 * PAGE;
	add(d, &p);
	fill(base, 16, 1);
	assert(discard(d, 0, 14, &released) == -VMEM_ERANGE && released == 10 * PAGE);
	assert(metrics(d).inflated.outside == 4 * PAGE);
	assert(present(base, 16) == 6 && is_filled(base + 8 * PAGE, 8));
	vmem_discard_free(d);
	assert(!munmap(base, 16 * PAGE));
}

static void refusals(void)
{
	unsigned char *base = mapped(8, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const struct vmem_discard_piece good = { .size = sizeof(good),
						 .gpa = GPA,
						 .bytes = 8 * PAGE,
						 .kind = VMEM_DISCARD_PRIVATE,
						 .hva = base };
	struct vmem_discard_opts o = { .size = sizeof(o), .flags = 1 };
	struct vmem_balloon_range r = { .gpa = GPA, .bytes = PAGE, .operation = 9 };
	struct vmem_discard_piece p;
	vmem_discard *d = made(NULL), *none = NULL;
	int fd = file_of(8), unwritable;

	assert(vmem_discard_new(&none, &o) == -VMEM_EINVAL && !none);
#define REFUSED(change) ((p = good), (change), vmem_discard_add(d, &p))
	assert(REFUSED(p.size = 3) == -VMEM_EINVAL);
	assert(REFUSED(p.gpa = GPA + 1) == -VMEM_EINVAL);
	assert(REFUSED(p.bytes = 0) == -VMEM_EINVAL);
	assert(REFUSED(p.bytes = PAGE + 1) == -VMEM_EINVAL);
	assert(REFUSED(p.hva = base + 1) == -VMEM_EINVAL);
	assert(REFUSED(p.hva = NULL) == -VMEM_EINVAL);
	assert(REFUSED(p.gpa = UINT64_MAX - PAGE + 1) == -VMEM_EINVAL);
	assert(REFUSED(p.kind = 0) == -VMEM_EINVAL);
	assert(REFUSED(p.kind = 5) == -VMEM_EINVAL);
	assert(REFUSED(p.kind = VMEM_DISCARD_REGION) == -VMEM_EINVAL);
	assert(REFUSED(p.block_bytes = 12288) == -VMEM_EINVAL);
	p = good;
	p.kind = VMEM_DISCARD_FILE;
	p.fd = -1;
	assert(vmem_discard_add(d, &p) == -VMEM_EINVAL);
	p.fd = fd;
	p.offset = 5;
	assert(vmem_discard_add(d, &p) == -VMEM_EINVAL);
	p.offset = 0;
	unwritable = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	assert(unwritable >= 0);
	p.fd = unwritable;
	assert(vmem_discard_add(d, &p) == -VMEM_EINVAL);
	assert(!vmem_discard_add(d, &good));
	assert(vmem_discard_ranges(d, &r, 1, NULL) == -VMEM_EINVAL);
	vmem_discard_free(d);
	vmem_discard_free(NULL);
	assert(!munmap(base, 8 * PAGE) && !close(fd) && !close(unwritable));
}

/* Memory that is not what the caller says: discarding would bring the file's back, or give nothing back. */
static void other_kinds(void)
{
	int fd = file_of(16), other = file_of(16);
	unsigned char *private = mapped(8, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char *shared = mapped(8, MAP_SHARED, fd, 4 * PAGE);
	unsigned char *image = mapped(8, MAP_PRIVATE, fd, 0);
	struct vmem_discard_piece good, p;
	vmem_discard *d = made(NULL);

	good = (struct vmem_discard_piece){ .size = sizeof(good), .gpa = GPA, .bytes = 8 * PAGE };
	good.kind = VMEM_DISCARD_PRIVATE;
	good.fd = fd;
	assert(REFUSED(p.hva = shared) == -VMEM_ENOTSUP);
	assert(REFUSED(p.hva = image) == -VMEM_ENOTSUP);
	good.kind = VMEM_DISCARD_IMAGE;
	assert(REFUSED(p.hva = shared) == -VMEM_ENOTSUP);
	good.kind = VMEM_DISCARD_FILE;
	good.offset = 4 * PAGE;
	good.hva = shared;
	assert(REFUSED(p.hva = private) == -VMEM_ENOTSUP);
	assert(REFUSED(p.hva = image) == -VMEM_ENOTSUP);
	assert(REFUSED(p.offset = 3 * PAGE) == -VMEM_ENOTSUP);
	assert(REFUSED(p.fd = other) == -VMEM_ENOTSUP);
	assert(!vmem_discard_add(d, &good));
	good.gpa += 8 * PAGE;
	good.kind = VMEM_DISCARD_IMAGE;
	assert(!mprotect(image + 2 * PAGE, PAGE, PROT_READ));
	assert(REFUSED(p.hva = image) == -VMEM_ENOTSUP);
	assert(!mprotect(image + 2 * PAGE, PAGE, PROT_READ | PROT_WRITE));
	assert(!REFUSED(p.hva = image));
	good.gpa += 8 * PAGE;
	good.kind = VMEM_DISCARD_PRIVATE;
	assert(!munmap(private + 4 * PAGE, PAGE)); /* nothing else maps memory meanwhile */
	assert(REFUSED(p.hva = private) == -VMEM_ENOTSUP);
	assert(REFUSED((p.hva = private, p.bytes = 4 * PAGE)) == 0);
	vmem_discard_free(d);
	assert(!munmap(private, 8 * PAGE) && !munmap(shared, 8 * PAGE) && !munmap(image, 8 * PAGE));
	assert(!close(fd) && !close(other));
}

/* Blocks of huge pages, where the machine has some. */
static void huge_memory(int map_flags)
{
	const uint64_t block = UINT64_C(2) << 20;
	bool shared = map_flags & MAP_SHARED;
	int fd = shared ? memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB) : -1;
	struct vmem_discard_piece p = { .gpa = GPA,
					.bytes = 2 * block,
					.kind = shared ? VMEM_DISCARD_FILE : VMEM_DISCARD_PRIVATE,
					.fd = fd,
					.block_bytes = block };
	vmem_discard *d = made(NULL);
	uint64_t released;

	if (!shared || (fd >= 0 && !ftruncate(fd, 2 * (off_t)block)))
		p.hva = mmap(NULL, 2 * block, PROT_READ | PROT_WRITE, map_flags, fd, 0);
	if (!p.hva || p.hva == MAP_FAILED) {
		fprintf(stderr, "no huge pages\n");
	} else {
		memset(p.hva, 1, 2 * block);
		add(d, &p);
		assert(!discard(d, 1, 511, &released) && !released);
		assert(metrics(d).inflated.cut == 511 * PAGE);
		assert(!discard(d, 511, 513, &released) && released == block);
		assert(*(unsigned char *)p.hva == 1 && !((unsigned char *)p.hva)[block]);
		assert(!munmap(p.hva, 2 * block));
	}
	vmem_discard_free(d);
	assert(fd < 0 || !close(fd));
}

static void start(vmem_balloon *b, uint64_t features)
{
	vmem_balloon_set_status(b, 3, NULL);
	assert(!vmem_balloon_set_features(b, features));
	vmem_balloon_set_status(b, 11, NULL);
	vmem_balloon_set_status(b, 15, NULL);
}

/* A balloon's ranges, all of them, and the pages that come back. */
static void drained(void)
{
	unsigned char *base = mapped(PAGES, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct vmem_balloon_opts o = { .size = sizeof(o), .features = VMEM_VIRTIO_F_VERSION_1 };
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer) };
	struct vmem_balloon_done done;
	vmem_discard *d = made(NULL);
	uint32_t gfns[PAGES];
	vmem_balloon *b;

	assert(!vmem_balloon_new(&b, &o) && !vmem_balloon_add_ram(b, 0, PAGES * PAGE, PAGE));
	start(b, o.features);
	add(d, &(struct vmem_discard_piece){
		       .bytes = PAGES * PAGE, .kind = VMEM_DISCARD_PRIVATE, .hva = base });
	fill(base, PAGES, 1);
	for (uint32_t i = 0; i < PAGES; i++)
		gfns[i] = i * 37 % PAGES; /* each once */
	buffer.bytes = gfns;
	buffer.count = sizeof(gfns) / 2;
	assert(!vmem_balloon_give(b, &buffer));
	assert(!vmem_discard_drain(d, b) && vmem_balloon_take_done(b, &done));
	assert(present(base, PAGES) == PAGES / 2);
	for (uint32_t i = 0; i < PAGES / 2; i++)
		assert(!vmemt_mapped(base + gfns[i] * PAGE));
	buffer.queue = VMEM_BALLOON_DEFLATE;
	buffer.count = 4 * 16;
	assert(!vmem_balloon_give(b, &buffer));
	assert(!vmem_discard_drain(d, b) && vmem_balloon_take_done(b, &done));
	assert(metrics(d).returned == 16 * PAGE);
	assert(metrics(d).inflated.released == PAGES / 2 * PAGE);
	vmem_discard_free(d);
	vmem_balloon_free(b);
	assert(!munmap(base, PAGES * PAGE));
}

static uint64_t all_or_none(void *context, uint64_t gpa)
{
	(void)gpa;
	return *(bool *)context ? UINT64_MAX : 0;
}

/* @count pages, every @step-th. */
static void inflate(vmem_balloon *b, vmem_discard *d, uint32_t first, uint32_t count, uint32_t step)
{
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer) };
	struct vmem_balloon_done done;
	uint32_t gfns[1024];

	for (uint32_t i = 0; i < count; i += 1024) {
		for (uint32_t k = 0; k < 1024; k++)
			gfns[k] = first + (i + k) * step;
		buffer.bytes = gfns;
		buffer.count = (count - i < 1024 ? count - i : 1024) * sizeof(*gfns);
		assert(!vmem_balloon_give(b, &buffer));
		vmem_discard_drain(d, b);
		assert(vmem_balloon_take_done(b, &done));
	}
}

#define HELD_FEATURES (VMEM_VIRTIO_F_VERSION_1 | VMEM_BALLOON_F_MUST_TELL_HOST)

/* Of memory that is pinned while *held_all says so. */
static void begin_held(bool *held_all, vmem_discard **ret_d, vmem_balloon **ret_b)
{
	const struct vmem_discard_opts o = { .size = sizeof(o),
					     .pinned = all_or_none,
					     .context = held_all };
	const struct vmem_balloon_opts bo = { .size = sizeof(bo), .features = HELD_FEATURES };

	assert(!vmem_discard_new(ret_d, &o) && !vmem_balloon_new(ret_b, &bo));
}

/* More ranges than one call may look at, however small they are. */
static void retried_in_parts(void)
{
	enum { MORE = 8 };
	const uint64_t count = VMEM_BALLOON_WORK_ENTRIES + MORE, pages = 2 * count;
	unsigned char *base = mapped(pages, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	bool held_all = true;
	vmem_balloon *b;
	vmem_discard *d;

	begin_held(&held_all, &d, &b);
	assert(!vmem_balloon_add_ram(b, 0, pages * PAGE, PAGE));
	start(b, HELD_FEATURES);
	add(d, &(struct vmem_discard_piece){
		       .bytes = pages * PAGE, .kind = VMEM_DISCARD_PRIVATE, .hva = base });
	inflate(b, d, 0, (uint32_t)count, 2);
	assert(metrics(d).inflated.pinned == count * PAGE);
	held_all = false;
	assert(vmem_discard_retry(d, b) == -VMEM_EAGAIN);
	assert(metrics(d).retried.asked == VMEM_BALLOON_WORK_ENTRIES * PAGE);
	assert(!vmem_discard_retry(d, b));
	assert(metrics(d).retried.asked == count * PAGE && !metrics(d).retried.pinned);
	vmem_discard_free(d);
	vmem_balloon_free(b);
	assert(!munmap(base, pages * PAGE));
}

/* More than one call may look at, and its limit is in the middle of a block: that comes whole with the next. */
static void retried_in_blocks(void)
{
	const uint64_t block = UINT64_C(2) << 20, bytes = UINT64_C(1) << 30;
	unsigned char *few = mapped(16, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char *room =
		mapped((bytes + block) / PAGE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	unsigned char *base = room + (block - (uintptr_t)room % block) % block;
	bool held_all = true;
	vmem_balloon *b;
	vmem_discard *d;

	begin_held(&held_all, &d, &b);
	assert(!vmem_balloon_add_ram(b, 0, 16 * PAGE, PAGE));
	assert(!vmem_balloon_add_ram(b, block, bytes, block));
	start(b, HELD_FEATURES);
	add(d, &(struct vmem_discard_piece){
		       .bytes = 16 * PAGE, .kind = VMEM_DISCARD_PRIVATE, .hva = few });
	add(d, &(struct vmem_discard_piece){ .gpa = block,
					     .bytes = bytes,
					     .kind = VMEM_DISCARD_PRIVATE,
					     .hva = base,
					     .block_bytes = block });
	few[0] = 1;
	for (uint64_t i = 0; i < bytes; i += block)
		base[i] = 1;
	inflate(b, d, 0, 16, 1);
	inflate(b, d, (uint32_t)(block / PAGE), (uint32_t)(bytes / PAGE), 1);
	assert(metrics(d).inflated.pinned == bytes + 16 * PAGE && few[0] && base[0]);
	held_all = false;
	assert(vmem_discard_retry(d, b) == -VMEM_EAGAIN);
	assert(!vmem_discard_retry(d, b));
	assert(metrics(d).retried.released == bytes / block * PAGE + PAGE);
	assert(!metrics(d).retried.cut && metrics(d).retried.asked == bytes + 16 * PAGE);
	assert(!vmemt_mapped(few) && !vmemt_mapped(base + bytes - block));
	vmem_discard_free(d);
	vmem_balloon_free(b);
	assert(!munmap(few, 16 * PAGE) && !munmap(room, bytes + block));
}

/* --- Memory with a userfaultfd of somebody else, who is told --- */

struct listener {
	struct vmemi_uffd uffd;
	pthread_t thread;
	_Atomic uint64_t removed; /* atomic; bytes */
	_Atomic int stop;         /* atomic */
};

static void *listen_to(void *context)
{
	struct listener *l = context;
	struct uffd_msg message;

	while (!atomic_load(&l->stop)) {
		struct pollfd p = { .fd = l->uffd.fd, .events = POLLIN };

		if (poll(&p, 1, 10) <= 0 ||
		    vmemi_uffd_read(&l->uffd, &message, sizeof(message)) != sizeof(message))
			continue;
		assert(message.event == UFFD_EVENT_REMOVE);
		atomic_fetch_add(&l->removed, message.arg.remove.end - message.arg.remove.start);
	}
	return NULL;
}

static void watched_memory(bool shared)
{
	int fd = file_of(PAGES);
	unsigned char *base = mapped(PAGES, shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS,
				     shared ? fd : -1, 0);
	static struct listener l;
	vmem_discard *d = made(NULL);
	uint64_t ioctls, released;

	fill(base, PAGES, 1);
	l = (struct listener){ .uffd = { .fd = -1 } };
	if (vmemi_uffd_open(&l.uffd, &vmemi_kernel_linux, UFFD_FEATURE_EVENT_REMOVE, 0)) {
		fprintf(stderr, "no userfaultfd\n");
	} else {
		assert(!vmemi_uffd_register(&l.uffd, base, PAGES * PAGE, false, &ioctls));
		assert(!pthread_create(&l.thread, NULL, listen_to, &l));
		add(d, &(struct vmem_discard_piece){ .gpa = GPA,
						     .bytes = PAGES * PAGE,
						     .kind = shared ? VMEM_DISCARD_FILE
								    : VMEM_DISCARD_PRIVATE,
						     .fd = fd,
						     .hva = base });
		assert(!discard(d, 3, 5, &released) && released == 5 * PAGE);
		assert(!discard(d, 100, 1, &released) && released == PAGE);
		VMEMT_UNTIL(atomic_load(&l.removed) == 6 * PAGE);
		assert(present(base, PAGES) == PAGES - 6);
		atomic_store(&l.stop, 1);
		assert(!pthread_join(l.thread, NULL));
		vmemi_uffd_close(&l.uffd);
	}
	vmem_discard_free(d);
	assert(!munmap(base, PAGES * PAGE) && !close(fd));
}

int main(void)
{
	watched_memory(false);
	watched_memory(true);
	vmemt_kernel_reset();
	private_memory(NULL, kernel_scans());
	vmemt_kernel.hide_scan = true;
	private_memory(&vmemt_kernel_table, false);
	file_memory(true);
	file_memory(false);
	pieces();
	refusals();
	other_kinds();
	huge_memory(MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB);
	huge_memory(MAP_SHARED);
	drained();
	retried_in_parts();
	retried_in_blocks();
	locked_memory();
	return 0;
}
