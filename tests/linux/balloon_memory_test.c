/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory of each kind is really given back: measured from outside, by the kernel's own tables and by the blocks of
 * files. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux/guest.h"
#include "linux/kernel/uffd.h"
#include "linux/kernel/uffd_abi.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vmem/discard.h>

#define PAGE ((uint64_t)VMEM_PAGE_SIZE)
#define GPA (UINT64_C(1) << 32)
#define PAGES 256u

static vmem_discard *made(void)
{
	vmem_discard *d = NULL;

	assert(!vmem_discard_new(&d, NULL) && d);
	return d;
}

static void add(vmem_discard *d, const struct vmem_discard_piece *of)
{
	struct vmem_discard_piece p = *of;

	p.size = sizeof(p);
	assert(!vmem_discard_add(d, &p));
}

static struct vmem_discard_metrics metrics(const vmem_discard *d)
{
	struct vmem_discard_metrics m = { .size = sizeof(m) };

	assert(!vmem_discard_get_metrics(d, &m));
	return m;
}

/* Discards [first, first + count) of the memory at GPA. Bytes that were released. */
static int discard(vmem_discard *d, uint64_t first, uint64_t count, uint64_t *released)
{
	const struct vmem_balloon_range r = { .gpa = GPA + first * PAGE,
					      .bytes = count * PAGE,
					      .operation = VMEM_BALLOON_DISCARD };

	*released = 77;
	return vmem_discard_ranges(d, &r, 1, released);
}

static unsigned char *mapped(uint64_t pages, int flags, int fd, uint64_t offset)
{
	void *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, flags, fd, (off_t)offset);

	assert(p != MAP_FAILED);
	madvise(p, pages * PAGE, MADV_NOHUGEPAGE);
	return p;
}

static uint64_t present(unsigned char *base, uint64_t pages)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < pages; i++)
		n += vmemt_mapped(base + i * PAGE);
	return n;
}

static void fill(unsigned char *base, uint64_t pages, uint64_t step)
{
	for (uint64_t i = 0; i < pages; i += step)
		memset(base + i * PAGE, (int)(i % 255 + 1), PAGE);
}

static bool is_filled(const unsigned char *page, uint64_t i)
{
	return page[0] == i % 255 + 1 && page[PAGE - 1] == i % 255 + 1;
}

static bool is_zero(const unsigned char *page)
{
	for (uint64_t i = 0; i < PAGE; i++)
		if (page[i])
			return false;
	return true;
}

