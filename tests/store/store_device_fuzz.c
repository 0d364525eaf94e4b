/* SPDX-License-Identifier: BSD-2-Clause */
/* A store on a device that hands out whatever it likes for what it has written: other bytes here and there, other
 * headers, another place, zeros, or an error. A page is then right, or an error; and once a device has been honest all
 * along, it is right.
 *
 * Pages of noise, of text and deltas of them are out before an input begins. Its first byte chooses the codecs; then
 * come operations of seven bytes: what, page, how it lies, where (two), value (two). */
#include <assert.h>
#include "pool/pool_object.h"
#include "pool/pool_of.h"
#include "store/memory_device.h"
#include "store/out.h"
#include "store/store_internal.h"
#include "support/pages.h"

#define BASES 3u
#define NOISE 48u /* pages */
#define PAGES 192u
#define STEPS 128u /* of an input, so that none takes long */
#define TURNS 4096
#define PATIENCE 16
#define LATE_MS 31000 /* more than the device's time */
#define DEVICE_BYTES (2u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* How a read lies. */
enum lie { HONEST, FLIP, HEADER, PAYLOAD, ELSEWHERE, SHIFTED, SAME, SHORT, FORGED, ERROR, LIES };

struct operation {
	uint8_t what, page, lie;
	uint16_t at, value;
};

static struct {
	struct vmemt_memory_device device;
	vmem_store *store;
	uint32_t vm;
	uint64_t now_ns;
	bool has_lied;
	const struct operation *lying; /* NULL: it does not */
	struct vmemi_located target;   /* of the page that is loaded */
	struct vmemt_page page[PAGES];
	vmem_store_ref ref[PAGES]; /* 0: not stored */
} state;

static void put(unsigned char *data, uint64_t bytes, uint64_t at, uint16_t value)
{
	for (unsigned i = 0; i < sizeof(value); i++)
		if (at + i < bytes)
			data[at + i] = (unsigned char)(value >> 8 * i);
}

static uint64_t place_of(const struct vmemi_located *at)
{
	return VMEM_SLOT_NUMBER(at->place) * VMEMI_OUT_BLOCK + at->offset;
}

/* The object that is read begins here, if it is the one that was asked for. */
static uint64_t object_in(const struct vmem_device_request *r)
{
	uint64_t begin =
		VMEM_SLOT_NUMBER(state.target.place) * VMEMI_OUT_BLOCK + state.target.offset;

	return begin >= r->offset && begin < r->offset + r->bytes
		       ? begin - r->offset
		       : state.target.offset % VMEMI_OUT_BLOCK;
}

/* False: it is not out. */
static bool locate(uint32_t i, struct vmemi_located *at)
{
	uint32_t stream = vmemi_store_vm(state.store, state.vm)->domain->stream;

	*at = (struct vmemi_located){ 0 };
	if (!state.ref[i] ||
	    vmemi_pool_locate(state.store->pool, stream, vmemi_ref_payload(state.ref[i]), at))
		return false;
	vmemi_pool_located_end(state.store->pool, at);
	return true;
}

/* The object of another page, whole, with the handle of the one that was asked for. */
static void forge(const struct vmemt_memory_device *m, const struct vmem_device_request *r,
		  uint32_t other)
{
	uint64_t to = object_in(r), bytes;
	unsigned char *data = r->data;
	struct vmemi_located at;

	if (!locate(other, &at))
		return;
	bytes = at.bytes < r->bytes - to ? at.bytes : r->bytes - to;
	memcpy(data + to, m->bytes + place_of(&at), bytes);
	put(data, r->bytes, to, (uint16_t)state.target.handle);
	put(data, r->bytes, to + 2, (uint16_t)(state.target.handle >> 16));
}

