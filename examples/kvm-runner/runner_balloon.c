/* SPDX-License-Identifier: BSD-2-Clause */
/* See the header. A buffer of the guest is worked off in the hypercall that notifies of it, on the thread of that
 * vCPU, which may do nothing else meanwhile; the other threads find the lock taken and come again. What is more than a
 * driver that means well asks for at once waits for the next notification or tick. */
#define VMEM_EXPERIMENTAL /* VMEM_BALLOON_F_RANGES */
#include "runner_balloon.h"

#include "common/units.h"
#include "runner_alloc.h"
#include "runner_print.h"
#include "runner_vcpu.h"
#include "virtio_registers.h"

#define SECOND UINT64_C(1000000000)

/* --- Making and unmaking --- */

static int make_core(struct balloon *b)
{
	const struct runner_options *o = b->vm->runner->options;
	struct vmem_balloon_opts opts = { .size = sizeof(opts),
					  .allocator = alloc_for_library(),
					  .features = VMEM_BALLOON_F_MUST_TELL_HOST |
						      VMEM_BALLOON_F_STATS_VQ |
						      VMEM_VIRTIO_F_VERSION_1,
					  .map = VMEM_BALLOON_MAP_SPEC };
	int error;

	if (o->balloon_ranges)
		opts.features |= VMEM_BALLOON_F_RANGES;
	if (o->balloon_report)
		opts.features |= VMEM_BALLOON_F_PAGE_REPORTING;
	if (o->balloon_oom)
		opts.features |= VMEM_BALLOON_F_DEFLATE_ON_OOM;
	b->offered = opts.features;
	error = vmem_balloon_new(&b->core, &opts);
	return error ? error : vmem_balloon_add_ram(b->core, 0, o->mem_bytes, GUEST_PAGE_SIZE);
}

static int make_discard(struct balloon *b)
{
	struct vmem_discard_opts opts = { .size = sizeof(opts), .allocator = alloc_for_library() };
	struct vmem_discard_piece piece = { .size = sizeof(piece),
					    .kind = VMEM_DISCARD_REGION,
					    .region = b->vm->region };
	int error = vmem_discard_new(&b->discard, &opts);

	return error ? error : vmem_discard_add(b->discard, &piece);
}

int balloon_create(struct vm *vm)
{
	struct balloon *b = alloc_new(sizeof(*b));
	int error = -VMEM_ENOMEM;

	if (b) {
		vm->balloon = b;
		b->vm = vm;
		pthread_mutex_init(&b->lock, NULL);
		b->bytes = alloc_new(BALLOON_READ_MOST);
		if (b->bytes)
			error = make_core(b);
		if (!error)
			error = make_discard(b);
	}
	if (error)
		print_error("vm %u: its balloon cannot be made: %s.", vm->index,
			    vmem_strerror(error));
	return error;
}

void balloon_destroy(struct vm *vm)
{
	struct balloon *b = vm->balloon;

	if (!b)
		return;
	vmem_discard_free(b->discard);
	vmem_balloon_free(b->core);
	alloc_free(b->bytes);
	pthread_mutex_destroy(&b->lock);
	alloc_free(b);
	vm->balloon = NULL;
}

/* --- Buffers --- */

static struct vmem_balloon_progress progress_of(const struct balloon *b)
{
	struct vmem_balloon_progress progress = { .size = sizeof(progress) };

	(void)vmem_balloon_get_progress(b->core, &progress);
	return progress;
}

/* What the device core has to give: ranges to be discarded first, and then buffers go back. */
static void drain(struct balloon *b)
{
	struct vmem_balloon_done done;

	/* What could not be discarded, pinned pages for example, is counted there, and tried again. */
	(void)vmem_discard_drain(b->discard, b->core);
	while (vmem_balloon_take_done(b->core, &done)) {
		struct balloon_queue *q = &b->queues[done.token >> 16];

		split_ring_device_return(&q->ring, (uint16_t)done.token, done.used);
	}
}

/* To the core what is at hand, as far as that goes now. */
static void give(struct balloon *b)
{
	struct split_ring_device *ring = &b->queues[b->given.token >> 16].ring;

	while (b->part && b->parts_left && !atomic_load(&b->vm->stop)) {
		int error = vmem_balloon_give(b->core, &b->given);

		b->parts_left--;
		b->part = error == -VMEM_EAGAIN;
		if (b->part)
			drain(b);
		else if (error) /* it does not take it */
			split_ring_device_return(ring, (uint16_t)b->given.token, 0);
	}
}

