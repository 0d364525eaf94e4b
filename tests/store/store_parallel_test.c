/* SPDX-License-Identifier: BSD-2-Clause */
/* No call keeps another one waiting for as long as it encodes or decodes: while one thread stands in a codec, with
 * a save, a load, or background work, the other does all that a store can do, with the same VM, another of its
 * group and one of its own. If anything waits, this never ends. A plain program, for ThreadSanitizer. */
#include <assert.h>
#include <pthread.h>
#include "store/store_internal.h"
#include "support/pages.h"

enum { PAGES = 600, VMS = 3, STOPS_AT = 7 };

static vmem_store *store;
static uint32_t vm[VMS]; /* the first two are a group */
static vmem_store_ref ref[VMS][PAGES];
static struct vmem_codec lz4, zstd;
static uint64_t next_seed = 1000000;

/* --- Where the thread stands --- */

enum place { NOWHERE, IN_LZ4_ENCODE, IN_LZ4_DECODE, IN_ZSTD_ENCODE };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static enum place stop_at; /* lock; the first who comes here stops */
static int stopped;        /* lock */

static void pass_by(enum place here)
{
	pthread_mutex_lock(&lock);
	if (stop_at == here) {
		stop_at = NOWHERE;
		stopped = 1;
		pthread_cond_broadcast(&changed);
		while (stopped)
			pthread_cond_wait(&changed, &lock);
	}
	pthread_mutex_unlock(&lock);
}

static void wait_until_stopped(void)
{
	pthread_mutex_lock(&lock);
	while (!stopped)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

static void set_off(void)
{
	pthread_mutex_lock(&lock);
	stopped = 0;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static size_t encode_lz4(void *context, void *dst, size_t capacity, const void *page,
			 const void *reference)
{
	pass_by(IN_LZ4_ENCODE);
	return vmem_codec_lz4()->encode(context, dst, capacity, page, reference);
}

static int decode_lz4(void *context, void *page, const void *src, size_t bytes,
		      const void *reference)
{
	pass_by(IN_LZ4_DECODE);
	return vmem_codec_lz4()->decode(context, page, src, bytes, reference);
}

static size_t encode_zstd(void *context, void *dst, size_t capacity, const void *page,
			  const void *reference)
{
	pass_by(IN_ZSTD_ENCODE);
	return vmem_codec_zstd(1)->encode(context, dst, capacity, page, reference);
}

/* --- What both threads do --- */

static vmem_store_ref save(uint32_t number, uint64_t seed)
{
	struct vmemt_page page;
	vmem_store_ref r = 0;
	int rc;

	vmemt_page_make(&page, VMEMT_PAGE_TEXT, seed);
	rc = vmem_store_save(store, number, seed, &page, &r);
	assert(!rc && r);
	return r;
}

static void load(uint32_t number, vmem_store_ref r, uint64_t seed)
{
	struct vmemt_page page;
	int rc = vmem_store_load(store, number, seed, r, &page, NULL);

	assert(!rc && vmemt_page_is(&page, VMEMT_PAGE_TEXT, seed));
	rc = vmem_store_peek(store, number, seed, r, &page, NULL);
	assert(!rc && vmemt_page_is(&page, VMEMT_PAGE_TEXT, seed));
}

static void drop(uint32_t number, vmem_store_ref r)
{
	int rc = vmem_store_drop(store, number, r);

	assert(!rc);
}

static void use_all(void)
{
	struct vmem_store_account a = { .size = sizeof(a) };
	struct vmem_store_event event;
	vmem_store_ref refs[8];

	for (int v = 0; v < VMS; v++) {
		uint64_t seed = next_seed++, cursor = 0;
		vmem_store_ref first = save(vm[v], seed), second = save(vm[v], seed);
		int rc;

		assert(first == second);
		load(vm[v], first, seed);
		drop(vm[v], first);
		load(vm[v], second, seed);
		drop(vm[v], second);
		for (int i = 0; i < PAGES; i++) /* with the one that the thread is at */
			load(vm[v], ref[v][i], (uint64_t)i);
		drop(vm[v], save(vm[v], STOPS_AT));
		drop(vm[v], save(vm[v], PAGES + STOPS_AT));
		rc = vmem_store_vm_account(store, vm[v], &a);
		assert(!rc && a.pages >= PAGES);
		rc = vmem_store_set_cap(store, vm[v], VMEM_STORE_NO_CAP);
		assert(!rc && vmem_store_oldest(store, vm[v], &cursor, refs, 8) == 8);
	}
	vmem_store_set_budget(store, 0);
	assert(!vmem_store_poll(store, &event, 1));
	assert(!vmem_store_total_account(store, &a));
}

/* --- What the thread does --- */

static void *save_one(void *arg)
{
	drop(vm[0], save(vm[0], PAGES + STOPS_AT));
	return arg;
}

static void *save_equal(void *arg) /* which is compared */
{
	drop(vm[0], save(vm[0], STOPS_AT));
	return arg;
}

static void *load_one(void *arg)
{
	load(vm[0], ref[0][STOPS_AT], STOPS_AT);
	return arg;
}

static void *work(void *arg)
{
	for (uint64_t pass = 1; pass < 4; pass++)
		while (vmem_store_work(store, 1000000, pass * UINT64_C(10000000000)))
			;
	return arg;
}

static void use_all_while(void *(*run)(void *), enum place stands)
{
	pthread_t thread;
	int rc;

	stop_at = stands;
	rc = pthread_create(&thread, NULL, run, NULL);
	assert(!rc);
	wait_until_stopped();
	use_all();
	set_off();
	pthread_join(thread, NULL);
	assert(!vmemi_store_check(store));
}

int main(void)
{
	const struct vmem_codec *codecs[] = { &lz4, &zstd, vmem_codec_delta(1) };
	struct vmem_store_opts opts = {
		.size = sizeof(opts), .codecs = codecs, .codec_count = 3, .parallel = 2
	};
	int rc;

	lz4 = *vmem_codec_lz4();
	lz4.encode = encode_lz4;
	lz4.decode = decode_lz4;
	zstd = *vmem_codec_zstd(1);
	zstd.encode = encode_zstd;
	rc = vmem_store_new(&store, &opts);
	assert(!rc);
	for (int v = 0; v < VMS; v++) {
		struct vmem_store_vm_opts o = { .size = sizeof(o),
						.sharing = v < 2 ? VMEM_STORE_SHARE_GROUP
								 : VMEM_STORE_SHARE_VM };

		rc = vmem_store_add_vm(store, &o, &vm[v]);
		assert(!rc);
		for (int i = 0; i < PAGES; i++)
			ref[v][i] = save(vm[v], (uint64_t)i);
	}
	use_all_while(save_one, IN_LZ4_ENCODE);
	use_all_while(save_equal, IN_LZ4_DECODE);
	use_all_while(load_one, IN_LZ4_DECODE);
	use_all_while(work, IN_ZSTD_ENCODE);
	for (int v = 0; v < VMS; v++)
		for (int i = 0; i < PAGES; i++)
			load(vm[v], ref[v][i], (uint64_t)i);
	vmem_store_free(store);
	return 0;
}
