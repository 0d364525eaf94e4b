/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads that save, load, peek and drop pages of VMs that they share, while others do background
 * work, read accounts, finish and poll loads in progress, and add and drop VMs. Each load is compared.
 * Before that, threads that drop pages of one content. A plain program, for ThreadSanitizer. Argument:
 * operations of each thread, else 20000; they go on until all that is to be seen has happened. */
#include <assert.h>
#include <sched.h>
#include "store/model_pages.h"
#include "store/slow_tier.h"

enum { WORKERS = 4, VMS = 3, PAGES = 600, TENANT_PAGES = 20, PATIENCE = 100 };
enum { RACERS = 2, RACED_PAGES = 500000 };

static vmem_store *store;
static struct vmemt_slow_tier tier;
static uint32_t vms[VMS];
static uint64_t first_seed;
static long operations = 20000;
static _Atomic int workers_left = WORKERS;     /* atomic */
static _Atomic int loaders_left = WORKERS + 1; /* atomic; workers and the tenant */

/* What has happened. Atomic, all of them. */
static _Atomic uint64_t refused, slow_loads, errors_given, errors_seen, tenants, compactions,
	logged, equal, deltas, oldest;

static int all_happened(void)
{
	return refused && slow_loads && errors_seen && tenants && compactions && logged && equal &&
	       deltas && oldest;
}

/* A load that its thread waits for; its address is the key. */
struct waiter {
	vmem_store_token token;
	_Atomic int over; /* atomic; publishes result */
	int result;
};

struct stored {
	vmem_store_ref ref; /* 0: none */
	uint64_t seed;
	enum vmemt_page_kind kind;
	uint32_t vm;
};

static void dispatch_events(void)
{
	struct vmem_store_event event[8];
	uint32_t n = vmem_store_poll(store, event, 8);

	for (uint32_t i = 0; i < n; i++) {
		struct waiter *w = (struct waiter *)(uintptr_t)event[i].key;

		assert(event[i].type == VMEM_STORE_LOADED);
		w->result = event[i].result;
		atomic_store_explicit(&w->over, 1, memory_order_release);
	}
}

/* Loads or peeks, and waits if it takes time: only then may it fail, by what the finisher said. */
static int load(const struct stored *s, struct vmemt_page *page, int peek)
{
	struct waiter w = { .over = 0 };
	int rc;

	do {
		rc = (peek ? vmem_store_peek : vmem_store_load)(store, s->vm, (uintptr_t)&w, s->ref,
								page, &w.token);
		if (rc == -VMEM_EAGAIN)
			dispatch_events();
	} while (rc == -VMEM_EAGAIN);
	assert(!rc || rc == -VMEM_EINPROGRESS);
	if (!rc)
		return 0;
	while (!atomic_load_explicit(&w.over, memory_order_acquire)) {
		dispatch_events();
		sched_yield();
	}
	slow_loads++;
	if (w.result == -VMEM_EIO) {
		errors_seen++;
		return w.result;
	}
	assert(!w.result);
	return 0;
}

/* Leaves s->ref 0 if there is no room. */
static void save(struct stored *s, uint32_t vm, uint64_t seed)
{
	struct vmemt_page page;
	int rc;

	*s = (struct stored){ .seed = seed, .kind = seed % VMEMT_PAGE_KINDS, .vm = vm };
	if (seed >> 63) { /* one of which there are few */
		s->seed = seed >> 32 & 0xff;
		s->kind = seed >> 40 & 7 ? VMEMT_PAGE_TEXT : VMEMT_PAGE_NOISE;
	}
	make_page(&page, s->kind, s->seed);
	rc = vmem_store_save(store, vm, seed, &page, &s->ref);
	assert(!rc || (rc == -VMEM_ENOSPC && !s->ref));
	refused += rc != 0;
}

/* Another thread may be loading a page of the same content. */
static void drop(struct stored *s)
{
	int rc;

	while ((rc = vmem_store_drop(store, s->vm, s->ref)) == -VMEM_EBUSY) {
		dispatch_events();
		sched_yield();
	}
	assert(!rc);
	s->ref = 0;
}

static void load_and_compare(const struct stored *s, int peek)
{
	struct vmemt_page page;

	if (!load(s, &page, peek))
		assert(is_page(&page, s->kind, s->seed));
}

