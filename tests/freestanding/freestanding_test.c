/* SPDX-License-Identifier: BSD-2-Clause */
/* A store, a pool and a tracker without libc: linked with libvmem-core.a and the four mem functions alone.
 * Brings its own entry point, an allocator and a codec, and moves pages through store and pool.
 * Exit status 0, or 1 after the line of the check that failed. */
#include <vmem/pool.h>
#include <vmem/store.h>
#include <vmem/track.h>
#include "support/mem_functions.h"

#define PAGES 2000u
#define HEAP_BYTES (48u << 20)
#define CPU_NONE 0u

/* --- What a hypervisor has instead of libc --- */

#if defined(__x86_64__)
__asm__(".globl _start\n"
	"_start: xor %ebp, %ebp\n\t"
	"and $-16, %rsp\n\t"
	"call start\n");
static long kernel(long number, long a, long b, long c)
{
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return result;
}
#define WRITE 1
#define EXIT 60
#elif defined(__aarch64__)
__asm__(".globl _start\n"
	"_start: mov x29, #0\n\t"
	"bl start\n");
static long kernel(long number, long a, long b, long c)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
	return x0;
}
#define WRITE 64
#define EXIT 93
#endif

_Noreturn void start(void);

static _Noreturn void fail(unsigned line)
{
	char text[] = "freestanding_test.c:      does not hold\n";

	for (unsigned at = 24; line; line /= 10)
		text[at--] = (char)('0' + line % 10);
	kernel(WRITE, 2, (long)text, sizeof(text) - 1);
	for (;;)
		kernel(EXIT, 1, 0, 0);
}

#define CHECK(holds) ((holds) ? (void)0 : fail(__LINE__))

/* Memory is only ever taken from the front of the heap, and counted. */
static unsigned char heap[HEAP_BYTES] __attribute__((aligned(4096)));
static size_t heap_used, heap_live;

static void *heap_alloc(void *context, size_t bytes, size_t align)
{
	size_t at = (heap_used + align - 1) & ~(align - 1);

	(void)context;
	if (align > 4096 || bytes > sizeof(heap) - at)
		return NULL;
	heap_used = at + bytes;
	heap_live += bytes;
	memset(heap + at, 0xa5, bytes);
	return heap + at;
}

static void heap_free(void *context, void *memory, size_t bytes, size_t align)
{
	(void)context;
	(void)align;
	memset(memory, 0x5a, bytes);
	heap_live -= bytes;
}

static const struct vmem_allocator allocator = {
	.size = sizeof(allocator),
	.alloc = heap_alloc,
	.free = heap_free,
};

/* A codec of our own: pages whose second half is zero, without that half. */
static size_t half_encode(void *context, void *dst, size_t capacity, const void *page,
			  const void *reference)
{
	const unsigned char *bytes = page;

	(void)context;
	(void)reference;
	for (size_t i = 2048; i < 4096; i++)
		if (bytes[i])
			return 0;
	if (capacity < 2048)
		return 0;
	memcpy(dst, page, 2048);
	return 2048;
}

static int half_decode(void *context, void *page, const void *src, size_t bytes,
		       const void *reference)
{
	(void)context;
	(void)reference;
	if (bytes != 2048)
		return -VMEM_EBADMSG;
	memcpy(page, src, 2048);
	memset((unsigned char *)page + 2048, 0, 2048);
	return 0;
}

static const struct vmem_codec half = {
	.size = sizeof(half),
	.name = "half",
	.id = VMEM_CODEC_USER,
	.encode = half_encode,
	.decode = half_decode,
};

static const struct vmem_codec *const codecs[] = { &half };

/* --- The test --- */

static uint64_t page[512], loaded[512];
static vmem_store_ref refs[PAGES];

/* Page @n: one word repeated, half empty, or full of noise; always the same. */
static void make_page(unsigned n)
{
	uint64_t state = n + 1;

	for (unsigned i = 0; i < 512; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		page[i] = n % 3 == 0 ? n : n % 3 == 1 && i >= 256 ? 0 : state;
	}
}

static void check_page(vmem_store *store, uint32_t vm, unsigned n)
{
	make_page(n);
	memset(loaded, 0xff, sizeof(loaded));
	CHECK(vmem_store_load(store, vm, n, refs[n], loaded, NULL) == 0);
	CHECK(memcmp(page, loaded, sizeof(page)) == 0);
}

