/* SPDX-License-Identifier: BSD-2-Clause */
/* Rules about taking pages out, and about what cannot be taken: see rules.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux/hand_over.h"
#include "linux/kernel/uffd_abi.h"
#include "linux/rules.h"
#include <errno.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vmem/snapshot.h>

static struct vmemt_rig rig;

/* fork() makes pages immovable for the parent until they are written; ours are kept from children. */
static void rule_18_a_fork_makes_nothing_immovable(void)
{
	uint64_t pages = 0;
	pid_t child;

	vmemt_rig_make(&rig, 32, 0, NULL);
	child = vmemt_fork();
	if (!child)
		_exit(0);
	assert(!vmemt_end_of(child));
	assert(!vmem_region_stage(rig.region, 0, 32 * PAGE, &pages) && pages == 32);
	assert(!vmemt_metrics(rig.region).unmovable);
	vmemt_rig_threads(&rig);
	vmemt_rig_expect(&rig, 0, 32, 1);
	vmemt_rig_end(&rig);
}

/* An io_uring that holds @pages pages at @memory for DMA; -1: not here. */
static int hold(void *memory, uint64_t pages)
{
	struct io_uring_params p = { 0 };
	struct iovec buffer = { memory, pages * PAGE };
	int ring = (int)syscall(SYS_io_uring_setup, 4, &p);

	if (ring < 0)
		VMEMT_NOT_HERE("pages registered for DMA (no io_uring)");
	else
		assert(!syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &buffer, 1));
	return ring;
}

static int attaching(void *memory, uint64_t bytes)
{
	struct vmem_region_opts o = { .size = sizeof(o), .hva = memory, .bytes = bytes };
	vmem_region *r = NULL;
	int error = vmem_region_attach(&r, rig.manager, &o);

	if (!error)
		assert(!vmem_region_detach(r, VMEM_DETACH_DISCARD));
	return error;
}

/* Memory of which no page can ever leave is refused by name; a page that the kernel holds for a while stays,
 * and is not asked for again and again. */
static void rule_19_what_cannot_be_moved(void)
{
	FILE *file = tmpfile();
	void *locked =
		mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *of_file;
	uint64_t pages = 0;
	int ring;

	vmemt_rig_make(&rig, 32, 0, NULL);
	assert(file && !ftruncate(fileno(file), 4 * PAGE) && locked != MAP_FAILED);
	of_file = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fileno(file), 0);
	assert(of_file != MAP_FAILED);
	assert(attaching(of_file, 4 * PAGE) == -VMEM_ENOTSUP);
	assert(strstr(vmem_region_why(of_file, 4 * PAGE), "file"));
	if (VMEMT_SANITIZED || mlock(locked, 4 * PAGE)) { /* sanitizers only pretend */
		VMEMT_NOT_HERE("mlocked memory (no right, or a sanitizer)");
	} else {
		assert(attaching(locked, 4 * PAGE) == -VMEM_ENOTSUP);
		assert(strstr(vmem_region_why(locked, 4 * PAGE), "mlocked"));
	}
	ring = hold(rig.base + 5 * PAGE, 2);
	assert(!vmem_region_stage(rig.region, 0, 32 * PAGE, &pages));
	assert(pages == (ring < 0 ? 32u : 30u));
	assert(vmemt_metrics(rig.region).unmovable == (ring < 0 ? 0u : 2u));
	for (uint64_t i = 4; i < 8; i++)
		assert(vmemt_kept(rig.region, i) == (ring >= 0 && i > 4 && i < 7));
	if (ring >= 0)
		close(ring);
	vmemt_rig_threads(&rig);
	vmemt_rig_expect(&rig, 0, 32, 1);
	vmemt_rig_end(&rig);
	fclose(file);
	munmap(of_file, 4 * PAGE);
	munmap(locked, 4 * PAGE);
}

/* A run with a hole and held pages in it leaves but for those, by a few calls: neither does "again" keep
 * the library at it for ever, nor do they keep their neighbours. */