static void *worker(void *arg)
{
	uint64_t rng = first_seed + (uintptr_t)arg;
	struct stored mine[PAGES] = { 0 };

	for (long i = 0; i < operations || (i / PATIENCE < operations && !all_happened()); i++) {
		struct stored *s = &mine[vmemt_rand(&rng) % PAGES];
		uint64_t op = vmemt_rand(&rng) % 8;

		if (!s->ref)
			save(s, vms[op % VMS], vmemt_rand(&rng));
		else if (op < 5)
			load_and_compare(s, op == 4);
		else
			drop(s);
	}
	for (uint32_t i = 0; i < PAGES; i++)
		if (mine[i].ref)
			drop(&mine[i]);
	atomic_fetch_sub(&workers_left, 1);
	atomic_fetch_sub(&loaders_left, 1);
	return NULL;
}

/* The device's side: lets loads take time now and then, and finishes them in any order. */
static void *finisher(void *arg)
{
	uint64_t rng = first_seed + 1000;

	(void)arg;
	while (atomic_load(&loaders_left)) {
		uint32_t held = vmemt_slow_tier_held(&tier);

		atomic_store(&tier.hold, vmemt_rand(&rng) % 4 != 0);
		if (held) {
			int result = vmemt_rand(&rng) % 8 ? 0 : -VMEM_EIO;
			int rc = vmemt_slow_tier_finish(&tier, (uint32_t)vmemt_rand(&rng) % held,
							result);

			assert(!rc);
			errors_given += result != 0;
		} else {
			sched_yield();
		}
	}
	return NULL;
}

/* While others save and drop them: only that the refs are the VM's can be said. */
static void look_at_oldest(uint32_t vm)
{
	static uint64_t cursor; /* of this thread; also another VM's */
	vmem_store_ref refs[128];
	uint32_t n = vmem_store_oldest(store, vm, &cursor, refs, 128);

	assert(n <= 128);
	for (uint32_t i = 0; i < n; i++)
		assert(vmemi_ref_tier(refs[i]) == VMEMI_REF_POOL && vmemi_ref_vm(refs[i]) == vm);
	oldest += n;
}

static void *background(void *arg)
{
	uint64_t rng = first_seed + 2000;
	struct vmem_store_account a = { .size = sizeof(a) };
	struct vmem_pool_stats stats = { .size = sizeof(stats) };

	(void)arg;
	for (uint64_t now = 0; atomic_load(&workers_left); now += 100000) {
		int rc;

		vmem_store_work(store, 100000, now);
		look_at_oldest(vms[now / 100000 % VMS]);
		rc = vmem_store_total_account(store, &a);
		assert(!rc);
		assert(a.pages < 1u << 20 &&
		       a.pages == a.pages_same + a.pages_compressed + a.pages_raw + a.pages_equal);
		equal += a.pages_equal;
		deltas += a.pages_delta;
		rc = vmem_store_set_cap(store, vms[0], (uint32_t)vmemt_rand(&rng) % 101);
		assert(!rc);
		vmem_store_set_budget(store, vmemt_rand(&rng) % 8 ? 0 : 1 << 20);
		rc = vmem_pool_get_stats(store->pool, &stats);
		assert(!rc);
		compactions = stats.compactions;
	}
	vmem_store_set_budget(store, 0);
	return NULL;
}

/* VMs that come and go, with what they hold. */
static void *tenant(void *arg)
{
	uint64_t rng = first_seed + 3000;

	(void)arg;
	while (atomic_load(&workers_left)) {
		struct stored s[TENANT_PAGES];
		const struct vmem_store_vm_opts opts = { .size = sizeof(opts),
							 .sharing = VMEM_STORE_SHARE_GROUP,
							 .group = 1 + tenants % 2 };
		uint32_t number;
		int rc = vmem_store_add_vm(store, tenants % 4 ? &opts : NULL, &number);

		assert(!rc);
		for (uint32_t i = 0; i < TENANT_PAGES; i++)
			save(&s[i], number, vmemt_rand(&rng));
		for (uint32_t i = 0; i < TENANT_PAGES; i++)
			if (s[i].ref)
				load_and_compare(&s[i], 0);
		rc = vmem_store_drop_vm(store, number);
		assert(!rc);
		tenants++;
	}
	atomic_fetch_sub(&loaders_left, 1);
	return NULL;
}