static int lie(struct vmemt_memory_device *m, const struct vmem_device_request *r)
{
	static const int errors[] = { -VMEM_EIO,    -VMEM_ENODEV, -VMEM_ENOSPC,
				      -VMEM_ENOMEM, -VMEM_EPERM,  -VMEM_EAGAIN };
	const struct operation *o = state.lying;
	unsigned char *data = r->data;
	uint64_t from;

	if (!o || o->lie % LIES == HONEST)
		return 0;
	state.has_lied = true;
	switch (o->lie % LIES) {
	case FLIP: data[o->at % r->bytes] ^= (unsigned char)(o->value | 1); break;
	case HEADER:
		put(data, r->bytes, object_in(r) + o->at % sizeof(struct vmemi_object_header),
		    o->value);
		break;
	case PAYLOAD:
		put(data, r->bytes, object_in(r) + sizeof(struct vmemi_object_header) + o->at % 64,
		    o->value);
		break;
	case ELSEWHERE:
		from = (uint64_t)o->at * VMEMI_OUT_BLOCK % (DEVICE_BYTES - r->bytes);
		memcpy(data, m->bytes + from, r->bytes);
		break;
	case SHIFTED:
		from = 4u * (o->at % 1024u);
		memmove(data, data + from, r->bytes - from);
		break;
	case SAME: memset(data, o->value, r->bytes); break;
	case SHORT: memset(data + o->at % r->bytes, 0, r->bytes - o->at % r->bytes); break;
	case FORGED: forge(m, r, o->at % PAGES); break;
	default: return errors[o->value % (sizeof(errors) / sizeof(errors[0]))];
	}
	return 0;
}

static void work(uint64_t ms)
{
	state.now_ns += ms * 1000000;
	(void)vmem_store_work(state.store, 1000000, state.now_ns);
}

static void settle(void)
{
	struct vmem_store_out_stats stats = { .size = sizeof(stats) };

	for (int turn = 0;; turn++) {
		int rc = vmem_store_get_out_stats(state.store, &stats);

		assert(!rc && turn < TURNS);
		if (!stats.writing)
			return;
		(void)vmem_store_poll(state.store, NULL, 0);
	}
}

static void write_out(uint64_t bytes)
{
	vmem_store_write_out(state.store, bytes);
	work(1);
	settle();
}

/* A page of noise, or one like some others. */
static void make(uint32_t i, uint64_t version)
{
	bool noise = i < NOISE;

	vmemt_page_make(&state.page[i], noise ? VMEMT_PAGE_NOISE : VMEMT_PAGE_TEXT,
			noise ? 1000 + i + version * PAGES : i % BASES);
	for (uint32_t n = 0; !noise && n < 1 + i % 4; n++)
		state.page[i].bytes[(i * 61 + n * 509) % VMEM_PAGE_SIZE] ^=
			(unsigned char)(1 + version + i);
}

static void save(uint32_t i, uint64_t version)
{
	int rc;

	make(i, version);
	rc = vmem_store_save(state.store, state.vm, i, state.page[i].bytes, &state.ref[i]);
	assert(!rc || rc == -VMEM_ENOSPC);
	if (rc)
		state.ref[i] = 0;
}

static void open_store(uint8_t choice)
{
	const struct vmem_codec *const fast[] = { vmem_codec_lz4(), vmem_codec_delta(1) };
	const struct vmem_codec *const small[] = { vmem_codec_lz4(), vmem_codec_zstd(1),
						   vmem_codec_delta(2) };
	struct vmem_store_opts opts = { .size = sizeof(opts),
					.codecs = choice % 2 ? fast : small,
					.codec_count = choice % 2 ? 2 : 3,
					.parallel = 1,
					.cold_after_ms = 1 };
	int rc;

	memset(state.ref, 0, sizeof(state.ref));
	state.now_ns = 1;
	state.has_lied = false;
	state.lying = NULL;
	rc = vmem_store_new(&state.store, &opts);
	assert(!rc);
	rc = vmem_store_add_vm(state.store, NULL, &state.vm);
	assert(!rc);
	vmemt_memory_device_init(&state.device, DEVICE_BYTES, 16);
	state.device.spoil = lie;
	rc = vmem_store_add_device(state.store, &state.device.device, NULL, NULL);
	assert(!rc);
	/* Deltas leave with what they were made against, or alone. */
	for (uint32_t i = PAGES; i-- > 0;)
		save(i, 0);
	for (int i = 0; i < 4; i++)
		work(5);
	for (uint32_t i = 0; i < NOISE; i++) {
		int drop = vmem_store_drop(state.store, state.vm, state.ref[i]);

		assert(!drop);
		save(i, 1);
	}
	write_out(8u << 20);
}

