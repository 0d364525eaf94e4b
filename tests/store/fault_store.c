/* SPDX-License-Identifier: BSD-2-Clause */
/* See fault_store.h. */
#include "store/fault_store.h"
#include <assert.h>
#include "store/out.h"
#include "support/deadline.h"

#define WAIT_NS 1000000u
#define REFUSALS 16 /* of a save with nothing in flight: there is no room */

static bool is_text(uint32_t i)
{
	return i % 8 == 0;
}

/* No two pages are alike, so that none is a delta: each is lost by itself. */
static void make(struct vmemt_page *page, uint32_t i)
{
	make_page(page, is_text(i) ? VMEMT_PAGE_TEXT : VMEMT_PAGE_NOISE, (uint64_t)(i + 1) * EDITS);
}

void vmemt_fault_open(struct vmemt_fault_store *f)
{
	const struct vmem_store_opts opts = { .size = sizeof(opts),
					      .flags = VMEM_STORE_AS_SAVED,
					      .budget_bytes = VMEMT_FAULT_BUDGET };

	memset(f, 0, sizeof(*f));
	assert(!vmem_store_new(&f->store, &opts));
	assert(!vmem_store_add_vm(f->store, NULL, &f->vm));
}

void vmemt_fault_close(struct vmemt_fault_store *f)
{
	const char *wrong;

	vmemt_fault_settle(f);
	vmemi_pool_maintain(f->store->pool);
	wrong = vmemi_store_check(f->store);
	if (wrong)
		fprintf(stderr, "%s\n", wrong);
	assert(!wrong);
	vmem_store_free(f->store);
}

uint32_t vmemt_fault_add(struct vmemt_fault_store *f, struct vmem_device *device, int32_t priority)
{
	const struct vmem_store_device_opts opts = { .size = sizeof(opts),
						     .flags = VMEM_STORE_DEVICE_PLAIN,
						     .priority = priority };
	uint32_t number;

	assert(!vmem_store_add_device(f->store, device, &opts, &number));
	return number;
}

struct vmem_store_out_stats vmemt_fault_out(struct vmemt_fault_store *f)
{
	struct vmem_store_out_stats stats = { .size = sizeof(stats) };

	assert(!vmem_store_get_out_stats(f->store, &stats));
	return stats;
}

struct vmem_store_device_stats vmemt_fault_device(struct vmemt_fault_store *f, uint32_t number)
{
	struct vmem_store_device_stats stats = { .size = sizeof(stats) };

	assert(!vmem_store_get_device_stats(f->store, number, &stats));
	return stats;
}

void vmemt_fault_work(struct vmemt_fault_store *f)
{
	f->now_ns += WAIT_NS;
	(void)vmem_store_work(f->store, WAIT_NS, f->now_ns);
	vmem_store_wait(f->store, WAIT_NS);
}

static bool is_writing(struct vmemt_fault_store *f)
{
	assert(!vmem_store_poll(f->store, NULL, 0));
	if (!vmemt_fault_out(f).writing)
		return false;
	vmem_store_wait(f->store, WAIT_NS);
	return true;
}

void vmemt_fault_settle(struct vmemt_fault_store *f)
{
	VMEMT_UNTIL(!is_writing(f));
}

static bool try_to_save(struct vmemt_fault_store *f, uint32_t i)
{
	struct vmemt_page page;
	int rc;

	make(&page, i);
	rc = vmem_store_save(f->store, f->vm, i, page.bytes, &f->ref[i]);
	assert(!rc || rc == -VMEM_ENOSPC);
	return !rc;
}

bool vmemt_fault_save(struct vmemt_fault_store *f, uint32_t i)
{
	for (int turn = 0; turn < REFUSALS; turn++) {
		if (try_to_save(f, i))
			return true;
		vmemt_fault_work(f);
		vmemt_fault_settle(f);
	}
	return false;
}