/* Scattered ranges by one call, as a balloon hands them out; every second page in them is there. */
static void private_memory(void)
{
	unsigned char *base = mapped(PAGES, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct vmem_balloon_range r[PAGES / 8];
	vmem_discard *d = made();
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
	assert(!discard(d, 0, 8, &released) && released == 2 * PAGE);
	vmem_discard_free(d);
	assert(!munmap(base, PAGES * PAGE));
}

static uint64_t blocks(int fd)
{
	struct stat st;

	assert(!fstat(fd, &st));
	return (uint64_t)st.st_blocks * 512;
}

static int file_of(uint64_t pages)
{
	int fd = memfd_create("balloon", MFD_CLOEXEC);

	assert(fd >= 0 && !ftruncate(fd, (off_t)(pages * PAGE)));
	return fd;
}

/* @here: it is mapped where the discarding is done; else only elsewhere, by somebody else. */
static void file_memory(bool here)
{
	const uint64_t offset = 16 * PAGE;
	int fd = file_of(PAGES + 16);
	unsigned char *guest = mapped(PAGES, MAP_SHARED, fd, offset);
	unsigned char *ours = here ? mapped(PAGES, MAP_SHARED, fd, offset) : NULL;
	vmem_discard *d = made();
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

/* What the file has never comes back. */
static void image_memory(void)
{
	int fd = file_of(PAGES);
	unsigned char *source = mapped(PAGES, MAP_SHARED, fd, 0), *base;
	vmem_discard *d = made();
	uint64_t released;

	fill(source, PAGES, 1);
	base = mapped(PAGES, MAP_PRIVATE, fd, 0);
	for (unsigned i = 0; i < PAGES; i += 2)
		base[i * PAGE] = 0x55;
	add(d,
	    &(struct vmem_discard_piece){
		    .gpa = GPA, .bytes = PAGES * PAGE, .kind = VMEM_DISCARD_IMAGE, .hva = base });
	assert(!discard(d, 8, 8, &released) && !discard(d, 32, 1, &released));
	assert(!discard(d, 12, 8, &released)); /* a part is so already */
	for (unsigned i = 0; i < PAGES; i++) {
		if ((i >= 8 && i < 20) || i == 32)
			assert(is_zero(base + i * PAGE));
		else
			assert(base[i * PAGE] == (i % 2 ? i % 255 + 1 : 0x55));
		assert(is_filled(source + i * PAGE, i));
	}
	/* The guest's own, in the place of the file's. */
	memset(base + 8 * PAGE, 7, 4 * PAGE);
	assert(!discard(d, 8, 4, &released) && released == 4 * PAGE);
	assert(is_zero(base + 8 * PAGE) && is_zero(base + 11 * PAGE));
	assert(!metrics(d).inflated.failed && !metrics(d).inflated.pinned);
	vmem_discard_free(d);
	assert(!munmap(base, PAGES * PAGE) && !munmap(source, PAGES * PAGE) && !close(fd));
}

/* A guest that takes every second page of an image may cost mappings, but not all that the process has. */
static void image_in_holes(void)
{
	const uint64_t pages = 40000;
	int fd = file_of(pages);
	unsigned char *base = mapped(pages, MAP_PRIVATE, fd, 0);
	vmem_discard *d = made();
	struct vmem_balloon_range r = { .bytes = PAGE, .operation = VMEM_BALLOON_DISCARD };
	uint64_t kept = 0;

	add(d,
	    &(struct vmem_discard_piece){
		    .gpa = GPA, .bytes = pages * PAGE, .kind = VMEM_DISCARD_IMAGE, .hva = base });
	for (uint64_t i = 0; i < pages; i += 2) {
		base[i * PAGE] = 1;
		r.gpa = GPA + i * PAGE;
		kept += vmem_discard_ranges(d, &r, 1, NULL) == -VMEM_EIO;
	}
	assert(kept > pages / 4 && metrics(d).inflated.failed == kept * PAGE);
	/* What fills holes up makes room for others. */
	r = (struct vmem_balloon_range){ .gpa = GPA,
					 .bytes = pages / 4 * PAGE,
					 .operation = VMEM_BALLOON_DISCARD };
	assert(!vmem_discard_ranges(d, &r, 1, NULL));
	r = (struct vmem_balloon_range){ .gpa = GPA + (pages - 2) * PAGE,
					 .bytes = PAGE,
					 .operation = VMEM_BALLOON_DISCARD };
	assert(!vmem_discard_ranges(d, &r, 1, NULL) && is_zero(base + (pages - 2) * PAGE));
	vmem_discard_free(d);
	assert(!munmap(base, pages * PAGE) && !close(fd));
}

static void locked_memory(void)
{
	int fd = file_of(8);
	unsigned char *base = mapped(8, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char *shared = mapped(8, MAP_SHARED, fd, 0);
	vmem_discard *d = made();
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

static uint64_t held(void *context, uint64_t gpa)
{
	uint64_t page = *(uint64_t *)context - gpa / PAGE; /* in 64 pages from there */

	return page < 64 ? UINT64_C(1) << page : 0;
}

static void pinned_memory(void)
{
	unsigned char *base = mapped(PAGES, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t pinned = GPA / PAGE + 100, released;
	struct vmem_discard_opts o = { .size = sizeof(o), .pinned = held, .context = &pinned };
	vmem_discard *d;

	assert(!vmem_discard_new(&d, &o));
	add(d,
	    &(struct vmem_discard_piece){
		    .gpa = GPA, .bytes = PAGES * PAGE, .kind = VMEM_DISCARD_PRIVATE, .hva = base });
	fill(base, PAGES, 1);
	assert(discard(d, 0, PAGES, &released) == -VMEM_EBUSY);
	assert(released == (PAGES - 1) * PAGE && metrics(d).inflated.pinned == PAGE);
	assert(is_filled(base + 100 * PAGE, 100) && present(base, PAGES) == 1);
	vmem_discard_free(d);
	assert(!munmap(base, PAGES * PAGE));
}

/* Two pieces with a gap between them, given in the wrong order, and a range over all. */
static void pieces(void)
{
	unsigned char *base = mapped(16, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	vmem_discard *d = made();
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
	vmem_discard *d = made(), *none = NULL;
	int fd = file_of(8), unwritable;
	unsigned char *shared = mapped(8, MAP_SHARED, fd, 0),
		      *image = mapped(8, MAP_PRIVATE, fd, 0);

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
	/* What is mapped is not what it is said to be. */
	p.hva = base;
	assert(vmem_discard_add(d, &p) == -VMEM_ENOTSUP);
	p.hva = shared;
	p.offset = PAGE;
	p.bytes = 4 * PAGE;
	assert(vmem_discard_add(d, &p) == -VMEM_ENOTSUP);
	p = good;
	p.hva = shared;
	assert(vmem_discard_add(d, &p) == -VMEM_ENOTSUP);
	p.kind = VMEM_DISCARD_IMAGE;
	assert(vmem_discard_add(d, &p) == -VMEM_ENOTSUP);
	p.kind = VMEM_DISCARD_PRIVATE;
	p.hva = image;
	assert(vmem_discard_add(d, &p) == -VMEM_ENOTSUP);
	assert(!munmap(image + 4 * PAGE, PAGE));
	p.kind = VMEM_DISCARD_IMAGE;
	assert(vmem_discard_add(d, &p) == -VMEM_ENOTSUP);
	p.kind = VMEM_DISCARD_FILE;
	unwritable = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	assert(unwritable >= 0);
	p.fd = unwritable;
	assert(vmem_discard_add(d, &p) == -VMEM_EINVAL);
	assert(!vmem_discard_add(d, &good));
	assert(vmem_discard_ranges(d, &r, 1, NULL) == -VMEM_EINVAL);
	vmem_discard_free(d);
	vmem_discard_free(NULL);
	assert(!munmap(base, 8 * PAGE) && !munmap(shared, 8 * PAGE) && !munmap(image, 8 * PAGE));
	assert(!close(fd) && !close(unwritable));
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
	vmem_discard *d = made();
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

/* A balloon's ranges, all of them, and the pages that come back. */
static void drained(void)
{
	unsigned char *base = mapped(PAGES, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct vmem_balloon_opts o = { .size = sizeof(o), .features = VMEM_VIRTIO_F_VERSION_1 };
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer) };
	struct vmem_balloon_done done;
	vmem_discard *d = made();
	uint32_t gfns[PAGES];
	vmem_balloon *b;

	assert(!vmem_balloon_new(&b, &o) && !vmem_balloon_add_ram(b, 0, PAGES * PAGE, PAGE));
	vmem_balloon_set_status(b, 3, NULL);
	assert(!vmem_balloon_set_features(b, o.features));
	vmem_balloon_set_status(b, 11, NULL);
	vmem_balloon_set_status(b, 15, NULL);
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
	vmem_discard *d = made();
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
	private_memory();
	file_memory(true);
	file_memory(false);
	image_memory();
	image_in_holes();
	pinned_memory();
	pieces();
	refusals();
	huge_memory(MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB);
	huge_memory(MAP_SHARED);
	drained();
	locked_memory();
	return 0;
}