static int end_of(vmem_store_token token)
{
	struct vmem_store_event event = { .token = 0 };

	for (int turn = 0; !vmem_store_poll(state.store, &event, 1) ||
			   event.type != VMEM_STORE_LOADED || event.token != token;
	     turn++) {
		assert(turn < TURNS);
		if (turn % PATIENCE == PATIENCE - 1) /* it may say for ever that it lacks memory */
			work(LATE_MS);
	}
	return event.result;
}

static void load(uint32_t i, const struct operation *o, bool peek)
{
	vmem_store_token token = 0;
	struct vmemt_page page;
	int rc;

	if (!state.ref[i])
		return;
	(void)locate(i, &state.target);
	state.lying = o;
	rc = (peek ? vmem_store_peek : vmem_store_load)(state.store, state.vm, i, state.ref[i],
							page.bytes, &token);
	if (rc == -VMEM_EINPROGRESS)
		rc = end_of(token);
	state.lying = NULL;
	assert(!rc || rc == -VMEM_EIO || rc == -VMEM_EBADMSG);
	assert(!rc || state.has_lied);
	assert(rc || !memcmp(&page, &state.page[i], sizeof(page)));
}

static void drop(uint32_t i)
{
	int rc = state.ref[i] ? vmem_store_drop(state.store, state.vm, state.ref[i]) : 0;

	assert(!rc);
	state.ref[i] = 0;
}

static void step(const struct operation *o)
{
	uint32_t i = o->page % PAGES;

	switch (o->what % 16) {
	case 0: drop(i); break;
	case 1:
		for (uint32_t n = i; n < PAGES && n < i + o->value % 64u; n++)
			drop(n);
		break;
	case 2:
	case 3:
		drop(i);
		save(i, 2u + o->value % 8u);
		break;
	case 4:
		state.lying = o; /* what the background reads */
		work(o->at % 8u);
		settle();
		state.lying = NULL;
		break;
	case 5: write_out((uint64_t)o->value << 6); break;
	case 6:
		atomic_store(&state.device.write_error, o->at % 2 ? -VMEM_ENOSPC : -VMEM_EIO);
		write_out((uint64_t)o->value << 6);
		atomic_store(&state.device.write_error, 0);
		break;
	default: load(i, o, o->what % 4 == 3);
	}
}

static void check(void)
{
	const char *wrong = vmemi_store_check(state.store);

	if (wrong)
		fprintf(stderr, "%s\n", wrong);
	assert(!wrong);
}

static void close_store(void)
{
	struct vmem_store_account a = { .size = sizeof(a) };
	int rc;

	settle();
	vmemi_pool_maintain(state.store->pool);
	check();
	for (uint32_t i = 0; i < PAGES; i++)
		load(i, NULL, true);
	for (uint32_t i = 0; i < PAGES; i++)
		drop(i);
	rc = vmem_store_total_account(state.store, &a);
	assert(!rc && !a.pages);
	vmem_store_free(state.store);
	assert(!atomic_load(&state.device.wrong));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	uint32_t steps = 0;

	if (!bytes)
		return 0;
	open_store(data[0]);
	for (data++, bytes--; bytes >= 7 && steps < STEPS; data += 7, bytes -= 7, steps++) {
		const struct operation o = { data[0], data[1], data[2],
					     (uint16_t)(data[3] | data[4] << 8),
					     (uint16_t)(data[5] | data[6] << 8) };

		step(&o);
	}
	close_store();
	return 0;
}
