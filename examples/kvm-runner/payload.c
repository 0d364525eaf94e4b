/* SPDX-License-Identifier: BSD-2-Clause */
/* The program in the guest: touches memory as its workload says, and verifies every page that it
 * touches, whole, against what it knows must be there. At the end it looks at every page once more.
 * The first wrong byte stops its VM.
 *
 * Freestanding, integers only, no data of its own. Every vCPU runs it over pages of its own, so
 * nothing is shared but read-only parameters; and, where there is a balloon, who holds a page: vCPU 0 has the
 * driver, and takes pages of all. */
#include "guest_abi.h"
#include "page_sum.h"
#include "payload_balloon.h"
#include "payload_ports.h"
#include "common/split_random.h"

/* How many accesses between two looks at the clock, which cost an exit from the VM each. */
#define ACCESSES_A_LOOK 256u
#define IDLE_PAGES 64u
#define IDLE_WAIT_MS 10u

struct work {
	struct guest_params *params;
	struct guest_vcpu *me;
	struct guest_truth *truth;
	const struct guest_zipf *zipf;
	uint64_t random;
	uint64_t zero_sum; /* page_sum() of a page of zeros */
	uint64_t next;     /* scan: index of the page that comes next */
	uint32_t index;
	struct payload_balloon *balloon; /* vCPU 0: its driver; else NULL */
};

static __attribute__((noreturn)) void stop(enum guest_stop why)
{
	for (;;)
		guest_out(GUEST_PORT_STOP, why);
}

static void print(const char *text)
{
	while (*text)
		guest_out(GUEST_PORT_PRINT, (uint8_t)*text++);
}

static void print_number(uint64_t number)
{
	char digits[24];
	uint32_t at = sizeof(digits);

	digits[--at] = '\0';
	do {
		digits[--at] = (char)('0' + number % 10);
		number /= 10;
	} while (number);
	print(digits + at);
}

/* Counters are read by the runner while they change. */
static void count(uint64_t *counter)
{
	__atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED);
}

static uint64_t own_page(const struct work *w, uint64_t i)
{
	return w->me->first + i * w->params->vcpus;
}

static uint64_t *page_words(const struct work *w, uint64_t gfn)
{
	/* What another thread did to the memory meanwhile is seen from here on. */
	__asm__ volatile("" ::: "memory");
	return (uint64_t *)(w->params->base + (gfn << GUEST_PAGE_SHIFT));
}

static __attribute__((noreturn)) void wrong(struct work *w, uint64_t gfn, uint64_t found_sum)
{
	const uint64_t *words = page_words(w, gfn);
	const struct guest_truth *truth = &w->truth[gfn];
	struct guest_wrong *report = &w->me->wrong;
	uint64_t any = 0;

	report->gfn = gfn;
	report->expected_sum = truth->sum;
	report->found_sum = found_sum;
	report->version = truth->version;
	report->content = truth->content;
	report->offset = GUEST_PAGE_SIZE;
	for (uint32_t i = 0; i < GUEST_PAGE_WORDS; i++)
		any |= words[i];
	report->is_zero = any == 0;
	for (uint32_t k = 0; truth->content == GUEST_CONTENT_STAMPED && k < GUEST_STAMPS; k++) {
		uint32_t at = guest_stamp_word(truth->version, k);
		uint64_t stamp = guest_stamp(gfn, truth->version, w->index, k);

		if (words[at] != stamp) {
			report->offset = at * (uint32_t)sizeof(uint64_t);
			report->expected_word = stamp;
			report->found_word = words[at];
			break;
		}
	}
	stop(GUEST_STOP_WRONG);
}

static void page_verify(struct work *w, uint64_t gfn)
{
	uint64_t sum = page_sum(page_words(w, gfn));

	if (sum != w->truth[gfn].sum)
		wrong(w, gfn, sum);
}

/* Changes a few words; the sum follows without another look at the page. */
static void page_stamp(struct work *w, uint64_t gfn)
{
	uint64_t *words = page_words(w, gfn);
	struct guest_truth *truth = &w->truth[gfn];

	truth->version++;
	truth->content = GUEST_CONTENT_STAMPED;
	for (uint32_t k = 0; k < GUEST_STAMPS; k++) {
		uint32_t at = guest_stamp_word(truth->version, k);
		uint64_t stamp = guest_stamp(gfn, truth->version, w->index, k);

		truth->sum += page_sum_part(stamp, at) - page_sum_part(words[at], at);
		words[at] = stamp;
	}
	count(&w->me->writes);
}

