/* SPDX-License-Identifier: BSD-2-Clause */
/* See peer_process.h. The process that makes them waits for orders on one socket, each of them on a socket of its own. */
#define _GNU_SOURCE
#include "linux/peer_process.h"
#include "linux/backing/peers.h"
#include "linux/hand_over.h"
#include "linux/kernel/uffd_abi.h"
#include "support/rng.h"
#include "support/slow.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE VMEM_PAGE_SIZE
#define FLOOD (VMEMT_SLOW ? 2000 : 20000)
#define LOOK_MS 100
#define HUGE_BYTES (UINT64_C(2) << 20)

enum order { START, MAP, TOUCH_READ, TOUCH_WRITE, TRICK, COUNT, LEAVE };

struct message {
	uint64_t order, page, version; /* of MAP: offset, features */
	uint64_t bytes;
	enum vmemt_peer_trick trick;
	struct vmemt_count count;
	/* the answer */
	int pid, signal;
	uint64_t address, wrong;
	struct vmemt_page data;
};

static int maker; /* socket of who makes them */

static void must(bool holds)
{
	if (!holds)
		_exit(9); /* who waits for its answer fails */
}

/* --- in the peer --- */

static sigjmp_buf escape;
static volatile unsigned char *memory;
static uint64_t memory_bytes;
static int own_uffd, own_file;

static void on_signal(int number)
{
	siglongjmp(escape, number);
}