static void rule_20_a_run_goes_round_what_is_in_its_way(void)
{
	uint64_t pages = 0;
	long calls;
	int ring;

	vmemt_rig_make(&rig, 64, 0, NULL);
	ring = hold(rig.base + 40 * PAGE, 2);
	assert(!madvise(rig.base + 20 * PAGE, PAGE,
			MADV_DONTNEED)); /* nobody may, but it happens */
	calls = vmemt_kernel.calls[VMEMT_K_MOVE];
	assert(!vmem_region_stage(rig.region, 0, 64 * PAGE, &pages));
	assert(pages == (ring < 0 ? 63u : 61u));
	assert(vmemt_kernel.calls[VMEMT_K_MOVE] - calls < 1000);
	assert(vmemt_state(rig.region, 20) == VMEM_PAGE_ABSENT);
	if (ring >= 0) {
		assert(vmemt_state(rig.region, 40) == VMEM_PAGE_RESIDENT);
		assert(vmemt_state(rig.region, 41) == VMEM_PAGE_RESIDENT);
		assert(vmemt_state(rig.region, 42) == VMEM_PAGE_STAGED);
		close(ring);
	}
	vmemt_rig_threads(&rig);
	vmemt_rig_expect(&rig, 0, 20, 1);
	vmemt_rig_expect(&rig, 20, 1, 0);
	vmemt_rig_expect(&rig, 21, 43, 1);
	vmemt_rig_end(&rig);
}

static _Atomic long lies; /* atomic; to come */

/* Linux 6.18 does that if somebody touches the page meanwhile. */
static bool moves_and_says_it_exists(enum vmemt_call call, void *argument, int fd, int *ret_result)
{
	struct vmemi_uffdio_move *move = argument;

	if (call != VMEMT_K_MOVE || atomic_load(&lies) <= 0 ||
	    vmemi_kernel_linux.ioctl(fd, VMEMI_UFFDIO_MOVE, move))
		return false;
	atomic_fetch_sub(&lies, 1);
	move->move = -VMEM_EEXIST;
	*ret_result = -VMEM_EEXIST;
	return true;
}

static int note_written(void *context, uint64_t gpa, uint64_t bytes)
{
	uint64_t *written = context;

	for (uint64_t page = gpa / PAGE; page < (gpa + bytes) / PAGE; page++)
		*written |= UINT64_C(1) << page;
	return 0;
}

/* Whatever the kernel moves and denies, on the way out or back: no page is lost, none is there twice. Page 5 comes
 * back because it does not compress. */
static void denied_moves(long count)
{
	struct vmemt_page noise, got;
	uint64_t written = 0;

	vmemt_rig_make(&rig, 16, 0, NULL);
	vmemt_page_make(&noise, VMEMT_PAGE_NOISE, 5);
	assert(!vmem_region_write(rig.region, 5 * PAGE, &noise, PAGE));
	assert(!vmem_region_dirty_start(rig.region));
	assert(!vmem_region_dirty_round(rig.region, 0, 16 * PAGE, note_written, &written, NULL));
	vmemt_kernel.before = moves_and_says_it_exists;
	atomic_store(&lies, count);
	for (long i = 0; i <= count % 2; i++) {
		assert(!vmem_region_stage(rig.region, 0, 16 * PAGE, NULL));
		assert(!vmem_region_store(rig.region, 0, 16 * PAGE, NULL));
	}
	assert(atomic_load(&lies) <= 0);
	vmemt_kernel.before = NULL;
	assert(!vmemi_region_check(rig.region));
	for (uint64_t i = 0; i < 16; i++)
		assert((vmemt_state(rig.region, i) == VMEM_PAGE_RESIDENT) ==
		       vmemt_mapped(rig.base + i * PAGE));
	vmemt_rig_threads(&rig);
	vmemt_rig_expect(&rig, 0, 5, 1);
	vmemt_rig_expect(&rig, 6, 10, 1);
	assert(!vmemt_touch(&rig.cpu[0], VMEMT_READ, rig.base + 5 * PAGE, &got, PAGE));
	assert(!memcmp(&got, &noise, PAGE));
	/* Nor is a write, to who asks what was written. */
	for (uint64_t i = 0; i < 16; i++)
		vmemt_put(&rig.cpu[0], rig.base, i, 2);
	written = 0;
	assert(!vmem_region_dirty_round(rig.region, 0, 16 * PAGE, note_written, &written, NULL));
	assert(written == 0xffff);
	assert(!vmem_region_dirty_stop(rig.region));
	assert(!vmemt_metrics(rig.region).lost);
	vmemt_rig_end(&rig);
}

