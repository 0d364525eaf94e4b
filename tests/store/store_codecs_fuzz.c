/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages that are alike, in domains of one VM and of several, by all codecs: objects are shared, encoded anew,
 * become deltas and references, and all that is stored is compared with plain copies. The first byte of an
 * input chooses the codecs; then come operations of six bytes: what, VM, page, where (two), value. */
#include <assert.h>
#include "store/store_internal.h"
#include "support/pages.h"

#define VMS 5u
#define GROUPS 2u
#define BASES 4u
#define COPIES 512u
#define STEPS 256u /* of an input, so that none takes long */
#define RUN 96u
#define VM_PAGES 256u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

struct operation {
	uint8_t what, vm, page;
	uint16_t at;
	uint8_t value;
};

struct copy {
	struct vmemt_page page;
	vmem_store_ref ref;
	uint32_t vm; /* in state.vm */
};

static struct vmemt_page base[BASES];

static struct {
	vmem_store *store;
	uint64_t now;
	struct {
		bool live;
		uint32_t number;
		uint64_t cap_bytes;
	} vm[VMS];
	uint32_t count;
	struct copy copy[COPIES];
} state;

/* Letters, which zstd makes shorter than LZ4 does, and zeros. */
static void make_bases(void)
{
	for (uint64_t b = 0; b < BASES; b++) {
		vmemt_page_make(&base[b], VMEMT_PAGE_NOISE, b);
		for (unsigned i = 0; i < VMEM_PAGE_SIZE; i++)
			base[b].bytes[i] = i < VMEM_PAGE_SIZE / 2 ? 'a' + base[b].bytes[i] % 16 : 0;
	}
}

static void open_store(uint8_t choice)
{
	const struct vmem_codec *const tables[][3] = {
		{ vmem_codec_lz4(), vmem_codec_zstd(1), vmem_codec_delta(1) },
		{ vmem_codec_lz4hc(), vmem_codec_zstd(3), vmem_codec_delta(2) },
		{ vmem_codec_zstd(1), vmem_codec_delta(1), vmem_codec_lz4() },
		{ vmem_codec_delta(1), vmem_codec_zstd(1) }, /* raw at first */
	};
	const struct vmem_codec *const *table = tables[choice % 4];
	struct vmem_store_opts opts = { .size = sizeof(opts),
					.codecs = table,
					.codec_count = table[2] ? 3 : 2,
					.parallel = 1,
					.seed = choice,
					.cold_after_ms = 1 };
	int rc;

	state.now = 1;
	state.count = 0;
	memset(state.vm, 0, sizeof(state.vm));
	rc = vmem_store_new(&state.store, &opts);
	assert(!rc);
}

static struct vmem_store_account account_of(uint32_t v)
{
	struct vmem_store_account a = { .size = sizeof(a) };
	int rc = vmem_store_vm_account(state.store, state.vm[v].number, &a);

	assert(!rc);
	return a;
}

static uint64_t cap_of(uint32_t percent)
{
	return percent == VMEM_STORE_NO_CAP ? UINT64_MAX
					    : VM_PAGES * VMEM_PAGE_SIZE * percent / 100;
}

static void add_vm(uint32_t v, const struct operation *o)
{
	struct vmem_store_vm_opts opts = { .size = sizeof(opts),
					   .vm_bytes = VM_PAGES * VMEM_PAGE_SIZE,
					   .cap_percent = o->value >= 128 ? 10u + o->at % 91u
									  : VMEM_STORE_NO_CAP };
	int rc;

	if (o->value % 2) {
		opts.sharing = VMEM_STORE_SHARE_GROUP;
		opts.group = o->value / 2 % GROUPS;
	}
	rc = vmem_store_add_vm(state.store, &opts, &state.vm[v].number);
	assert(!rc);
	state.vm[v].live = true;
	state.vm[v].cap_bytes = cap_of(opts.cap_percent);
}

static void forget(uint32_t n)
{
	state.copy[n] = state.copy[--state.count];
}

static void drop_vm(uint32_t v)
{
	int rc = vmem_store_drop_vm(state.store, state.vm[v].number);

	assert(!rc);
	state.vm[v].live = false;
	for (uint32_t n = state.count; n-- > 0;)
		if (state.copy[n].vm == v)
			forget(n);
}

static void save(uint32_t v, const struct vmemt_page *page)
{
	struct copy *c = &state.copy[state.count];
	uint64_t used;
	int rc;

	if (state.count == COPIES)
		return;
	used = account_of(v).physical_bytes;
	c->page = *page;
	c->vm = v;
	rc = vmem_store_save(state.store, state.vm[v].number, state.count, &c->page, &c->ref);
	assert(!rc || (rc == -VMEM_ENOSPC && used >= state.vm[v].cap_bytes));
	state.count += !rc;
}

