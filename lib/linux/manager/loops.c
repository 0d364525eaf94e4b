/* SPDX-License-Identifier: BSD-2-Clause */
/* Who works: threads of the library, or the VMM's own through step and run. */
#include "linux/manager/manager.h"
#include "linux/fault/loads.h"
#include "linux/fault/source.h"
#include "linux/kernel/thread.h"

#define PIECE_PAGES 1024 /* of one round, between two looks at the world */
#define PAGES_PER_US 4   /* about what a round handles, for turning a time into pages */
#define IDLE_MS 100
#define HUNGRY_MS 10 /* between two rounds that find nothing */
#define BLIND_MS 1   /* between two looks at devices that have no descriptor, while they write */
#define STUCK_AFTER_NS 100000000
#define HELP_PIECES 4 /* that who reclaims saves between two rounds, when frames are short */
#define BEGIN_NS 100000000
#define STORE_MS \
	3 /* between two pieces of the store's work of 1 ms, when there is nothing else to do */

void vmemi_manager_set_stuck(struct vmem_manager *m, bool stuck)
{
	bool was = atomic_exchange(&m->host.stuck, stuck);

	if (!stuck)
		atomic_store(&m->nothing_since_ns, 0);
	if (stuck)
		atomic_fetch_add(&m->host.stuck_rounds, 1);
	if (stuck && !was)
		vmemi_tally(&m->stuck, 1);
	if (!stuck && was)
		atomic_fetch_add(&m->host.unstuck, 1);
}

/* Tells the VMM whether reclaim is stuck, without its lock: it may change the budget from there.
 * One at a time, and never inside itself; what changes meanwhile is told by who is at it. */
static void tell(struct vmem_manager *m)
{
	struct vmemi_frames *f = &m->host.frames;

	while (m->opts.on_event && !atomic_exchange(&m->telling, 1)) {
		uint32_t stuck = atomic_load(&m->host.stuck);
		bool news = stuck != m->told_stuck;

		m->told_stuck = stuck;
		if (news)
			m->opts.on_event(m->opts.context,
					 stuck ? VMEM_MANAGER_STUCK : VMEM_MANAGER_UNSTUCK,
					 vmemi_frames_used(f), atomic_load(&f->budget_bytes));
		atomic_store(&m->telling, 0);
		if (atomic_load(&m->host.stuck) == stuck)
			break;
	}
}

/* Faults find a frame, @floor bytes left free. */
static bool is_room_above(const struct vmemi_frames *f, uint64_t floor)
{
	return vmemi_frames_free(f) > floor + VMEM_PAGE_SIZE;
}

/* A round without a victim is nothing to tell: hot pages cool, saves end. A tenth of a second is, if what is spare is no
 * room either. */
static void found_nothing(struct vmem_manager *m)
{
	uint64_t now = m->host.k->clock_ns(), since = atomic_load(&m->nothing_since_ns);

	if (!since) {
		atomic_store(&m->nothing_since_ns, now);
		return;
	}
	if (now - since < STUCK_AFTER_NS)
		return;
	vmemi_segments_lend(m, true);
	vmemi_manager_set_stuck(
		m, !is_room_above(&m->host.frames, atomic_load(&m->host.frames.floor_bytes)));
	if (!atomic_load(&m->host.stuck))
		vmemi_host_freed(&m->host);
}

/* What was lent is asked for again when there is room without it; spare segments that were used are no longer lent. */
static void adapt_floor(struct vmem_manager *m)
{
	struct vmemi_frames *f = &m->host.frames;

	if (atomic_load(&f->floor_bytes) != m->floor_bytes)
		vmemi_segments_lend(m, !is_room_above(f, m->floor_bytes));
}