static void page_zero(struct work *w, uint64_t gfn)
{
	uint64_t *words = page_words(w, gfn);
	struct guest_truth *truth = &w->truth[gfn];

	for (uint32_t i = 0; i < GUEST_PAGE_WORDS; i++)
		words[i] = 0;
	truth->sum = w->zero_sum;
	truth->version++;
	if (guest_is_free(truth))
		(void)__atomic_sub_fetch(&w->params->unused, 1, __ATOMIC_RELAXED);
	truth->content = GUEST_CONTENT_ZEROED;
	count(&w->me->writes);
}

/* Both pages were verified before: the sum of the copy is that of its origin. */
static void page_copy(struct work *w, uint64_t to, uint64_t from)
{
	uint64_t *words = page_words(w, to);
	const uint64_t *origin = page_words(w, from);

	for (uint32_t i = 0; i < GUEST_PAGE_WORDS; i++)
		words[i] = origin[i];
	w->truth[to].sum = w->truth[from].sum;
	page_stamp(w, to);
}

/* From here to page_release() the page is this vCPU's. false: the balloon's driver has it. */
static bool page_hold(struct work *w, uint64_t gfn)
{
	uint16_t nobody = GUEST_HELD_BY_NOBODY;

	return !w->params->balloon ||
	       __atomic_compare_exchange_n(&w->truth[gfn].holder, &nobody, GUEST_HELD_BY_OWNER, 0,
					   __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static void page_release(struct work *w, uint64_t gfn)
{
	if (w->params->balloon)
		__atomic_store_n(&w->truth[gfn].holder, GUEST_HELD_BY_NOBODY, __ATOMIC_RELEASE);
}

/* Ready to be worked with: right, or made so where a page that was in the balloon is used again. */
static bool page_open(struct work *w, uint64_t gfn)
{
	if (!page_hold(w, gfn)) {
		if (__atomic_load_n(&w->truth[gfn].holder, __ATOMIC_RELAXED) ==
		    GUEST_HELD_BY_BALLOON)
			(void)__atomic_add_fetch(&w->params->missed, 1, __ATOMIC_RELAXED);
		return false;
	}
	if (guest_is_free(&w->truth[gfn]))
		page_zero(w, gfn);
	else
		page_verify(w, gfn);
	return true;
}

static void page_access(struct work *w, uint64_t i)
{
	uint64_t gfn = own_page(w, i);

	if (!page_open(w, gfn))
		return;
	if (random_below(&w->random, 100) < w->params->write_percent)
		page_stamp(w, gfn);
	page_release(w, gfn);
	count(&w->me->accesses);
}

static uint64_t zipf_page(struct work *w)
{
	uint64_t draw = random_next(&w->random);
	uint64_t class = (draw >> 32) * w->params->zipf_classes >> 32;
	uint64_t rank;

	if ((uint32_t)draw >= w->zipf[class].threshold)
		class = w->zipf[class].alias;
	rank = w->zipf[class].first + random_below(&w->random, w->zipf[class].count);
	return rank % w->me->count * w->me->scatter % w->me->count;
}

static uint64_t hotcold_page(struct work *w)
{
	uint64_t hot = w->me->count / 5 + 1;

	if (hot >= w->me->count || random_below(&w->random, 100) < 95)
		return random_below(&w->random, hot < w->me->count ? hot : w->me->count);
	return hot + random_below(&w->random, w->me->count - hot);
}

static void step_scan(struct work *w)
{
	uint64_t gfn = own_page(w, w->next);

	if (++w->next == w->me->count)
		w->next = 0;
	if (!page_open(w, gfn))
		return;
	page_release(w, gfn);
	count(&w->me->accesses);
}

/* One access in four only reads; the others make a page a copy of another one. */
static void step_churn(struct work *w)
{
	uint64_t from = own_page(w, random_below(&w->random, w->me->count));
	uint64_t to = own_page(w, random_below(&w->random, w->me->count));

	if (!page_open(w, from))
		return;
	if (from != to && random_below(&w->random, 4) != 0 && page_open(w, to)) {
		page_copy(w, to, from);
		page_release(w, to);
	}
	page_release(w, from);
	count(&w->me->accesses);
}

static void step_idle(struct work *w)
{
	uint64_t pages = w->me->count < IDLE_PAGES ? w->me->count : IDLE_PAGES;

	uint64_t gfn = own_page(w, random_below(&w->random, pages));

	if (page_open(w, gfn)) {
		page_release(w, gfn);
		count(&w->me->accesses);
	}
	guest_out(GUEST_PORT_WAIT, IDLE_WAIT_MS);
}

static void step(struct work *w)
{
	switch ((enum guest_workload)w->params->workload) {
	case GUEST_SCAN: step_scan(w); break;
	case GUEST_CHURN: step_churn(w); break;
	case GUEST_HOTCOLD: page_access(w, hotcold_page(w)); break;
	case GUEST_IDLE: step_idle(w); break;
	case GUEST_ZIPF:
	case GUEST_ZEROFILL:
	case GUEST_WORKLOADS: page_access(w, zipf_page(w)); break;
	}
}

static void enter(struct work *w, enum guest_phase phase)
{
	__atomic_store_n(&w->me->phase, phase, __ATOMIC_RELAXED);
}

/* false: time is up. */
static bool look_around(struct work *w)
{
	if (w->balloon)
		payload_balloon_poll(w->balloon);
	return guest_in(GUEST_PORT_TIME) != 0;
}

/* As Windows does when it starts: without a look at what was there. */
static void fill(struct work *w)
{
	enter(w, GUEST_PHASE_FILL);
	for (uint64_t i = 0; i < w->me->count; i++) {
		uint64_t gfn = own_page(w, i);

		if (i % ACCESSES_A_LOOK == 0 && !look_around(w))
			return;
		if (!page_hold(w, gfn))
			continue;
		page_zero(w, gfn);
		page_release(w, gfn);
		count(&w->me->accesses);
	}
}

static void sweep(struct work *w)
{
	enter(w, GUEST_PHASE_SWEEP);
	for (uint64_t i = 0; i < w->me->count; i++) {
		uint64_t gfn = own_page(w, i);
		bool held = page_hold(w, gfn);

		if (!held || guest_is_free(&w->truth[gfn])) {
			count(&w->me->left_out);
		} else {
			page_verify(w, gfn);
			count(&w->me->verified);
		}
		if (held)
			page_release(w, gfn);
	}
}

static void say_end(const struct work *w)
{
	print("vCPU ");
	print_number(w->index);
	print(": ");
	print_number(w->me->accesses);
	print(" accesses, ");
	print_number(w->me->writes);
	print(" writes; all ");
	print_number(w->me->verified);
	print(" pages are right");
	if (w->me->left_out) {
		print(", ");
		print_number(w->me->left_out);
		print(" others are or were in the balloon");
	}
	print("\n");
}

__attribute__((noreturn, section(".text.start"))) void guest_main(struct guest_params *params,
								  uint32_t index)
{
	struct work w = {
		.params = params,
		.me = &params->vcpu[index],
		.truth = (struct guest_truth *)(params->base + params->truth_gpa),
		.zipf = (const struct guest_zipf *)(params->base + params->zipf_gpa),
		.random = params->seed ^ (uint64_t)(index + 1) << 48,
		.index = index,
	};

	for (uint32_t i = 0; i < GUEST_PAGE_WORDS; i++)
		w.zero_sum += page_sum_part(0, i);
	if (params->balloon && index == 0)
		w.balloon = payload_balloon_start(params);
	if (params->workload == GUEST_ZEROFILL)
		fill(&w);
	enter(&w, GUEST_PHASE_WORK);
	while (look_around(&w)) {
		uint32_t looks = params->workload == GUEST_IDLE ? 1 : ACCESSES_A_LOOK;

		while (looks-- > 0)
			step(&w);
	}
	sweep(&w);
	enter(&w, GUEST_PHASE_END);
	say_end(&w);
	stop(GUEST_STOP_DONE);
}
