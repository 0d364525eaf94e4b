/* SPDX-License-Identifier: BSD-2-Clause */
/* See store_model.h. */
#include "store/store_model.h"
#include <assert.h>
#include "dedup/dedup_internal.h"
#include "store/model_pages.h"

#define BATCH 16u
#define GROUPS 2u

static int in_reference(enum vmemt_page_kind kind)
{
	return kind == VMEMT_PAGE_ZERO || kind == VMEMT_PAGE_SAME;
}

/* VMs */

static void add_vm(struct vmemt_store_model *m, uint32_t v, uint64_t arg)
{
	struct vmem_store_vm_opts opts = { .size = sizeof(opts),
					   .vm_bytes = VMEMT_MODEL_VM_BYTES,
					   .cap_percent = arg >> 62 ? VMEM_STORE_NO_CAP
								    : (uint32_t)(arg >> 8) % 101,
					   .sharing = (uint32_t)(arg >> 16) % 3 };
	int rc;

	if (opts.sharing == VMEM_STORE_SHARE_GROUP)
		opts.group = 1 + (arg >> 24) % GROUPS;
	rc = vmem_store_add_vm(m->store, &opts, &m->vm[v].number);

	assert(!rc);
	if (m->hidden_bits &&
	    opts.sharing != VMEM_STORE_SHARE_NONE) /* of a group: as it is already */
		vmemi_dedup_truncate(vmemi_store_vm(m->store, m->vm[v].number)->domain->dedup,
				     32 - m->hidden_bits);
	m->vm[v].live = 1;
	m->vm[v].domain = opts.sharing == VMEM_STORE_SHARE_NONE ? 0
			  : opts.group                          ? (uint32_t)opts.group
								: 1 + GROUPS + v;
	m->vm[v].cap_bytes = vmemt_model_cap(opts.cap_percent ? opts.cap_percent : 10);
}

static void set_cap(struct vmemt_store_model *m, uint32_t v, uint64_t arg)
{
	uint32_t percent = (uint32_t)arg % 104 == 103 ? VMEM_STORE_NO_CAP : (uint32_t)arg % 104;
	int rc = vmem_store_set_cap(m->store, m->vm[v].number, percent);

	assert(rc == (percent > 100 && percent != VMEM_STORE_NO_CAP ? -VMEM_EINVAL : 0));
	if (!rc)
		m->vm[v].cap_bytes = vmemt_model_cap(percent);
}

/* What is being loaded of page @from is that of page @to. */
static void hand_over_loads(struct vmemt_store_model *m, uint32_t from, uint32_t to)
{
	for (uint32_t i = 0; i < VMEMI_INFLIGHT_ENTRIES; i++)
		if (m->load[i].page == from)
			m->load[i].page = to;
}

static void forget_page(struct vmemt_store_model *m, uint32_t p)
{
	struct vmemt_model_page *last = &m->page[--m->count];

	if (!in_reference(m->page[p].kind))
		m->gone[m->gone_count++ % VMEMT_MODEL_GONE] =
			(struct vmemt_model_gone){ m->page[p].ref, m->page[p].vm };
	m->vm[m->page[p].vm].pages[m->page[p].kind]--;
	m->page[p] = *last;
	hand_over_loads(m, m->count, p);
}

static void forget_events(struct vmemt_store_model *m, uint32_t v)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < m->events; i++) {
		struct vmemt_model_load *l = &m->load[m->order[i]];

		if (l->vm == v)
			l->token = 0;
		else
			m->order[kept++] = m->order[i];
	}
	m->events = kept;
}

static void drop_vm(struct vmemt_store_model *m, uint32_t v)
{
	struct vmemt_model_vm *vm = &m->vm[v];
	int busy = 0;
	int rc = vmem_store_drop_vm(m->store, vm->number);

	for (uint32_t p = 0; p < m->count; p++)
		busy |= m->page[p].vm == v && m->page[p].loading;
	assert(rc == (busy ? -VMEM_EBUSY : 0));
	if (rc)
		return;
	assert(vmem_store_drop_vm(m->store, vm->number) == -VMEM_ENOENT);
	for (uint32_t p = m->count; p-- > 0;)
		if (m->page[p].vm == v)
			forget_page(m, p);
	forget_events(m, v);
	m->gone_saves += vm->saves;
	m->gone_loads += vm->loads;
	m->gone_rejects += vm->rejects;
	m->gone_corrupt += vm->corrupt;
	memset(vm, 0, sizeof(*vm));
}