static void edit(struct vmemt_page *page, uint32_t at, uint8_t value)
{
	page->bytes[at % VMEM_PAGE_SIZE] ^= value;
}

/* One that is like a page of any VM, or equal to it. */
static void save_like(uint32_t v, const struct operation *o)
{
	struct vmemt_page page =
		state.count ? state.copy[o->page * 4u % state.count].page : base[o->page % BASES];

	edit(&page, o->at, o->value);
	save(v, &page);
}

/* Some that are like one base. */
static void save_run(uint32_t v, const struct operation *o)
{
	for (uint32_t i = 0; i < o->value % RUN; i++) {
		struct vmemt_page page = base[o->page % BASES];

		for (uint32_t n = 0; n < 1 + i % 8; n++)
			edit(&page, o->at + i * 61 + n * 509, (uint8_t)(i + 1));
		save(v, &page);
	}
}

static void save_word(uint32_t v, const struct operation *o)
{
	struct vmemt_page page;

	vmem_page_fill(page.bytes, o->value * UINT64_C(0x0100000001) + (o->at % 4u << 16));
	save(v, &page);
}

static void load(uint32_t n, bool peek)
{
	const struct copy *c = &state.copy[n];
	struct vmemt_page page;
	int rc = (peek ? vmem_store_peek : vmem_store_load)(state.store, state.vm[c->vm].number, n,
							    c->ref, page.bytes, NULL);

	assert(!rc);
	assert(!memcmp(&page, &c->page, sizeof(page)));
}

static void drop(uint32_t n)
{
	int rc = vmem_store_drop(state.store, state.vm[state.copy[n].vm].number, state.copy[n].ref);

	assert(!rc);
	forget(n);
}

/* Every second or so, so that segments have gaps. */
static void drop_run(const struct operation *o)
{
	for (uint32_t n = state.count, left = o->value; n-- > 0 && left; left--)
		if ((n + o->at) % (2u + o->page % 3u))
			drop(n);
}

static void set_cap(uint32_t v, uint32_t percent)
{
	int rc = vmem_store_set_cap(state.store, state.vm[v].number, percent);

	assert(rc == (percent > 100 && percent != VMEM_STORE_NO_CAP ? -VMEM_EINVAL : 0));
	if (!rc)
		state.vm[v].cap_bytes = cap_of(percent);
}

static void work(const struct operation *o)
{
	state.now += o->value * UINT64_C(100000);
	vmem_store_work(state.store, o->at * UINT64_C(100), state.now);
}

static void step(const struct operation *o)
{
	uint32_t v = o->vm % VMS, n = 256u * o->page + o->value;

	n = state.count ? n % state.count : 0;
	if (!state.vm[v].live)
		add_vm(v, o);
	switch (o->what % 16) {
	case 0: drop_vm(v); break;
	case 1: set_cap(v, o->value % 103u < 102 ? o->value % 103u : VMEM_STORE_NO_CAP); break;
	case 2: save_word(v, o); break;
	case 3:
	case 4: save_run(v, o); break;
	case 5:
	case 6:
	case 7:
	case 8: save_like(v, o); break;
	case 9: drop_run(o); break;
	case 10:
	case 11: work(o); break;
	default:
		if (state.count)
			o->what % 16 == 15 ? drop(n) : load(n, o->what % 2);
	}
}

static void check(void)
{
	const char *wrong = vmemi_store_check(state.store);

	if (wrong)
		fprintf(stderr, "%s\n", wrong);
	assert(!wrong);
	for (uint32_t n = 0; n < state.count; n++)
		load(n, true);
}

/* Nothing is left when all is dropped: no delta has kept its reference. */
static void close_store(void)
{
	struct vmem_store_account a = { .size = sizeof(a) };
	int rc;

	check();
	while (state.count)
		drop(state.count - 1);
	rc = vmem_store_total_account(state.store, &a);
	assert(!rc && !a.pages && !a.physical_bytes);
	vmem_store_free(state.store);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	uint32_t steps = 0;

	if (!bytes)
		return 0;
	make_bases();
	open_store(data[0]);
	for (data++, bytes--; bytes >= 6 && steps < STEPS; data += 6, bytes -= 6) {
		const struct operation o = { data[0], data[1], data[2],
					     (uint16_t)(data[3] | data[4] << 8), data[5] };

		step(&o);
		if (++steps % 64 == 0)
			check();
	}
	close_store();
	return 0;
}