static void work_off(struct balloon *b, uint32_t number, enum vmem_balloon_queue what,
		     const struct split_ring_buffer *buffer)
{
	struct split_ring_device *ring = &b->queues[number].ring;

	if (buffer->readable_bytes > BALLOON_READ_MOST ||
	    split_ring_device_read(ring, buffer, 0, b->bytes, BALLOON_READ_MOST) < 0) {
		b->bad_buffers++;
		split_ring_device_return(ring, buffer->head, 0);
		return;
	}
	b->given = (struct vmem_balloon_buffer){
		.size = sizeof(b->given),
		.queue = what,
		.token = (uint64_t)number << 16 | buffer->head,
		.now_ns = runner_now_ns(),
		.bytes = b->bytes,
		.count = buffer->readable_bytes,
		.pieces = buffer->pieces + buffer->readable,
		.piece_count = buffer->writable,
	};
	b->part = true;
	give(b);
}

/* How far it is on its way, now that a buffer is done. */
static void look_at_progress(struct balloon *b, uint64_t begun_ns)
{
	struct balloon_way *way = b->out.asked_ns ? &b->out : &b->in;
	uint64_t pages = progress_of(b).pages;

	if (!way->asked_ns || pages == atomic_load(&b->pages))
		return;
	if (!way->begun_ns)
		way->begun_ns = begun_ns;
	atomic_store(&b->pages, pages);
	if (pages > b->pages_most)
		b->pages_most = pages;
	if (pages == b->target)
		way->done_ns = runner_now_ns();
}

static void look_at_reports(struct balloon *b)
{
	struct vmem_balloon_counters counters = { .size = sizeof(counters) };

	(void)vmem_balloon_get_counters(b->core, &counters);
	atomic_store(&b->reported, counters.reported);
}

static void notify_driver(struct balloon *b)
{
	for (uint32_t i = 0; i < BALLOON_QUEUES; i++)
		if (b->queues[i].ready && split_ring_device_must_notify(&b->queues[i].ring))
			b->interrupt |= VIRTIO_INTERRUPT_USED;
}

static bool may_go_on(const struct balloon *b)
{
	return !b->part && b->parts_left && !atomic_load(&b->vm->stop);
}

static void work_queue(struct balloon *b, uint32_t number)
{
	struct split_ring_buffer buffer = { .pieces = b->pieces, .most = BALLOON_PIECES };
	struct balloon_queue *q = &b->queues[number];
	enum vmem_balloon_queue what;
	int got = 1;

	q->due = false;
	if (!q->ready || vmem_balloon_queue_of(b->core, number, &what) != 0)
		return;
	/* Others may go on adding; what comes later is for another notification. */
	for (uint32_t i = 0; i < q->size && got != 0 && got != -VMEM_EIO; i++) {
		if (!may_go_on(b)) {
			q->due = true;
			break;
		}
		got = split_ring_device_take(&q->ring, &buffer);
		if (got > 0)
			work_off(b, number, what, &buffer);
	}
	if (got == -VMEM_EIO && !b->broken) {
		b->broken = true; /* 2.1.2: says that it needs a reset */
		b->bad_buffers++;
		b->interrupt |= VIRTIO_INTERRUPT_CONFIG;
	}
}

/* Some of what is there: bounded. */
static void work(struct balloon *b)
{
	uint64_t begun_ns = runner_now_ns();

	b->parts_left = BALLOON_TURN_PARTS;
	give(b);
	for (uint32_t i = 0; i < BALLOON_QUEUES; i++)
		if (b->queues[i].due && may_go_on(b))
			work_queue(b, i);
	drain(b);
	notify_driver(b);
	look_at_progress(b, begun_ns);
	look_at_reports(b);
}

void balloon_notify(struct balloon *b, uint32_t number)
{
	if (number >= BALLOON_QUEUES || !b->queues[number].ready)
		return;
	b->queues[number].due = true;
	work(b);
}

static bool is_left(const struct balloon *b)
{
	bool left = b->part;

	for (uint32_t i = 0; i < BALLOON_QUEUES; i++)
		left |= b->queues[i].due;
	return left;
}

/* --- Time --- */

void balloon_look_at_events(struct balloon *b)
{
	int event;

	while ((event = vmem_balloon_next_event(b->core)) != 0)
		if (event == VMEM_BALLOON_EVENT_CONFIG) {
			b->interrupt |= VIRTIO_INTERRUPT_CONFIG;
			b->generation++;
		} else if (event == VMEM_BALLOON_EVENT_STALLED) {
			b->stalls++;
		} else if (event == VMEM_BALLOON_EVENT_LEAK) {
			b->leaks++;
		}
}