static void test_store(void)
{
	struct vmem_store_opts opts = { .size = sizeof(opts), .cpu = CPU_NONE };
	struct vmem_store_account account = { .size = sizeof(account) };
	vmem_store *store = NULL;
	uint32_t vm;

	CHECK(vmem_store_new(&store, &opts) == -VMEM_EINVAL); /* there is no default allocator */
	opts.allocator = &allocator;
	opts.codecs = codecs;
	opts.codec_count = 1;
	CHECK(vmem_store_new(&store, &opts) == 0);
	CHECK(vmem_store_add_vm(store, NULL, &vm) == 0);
	for (unsigned n = 0; n < PAGES; n++) {
		make_page(n);
		CHECK(vmem_store_save(store, vm, n, page, &refs[n]) == 0);
		CHECK(refs[n] && refs[n] >> 56 == 0);
	}
	CHECK(vmem_store_total_account(store, &account) == 0);
	CHECK(account.pages == PAGES);
	CHECK(account.pages_same == (PAGES + 2) / 3);
	CHECK(account.pages_compressed == (PAGES + 1) / 3);
	CHECK(account.pages_raw == PAGES / 3);
	for (unsigned n = 0; n < PAGES; n++)
		check_page(store, vm, n);

	for (unsigned n = 0; n < PAGES; n++)
		if (n % 4)
			CHECK(vmem_store_drop(store, vm, refs[n]) == 0);
	for (uint64_t now = 0; vmem_store_work(store, 1000000, now); now += 1000000)
		CHECK(now < UINT64_C(1000000) * PAGES);
	for (unsigned n = 0; n < PAGES; n += 4)
		check_page(store, vm, n);
	CHECK(vmem_store_drop_vm(store, vm) == 0);
	vmem_store_free(store);
	CHECK(heap_live == 0);
}

static void test_pool(void)
{
	struct vmem_pool_opts opts = { .size = sizeof(opts), .cpu = CPU_NONE };
	vmem_pool_handle handle;
	vmem_pool *pool = NULL;
	uint32_t stream, bytes;

	CHECK(vmem_pool_new(&pool, &opts) == -VMEM_EINVAL);
	opts.allocator = &allocator;
	CHECK(vmem_pool_new(&pool, &opts) == 0);
	CHECK(vmem_pool_stream_new(pool, &stream) == 0);
	CHECK(vmem_pool_save_bytes(pool, stream, "hypervisor", 11, &handle) == 0);
	CHECK(vmem_pool_load_bytes(pool, handle, loaded, sizeof(loaded), &bytes) == 0);
	CHECK(bytes == 11 && memcmp(loaded, "hypervisor", 11) == 0);
	vmem_pool_free(pool);
	CHECK(heap_live == 0);
}

/* Old pages are found, in registers that a hypervisor may use. */
static void test_track(void)
{
	struct vmem_track_opts opts = { .size = sizeof(opts), .pages = PAGES, .cpu = CPU_NONE };
	struct vmem_track_want want = { .size = sizeof(want), .pages = 64, .min_age = 2 };
	struct vmem_track_cursor cursor = { 0 };
	struct vmem_track_run run;
	vmem_track *track = NULL;
	uint64_t accessed = ~(UINT64_C(1) << 7);
	size_t count;

	CHECK(vmem_track_new(&track, &opts) == -VMEM_EINVAL);
	opts.allocator = &allocator;
	CHECK(vmem_track_new(&track, &opts) == 0);
	CHECK(vmem_track_mark(track, 64, 64, VMEM_TRACK_ABSENT, 0) == 0);
	for (unsigned n = 0; n < 300; n++) {
		vmem_track_period(track);
		CHECK(vmem_track_feed_bitmap(track, 64, 64, &accessed, NULL) == 0);
	}
	CHECK(vmem_track_working_set(track, 1) == 63);
	CHECK(vmem_track_victims(track, &want, &cursor, &run, 1, &count) == 0);
	CHECK(count == 1 && run.first == 71 && run.count == 1);
	vmem_track_free(track);
	CHECK(heap_live == 0);
}

_Noreturn void start(void)
{
	CHECK(vmem_version() >> 16 == VMEM_VERSION_MAJOR);
	CHECK(vmem_cpu_detect() == 0); /* only the caller knows */
	test_store();
	test_pool();
	test_track();
	for (;;)
		kernel(EXIT, 0, 0, 0);
}