/* Saves: whether a page of the same content is stored in the domain. */
static int is_stored(const struct vmemt_store_model *m, uint32_t v,
		     const struct vmemt_model_page *page)
{
	for (uint32_t p = 0; p < m->count && m->vm[v].domain; p++)
		if (m->page[p].kind == page->kind && m->page[p].seed == page->seed &&
		    m->vm[m->page[p].vm].domain == m->vm[v].domain)
			return 1;
	return 0;
}

/* What a save has to return now; 1 if that depends on the room in the pool. */
static int expected_of_save(struct vmemt_store_model *m, uint32_t v,
			    const struct vmemt_model_page *page)
{
	enum vmemt_page_kind kind = page->kind;

	if (in_reference(kind))
		return 0;
	if (is_stored(m, v, page)) {
		m->equal++;
		if (!m->hidden_bits) /* else it may not be found: see note_save() */
			return 0;
	}
	if (vmemt_model_account(m, v).physical_bytes >= m->vm[v].cap_bytes)
		return -VMEM_ENOSPC;
	if (kind == VMEMT_PAGE_NOISE && m->max_object_bytes < VMEM_PAGE_SIZE)
		return -VMEM_EFBIG;
	return m->budget_bytes != 0;
}

static void note_save(struct vmemt_store_model *m, const struct vmemt_model_page *page, int rc,
		      int expected)
{
	struct vmemt_model_vm *vm = &m->vm[page->vm];

	/* The object of a page that was dropped may be there still, for deltas; that of an equal page is
	 * found or not, if many have its hash. */
	assert(rc == expected || (expected == 1 && (!rc || rc == -VMEM_ENOSPC)) ||
	       (!rc && expected == -VMEM_ENOSPC && vm->domain && (m->deltas || m->hidden_bits)));
	if (rc && expected == 1) { /* but for one that may be held back, all segments are taken */
		assert(vmemt_model_total(m).segment_bytes + 3 * VMEM_POOL_SEGMENT_BYTES >
		       m->budget_bytes);
		m->refused++;
	}
	if (rc) {
		vm->rejects++;
		return;
	}
	assert(page->ref && page->ref < UINT64_C(1) << 56);
	vm->saves++;
	vm->pages[page->kind]++;
	m->page[m->count++] = *page;
}

static struct vmemt_model_page new_page(struct vmemt_store_model *m, uint32_t v, uint64_t arg)
{
	enum vmemt_page_kind kind = (arg >> 20) % VMEMT_PAGE_KINDS;
	uint64_t seed;

	switch (arg >> 61) { /* bits that do not say which VM it is */
	case 0:
	case 1: seed = arg >> 32 & 0x7f; break; /* often equal to others */
	case 2:
	case 3: seed = arg >> 32 & 0x1ff; break; /* often like others */
	default: seed = arg ^ m->key++;
	}
	if (kind != VMEMT_PAGE_TEXT)
		seed -= seed % EDITS;
	return (struct vmemt_model_page){ .seed = seed, .kind = kind, .vm = v };
}

static void save(struct vmemt_store_model *m, uint32_t v, uint64_t arg)
{
	struct vmemt_model_page page = new_page(m, v, arg);
	struct vmemt_page bytes;
	int expected, rc;

	if (m->count == VMEMT_MODEL_PAGES)
		return;
	make_page(&bytes, page.kind, page.seed);
	expected = expected_of_save(m, v, &page);
	rc = vmem_store_save(m->store, m->vm[v].number, page.seed, &bytes, &page.ref);
	note_save(m, &page, rc, expected);
}

/* The expectation of a batch is that of its first page, as far as room goes: none without a cap. */
static void save_batch(struct vmemt_store_model *m, uint32_t v, uint64_t arg)
{
	struct vmemt_page bytes[BATCH];
	struct vmemt_model_page page[BATCH];
	struct vmem_store_item item[BATCH] = { 0 };
	uint32_t n = (uint32_t)(arg >> 40) % BATCH, good = 0, done;

	if (m->count + n > VMEMT_MODEL_PAGES || m->vm[v].cap_bytes != UINT64_MAX)
		return;
	for (uint32_t i = 0; i < n; i++) {
		page[i] = new_page(m, v, arg * (i + 1));
		make_page(&bytes[i], page[i].kind, page[i].seed);
		item[i].key = page[i].seed;
		item[i].page = &bytes[i];
	}
	done = vmem_store_save_batch(m->store, m->vm[v].number, item, n);
	for (uint32_t i = 0; i < n; i++) {
		page[i].ref = item[i].ref;
		note_save(m, &page[i], item[i].result, expected_of_save(m, v, &page[i]));
		good += !item[i].result;
	}
	assert(done == good);
}

