/* SPDX-License-Identifier: BSD-2-Clause */
/* Whatever dies, a guest stops or meets an error: it never reads zeros for what it wrote. The handler that
 * cannot read faults any more, the process, the descriptor that is closed early, the device that never
 * answers; and a supervisor that holds the descriptor after the pager. */
#include "linux/hand_over.h"
#include "linux/kernel/uffd_abi.h"
#include "linux/rules.h"
#include "linux/stored.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define FDS_MAX 8

static struct vmemt_rig rig;

/* --- in this process --- */

static _Atomic uint32_t deaf; /* atomic; faults cannot be read */
static _Atomic long in_vain;  /* atomic; reads that failed for it */

static ssize_t read_unless_deaf(int fd, void *buffer, size_t bytes)
{
	if (rig.manager && fd == rig.manager->host.uffd[0].fd && atomic_load(&deaf)) {
		atomic_fetch_add(&in_vain, 1);
		return -VMEM_EIO;
	}
	return vmemt_kernel_table.read(fd, buffer, bytes);
}

/* As if the handler's thread had died: a guest that touches a page that is away waits. Other ways in go on. */
static void handler_is_dead(void)
{
	static struct vmemi_kernel k;
	struct vmemt_page got, want;

	k = vmemt_kernel_table;
	k.read = read_unless_deaf;
	vmemt_rig_make(&rig, 8, 0, &k);
	vmemt_store(rig.region, 0, 4);
	vmemt_stage(rig.region, 4, 4);
	atomic_store(&deaf, 1);
	vmemt_rig_threads(&rig);
	memset(&got, 77, sizeof(got));
	vmemt_touch_begin(&rig.cpu[1], VMEMT_READ, rig.base + 2 * PAGE, &got, PAGE);
	VMEMT_UNTIL(vmemt_is_readable(rig.manager->host.uffd[0].fd) && atomic_load(&in_vain) > 10);
	for (uint64_t i = 4; i < 8; i++)
		assert(!vmem_region_resolve(rig.region, i * PAGE, 1));
	vmemt_rig_expect(&rig, 4, 4, 1);
	assert(!vmem_region_discard(rig.region, 5 * PAGE, PAGE, NULL));
	assert(!vmemt_touch_over(&rig.cpu[1]));
	atomic_store(&deaf, 0);
	assert(!vmemt_touch_end(&rig.cpu[1]));
	vmemt_make(&want, 2, 1);
	assert(!memcmp(&got, &want, PAGE));
	vmemt_rig_end(&rig);
}

static _Atomic uint32_t told; /* atomic; times that on_lost was called */

static void on_lost(void *context, uint64_t gpa, int error)
{
	assert(!context && gpa == PAGE && error == -VMEM_EIO);
	atomic_fetch_add(&told, 1);
}

/* A load that never ends: at its deadline the page is an error, where there are such; else whoever touches it
 * waits until the VMM gives it up. */
static void device_never_answers(uint64_t hide)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .bytes = 4 * PAGE,
				      .fault_around_pages = 1,
				      .fault_deadline_ms = 20,
				      .on_lost = on_lost };
	struct vmemt_page got;

	vmemt_rig_make(&rig, 1, 0, NULL);
	assert(!vmem_region_detach(rig.region, VMEM_DETACH_DISCARD));
	assert(!vmem_manager_free(rig.manager));
	vmemt_kernel.hide = hide;
	atomic_store(&told, 0);
	assert(!vmemi_manager_new(&rig.manager, NULL, &vmemt_kernel_table));
	vmemt_catch_signals(rig.manager);
	assert(!vmem_region_alloc(&rig.region, rig.manager, &o));
	rig.base = vmem_region_hva(rig.region);
	vmemt_rig_threads(&rig);
	for (unsigned i = 0; i < RULES_CPUS; i++)
		rig.cpu[i].region = rig.region;
	for (uint64_t i = 0; i < 4; i++)
		vmemt_put(&rig.cpu[0], rig.base, i, 1);
	vmemt_store(rig.region, 0, 4);
	vmemt_slow_start(rig.manager->host.store);
	memset(&got, 77, sizeof(got));
	vmemt_touch_begin(&rig.cpu[1], VMEMT_READ, rig.base + PAGE, &got, PAGE);
	VMEMT_UNTIL(atomic_load(&told) == 1);
	VMEMT_UNTIL(vmemt_state(rig.region, 1) == VMEM_PAGE_POISONED);
	if (!hide) {
		assert(vmemt_touch_end(&rig.cpu[1]) == SIGBUS);
		assert(rig.cpu[1].answer == -VMEM_EIO && got.bytes[0] == 77);
	} else {
		assert(!vmemt_touch_over(&rig.cpu[1]));
	}
	assert(!vmem_region_discard(rig.region, PAGE, PAGE, NULL));
	if (hide) /* what the VMM gave up reads as zeros */
		assert(!vmemt_touch_end(&rig.cpu[1]) && got.bytes[0] == 0);
	assert(!vmemt_slow_finish(0, 0));
	vmemt_slow_hold(0);
	VMEMT_UNTIL(!atomic_load(&rig.manager->host.buffer_busy));
	vmemt_rig_expect(&rig, 0, 1, 1);
	vmemt_rig_expect(&rig, 1, 1, 0);
	vmemt_rig_expect(&rig, 2, 2, 1);
	vmem_manager_thread_stop(rig.manager);
	vmemt_slow_stop();
	vmemt_rig_end(&rig);
}

