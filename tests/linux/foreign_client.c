/* SPDX-License-Identifier: BSD-2-Clause */
/* See foreign_client.h. */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "linux/foreign_client.h"
#include "linux/guest.h"
#include "linux/hand_over.h"
#include "linux/kernel/uffd.h"

#define PAGE VMEM_PAGE_SIZE
#define THREADS 8
#define CHURNS 64

struct message {
	uint64_t order, first, count, version;
};

/* --- In the client --- */

static unsigned char *memory;
static uint64_t memory_pages;
static int own_uffd;
static _Atomic int stop; /* atomic; floods end */
static __thread sigjmp_buf escape;

static void met_error(int signal)
{
	(void)signal;
	siglongjmp(escape, 1);
}

static int64_t read_pages(uint64_t first, uint64_t count, uint64_t version)
{
	static const struct vmemt_page zeros;
	int64_t right = 0;

	for (uint64_t i = first; i < first + count; i++) {
		struct vmemt_page want = zeros;

		if (version)
			vmemt_make(&want, i, version);
		right += !memcmp(memory + i * PAGE, &want, PAGE);
	}
	return right;
}

static int64_t write_pages(uint64_t first, uint64_t count, uint64_t version)
{
	for (uint64_t i = first; i < first + count; i++) {
		struct vmemt_page p;

		vmemt_make(&p, i, version);
		memcpy(memory + i * PAGE, &p, PAGE);
	}
	return (int64_t)count;
}

struct reader {
	pthread_t thread;
	uint64_t from, version;
	int64_t right;
};

static void *read_from(void *context)
{
	struct reader *r = context;

	r->right = read_pages(r->from, memory_pages - r->from, r->version) +
		   read_pages(0, r->from, r->version);
	return NULL;
}

static int64_t read_by_threads(uint64_t version)
{
	struct reader r[THREADS];
	int64_t right = 0;

	for (unsigned i = 0; i < THREADS; i++) {
		r[i] = (struct reader){ .from = i / 2 * memory_pages / THREADS,
					.version = version };
		assert(!pthread_create(&r[i].thread, NULL, read_from, &r[i]));
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(r[i].thread, NULL);
		right += r[i].right;
	}
	return right;
}

static int64_t churn(uint64_t first, uint64_t count)
{
	int64_t zeros = 0;

	for (unsigned n = 0; n < CHURNS; n++)
		for (uint64_t i = first; i < first + count; i++) {
			assert(!madvise(memory + i * PAGE, PAGE, MADV_DONTNEED));
			zeros += read_pages(i, 1, 0);
			write_pages(i, 1, n + 2);
		}
	return zeros;
}

static int64_t flood(uint64_t first, uint64_t count)
{
	int64_t removed = 0;

	for (; (uint64_t)removed < count || !atomic_load(&stop); removed++) {
		unsigned char *at = memory + (first + (uint64_t)removed % count) * PAGE;

		assert(!madvise(at, PAGE, MADV_DONTNEED));
	}
	return removed;
}

static int64_t obey(const struct message *m)
{
	unsigned char *at = memory + m->first * PAGE;

	if (sigsetjmp(escape, 1))
		return VMEMT_MET_ERROR;
	switch ((enum vmemt_order)m->order) {
	case VMEMT_ORDER_READ: return read_pages(m->first, m->count, m->version);
	case VMEMT_ORDER_WRITE: return write_pages(m->first, m->count, m->version);
	case VMEMT_ORDER_REMOVE: return madvise(at, m->count * PAGE, MADV_DONTNEED);
	case VMEMT_ORDER_UNMAP: return munmap(at, m->count * PAGE);
	case VMEMT_ORDER_THREADS: return read_by_threads(m->version);
	case VMEMT_ORDER_CHURN: return churn(m->first, m->count);
	case VMEMT_ORDER_FLOOD: return flood(m->first, m->count);
	case VMEMT_ORDER_STOP: atomic_store(&stop, 1); return 0;
	case VMEMT_ORDER_BLOCKING: return fcntl(own_uffd, F_SETFL, 0);
	default: _exit(0);
	}
}

static void *serve(void *context)
{
	int channel = *(const int *)context;
	struct message m;

	while (read(channel, &m, sizeof(m)) == (ssize_t)sizeof(m)) {
		int64_t answer = obey(&m);

		if (write(channel, &answer, sizeof(answer)) != (ssize_t)sizeof(answer))
			break;
	}
	_exit(0);
}