/* Loads */

static struct vmemt_model_load *free_load(struct vmemt_store_model *m)
{
	for (uint32_t i = 0; i < VMEMI_INFLIGHT_ENTRIES; i++)
		if (!m->load[i].token)
			return &m->load[i];
	return NULL;
}

/* Begins a load into the buffer of @l, NULL: with the table full. */
static void load(struct vmemt_store_model *m, uint32_t p, int peek, struct vmemt_model_load *l)
{
	struct vmemt_model_page *page = &m->page[p];
	struct vmemt_model_vm *vm = &m->vm[page->vm];
	struct vmemt_page spare, *to = l ? &m->buffer[l - m->load] : &spare;
	int slow = atomic_load(&m->tier.hold) && !in_reference(page->kind);
	vmem_store_token token = 0;
	int rc = (peek ? vmem_store_peek : vmem_store_load)(m->store, vm->number, m->key, page->ref,
							    to, &token);

	assert(rc == (!slow ? 0 : l ? -VMEM_EINPROGRESS : -VMEM_EAGAIN));
	assert(!token == (rc != -VMEM_EINPROGRESS));
	if (!rc) {
		assert(is_page(to, page->kind, page->seed));
		vm->loads += !peek;
	} else if (l) {
		*l = (struct vmemt_model_load){ .token = token,
						.key = m->key++,
						.seed = page->seed,
						.kind = page->kind,
						.vm = page->vm,
						.page = p,
						.peek = peek };
		page->loading++;
		m->slow++;
	}
}

static void load_batch(struct vmemt_store_model *m, uint32_t v, uint64_t arg)
{
	struct vmemt_page bytes[BATCH];
	struct vmem_store_item item[BATCH] = { 0 };
	uint32_t at[BATCH];
	uint32_t n = 0, done;

	if (atomic_load(&m->tier.hold))
		return;
	for (uint32_t p = (uint32_t)arg % (m->count + 1); p < m->count && n < BATCH; p++) {
		if (m->page[p].vm != v)
			continue;
		at[n] = p;
		item[n].ref = m->page[p].ref;
		item[n].page = &bytes[n];
		n++;
	}
	done = vmem_store_load_batch(m->store, m->vm[v].number, item, n);
	assert(done == n);
	m->vm[v].loads += n;
	for (uint32_t i = 0; i < n; i++)
		assert(is_page(&bytes[i], m->page[at[i]].kind, m->page[at[i]].seed));
}

static void finish(struct vmemt_store_model *m, uint64_t arg)
{
	static const int results[] = { 0, 0, 0, 0, 0, 0, -VMEM_EIO, -VMEM_EBADMSG };
	uint32_t held = vmemt_slow_tier_held(&m->tier), nth = (uint32_t)arg % (held + 1);
	int result = results[(arg >> 32) % 8];
	vmem_store_token token = nth < held ? m->tier.token[nth] : 0;
	int rc = vmemt_slow_tier_finish(&m->tier, nth, result);

	assert(rc == (token ? 0 : -VMEM_ENOENT));
	for (uint32_t i = 0; token && i < VMEMI_INFLIGHT_ENTRIES; i++) {
		struct vmemt_model_load *l = &m->load[i];

		if (l->token != token)
			continue;
		assert(!l->over);
		l->over = 1;
		l->result = result;
		m->page[l->page].loading--;
		l->page = UINT32_MAX;
		m->vm[l->vm].loads += !result && !l->peek;
		m->vm[l->vm].corrupt += result == -VMEM_EBADMSG;
		m->order[m->events++] = i;
		return;
	}
	assert(!token);
}

static void poll(struct vmemt_store_model *m, uint32_t capacity)
{
	struct vmem_store_event event[VMEMI_INFLIGHT_ENTRIES];
	uint32_t n = vmem_store_poll(m->store, event, capacity);

	assert(n == (capacity < m->events ? capacity : m->events));
	for (uint32_t i = 0; i < n; i++) {
		struct vmemt_model_load *l = &m->load[m->order[i]];

		assert(event[i].type == VMEM_STORE_LOADED && event[i].token == l->token);
		assert(event[i].key == l->key && event[i].result == l->result);
		assert(event[i].vm == m->vm[l->vm].number);
		assert(l->result || is_page(&m->buffer[l - m->load], l->kind, l->seed));
		l->token = 0;
	}
	m->events -= n;
	memmove(m->order, m->order + n, m->events * sizeof(m->order[0]));
}