int vmemt_peer_uffd(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static void map(int socket, struct message *m)
{
	int fd = vmemt_receive_fd(socket);
	void *at;

	/* Huge pages of its fit there, too. */
	at = mmap(NULL, m->bytes + 2 * HUGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(fd >= 0 && at != MAP_FAILED);
	at = (void *)(((uintptr_t)at + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES);
	at = mmap(at, m->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)m->page);
	must(at != MAP_FAILED && !madvise(at, m->bytes, MADV_DONTFORK));
	own_uffd = vmemt_peer_uffd(m->version);
	must(own_uffd >= 0);
	own_file = fd;
	memory = at;
	memory_bytes = m->bytes;
	m->address = (uintptr_t)at;
	must(send(socket, m, sizeof(*m), 0) == sizeof(*m));
	vmemt_send_fd(socket, own_uffd);
}

static void touch(struct message *m)
{
	volatile uint64_t *at = (volatile uint64_t *)(memory + m->page * PAGE);
	uint64_t *data = (uint64_t *)&m->data;

	m->signal = sigsetjmp(escape, 1);
	for (size_t i = 0; i < PAGE / 8 && !m->signal; i++) {
		if (m->order == TOUCH_READ)
			data[i] = at[i];
		else
			at[i] = data[i];
	}
}

static void replace(int flags, int fd)
{
	must(mmap((void *)(uintptr_t)memory, memory_bytes, PROT_READ | PROT_WRITE,
		  flags | MAP_FIXED, fd, 0) != MAP_FAILED);
}

static void cover_with_huge_pages(void)
{
	uint64_t bytes = (memory_bytes + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
	struct uffdio_register reg = { .range = { (uintptr_t)memory, bytes },
				       .mode = UFFDIO_REGISTER_MODE_MISSING |
					       UFFDIO_REGISTER_MODE_WP };
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE | MAP_HUGETLB |
		    21 << MAP_HUGE_SHIFT;

	if (mmap((void *)(uintptr_t)memory, bytes, PROT_READ | PROT_WRITE, flags, -1, 0) !=
	    MAP_FAILED)
		must(!ioctl(own_uffd, UFFDIO_REGISTER, &reg));
}

static void flood(struct message *m)
{
	for (unsigned i = 0; i < FLOOD && !m->signal; i++) {
		madvise((void *)(uintptr_t)(memory + m->page * PAGE), PAGE, MADV_DONTNEED);
		m->wrong += memory[m->page * PAGE] != memory[m->page * PAGE];
	}
}

static void trick(struct message *m)
{
	void *page = (void *)(uintptr_t)(memory + m->page * PAGE);
	struct uffdio_register reg = { .range = { (uintptr_t)memory, memory_bytes },
				       .mode = UFFDIO_REGISTER_MODE_MISSING |
					       UFFDIO_REGISTER_MODE_MINOR |
					       UFFDIO_REGISTER_MODE_WP };
	struct uffd_msg stolen;
	int fd;

	switch (m->trick) {
	case VMEMT_PEER_UNMAP: must(!munmap(page, PAGE)); break;
	case VMEMT_PEER_DONTNEED: must(!madvise(page, PAGE, MADV_DONTNEED)); break;
	case VMEMT_PEER_OTHER:
		fd = memfd_create("other", MFD_CLOEXEC);
		must(fd >= 0 && !ftruncate(fd, (off_t)memory_bytes));
		replace(MAP_SHARED, fd);
		must(!ioctl(own_uffd, UFFDIO_REGISTER, &reg));
		break;
	case VMEMT_PEER_PRIVATE: replace(MAP_PRIVATE | MAP_ANONYMOUS, -1); break;
	case VMEMT_PEER_HUGE: cover_with_huge_pages(); break;
	case VMEMT_PEER_BLOCKING: must(!fcntl(own_uffd, F_SETFL, 0)); break;
	case VMEMT_PEER_CLOSE: must(!close(own_uffd)); break;
	case VMEMT_PEER_STEAL:
		if (read(own_uffd, &stolen, sizeof(stolen)) < 0)
			m->wrong = 1;
		break;
	case VMEMT_PEER_FLOOD: flood(m); break;
	case VMEMT_PEER_SEAL: must(!fcntl(own_file, F_ADD_SEALS, F_SEAL_FUTURE_WRITE)); break;
	}
}

uint64_t vmemt_count_up(const struct vmemt_count *c, volatile unsigned char *base, uint64_t pages)
{
	uint64_t seed = c->seed, wrong = 0, *have = calloc(pages, sizeof(*have));

	must(have != NULL);
	for (uint64_t i = 0; i < c->rounds; i++) {
		uint64_t page = vmemt_rand(&seed) % pages;
		volatile uint64_t *at = (volatile uint64_t *)(base + page * PAGE) + c->word;

		wrong += *at != have[page];
		if (i % 4) /* some only read */
			*at = ++have[page];
	}
	for (uint64_t page = 0; page < pages; page++)
		wrong += ((volatile uint64_t *)(base + page * PAGE))[c->word] != have[page];
	free(have);
	return wrong;
}

static void serve(int socket)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct message m;

	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
	while (recv(socket, &m, sizeof(m), 0) == sizeof(m) && m.order != LEAVE) {
		switch (m.order) {
		case MAP: map(socket, &m); continue;
		case TOUCH_READ:
		case TOUCH_WRITE: touch(&m); break;
		case TRICK: trick(&m); break;
		default: m.wrong = vmemt_count_up(&m.count, memory, memory_bytes / PAGE);
		}
		must(send(socket, &m, sizeof(m), 0) == sizeof(m));
	}
	_exit(0);
}

/* --- who makes them --- */

static void make(int socket)
{
	struct message m;
	int pair[2];

	signal(SIGCHLD, SIG_IGN);
	while (recv(socket, &m, sizeof(m), 0) == sizeof(m)) {
		must(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
		m.pid = fork();
		if (!m.pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(socket);
			close(pair[0]);
			serve(pair[1]);
		}
		must(m.pid > 0 && send(socket, &m, sizeof(m), 0) == sizeof(m));
		vmemt_send_fd(socket, pair[0]);
		close(pair[0]);
		close(pair[1]);
	}
	_exit(0);
}

/* --- in the test --- */

void vmemt_peers_prepare(void)
{
	int pair[2];
	pid_t pid;

	assert(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
	pid = fork();
	assert(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(pair[0]);
		make(pair[1]);
	}
	close(pair[1]);
	maker = pair[0];
}

void vmemt_peers_end(void)
{
	close(maker);
}

static void order(int socket, const struct message *m)
{
	assert(send(socket, m, sizeof(*m), 0) == sizeof(*m));
}

/* It may take long while faults of its region's peers are answered. */
static void answer_of(int socket, struct message *m, vmem_region *r)
{
	struct pollfd p = { .fd = socket, .events = POLLIN };
	uint64_t end_ms = vmemt_now_ms() + VMEMT_DEADLINE_MS, last = 0, faults;

	while (poll(&p, 1, LOOK_MS) != 1) {
		VMEMT_NOT_AFTER(end_ms, "an answer of a peer");
		faults = r ? vmemt_metrics(r).faults_peer : 0;
		if (faults != last)
			end_ms = vmemt_now_ms() + VMEMT_DEADLINE_MS;
		last = faults;
	}
	assert(recv(socket, m, sizeof(*m), 0) == sizeof(*m));
}

static void answer(int socket, struct message *m)
{
	answer_of(socket, m, NULL);
}

void vmemt_peer_start(struct vmemt_peer *p, int fd, uint64_t offset, uint64_t bytes,
		      uint64_t features)
{
	struct message m = { .order = START };

	order(maker, &m);
	answer(maker, &m);
	p->pid = m.pid;
	p->socket = vmemt_receive_fd(maker);
	assert(p->socket >= 0);
	m = (struct message){ .order = MAP, .page = offset, .version = features, .bytes = bytes };
	order(p->socket, &m);
	vmemt_send_fd(p->socket, fd);
	answer(p->socket, &m);
	p->address = m.address;
	p->bytes = bytes;
	p->uffd = vmemt_receive_fd(p->socket);
	assert(p->uffd >= 0);
	p->peer = NULL;
}

int vmemt_peer_add(struct vmemt_peer *p, vmem_region *r)
{
	struct vmem_peer_opts o = {
		.size = sizeof(o),
		.gpa = r->opts.gpa,
		.bytes = p->bytes,
		.address = p->address,
		.userfaultfd = p->uffd,
	};

	return vmem_region_add_peer(&p->peer, r, &o);
}

void vmemt_peer_join(struct vmemt_peer *p, vmem_region *r)
{
	vmemt_peer_start(p, vmem_region_file(r), r->file.offset, r->opts.bytes, 0);
	assert(!vmemt_peer_add(p, r));
}

static void wait_for_end(struct vmemt_peer *p)
{
	struct pollfd over = { .fd = p->socket, .events = POLLIN };
	struct message m;

	/* Its memory goes before its descriptors do. */
	do
		VMEMT_UNTIL(poll(&over, 1, LOOK_MS) == 1);
	while (recv(p->socket, &m, sizeof(m), 0) > 0);
	close(p->socket);
	close(p->uffd);
}

void vmemt_peer_leave(struct vmemt_peer *p)
{
	struct message m = { .order = LEAVE };

	if (p->pid) {
		order(p->socket, &m);
		wait_for_end(p);
	}
	p->pid = 0;
	if (p->peer)
		assert(!vmem_region_remove_peer(p->peer));
	p->peer = NULL;
}

void vmemt_peer_kill(struct vmemt_peer *p)
{
	assert(!kill(p->pid, SIGKILL));
	wait_for_end(p);
	p->pid = 0;
}

void vmemt_peer_begin(struct vmemt_peer *p, enum vmemt_touch touch, uint64_t page, uint64_t version)
{
	struct message m = { .order = touch == VMEMT_READ ? TOUCH_READ : TOUCH_WRITE,
			     .page = page };

	if (touch == VMEMT_WRITE)
		vmemt_make(&m.data, page, version);
	order(p->socket, &m);
}

bool vmemt_peer_over(struct vmemt_peer *p)
{
	struct pollfd over = { .fd = p->socket, .events = POLLIN };

	return poll(&over, 1, 0) == 1;
}

int vmemt_peer_finish(struct vmemt_peer *p, struct vmemt_page *ret_page)
{
	struct message m;

	answer(p->socket, &m);
	if (ret_page)
		*ret_page = m.data;
	return m.signal;
}

bool vmemt_peer_pending(const struct vmemt_peer *p)
{
	struct pollfd fault = { .fd = p->uffd, .events = POLLIN };

	return poll(&fault, 1, 0) == 1 && (fault.revents & POLLIN);
}

void vmemt_peer_put(struct vmemt_peer *p, uint64_t page, uint64_t version)
{
	vmemt_peer_begin(p, VMEMT_WRITE, page, version);
	assert(!vmemt_peer_finish(p, NULL));
}

bool vmemt_peer_is(struct vmemt_peer *p, uint64_t page, uint64_t version)
{
	struct vmemt_page got, want;

	vmemt_make(&want, page, version);
	vmemt_peer_begin(p, VMEMT_READ, page, 0);
	assert(!vmemt_peer_finish(p, &got));
	return !memcmp(&got, &want, PAGE);
}

int vmemt_peer_read(struct vmemt_peer *p, uint64_t page)
{
	vmemt_peer_begin(p, VMEMT_READ, page, 0);
	return vmemt_peer_finish(p, NULL);
}

void vmemt_peer_trick(struct vmemt_peer *p, enum vmemt_peer_trick trick, uint64_t page)
{
	struct message m = { .order = TRICK, .trick = trick, .page = page };

	order(p->socket, &m);
	if (trick != VMEMT_PEER_FLOOD)
		answer(p->socket, &m);
}

void vmemt_peer_count_begin(struct vmemt_peer *p, const struct vmemt_count *c)
{
	struct message m = { .order = COUNT, .count = *c };

	order(p->socket, &m);
}

uint64_t vmemt_peer_count_end(struct vmemt_peer *p)
{
	struct message m;

	answer_of(p->socket, &m, p->peer ? p->peer->region : NULL);
	return m.wrong;
}

/* --- a second mapping --- */

void vmemt_second_map(struct vmemt_second *s, vmem_region *r, uint64_t first, uint64_t pages)
{
	*s = (struct vmemt_second){ .region = r, .first = first, .pages = pages, .uffd = -1 };
	s->memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
			 vmem_region_file(r), (off_t)(r->file.offset + first * PAGE));
	assert(s->memory != MAP_FAILED && !madvise(s->memory, pages * PAGE, MADV_DONTFORK));
}

void vmemt_second_add(struct vmemt_second *s, const struct vmemt_second *like)
{
	struct vmem_peer_opts o = {
		.size = sizeof(o),
		.gpa = s->region->opts.gpa + s->first * PAGE,
		.bytes = s->pages * PAGE,
		.address = (uintptr_t)s->memory,
		.same_process_as = like ? like->peer : NULL,
	};

	if (!like) {
		s->uffd = vmemt_peer_uffd(0);
		assert(s->uffd >= 0);
	}
	o.userfaultfd = s->uffd;
	assert(!vmem_region_add_peer(&s->peer, s->region, &o));
}

void vmemt_second_join(struct vmemt_second *s, vmem_region *r)
{
	vmemt_second_map(s, r, 0, r->opts.bytes / PAGE);
	vmemt_second_add(s, NULL);
}

void vmemt_second_leave(struct vmemt_second *s)
{
	assert(!munmap(s->memory, s->pages * PAGE));
	if (s->peer)
		assert(!vmem_region_remove_peer(s->peer));
	if (s->uffd >= 0)
		close(s->uffd);
	s->peer = NULL;
}

bool vmemt_second_pending(const struct vmemt_second *s)
{
	return vmemt_is_readable(s->uffd);
}