/* How long the loop may sleep. */
static uint32_t idle_ms(struct vmem_manager *m)
{
	bool writing = vmemi_host_is_writing(&m->host);

	return writing && atomic_load(&m->host.devices.blind) ? BLIND_MS
	       : writing || atomic_load(&m->nothing_since_ns) ? HUNGRY_MS
	       : m->reclaim->store_has_work                   ? STORE_MS
							      : IDLE_MS;
}

/* One piece; the caller has entered reclaim. */
static bool reclaim_piece(struct vmem_manager *m, uint64_t max_pages)
{
	struct vmemi_frames *f = &m->host.frames;
	uint64_t reserve = atomic_load(&f->reserve_bytes), start = m->host.k->cpu_clock_ns();
	uint64_t progress, target;

	atomic_store(&m->host.reclaim_kicked, 0);
	vmemi_segments_come_down(f, m->floor_bytes);
	target = vmemi_frames_free(f) < reserve ? reserve + reserve / 2 : 0;
	progress = vmemi_reclaim_round(m->reclaim, target, max_pages);
	progress += vmemi_devices_adapt(m);
	vmemi_tally(&m->reclaim_ns, m->host.k->cpu_clock_ns() - start);
	vmemi_tally(&m->reclaim_rounds, 1);
	adapt_floor(m);
	if (!target || progress || atomic_load(&m->detaching) ||
	    is_room_above(f, atomic_load(&f->floor_bytes)))
		vmemi_manager_set_stuck(m, false);
	else if (vmemi_devices_are_taking(m)) /* the tenth of a second is after that */
		atomic_store(&m->nothing_since_ns, m->host.k->clock_ns());
	else if (!atomic_load(
			 &m->reclaim->savers.pending)) /* else it is theirs to find something */
		found_nothing(m);
	return progress && vmemi_frames_free(f) < reserve;
}

/* The same for who may not wait. False if somebody else is at it. */
static bool try_piece(struct vmem_manager *m, uint64_t max_pages, bool *ret_more,
		      uint32_t *ret_idle_ms)
{
	if (!vmemi_reclaim_try(m->reclaim))
		return false;
	*ret_more = reclaim_piece(m, max_pages);
	*ret_idle_ms = idle_ms(m);
	vmemi_reclaim_leave(m->reclaim);
	tell(m);
	return true;
}

bool vmemi_manager_make_room(struct vmemi_host *host)
{
	struct vmemi_frames *f = &host->frames;
	uint64_t before = vmemi_frames_free(f);
	uint32_t ignored;
	bool more;

	try_piece((struct vmem_manager *)host, PIECE_PAGES, &more, &ignored);
	return vmemi_frames_free(f) > before;
}

/* One handler is enough for who serves alone; the others may hold faults from when their threads ran. */
bool vmemi_manager_step_faults(struct vmem_manager *m)
{
	bool held = vmemi_handler_step(m->handlers[0]) != 0;

	for (uint32_t i = 1; i < m->host.handlers; i++)
		if (atomic_load(&m->host.handler[i].put_off))
			held |= vmemi_handler_step(m->handlers[i]) != 0;
	return held;
}

void vmemi_manager_step_loads(struct vmem_manager *m)
{
	if (m->running)
		return;
	vmemi_manager_step_faults(m);
	if (!vmemi_reclaim_try(m->reclaim))
		return;
	vmem_store_work(m->host.store, 0, m->host.k->clock_ns());
	vmemi_reclaim_leave(m->reclaim);
}

bool vmemi_manager_serve_faults(struct vmemi_host *host)
{
	vmemi_manager_step_faults((struct vmem_manager *)host);
	vmemi_source_step(host);
	return false; /* what the caller waits for may need another turn */
}

static void *fault_loop(void *context)
{
	vmemi_handler_run(context);
	return NULL;
}

static void clear(const struct vmemi_kernel *k, int fd)
{
	uint64_t value;

	k->read(fd, &value, sizeof(value));
}