/* Drops */

/* Pages of one VM and equal content have equal refs. */
struct equals {
	uint32_t pages, other; /* how many, and one but that which was asked for */
	int loading;           /* whether one of them is being loaded */
};

static struct equals equals_of(const struct vmemt_store_model *m,
			       const struct vmemt_model_page *page)
{
	struct equals e = { 0 };

	for (uint32_t p = 0; p < m->count; p++)
		if (m->page[p].ref == page->ref) {
			assert(m->page[p].vm == page->vm);
			e.pages++;
			e.loading |= m->page[p].loading != 0;
			e.other = &m->page[p] == page ? e.other : p;
		}
	return e;
}

static void drop(struct vmemt_store_model *m, uint32_t p)
{
	struct vmemt_model_page *page = &m->page[p];
	struct equals e = equals_of(m, page);
	uint32_t number = m->vm[page->vm].number;
	int rc = vmem_store_drop(m->store, number, page->ref);

	assert(rc == (e.loading && e.pages == 1 ? -VMEM_EBUSY : 0));
	if (rc)
		return;
	m->dropped_beside += (uint64_t)e.loading;
	if (page->loading) { /* that keeps another page of the ref */
		hand_over_loads(m, p, e.other);
		m->page[e.other].loading += page->loading;
	}
	if (e.pages == 1 && !in_reference(page->kind))
		assert(vmem_store_drop(m->store, number, page->ref) == -VMEM_ENOENT);
	forget_page(m, p);
}

static void drop_batch(struct vmemt_store_model *m, uint32_t v, uint64_t arg)
{
	struct vmem_store_item item[BATCH] = { 0 };
	uint32_t at[BATCH];
	uint32_t n = 0, done;

	for (uint32_t p = (uint32_t)arg % (m->count + 1); p < m->count && n < BATCH; p++) {
		if (m->page[p].vm != v || equals_of(m, &m->page[p]).loading)
			continue;
		at[n] = p;
		item[n++].ref = m->page[p].ref;
	}
	done = vmem_store_drop_batch(m->store, m->vm[v].number, item, n);
	assert(done == n);
	while (n-- > 0)
		forget_page(m, at[n]);
}

/* A ref whose page was dropped is refused, unless its VM has it again. */
static void use_old_ref(struct vmemt_store_model *m, uint64_t arg)
{
	const struct vmemt_model_gone *g = &m->gone[arg % VMEMT_MODEL_GONE];
	uint32_t number = m->vm[g->vm].number;
	struct vmemt_page bytes;
	int rc, reused = 0;

	if (!g->ref || !m->vm[g->vm].live || vmemi_ref_vm(g->ref) != number)
		return;
	for (uint32_t p = 0; p < m->count; p++) {
		if (m->page[p].ref == g->ref)
			return;
		reused |= !in_reference(m->page[p].kind) &&
			  vmemi_ref_payload(m->page[p].ref) == vmemi_ref_payload(g->ref);
	}
	m->reused += (uint64_t)reused;
	rc = vmem_store_load(m->store, number, 0, g->ref, &bytes, NULL);
	assert(rc == (atomic_load(&m->tier.hold) ? -VMEM_EAGAIN : -VMEM_ENOENT));
	assert(vmem_store_drop(m->store, number, g->ref) == -VMEM_ENOENT);
}

static void use_wrong_ref(struct vmemt_store_model *m, uint32_t v, uint64_t arg)
{
	struct vmemt_model_page *page = m->count ? &m->page[arg % m->count] : NULL;
	uint32_t number = m->vm[v].number;
	struct vmemt_page bytes;
	vmem_store_ref ref;
	int rc, slow = !page;

	if (page && page->vm != v) {
		ref = page->ref; /* another VM's */
		if (!in_reference(page->kind) && arg >> 33 & 1) {
			/* Or as if it were one's own. */
			struct vmemt_model_page own = { .ref = vmemi_ref_make(
								VMEMI_REF_POOL, number,
								vmemi_ref_payload(page->ref)),
							.vm = v };

			ref = equals_of(m, &own).pages ? ref : own.ref;
			slow = ref == own.ref;
		}
	} else if (page)
		ref = page->ref ^ UINT64_C(1) << (48 + (arg >> 32) % 16);
	else
		ref = vmemi_ref_make(VMEMI_REF_POOL, number, arg); /* nothing is stored */
	rc = vmem_store_load(m->store, number, 0, ref, &bytes, NULL);
	assert(rc == (slow && atomic_load(&m->tier.hold) ? -VMEM_EAGAIN : -VMEM_ENOENT));
	assert(vmem_store_drop(m->store, number, ref) == -VMEM_ENOENT);
	assert(vmem_store_drop(m->store, 65535 - (uint32_t)(arg >> 40) % 1000, ref) ==
	       -VMEM_ENOENT);
}