/* Says where its memory is with the descriptor. */
static void hand_over(int channel, uint64_t features, uint64_t shared)
{
	struct vmemi_uffd u;
	uint64_t ioctls;
	void *m = mmap(NULL, memory_pages * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert(m != MAP_FAILED);
	memory = m;
	if (shared)
		assert(mmap(memory + (memory_pages - shared) * PAGE, shared * PAGE,
			    PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1,
			    0) != MAP_FAILED);
	madvise(memory, memory_pages * PAGE, MADV_NOHUGEPAGE);
	for (uint64_t page = 0; page + 90 < memory_pages; page += 90)
		assert(!madvise(memory + page * PAGE, 40 * PAGE, MADV_DONTDUMP));
	assert(!vmemi_uffd_open(&u, &vmemi_kernel_linux, features, 0));
	assert(!vmemi_uffd_register(&u, memory, memory_pages * PAGE, false, &ioctls));
	own_uffd = u.fd; /* it keeps it, as Firecracker does */
	vmemt_send_fd(channel, u.fd);
	assert(write(channel, &memory, sizeof(memory)) == (ssize_t)sizeof(memory));
}

void vmemt_client_main(int argc, char **argv)
{
	static int channel[VMEMT_CHANNELS];
	pthread_t thread;

	if (argc < 5 + VMEMT_CHANNELS || strcmp(argv[1], "client"))
		return;
	memory_pages = strtoull(argv[2], NULL, 10);
	signal(SIGBUS, met_error);
	for (unsigned i = 0; i < VMEMT_CHANNELS; i++)
		channel[i] = atoi(argv[5 + i]);
	hand_over(channel[0], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
	for (unsigned i = 1; i < VMEMT_CHANNELS; i++)
		assert(!pthread_create(&thread, NULL, serve, &channel[i]));
	serve(&channel[0]);
}

/* --- In the test --- */

static void execute(const struct vmemt_client *c, uint64_t features, const int *channel)
{
	char text[3 + VMEMT_CHANNELS][24], program[] = "foreign", client[] = "client";
	char *argv[] = {
		program, client, text[0], text[1], text[2], text[3], text[4], text[5], NULL
	};

	snprintf(text[0], sizeof(text[0]), "%llu", (unsigned long long)c->pages);
	snprintf(text[1], sizeof(text[1]), "%llu", (unsigned long long)features);
	snprintf(text[2], sizeof(text[2]), "%llu", (unsigned long long)c->shared);
	for (unsigned i = 0; i < VMEMT_CHANNELS; i++) {
		snprintf(text[3 + i], sizeof(text[3 + i]), "%d", channel[i]);
		fcntl(channel[i], F_SETFD, 0);
	}
	execv("/proc/self/exe", argv);
	_exit(127);
}

void vmemt_client_start(struct vmemt_client *c, uint64_t pages, uint64_t features)
{
	int theirs[VMEMT_CHANNELS];

	for (unsigned i = 0; i < VMEMT_CHANNELS; i++) {
		int pair[2];

		assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
		c->channel[i] = pair[0];
		theirs[i] = pair[1];
	}
	c->pages = pages;
	c->pid = vmemt_fork();
	if (!c->pid)
		execute(c, features, theirs);
	for (unsigned i = 0; i < VMEMT_CHANNELS; i++)
		close(theirs[i]);
	c->uffd = vmemt_receive_fd(c->channel[0]);
	assert(c->uffd >= 0);
	assert(read(c->channel[0], &c->base, sizeof(c->base)) == (ssize_t)sizeof(c->base));
}

void vmemt_client_end(struct vmemt_client *c, bool kill_it)
{
	int status;

	if (kill_it)
		kill(c->pid, SIGKILL);
	else
		vmemt_order_begin(c, 0, VMEMT_ORDER_END, 0, 0, 0);
	status = vmemt_end_of(c->pid);
	assert(kill_it ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL
		       : WIFEXITED(status) && !WEXITSTATUS(status));
	for (unsigned i = 0; i < VMEMT_CHANNELS; i++)
		close(c->channel[i]);
	if (c->uffd >= 0)
		close(c->uffd);
}

void vmemt_order_begin(struct vmemt_client *c, unsigned channel, enum vmemt_order order,
		       uint64_t first, uint64_t count, uint64_t version)
{
	struct message m = { order, first, count, version };

	assert(write(c->channel[channel], &m, sizeof(m)) == (ssize_t)sizeof(m));
}

bool vmemt_order_over(struct vmemt_client *c, unsigned channel)
{
	struct pollfd p = { .fd = c->channel[channel], .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

int64_t vmemt_order_end(struct vmemt_client *c, unsigned channel)
{
	int64_t answer;

	VMEMT_UNTIL(vmemt_order_over(c, channel));
	assert(read(c->channel[channel], &answer, sizeof(answer)) == (ssize_t)sizeof(answer));
	return answer;
}

int64_t vmemt_order(struct vmemt_client *c, enum vmemt_order order, uint64_t first, uint64_t count,
		    uint64_t version)
{
	vmemt_order_begin(c, 0, order, first, count, version);
	return vmemt_order_end(c, 0);
}