static void rule_20_what_has_moved_though_the_kernel_denies_it(void)
{
	for (long count = 1; count <= 12; count++)
		denied_moves(count);
}

/* --- another process --- */

/* Registers its memory, hands its userfaultfd over, and says what it reads there. */
static int other_process(int socket, volatile unsigned char *memory)
{
	struct vmemi_uffd u;
	uint64_t ioctls;
	char byte;

	if (vmemi_uffd_open(&u, &vmemi_kernel_linux, 0,
			    VMEMI_UFFD_FEATURE_WP | VMEMI_UFFD_FEATURE_MOVE) ||
	    vmemi_uffd_register(&u, (void *)(uintptr_t)memory, 4 * PAGE, true, &ioctls))
		return 1;
	vmemt_send_fd(socket, u.fd);
	if (read(socket, &byte, 1) != 1) /* until everything was tried */
		return 2;
	return memory[0] != 5 || memory[PAGE] != 0 || memory[2 * PAGE] != 6;
}

/* Discards a page of another process, as we do with our own. */
static ssize_t discard_of(pid_t process, void *page)
{
	struct iovec range = { page, PAGE };
	int fd = (int)syscall(SYS_pidfd_open, process, 0), error;
	ssize_t bytes;

	assert(fd >= 0);
	bytes = syscall(SYS_process_madvise, fd, &range, 1, MADV_DONTNEED, 0);
	error = errno;
	close(fd);
	errno = error;
	return bytes;
}

/* What works on the memory of another process: COPY, ZEROPAGE, WRITEPROTECT; neither MOVE nor a discard does. So
 * such memory is served, and never taken out: foreign_test.c. */
static void rule_21_what_works_on_another_process(void)
{
	unsigned char *memory =
		mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char *own =
		mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct vmemi_uffd u = { .k = &vmemi_kernel_linux };
	int sockets[2];
	size_t done;
	pid_t child;

	assert(memory != MAP_FAILED && own != MAP_FAILED);
	assert(!socketpair(AF_UNIX, SOCK_STREAM, 0, sockets));
	child = vmemt_fork();
	if (!child)
		_exit(other_process(sockets[1], memory));
	close(sockets[1]); /* what the child does not send is the end, if it fails */
	u.fd = vmemt_receive_fd(sockets[0]);
	assert(u.fd >= 0);
	own[0] = 5;
	own[PAGE] = 6;
	assert(!vmemi_uffd_copy(&u, memory, own, PAGE, false, &done));
	assert(!vmemi_uffd_zeropage(&u, memory + PAGE, PAGE));
	assert(vmemi_uffd_move(&u, memory + 2 * PAGE, own + PAGE, PAGE, &done) == -VMEM_EINVAL);
	assert(!vmemi_uffd_copy(&u, memory + 2 * PAGE, own + PAGE, PAGE, true, &done));
	assert(!vmemi_uffd_protect(&u, memory, 4 * PAGE, true));
	assert(!vmemi_uffd_protect(&u, memory, 4 * PAGE, false));
	/* An ordinary user may not ask at all. */
	assert(discard_of(child, memory) == -1 && (errno == EINVAL || errno == EPERM));
	assert(write(sockets[0], "", 1) == 1);
	assert(!vmemt_end_of(child));
	vmemi_uffd_close(&u);
	close(sockets[0]);
	munmap(memory, 4 * PAGE);
	munmap(own, 2 * PAGE);
}