static void set_budget(struct vmemt_store_model *m, uint64_t arg)
{
	m->budget_bytes = arg % 4 ? arg / 4 % 16 * VMEM_POOL_SEGMENT_BYTES + 1 : 0;
	vmem_store_set_budget(m->store, m->budget_bytes);
}

/* Memory for segments grows up to the budget; what is over it was taken before. */
static void check_budget(struct vmemt_store_model *m)
{
	struct vmem_pool_stats stats = { .size = sizeof(stats) };
	int rc = vmem_pool_get_stats(m->store->pool, &stats);
	uint64_t bytes = stats.segment_bytes;

	assert(!rc);
	assert(!m->budget_bytes || bytes <= m->budget_bytes || bytes <= m->segment_bytes);
	m->segment_bytes = bytes;
}

void vmemt_store_model_init(struct vmemt_store_model *m, const struct vmem_store_opts *opts)
{
	int rc;

	memset(m, 0, offsetof(struct vmemt_store_model, buffer));
	for (uint32_t i = 0; i < VMEMI_INFLIGHT_ENTRIES; i++)
		m->load[i].page = UINT32_MAX;
	rc = vmem_store_new(&m->store, opts);
	assert(!rc);
	m->deltas = !opts || !opts->codec_count; /* the default has them */
	for (uint32_t i = 0; opts && i < opts->codec_count; i++)
		m->deltas |= opts->codecs[i]->id == VMEM_CODEC_DELTA;
	m->max_object_bytes =
		opts && opts->max_object_bytes ? opts->max_object_bytes : VMEM_PAGE_SIZE;
	vmemt_slow_tier_init(&m->tier, m->store);
	atomic_store(&m->tier.hold, 0);
}

void vmemt_store_model_destroy(struct vmemt_store_model *m)
{
	while (vmemt_slow_tier_held(&m->tier))
		finish(m, 0);
	poll(m, VMEMI_INFLIGHT_ENTRIES);
	vmemt_store_model_check(m);
	vmemt_slow_tier_destroy(&m->tier);
	vmem_store_free(m->store);
}

/* Operations that need no page. Returns whether @op was one. */
static int step_vm(struct vmemt_store_model *m, uint32_t op, uint32_t v, uint64_t arg)
{
	switch (op) {
	case 0: set_cap(m, v, arg >> 8); return 1;
	case 1: set_budget(m, arg >> 8); return 1;
	case 2:
		if ((arg >> 8) % 8 == 0)
			atomic_store(&m->tier.hold, (arg >> 11) % 2 == 0);
		return 1;
	case 3:
		use_wrong_ref(m, v, arg);
		use_old_ref(m, arg >> 8);
		return 1;
	case 4:
		m->clock += arg;
		vmem_store_work(m->store, arg % 1000000, m->clock);
		m->deltas_seen += m->deltas ? vmemt_model_total(m).pages_delta : 0;
		return 1;
	case 5:
	case 6: poll(m, (uint32_t)(arg >> 8) % VMEMI_INFLIGHT_ENTRIES); return 1;
	case 7:
	case 8: finish(m, arg >> 8); return 1;
	case 9:
	case 10:
	case 11: save_batch(m, v, arg); return 1;
	case 12: load_batch(m, v, arg >> 8); return 1;
	case 13: drop_batch(m, v, arg >> 8); return 1;
	default: return 0;
	}
}

static void step(struct vmemt_store_model *m, uint32_t op, uint64_t arg)
{
	uint32_t v = (uint32_t)arg % VMEMT_MODEL_VMS, p;

	op %= 32;
	if (!m->vm[v].live) {
		add_vm(m, v, arg);
		return;
	}
	if (step_vm(m, op, v, arg))
		return;
	p = m->count ? (uint32_t)(arg >> 8) % m->count : 0;
	if (op == 14 && (arg >> 40) % 256 == 0)
		drop_vm(m, v);
	else if (op < 20 || !m->count)
		save(m, v, arg);
	else if (op < 27)
		load(m, p, op == 26, free_load(m));
	else
		drop(m, p);
}

void vmemt_store_model_step(struct vmemt_store_model *m, uint32_t op, uint64_t arg)
{
	step(m, op, arg);
	check_budget(m);
}