/* When frames are short the savers alone may be too slow. What is saved must soon be freed, too. */
static bool help_savers(struct vmem_manager *m)
{
	bool helped = false;

	for (unsigned i = 0; i < HELP_PIECES && vmemi_reclaim_is_urgent(&m->host); i++)
		if (vmemi_savers_help(&m->reclaim->savers))
			helped = true;
		else
			break;
	return helped;
}

static void *reclaim_loop(void *context)
{
	struct vmem_manager *m = context;
	struct vmemi_host *host = &m->host;

	while (!atomic_load(&m->stop_reclaim)) {
		struct pollfd fds[] = { { .fd = host->reclaim_fd, .events = POLLIN },
					{ .fd = host->devices.epoll, .events = POLLIN } };
		uint32_t sleep_ms;
		bool more;

		vmemi_source_give_up(
			host); /* their own threads may hang in the caller's function */
		vmemi_reclaim_enter(m->reclaim);
		more = reclaim_piece(m, PIECE_PAGES);
		sleep_ms = idle_ms(m);
		vmemi_reclaim_leave(m->reclaim);
		tell(m);
		if (help_savers(m) || more)
			continue;
		if (host->k->poll(fds, 1 + vmemi_host_is_writing(host), (int)sleep_ms) > 0)
			clear(host->k, host->reclaim_fd);
	}
	return NULL;
}

/* When they have begun, the caller may forbid what they do only then. */
static int start_fault_threads(struct vmem_manager *m)
{
	uint32_t begun;

	atomic_store(&m->host.stop_handlers, 0);
	atomic_store(&m->host.begun, 0);
	for (m->started = 0; m->started < m->host.handlers; m->started++)
		if (vmemi_thread_start(&m->fault_threads[m->started], fault_loop,
				       m->handlers[m->started]))
			return -VMEM_ENOMEM;
	while ((begun = atomic_load(&m->host.begun)) < m->started)
		m->host.k->futex_wait(&m->host.begun, begun, BEGIN_NS);
	return 0;
}

static void end_fault_threads(struct vmem_manager *m)
{
	atomic_store(&m->host.stop_handlers, 1);
	vmemi_host_kick_handlers(&m->host);
	while (m->started)
		pthread_join(m->fault_threads[--m->started], NULL);
}

static void end_reclaim_thread(struct vmem_manager *m)
{
	atomic_store(&m->stop_reclaim, 1);
	atomic_store(&m->host.reclaim_kicked, 0);
	vmemi_host_kick_reclaim(&m->host);
	pthread_join(m->reclaim_thread, NULL);
}

/* @count of them. Reclaim, which names their work, does not run. */
static void stop_savers(struct vmem_manager *m, uint32_t count)
{
	struct vmemi_savers *s = &m->reclaim->savers;

	atomic_store(&s->stop, 1);
	vmemi_savers_wake(s);
	for (uint32_t i = 0; i < count; i++)
		pthread_join(m->save_thread[i], NULL);
	atomic_store(&s->threads, 0);
	vmemi_savers_forget(s, NULL);
}

static int start_savers(struct vmem_manager *m)
{
	struct vmemi_savers *s = &m->reclaim->savers;

	atomic_store(&s->stop, 0);
	atomic_store(&s->numbers, 0);
	for (uint32_t i = 0; i < m->opts.save_threads; i++)
		if (vmemi_thread_start(&m->save_thread[i], vmemi_savers_run, s)) {
			stop_savers(m, i);
			return -VMEM_ENOMEM;
		}
	atomic_store(&s->threads, m->opts.save_threads);
	return 0;
}