/* --- with a supervisor --- */

/* What a guest's process says with its exit status. */
enum { SAW_ZEROS, SAW_DATA, MET_ERROR, FAILED };

enum how { KEEPS, CLOSES };

static void error_was_met(int number)
{
	(void)number;
	_exit(MET_ERROR);
}

static int touch_page(const volatile unsigned char *page)
{
	unsigned char byte = *page;

	return byte == 0 ? SAW_ZEROS : byte == 5 ? SAW_DATA : FAILED;
}

/* A process with guest memory of which all is away. Its descriptors go through the socket; told to, it closes
 * them, as a pager that dies does; then it touches a page. */
static int guest_process(int socket, enum how how)
{
	struct vmem_region_opts o = { .size = sizeof(o), .bytes = 4 * PAGE };
	static unsigned char page[PAGE];
	int fds[FDS_MAX], count;
	vmem_manager *m;
	vmem_region *r;
	char byte;

	memset(page, 5, sizeof(page));
	if (vmem_manager_new(&m, NULL) || vmem_region_alloc(&r, m, &o))
		return FAILED;
	for (uint64_t i = 0; i < 4; i++)
		if (vmem_region_write(r, i * PAGE, page, PAGE))
			return FAILED;
	if (vmem_region_stage(r, 0, 4 * PAGE, NULL))
		return FAILED;
	count = vmem_manager_descriptors(m, fds, FDS_MAX);
	if (count < 1 || count > FDS_MAX || vmem_manager_descriptors(m, NULL, 0) != count ||
	    vmem_manager_descriptors(m, NULL, 1) != -VMEM_EINVAL)
		return FAILED;
	signal(SIGBUS, error_was_met);
	vmemt_send_fd(socket, fds[0]);
	if (read(socket, &byte, 1) != 1) /* the supervisor has it, or has let it go */
		return FAILED;
	for (int i = 0; how == CLOSES && i < count; i++)
		close(fds[i]);
	return touch_page(vmem_region_hva(r));
}

struct guest {
	pid_t pid;
	int socket, fd;
};

static struct guest start_guest(enum how how)
{
	struct guest g = { .pid = 0 };
	int sockets[2];

	assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets));
	g.pid = vmemt_fork();
	if (!g.pid)
		_exit(guest_process(sockets[1], how));
	close(sockets[1]);
	g.socket = sockets[0];
	g.fd = vmemt_receive_fd(g.socket);
	assert(g.fd >= 0);
	return g;
}

static void go_on(const struct guest *g)
{
	assert(write(g->socket, "", 1) == 1);
}

static int end_of(const struct guest *g)
{
	int status = vmemt_end_of(g->pid);

	close(g->socket);
	return status;
}

/* Where a process comes to wait. */
static uint64_t faulting_page(int fd)
{
	struct uffd_msg m = { .event = 0 };

	vmemt_until_readable(fd);
	assert(read(fd, &m, sizeof(m)) == sizeof(m) && m.event == UFFD_EVENT_PAGEFAULT);
	return m.arg.pagefault.address & ~(uint64_t)(PAGE - 1);
}

/* Lets the guest go on, to where it waits. */
static uint64_t fault_of(const struct guest *g)
{
	uint64_t page;

	go_on(g);
	page = faulting_page(g->fd);
	assert(waitpid(g->pid, NULL, WNOHANG) == 0);
	return page;
}

/* The danger: nobody holds the descriptor any more. */
static void without_a_holder_there_are_zeros(void)
{
	struct guest g = start_guest(CLOSES);
	int status;

	close(g.fd);
	go_on(&g);
	status = end_of(&g);
	assert(WIFEXITED(status) && WEXITSTATUS(status) == SAW_ZEROS);
}