static void ask(struct balloon *b, uint64_t pages, struct balloon_way *way, uint64_t now_ns)
{
	way->asked_ns = now_ns;
	b->target = pages;
	(void)vmem_balloon_set_target(b->core, pages, b->vm->runner->options->balloon_rate, now_ns);
}

/* In at the start, out when three quarters of the time are over. */
static void plan(struct balloon *b, uint64_t now_ns)
{
	const struct runner *runner = b->vm->runner;
	uint64_t out_ns = runner->start_ns + (runner->end_ns - runner->start_ns) / 4 * 3;

	if (!b->in.asked_ns)
		ask(b, runner->options->balloon_pages, &b->in, now_ns);
	else if (!b->out.asked_ns && now_ns >= out_ns && !runner->options->balloon_keep)
		ask(b, 0, &b->out, now_ns);
}

void balloon_tick(struct vm *vm, uint64_t now_ns)
{
	struct balloon *b = vm->balloon;

	if (!b || pthread_mutex_trylock(&b->lock) != 0)
		return;
	if (progress_of(b).driver) {
		plan(b, now_ns);
		if (now_ns - b->asked_stats_ns >= SECOND && vmem_balloon_ask_stats(b->core) == 0) {
			b->asked_stats_ns = now_ns;
			drain(b);
			notify_driver(b);
		}
	}
	if (is_left(b))
		work(b);
	if (now_ns - b->tried_again_ns >= SECOND) {
		b->tried_again_ns = now_ns;
		(void)vmem_discard_retry(b->discard, b->core);
	}
	vmem_balloon_tick(b->core, now_ns);
	balloon_look_at_events(b);
	pthread_mutex_unlock(&b->lock);
}

/* --- Results --- */

uint64_t balloon_bytes(const struct vm *vm)
{
	return vm->balloon ? atomic_load(&vm->balloon->pages) << GUEST_PAGE_SHIFT : 0;
}

uint64_t balloon_reported_bytes(const struct vm *vm)
{
	return vm->balloon ? atomic_load(&vm->balloon->reported) << GUEST_PAGE_SHIFT : 0;
}

void balloon_sample(struct balloon *b, struct balloon_sample *sample)
{
	*sample = (struct balloon_sample){ .counters.size = sizeof(sample->counters),
					   .guest.size = sizeof(sample->guest),
					   .discard.size = sizeof(sample->discard) };
	pthread_mutex_lock(&b->lock);
	sample->progress = progress_of(b);
	(void)vmem_balloon_get_counters(b->core, &sample->counters);
	(void)vmem_balloon_get_guest(b->core, &sample->guest);
	(void)vmem_discard_get_metrics(b->discard, &sample->discard);
	pthread_mutex_unlock(&b->lock);
}

static const char *time_of(struct units_text *buffer, const struct balloon_way *way)
{
	return way->done_ns ? units_time(buffer, way->done_ns - way->begun_ns) : "not all of it";
}

void balloon_print(struct vm *vm)
{
	struct balloon *b = vm->balloon;
	struct units_text in, out;
	struct balloon_sample s;
	uint64_t wrong;

	if (!b)
		return;
	balloon_sample(b, &s);
	wrong = s.counters.outside + s.counters.inflated_twice + s.counters.not_inflated +
		s.counters.malformed + s.counters.unexpected + s.counters.late_writes +
		b->bad_buffers;
	print_line(
		"vm %u: balloon: asked for %s, given %s (%s); %s really released, %s pinned and left alone; "
		"back %s (%s), %s in it at the end; %llu times the guest did something wrong",
		vm->index, UNITS_BYTES(vm->runner->options->balloon_pages << GUEST_PAGE_SHIFT),
		UNITS_BYTES(b->pages_most << GUEST_PAGE_SHIFT), time_of(&in, &b->in),
		UNITS_BYTES(s.discard.inflated.released + s.discard.retried.released),
		UNITS_BYTES(s.discard.inflated.pinned), UNITS_BYTES(s.discard.returned),
		b->out.asked_ns ? time_of(&out, &b->out) : "kept",
		UNITS_BYTES(s.progress.pages << GUEST_PAGE_SHIFT), (unsigned long long)wrong);
	if (vm->runner->options->balloon_report)
		print_line("vm %u: balloon: %s reported free, %s of it really released", vm->index,
			   UNITS_BYTES(s.counters.reported << GUEST_PAGE_SHIFT),
			   UNITS_BYTES(s.discard.reported.released));
	if (vm->runner->options->balloon_oom)
		print_line(
			"vm %u: balloon: %llu times the guest took pages back that were asked for",
			vm->index, (unsigned long long)b->leaks);
}