/* Pages of one content, saved one by one while others drop as many as they can: they have one ref, and as
 * many drops of it succeed as pages were saved. */
static vmem_store_ref raced;
static _Atomic int race_over;        /* atomic */
static _Atomic uint64_t raced_drops; /* atomic */

static void *racer(void *arg)
{
	while (!race_over) {
		int rc = vmem_store_drop(store, vms[0], raced);

		assert(!rc || rc == -VMEM_ENOENT);
		raced_drops += !rc;
	}
	return arg;
}

static void race_drops(void)
{
	struct vmem_store_account a = { .size = sizeof(a) };
	struct vmemt_page page;
	pthread_t thread[RACERS];
	vmem_store_ref ref;
	int rc;

	vmemt_page_make(&page, VMEMT_PAGE_SAME, 1);
	rc = vmem_store_save(store, vms[0], 0, &page, &raced);
	assert(!rc);
	for (int t = 0; t < RACERS; t++) {
		rc = pthread_create(&thread[t], NULL, racer, NULL);
		assert(!rc);
	}
	for (uint64_t n = 1; n < RACED_PAGES; n++) {
		rc = vmem_store_save(store, vms[0], 0, &page, &ref);
		assert(!rc && ref == raced);
	}
	race_over = 1;
	for (int t = 0; t < RACERS; t++)
		pthread_join(thread[t], NULL);
	while (raced_drops < RACED_PAGES && !vmem_store_drop(store, vms[0], raced))
		raced_drops++;
	rc = vmem_store_vm_account(store, vms[0], &a);
	assert(!rc && !a.pages && raced_drops == RACED_PAGES);
}

/* With a log, the pool's locks go through the store's environment. */
static void keep_log(void *context, enum vmem_log_code code, uint64_t a, uint64_t b)
{
	(void)context;
	(void)a;
	(void)b;
	assert(code == VMEM_LOG_BUDGET_EXCEEDED);
	logged++;
}

int main(int argc, char **argv)
{
	struct vmem_store_vm_opts opts = { .size = sizeof(opts),
					   .vm_bytes = 8 << 20,
					   .cap_percent = VMEM_STORE_NO_CAP };
	struct vmem_env env = *vmemi_env_default();
	const struct vmem_codec *codecs[] = { vmem_codec_lz4(), vmem_codec_zstd(1),
					      vmem_codec_delta(1) };
	struct vmem_store_opts store_opts = { .size = sizeof(store_opts),
					      .env = &env,
					      .codecs = codecs,
					      .codec_count = 3,
					      .parallel = 2,
					      .cold_after_ms = 1 };
	struct vmem_store_account a = { .size = sizeof(a) };
	pthread_t thread[WORKERS + 3];
	int rc;

	env.log = keep_log;
	rc = vmem_store_new(&store, &store_opts);
	assert(!rc);
	first_seed = vmemt_seed("store_stress");
	if (argc > 1)
		operations = atol(argv[1]);
	for (uint32_t v = 0; v < VMS; v++) {
		opts.sharing = v ? VMEM_STORE_SHARE_GROUP : VMEM_STORE_SHARE_VM;
		opts.group = v ? 1 : 0;
		rc = vmem_store_add_vm(store, &opts, &vms[v]);
		assert(!rc);
	}
	race_drops();
	vmemt_slow_tier_init(&tier, store);
	for (uintptr_t t = 0; t < WORKERS + 3; t++) {
		void *(*const run[])(void *) = { finisher, background, tenant };

		rc = pthread_create(&thread[t], NULL, t < WORKERS ? worker : run[t - WORKERS],
				    (void *)t);
		assert(!rc);
	}
	for (uint32_t t = 0; t < WORKERS + 3; t++)
		pthread_join(thread[t], NULL);
	assert(!vmemi_store_check(store));
	rc = vmem_store_total_account(store, &a);
	assert(!rc && !a.pages && !a.physical_bytes && !a.corrupt);
	assert(all_happened() && a.saves && a.loads && a.rejects == refused);
	assert(errors_seen == errors_given);
	printf("%lu saves, %lu refused; %lu loads, %lu slow, %lu of them failed; %lu compactions\n",
	       a.saves, refused, a.loads, slow_loads, errors_seen, compactions);
	vmemt_slow_tier_destroy(&tier);
	vmem_store_free(store);
	return 0;
}