int vmem_manager_thread_start(vmem_manager *manager)
{
	if (!manager)
		return -VMEM_EINVAL;
	if (manager->running)
		return -VMEM_EBUSY;
	atomic_store(&manager->stop_reclaim, 0);
	if (start_fault_threads(manager)) {
		end_fault_threads(manager);
		return -VMEM_ENOMEM;
	}
	if (start_savers(manager)) {
		end_fault_threads(manager);
		return -VMEM_ENOMEM;
	}
	if (vmemi_thread_start(&manager->reclaim_thread, reclaim_loop, manager)) {
		stop_savers(manager, manager->opts.save_threads);
		end_fault_threads(manager);
		return -VMEM_ENOMEM;
	}
	atomic_store(&manager->host.make_room, NULL);
	atomic_store(&manager->host.serve_faults, NULL);
	manager->running = true;
	if (vmemi_manager_has_source(manager) && vmemi_manager_start_sources(manager)) {
		vmem_manager_thread_stop(manager);
		return -VMEM_ENOMEM;
	}
	return 0;
}

void vmem_manager_thread_stop(vmem_manager *manager)
{
	if (!manager || !manager->running)
		return;
	/* Reclaim first: it may be waiting for a fault. */
	end_reclaim_thread(manager);
	stop_savers(manager, manager->opts.save_threads);
	vmemi_manager_stop_sources(manager);
	end_fault_threads(manager);
	atomic_store(&manager->host.make_room, vmemi_manager_make_room);
	atomic_store(&manager->host.serve_faults, vmemi_manager_serve_faults);
	manager->running = false;
}

int vmem_manager_fd(vmem_manager *manager)
{
	return manager ? manager->epoll : -VMEM_EINVAL;
}

int vmem_manager_descriptors(const vmem_manager *manager, int *fds, uint32_t count)
{
	const unsigned ways = sizeof(manager->host.uffd) / sizeof(manager->host.uffd[0]);
	int have = 0;

	if (!manager || (count && !fds))
		return -VMEM_EINVAL;
	for (unsigned i = 0; i < ways; i++) {
		int fd = manager->host.uffd[i].fd;

		if (fd < 0)
			continue;
		if ((uint32_t)have < count)
			fds[have] = fd;
		have++;
	}
	return have;
}

int vmem_manager_step(vmem_manager *manager, uint32_t reclaim_us, uint32_t *ret_next_ms)
{
	struct vmemi_host *host;
	uint32_t sleep_ms = IDLE_MS;
	enum vmemi_source_turn turn;
	bool held, more = false;

	if (!manager)
		return -VMEM_EINVAL;
	if (manager->running)
		return -VMEM_EBUSY;
	host = &manager->host;
	for (uint32_t i = 0; i < host->handlers; i++)
		clear(host->k, host->handler[i].fd);
	if (reclaim_us)
		clear(host->k, host->reclaim_fd);
	if (atomic_load(&host->devices.count)) /* or their descriptors stay readable */
		vmemi_loads_poll(host);
	vmemi_manager_step_faults(manager);
	vmemi_source_step(host);
	held = reclaim_us &&
	       !try_piece(manager, (uint64_t)reclaim_us * PAGES_PER_US, &more, &sleep_ms);
	held |= vmemi_manager_step_faults(manager);
	turn = vmemi_source_turn(host);
	held |= turn == VMEMI_SOURCE_STARVED || turn == VMEMI_SOURCE_REFUSED;
	if (ret_next_ms)
		*ret_next_ms = more ? 0 : held ? 1 : sleep_ms;
	return more;
}

int vmem_manager_run(vmem_manager *manager)
{
	struct pollfd fd;
	uint32_t next_ms;
	int more;

	if (!manager)
		return -VMEM_EINVAL;
	fd = (struct pollfd){ .fd = manager->epoll, .events = POLLIN };
	while (!atomic_exchange(&manager->leave, 0)) {
		more = vmem_manager_step(manager, 500, &next_ms);
		if (more < 0)
			return more;
		if (!more)
			manager->host.k->poll(&fd, 1, (int)next_ms);
	}
	return 0;
}

void vmem_manager_stop(vmem_manager *manager)
{
	atomic_store(&manager->leave, 1);
	vmemi_host_kick_faults(&manager->host);
}