/* Each move flushes the other cores' TLBs: a run is one call; and what comes back is copied. */
static void rule_22_runs_leave_by_one_call_and_come_back_by_copy(void)
{
	long moves;

	vmemt_rig_make(&rig, 256, 0, NULL);
	moves = vmemt_kernel.calls[VMEMT_K_MOVE];
	vmemt_stage(rig.region, 0, 256);
	assert(vmemt_kernel.calls[VMEMT_K_MOVE] - moves < 32);
	vmemt_rig_threads(&rig);
	moves = vmemt_kernel.calls[VMEMT_K_MOVE];
	vmemt_rig_expect(&rig, 0, 256, 1);
	assert(vmemt_kernel.calls[VMEMT_K_MOVE] ==
	       moves); /* there is no budget, so frames enough */
	vmemt_rig_end(&rig);
}

/* Scattered pages share their flushes: a few calls for all of them; and what is between is as it was. */
static void rule_23_scattered_pages_leave_together(void)
{
	uint64_t gpas[100], pages = 0;
	long protects, moves, discards;

	vmemt_rig_make(&rig, 256, VMEM_REGION_DMA_PINNED, NULL);
	for (uint64_t i = 0; i < 100; i++)
		gpas[i] = 2 * i * PAGE;
	/* Runs of one are moved where hot pages are between; here are none. */
	protects = vmemt_kernel.calls[VMEMT_K_PROTECT];
	moves = vmemt_kernel.calls[VMEMT_K_MOVE];
	discards = vmemt_kernel.calls[VMEMT_K_MADVISE];
	assert(!vmem_region_stage_pages(rig.region, gpas, 100, &pages) && pages == 100);
	assert(vmemt_metrics(rig.region).taken_scattered == 100);
	assert(vmemt_kernel.calls[VMEMT_K_MOVE] == moves);
	assert(vmemt_kernel.calls[VMEMT_K_PROTECT] - protects < 20);
	if (vmemt_manager_metrics(rig.manager).kernel_features & VMEM_KERNEL_VECTOR_DISCARD)
		assert(vmemt_kernel.calls[VMEMT_K_MADVISE] - discards < 20);
	vmemt_rig_threads(&rig);
	for (uint64_t i = 1; i < 200; i += 2)
		vmemt_put(&rig.cpu[0], rig.base, i, 1);
	assert(!vmemt_metrics(rig.region).faults_write);
	vmemt_rig_expect(&rig, 0, 256, 1);
	vmemt_rig_end(&rig);
}

struct reading {
	void *from;
	pthread_t thread;
	ssize_t result;
	int error;
	_Atomic int over; /* atomic */
};

static void *read_page(void *argument)
{
	struct reading *r = argument;
	struct vmemt_page page;
	struct iovec to = { &page, PAGE }, from = { r->from, PAGE };

	r->result = process_vm_readv(getpid(), &to, 1, &from, 1, 0);
	r->error = errno;
	atomic_store(&r->over, 1);
	return NULL;
}

/* As savers may read: by a system call. It comes to an end. */
static ssize_t read_there(struct reading *r)
{
	atomic_store(&r->over, 0);
	assert(!pthread_create(&r->thread, NULL, read_page, r));
	VMEMT_UNTIL(atomic_load(&r->over));
	assert(!pthread_join(r->thread, NULL));
	return r->result;
}

/* Whoever reads a place in staging that is empty gets an error, and does not wait for a fault that nobody
 * answers. */
static void rule_24_a_read_of_staging_does_not_hang(void)
{
	struct reading place = { .over = 0 };

	vmemt_rig_make(&rig, 4, 0, NULL);
	vmemt_rig_threads(&rig);
	vmemt_stage(rig.region, 0, 1);
	place.from = vmemi_region_place(rig.region, 0);
	assert(read_there(&place) == (ssize_t)PAGE);
	vmemt_rig_expect(&rig, 0, 1, 1);
	vmemt_account(rig.region); /* frees copies */
	VMEMT_UNTIL(!vmemt_metrics(rig.region).staging_copies);
	assert(read_there(&place) == -1 && place.error == EFAULT);
	vmemt_rig_end(&rig);
}

