/* SPDX-License-Identifier: BSD-2-Clause */
/* See pool_model.h. */
#include "pool/pool_model.h"
#include <assert.h>
#include "pool/pool_internal.h"

void vmemt_pool_model_init(struct vmemt_pool_model *m, uint64_t budget_segments)
{
	struct vmem_pool_opts opts = { .size = sizeof(opts),
				       .budget_bytes = budget_segments * VMEM_POOL_SEGMENT_BYTES,
				       .parallel = 2,
				       .cpu = vmem_cpu_detect() };
	int err;

	memset(m, 0, sizeof(*m));
	m->budget_segments = m->most_segments = budget_segments;
	vmemt_fail_alloc_init(&m->tables);
	vmemt_fail_alloc_init(&m->segments);
	opts.allocator = &m->tables.allocator;
	opts.segments = &m->segments.allocator;
	err = vmem_pool_new(&m->pool, &opts);
	assert(err == 0);
}

static void sound(struct vmemt_pool_model *m)
{
	const char *wrong = vmemi_pool_check(m->pool);

	if (wrong) {
		fprintf(stderr, "not so: %s\n", wrong);
		abort();
	}
}

/* The bytes of an object that is not a page begin like a page of its kind. */
static void content(const struct vmemt_pool_object *o, struct vmemt_page *page)
{
	vmemt_page_make(page, o->kind, o->seed);
}

static void expect(struct vmemt_pool_model *m, const struct vmemt_pool_object *o)
{
	struct vmemt_page want, got;
	uint32_t bytes = VMEM_PAGE_SIZE, codec;
	int err;

	content(o, &want);
	if (o->bytes)
		err = vmem_pool_load_bytes(m->pool, o->handle, got.bytes, o->bytes, &bytes);
	else
		err = vmem_pool_load_page(m->pool, o->handle, got.bytes);
	assert(err == 0);
	assert(!o->bytes || bytes == o->bytes);
	assert(memcmp(want.bytes, got.bytes, bytes) == 0);
	err = vmem_pool_describe(m->pool, o->handle, &codec, &bytes);
	assert(err == 0);
	assert(o->bytes ? codec == 0 && bytes == o->bytes : codec != 0);
}

static void save(struct vmemt_pool_model *m, uint64_t arg, int page)
{
	struct vmemt_pool_object *o = &m->object[arg % VMEMT_MODEL_OBJECTS], made;
	uint32_t n = (uint32_t)(arg >> 12) % VMEMT_MODEL_STREAMS;
	vmem_pool_handle handle = 0;
	struct vmemt_page data;
	int err;

	if (o->handle)
		return;
	made = (struct vmemt_pool_object){ .stream = n,
					   .bytes = page ? 0 : 1 + (uint32_t)(arg >> 24) % 4096,
					   .kind = (enum vmemt_page_kind)((arg >> 16) %
									  VMEMT_PAGE_KINDS),
					   .seed = arg };
	content(&made, &data);
	if (page)
		err = vmem_pool_save_page(m->pool, m->stream[n].id, 0, data.bytes, VMEM_PAGE_SIZE,
					  &handle);
	else
		err = vmem_pool_save_bytes(m->pool, m->stream[n].id, data.bytes, made.bytes,
					   &handle);
	if (!m->stream[n].exists) {
		/* Its id may belong to another stream by now. */
		assert(err == -VMEM_ENOENT || err == -VMEM_ENOSPC || err == 0);
		if (!err)
			err = vmem_pool_drop(m->pool, handle);
		return;
	}
	if (err) {
		assert(err == -VMEM_ENOSPC && m->budget_segments && !handle);
		m->refused++;
		return;
	}
	assert(handle);
	made.handle = handle;
	*o = made;
	m->objects++;
}

static void drop(struct vmemt_pool_model *m, uint64_t arg)
{
	struct vmemt_pool_object *o = &m->object[arg % VMEMT_MODEL_OBJECTS];
	int err;

	if (!o->handle)
		return;
	expect(m, o);
	err = vmem_pool_drop(m->pool, o->handle);
	assert(err == 0);
	err = vmem_pool_drop(m->pool, o->handle);
	assert(err == -VMEM_ENOENT);
	o->handle = 0;
	m->objects--;
}

