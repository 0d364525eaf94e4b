/* SPDX-License-Identifier: BSD-2-Clause */
/* Saving staged pages beside reclaim: see savers.h. */
#include "linux/reclaim/savers.h"
#include "linux/reclaim/reclaim.h"
#include <limits.h>

#define IDLE_NS 10000000000u
#define LEAVING_NS 10000000u
#define TELL_EVERY 64 /* saves, between two times that reclaim frees what they left in staging */
/* Saves after the last fault in which a thread still gives up its core between two pages. */
#define QUIET_PAGES 8

int vmemi_savers_init(struct vmemi_savers *s, struct vmemi_host *host)
{
	s->host = host;
	return vmemi_lock_init(&s->lock, host->env);
}

void vmemi_savers_destroy(struct vmemi_savers *s)
{
	vmemi_lock_destroy(&s->lock);
}

void vmemi_savers_wake(struct vmemi_savers *s)
{
	/* Before looking for who sleeps: who is about to sees that there is news. */
	atomic_fetch_add(&s->posted, 1);
	if (atomic_load(&s->idle))
		s->host->k->futex_wake(&s->posted, INT_MAX);
}

void vmemi_savers_add(struct vmemi_savers *s, struct vmem_region *r, const uint64_t *pages,
		      uint32_t count)
{
	vmemi_lock(&s->lock);
	for (uint32_t i = 0; i < count && s->count < VMEMI_SAVERS_QUEUE; i++, s->count++) {
		s->queue[(s->head + s->count) % VMEMI_SAVERS_QUEUE] =
			(struct vmemi_save){ r, pages[i] };
		atomic_fetch_add(&s->pending, 1);
	}
	vmemi_unlock(&s->lock);
	vmemi_savers_wake(s);
}

struct vmemi_settled vmemi_savers_done(struct vmemi_savers *s)
{
	return (struct vmemi_settled){ .saved = atomic_exchange(&s->saved, 0),
				       .refused = atomic_exchange(&s->refused, 0),
				       .full = atomic_exchange(&s->full, 0) };
}

/* Takes the next jobs of one region. */
static unsigned pop(struct vmemi_savers *s, unsigned self, uint64_t *pages)
{
	struct vmem_region *r = NULL;
	unsigned n = 0;

	vmemi_lock(&s->lock);
	while (n < VMEMI_SAVERS_PIECE && s->count) {
		const struct vmemi_save *job = &s->queue[s->head];

		if (n && job->region != r)
			break;
		r = job->region;
		pages[n++] = job->page;
		s->head = (s->head + 1) % VMEMI_SAVERS_QUEUE;
		s->count--;
	}
	s->saver[self].at = r;
	vmemi_unlock(&s->lock);
	return n;
}

/* Drops the jobs that wait of a region, or of all. The lock is held. */
static void drop(struct vmemi_savers *s, const struct vmem_region *r)
{
	uint32_t kept = 0, count = s->count;

	for (uint32_t i = 0; i < count; i++) {
		struct vmemi_save job = s->queue[(s->head + i) % VMEMI_SAVERS_QUEUE];

		if (r && job.region != r)
			s->queue[(s->head + kept++) % VMEMI_SAVERS_QUEUE] = job;
	}
	s->count = kept;
	atomic_fetch_sub(&s->pending, count - kept);
}

/* Gives the core up while faults are being served: their handler may be waiting for it. */
static void make_way(struct vmemi_host *host, struct vmemi_saver *self)
{
	uint32_t now = atomic_load_explicit(&host->fault_reads, memory_order_relaxed);

	self->quiet = now == self->seen ? self->quiet + 1 : 0;
	self->seen = now;
	if (self->quiet < QUIET_PAGES || vmemi_host_put_off(host))
		vmemi_relax(host->env);
}

/* The end of a piece of @n jobs. */
static void end(struct vmemi_savers *s, unsigned self, unsigned n,
		const struct vmemi_settled *settled)
{
	uint32_t left;

	vmemi_lock(&s->lock);
	s->saver[self].at = NULL;
	if (settled->full) /* all others would be refused; reclaim makes room, and names them again */
		drop(s, NULL);
	vmemi_unlock(&s->lock);
	vmemi_tally(&s->saved, settled->saved);
	vmemi_tally(&s->refused, settled->refused);
	if (settled->full)
		atomic_store(&s->full, 1);
	left = atomic_fetch_sub(&s->pending, n) - n;
	atomic_fetch_add(&s->finished, 1);
	if (atomic_load(&s->waiters))
		s->host->k->futex_wake(&s->finished, INT_MAX);
	if (atomic_fetch_add(&s->untold, n) + n >= TELL_EVERY || !left) {
		atomic_store(&s->untold, 0);
		vmemi_host_kick_reclaim(s->host);
	}
}

bool vmemi_savers_work(struct vmemi_savers *s, unsigned self)
{
	const struct vmemi_kernel *k = s->host->k;
	struct vmemi_saver *saver = &s->saver[self];
	uint64_t pages[VMEMI_SAVERS_PIECE], start;
	struct vmemi_settled settled = { 0 };
	unsigned n = pop(s, self, pages);

	if (!n)
		return false;
	start = k->cpu_clock_ns();
	for (unsigned i = 0; i < n && !settled.full; i++) {
		settled.full = vmemi_settle_page(saver->at, pages[i], &settled) != 0;
		make_way(s->host, saver);
	}
	vmemi_tally(&s->cpu_ns, k->cpu_clock_ns() - start);
	end(s, self, n, &settled);
	return true;
}

bool vmemi_savers_help(struct vmemi_savers *s)
{
	return vmemi_savers_work(s, VMEMI_SAVERS_MAX);
}

void *vmemi_savers_run(void *context)
{
	struct vmemi_savers *s = context;
	unsigned self = atomic_fetch_add(&s->numbers, 1);

	while (!atomic_load(&s->stop)) {
		uint32_t posted = atomic_load(&s->posted);

		if (vmemi_savers_work(s, self))
			continue;
		atomic_fetch_add(&s->idle, 1);
		s->host->k->futex_wait(&s->posted, posted, IDLE_NS);
		atomic_fetch_sub(&s->idle, 1);
	}
	return NULL;
}

static bool is_at(struct vmemi_savers *s, const struct vmem_region *r)
{
	for (unsigned i = 0; i <= VMEMI_SAVERS_MAX; i++)
		if (s->saver[i].at && (!r || s->saver[i].at == r))
			return true;
	return false;
}

void vmemi_savers_forget(struct vmemi_savers *s, const struct vmem_region *r)
{
	atomic_fetch_add(&s->waiters, 1);
	for (;;) {
		uint32_t finished = atomic_load(&s->finished);
		bool busy;

		vmemi_lock(&s->lock);
		drop(s, r);
		busy = is_at(s, r);
		vmemi_unlock(&s->lock);
		if (!busy)
			break;
		s->host->k->futex_wait(&s->finished, finished, LEAVING_NS);
	}
	atomic_fetch_sub(&s->waiters, 1);
}
