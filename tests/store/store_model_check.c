/* SPDX-License-Identifier: BSD-2-Clause */
/* What the store's accounts and its own check say, beside the model. */
#include <assert.h>
#include "store/store_model.h"

struct vmem_store_account vmemt_model_account(const struct vmemt_store_model *m, uint32_t v)
{
	struct vmem_store_account a = { .size = sizeof(a) };
	int rc = vmem_store_vm_account(m->store, m->vm[v].number, &a);

	assert(!rc);
	return a;
}

struct vmem_store_account vmemt_model_total(const struct vmemt_store_model *m)
{
	struct vmem_store_account a = { .size = sizeof(a) };
	int rc = vmem_store_total_account(m->store, &a);

	assert(!rc);
	return a;
}

static void check_pages(const struct vmemt_model_vm *vm, const struct vmem_store_account *a)
{
	uint64_t in_reference = vm->pages[VMEMT_PAGE_ZERO] + vm->pages[VMEMT_PAGE_SAME], pages = 0;

	for (int kind = 0; kind < VMEMT_PAGE_KINDS; kind++)
		pages += vm->pages[kind];
	assert(a->pages == pages);
	assert(a->pages == a->pages_same + a->pages_compressed + a->pages_raw + a->pages_equal);
	assert(a->pages_compressed == a->pages_lz4 + a->pages_zstd + a->pages_delta);
	assert(a->pages_same >= in_reference);
	if (vm->domain)
		return;
	assert(!a->pages_equal && !a->pages_delta);
	assert(a->pages_same == in_reference + vm->pages[VMEMT_PAGE_WORD]);
	assert(a->pages_compressed == vm->pages[VMEMT_PAGE_TEXT]);
	assert(a->pages_raw == vm->pages[VMEMT_PAGE_NOISE]);
}

static uint64_t collisions_of(const struct vmemt_store_model *m, uint32_t v)
{
	struct vmem_dedup_stats stats = { .size = sizeof(stats) };
	vmem_dedup *table = vmemi_store_vm(m->store, m->vm[v].number)->domain->dedup;

	if (table)
		vmem_dedup_get_stats(table, &stats);
	return stats.compares_different;
}

void vmemt_store_model_check(struct vmemt_store_model *m)
{
	struct vmem_store_account a = { .size = sizeof(a) }, sum = { 0 };
	const char *wrong = vmemi_store_check(m->store);
	uint64_t collisions = 0;

	if (wrong)
		fprintf(stderr, "%s\n", wrong);
	assert(!wrong);
	for (uint32_t v = 0; v < VMEMT_MODEL_VMS; v++) {
		const struct vmemt_model_vm *vm = &m->vm[v];

		if (!vm->live)
			continue;
		a = vmemt_model_account(m, v);
		check_pages(vm, &a);
		collisions += collisions_of(m, v);
		assert(a.saves == vm->saves && a.loads == vm->loads);
		assert(a.rejects == vm->rejects && a.corrupt == vm->corrupt);
		sum.pages += a.pages;
		sum.physical_bytes += a.physical_bytes;
		sum.saves += a.saves;
		sum.loads += a.loads;
		sum.rejects += a.rejects;
		sum.corrupt += a.corrupt;
	}
	if (m->collisions < collisions)
		m->collisions = collisions;
	a = vmemt_model_total(m);
	assert(a.pages == sum.pages && a.pages == m->count);
	assert(a.logical_bytes == a.pages * VMEM_PAGE_SIZE);
	assert(a.physical_bytes == sum.physical_bytes);
	assert(a.saves == sum.saves + m->gone_saves && a.loads == sum.loads + m->gone_loads);
	assert(a.rejects == sum.rejects + m->gone_rejects);
	assert(a.corrupt == sum.corrupt + m->gone_corrupt);
}