/* The same with a supervisor: the guest waits, and meets the error that the supervisor makes. */
static void a_holder_makes_it_an_error(void)
{
	struct guest g = start_guest(CLOSES);
	struct vmemi_uffd u = { .k = &vmemi_kernel_linux, .fd = g.fd };
	uint64_t page = fault_of(&g);
	int status;

	assert(!vmemi_uffd_poison(&u, (void *)(uintptr_t)page, PAGE));
	status = end_of(&g);
	assert(WIFEXITED(status) && WEXITSTATUS(status) == MET_ERROR);
	close(g.fd);
}

/* Or it ends the guest, which dies although its fault was not answered. */
static void a_holder_ends_the_guest(enum how how)
{
	struct guest g = start_guest(how);
	struct vmemi_uffd u = { .k = &vmemi_kernel_linux, .fd = g.fd };
	uint64_t page = fault_of(&g);
	int status;

	assert(!kill(g.pid, SIGKILL));
	status = end_of(&g);
	assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert(vmemi_uffd_zeropage(&u, (void *)(uintptr_t)page, PAGE)); /* there is no memory */
	close(g.fd);
}

/* --- a pager that is another process --- */

/* Serves one fault, then no more. */
static void pager_process(int fd, int socket)
{
	struct vmemi_uffd u = { .k = &vmemi_kernel_linux, .fd = fd };
	static unsigned char page[PAGE];
	uint64_t address = faulting_page(fd);
	size_t done;

	memset(page, 5, sizeof(page));
	if (vmemi_uffd_copy(&u, (void *)(uintptr_t)address, page, PAGE, false, &done) ||
	    write(socket, "", 1) != 1)
		_exit(1);
	for (;;)
		pause();
}

/* Memory whose faults are served from outside alone. */
static int foreign_process(int socket)
{
	unsigned char *memory =
		mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct vmemi_uffd u;
	uint64_t ioctls;
	char byte;

	if (memory == MAP_FAILED ||
	    vmemi_uffd_open(&u, &vmemi_kernel_linux, VMEMI_UFFD_FEATURE_POISON, 0) ||
	    vmemi_uffd_register(&u, memory, 2 * PAGE, false, &ioctls))
		return FAILED;
	signal(SIGBUS, error_was_met);
	vmemt_send_fd(socket, u.fd);
	vmemi_uffd_close(&u);
	if (touch_page(memory) != SAW_DATA || read(socket, &byte, 1) != 1)
		return FAILED;
	return touch_page(memory + PAGE);
}

/* The pager is killed: its guest, in another process, waits as long as the supervisor holds the descriptor. */
static void pager_is_killed(void)
{
	struct vmemi_uffd u = { .k = &vmemi_kernel_linux };
	int to_guest[2], to_pager[2], status;
	pid_t guest, pager;
	uint64_t page;
	char byte;

	assert(!socketpair(AF_UNIX, SOCK_STREAM, 0, to_guest));
	assert(!socketpair(AF_UNIX, SOCK_STREAM, 0, to_pager));
	guest = vmemt_fork();
	if (!guest)
		_exit(foreign_process(to_guest[1]));
	close(to_guest[1]);
	u.fd = vmemt_receive_fd(to_guest[0]);
	assert(u.fd >= 0);
	pager = vmemt_fork();
	if (!pager)
		pager_process(u.fd, to_pager[1]);
	close(to_pager[1]);
	assert(read(to_pager[0], &byte, 1) == 1);
	assert(!kill(pager, SIGKILL));
	status = vmemt_end_of(pager);
	assert(WIFSIGNALED(status));
	assert(write(to_guest[0], "", 1) == 1);
	page = faulting_page(u.fd);
	assert(waitpid(guest, &status, WNOHANG) == 0);
	assert(!vmemi_uffd_poison(&u, (void *)(uintptr_t)page, PAGE));
	status = vmemt_end_of(guest);
	assert(WIFEXITED(status) && WEXITSTATUS(status) == MET_ERROR);
	vmemi_uffd_close(&u);
	close(to_guest[0]);
	close(to_pager[0]);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_POISON | VMEM_KERNEL_MOVE | VMEM_KERNEL_WP |
		   VMEM_KERNEL_KERNEL_FAULTS);
	/* First those that fork: no thread has been started yet. */
	without_a_holder_there_are_zeros();
	a_holder_makes_it_an_error();
	a_holder_ends_the_guest(CLOSES);
	a_holder_ends_the_guest(KEEPS);
	pager_is_killed();
	handler_is_dead();
	device_never_answers(0);
	device_never_answers(VMEMI_UFFD_FEATURE_POISON);
	return 0;
}