/* What is shared with others can change without a fault of ours: such memory is refused by name, unless it is
 * known who maps it. */
static void rule_27_memory_of_others_is_refused(void)
{
	int fd = (int)syscall(SYS_memfd_create, "guest", 0);
	void *memory;

	vmemt_rig_make(&rig, 4, 0, NULL);
	assert(fd >= 0 && !ftruncate(fd, 4 * PAGE));
	memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert(memory != MAP_FAILED);
	assert(attaching(memory, 4 * PAGE) == -VMEM_ENOTSUP);
	assert(strstr(vmem_region_why(memory, 4 * PAGE), "shared"));
	munmap(memory, 4 * PAGE);
	close(fd);
	vmemt_rig_end(&rig);
}

#define COUNTERS 16

static _Atomic uint32_t counting; /* atomic */
static _Atomic uint64_t counted;  /* atomic */

/* Each page has a number that only this thread changes. */
static void *count_up(void *argument)
{
	volatile uint64_t *words = argument;

	for (uint64_t n = 0; atomic_load(&counting); n++)
		for (unsigned i = 0; i < COUNTERS; i++) {
			assert(words[i * PAGE / 8] == n);
			words[i * PAGE / 8] = n + 1;
			atomic_fetch_add(&counted, 1);
		}
	return NULL;
}

/* Memory in a file of this process alone: what is unmapped, stored and punched, and comes back, loses no write,
 * however they meet. */
static void rule_27_no_write_to_a_file_is_lost(void)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .flags = VMEM_REGION_FILE | VMEM_REGION_DMA_PINNED,
				      .bytes = COUNTERS * PAGE };
	vmem_manager *m = vmemt_manager(0);
	struct vmemt_page zeros = { { 0 } };
	vmem_region *r;
	pthread_t thread;

	if (!(vmemt_manager_metrics(m).kernel_features & VMEM_KERNEL_FILES)) {
		VMEMT_NOT_HERE("memory in files (this kernel)");
		assert(!vmem_manager_free(m));
		return;
	}
	assert(!vmem_region_alloc(&r, m, &o));
	for (uint64_t i = 0; i < COUNTERS; i++)
		assert(!vmem_region_write(r, i * PAGE, &zeros, PAGE));
	assert(!vmem_manager_thread_start(m));
	vmemt_store(r, 0, COUNTERS);
	atomic_store(&counting, 1);
	assert(!pthread_create(&thread, NULL, count_up, vmem_region_hva(r)));
	for (unsigned round = 0; round < (VMEMT_SANITIZED ? 100 : 500); round++) {
		vmemt_until_more(&counted, round % 4);
		assert(!vmem_region_stage(r, 0, COUNTERS * PAGE, NULL));
		assert(!vmem_region_store(r, 0, COUNTERS * PAGE, NULL));
	}
	atomic_store(&counting, 0);
	assert(!pthread_join(thread, NULL));
	vmemt_end(m, r);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_KERNEL_FAULTS);
	VMEMT_RULE(rule_18_a_fork_makes_nothing_immovable);
	VMEMT_RULE(rule_19_what_cannot_be_moved);
	VMEMT_RULE(rule_20_a_run_goes_round_what_is_in_its_way);
	VMEMT_RULE(rule_20_what_has_moved_though_the_kernel_denies_it);
	VMEMT_RULE(rule_21_what_works_on_another_process);
	VMEMT_RULE(rule_22_runs_leave_by_one_call_and_come_back_by_copy);
	VMEMT_RULE(rule_23_scattered_pages_leave_together);
	VMEMT_RULE(rule_24_a_read_of_staging_does_not_hang);
	VMEMT_RULE(rule_27_memory_of_others_is_refused);
	VMEMT_RULE(rule_27_no_write_to_a_file_is_lost);
	return 0;
}