uint32_t vmemt_fault_fill(struct vmemt_fault_store *f)
{
	uint32_t count = 0;
	bool refused = false;

	for (uint32_t i = 0; i < VMEMT_FAULT_PAGES; i++) {
		if (!f->ref[i] && !refused) {
			refused = !vmemt_fault_save(f, i);
			if (i % 16 == 0)
				vmemt_fault_work(f);
		}
		count += f->ref[i] != 0;
	}
	vmemt_fault_settle(f);
	return count;
}

void vmemt_fault_drop(struct vmemt_fault_store *f, uint32_t i)
{
	assert(!vmem_store_drop(f->store, f->vm, f->ref[i]));
	f->ref[i] = 0;
}

/* The event of a load, which is the only one in progress. */
static int end_of(struct vmemt_fault_store *f, vmem_store_token token)
{
	uint64_t end_ms = vmemt_now_ms() + VMEMT_DEADLINE_MS;
	struct vmem_store_event event = { .token = 0 };

	do {
		VMEMT_NOT_AFTER(end_ms, "the end of a load");
		if (vmem_store_poll(f->store, &event, 1))
			continue;
		vmem_store_wait(f->store, WAIT_NS);
	} while (event.type != VMEM_STORE_LOADED || event.token != token);
	return event.result;
}

int vmemt_fault_load(struct vmemt_fault_store *f, uint32_t i)
{
	struct vmemt_page page, right;
	vmem_store_token token = 0;
	int rc;

	memset(&page, 0x77, sizeof(page));
	rc = vmem_store_load(f->store, f->vm, i, f->ref[i], page.bytes, &token);
	if (rc == -VMEM_EINPROGRESS)
		rc = end_of(f, token);
	make(&right, i);
	assert(rc == -VMEM_EIO || rc == -VMEM_EBADMSG ||
	       (!rc && !memcmp(&page, &right, sizeof(page))));
	return rc;
}

bool vmemt_fault_where(struct vmemt_fault_store *f, uint32_t i, struct vmemt_place *place)
{
	uint32_t stream = vmemi_store_vm(f->store, f->vm)->domain->stream;
	struct vmemi_located at;
	uint64_t begin;

	if (vmemi_pool_locate(f->store->pool, stream, vmemi_ref_payload(f->ref[i]), &at))
		return false;
	vmemi_pool_located_end(f->store->pool, &at);
	assert(!at.reference);
	begin = VMEM_SLOT_NUMBER(at.place) * VMEMI_OUT_BLOCK + at.offset;
	*place = (struct vmemt_place){
		.device = VMEM_SLOT_DEVICE(at.place),
		.is_text = is_text(i),
		.begin = begin,
		.end = begin + at.bytes,
		.block_end = (begin + at.bytes + VMEMI_OUT_BLOCK - 1) / VMEMI_OUT_BLOCK *
			     VMEMI_OUT_BLOCK,
	};
	return true;
}

static enum vmemt_fate all_there(const struct vmemt_place *place, void *context)
{
	(void)place;
	(void)context;
	return VMEMT_THERE;
}

uint32_t vmemt_fault_check(struct vmemt_fault_store *f,
			   enum vmemt_fate (*fate_of)(const struct vmemt_place *place,
						      void *context),
			   void *context)
{
	uint64_t before = vmemt_fault_out(f).lost;
	uint32_t lost = 0, read_errors = 0;

	for (uint32_t i = 0; i < VMEMT_FAULT_PAGES; i++) {
		enum vmemt_fate fate = VMEMT_THERE;
		struct vmemt_place place;
		int rc;

		if (!f->ref[i])
			continue;
		if (vmemt_fault_where(f, i, &place))
			fate = fate_of(&place, context);
		rc = vmemt_fault_load(f, i);
		if (fate != VMEMT_EITHER && !rc != (fate == VMEMT_THERE)) {
			fprintf(stderr, "page %u is %s: %d\n", i,
				fate == VMEMT_THERE ? "there" : "gone", rc);
			abort();
		}
		lost += rc != 0;
		read_errors += rc == -VMEM_EIO;
	}
	assert(vmemt_fault_out(f).lost - before >= read_errors);
	return lost;
}

void vmemt_fault_check_all(struct vmemt_fault_store *f)
{
	assert(!vmemt_fault_check(f, all_there, NULL));
}