static void open_or_drop_stream(struct vmemt_pool_model *m, uint64_t arg)
{
	uint32_t n = (uint32_t)(arg >> 12) % VMEMT_MODEL_STREAMS;
	int err;

	if (!m->stream[n].exists) {
		err = vmem_pool_stream_new(m->pool, &m->stream[n].id);
		assert(err == 0);
		m->stream[n].exists = 1;
		return;
	}
	if (arg >> 60) /* seldom: there should be something in it */
		return;
	err = vmem_pool_stream_drop(m->pool, m->stream[n].id);
	assert(err == 0);
	m->stream[n].exists = 0;
	for (uint32_t i = 0; i < VMEMT_MODEL_OBJECTS; i++) {
		struct vmemt_pool_object *o = &m->object[i];

		if (!o->handle || o->stream != n)
			continue;
		err = vmem_pool_drop(m->pool, o->handle);
		assert(err == -VMEM_ENOENT);
		o->handle = 0;
		m->objects--;
	}
}

static void set_budget(struct vmemt_pool_model *m, uint64_t arg)
{
	uint64_t taken = (uint64_t)m->segments.live_bytes / VMEM_POOL_SEGMENT_BYTES;

	if (!m->budget_segments)
		return;
	m->budget_segments = 1 + arg % 32;
	vmem_pool_set_budget(m->pool, m->budget_segments * VMEM_POOL_SEGMENT_BYTES);
	m->most_segments = m->budget_segments > taken ? m->budget_segments : taken;
}

void vmemt_pool_model_step(struct vmemt_pool_model *m, uint8_t operation, uint64_t arg)
{
	switch (operation % 16) {
	case 0:
	case 1:
	case 2:
	case 3:
	case 4: save(m, arg, 1); break;
	case 5:
	case 6: save(m, arg, 0); break;
	case 7:
	case 8:
	case 9: drop(m, arg); break;
	case 10:
	case 11:
		if (m->object[arg % VMEMT_MODEL_OBJECTS].handle)
			expect(m, &m->object[arg % VMEMT_MODEL_OBJECTS]);
		break;
	case 12:
	case 13: (void)vmem_pool_work(m->pool, arg % 65536); break;
	case 14: open_or_drop_stream(m, arg); break;
	default:
		if (arg >> 62 == 0)
			set_budget(m, arg);
		break;
	}
	if (m->budget_segments) {
		uint64_t taken = (uint64_t)m->segments.live_bytes / VMEM_POOL_SEGMENT_BYTES;

		assert(taken <= m->most_segments);
		if (taken < m->most_segments && taken >= m->budget_segments)
			m->most_segments = taken;
	}
}

void vmemt_pool_model_check(struct vmemt_pool_model *m)
{
	struct vmem_pool_stats stats = { .size = sizeof(stats) };
	uint64_t objects = 0, bytes = 0;
	int err = vmem_pool_get_stats(m->pool, &stats);

	assert(err == 0);
	sound(m);
	for (uint32_t i = 0; i < VMEMT_MODEL_OBJECTS; i++) {
		const struct vmemt_pool_object *o = &m->object[i];
		uint32_t codec, length;

		if (!o->handle)
			continue;
		expect(m, o);
		err = vmem_pool_describe(m->pool, o->handle, &codec, &length);
		assert(err == 0);
		objects++;
		bytes += length;
	}
	assert(objects == m->objects && objects == stats.objects);
	assert(bytes == stats.payload_bytes);
	assert(stats.segment_bytes == (uint64_t)m->segments.live_bytes);
	assert(stats.index_bytes + stats.metadata_bytes == (uint64_t)m->tables.live_bytes);
	assert(stats.live_bytes + stats.dead_bytes <= stats.segments * VMEM_POOL_SEGMENT_BYTES);
	assert(stats.corrupt == 0);
}

void vmemt_pool_model_destroy(struct vmemt_pool_model *m)
{
	vmemt_pool_model_check(m);
	vmem_pool_free(m->pool);
	assert(m->tables.live_bytes == 0);
	assert(m->segments.live_bytes == 0);
}
