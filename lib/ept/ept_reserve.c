/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages for tables: all that a call needs are taken before it changes anything. Guard: the call. */
#include "ept/ept_internal.h"

#define ADDRESSES (VMEM_EPT_ENTRIES - 1)

static void push(vmem_ept *ept, uint64_t hpa)
{
	struct vmemi_ept_reserve *r = &ept->reserve;
	uint64_t *page;

	r->total++;
	if (r->page && r->count < ADDRESSES) {
		r->page[++r->count] = hpa;
		return;
	}
	page = vmemi_ept_at(ept, hpa);
	page[0] = r->page_hpa;
	r->page_hpa = hpa;
	r->page = page;
	r->count = 0;
}

static uint64_t pop(vmem_ept *ept)
{
	struct vmemi_ept_reserve *r = &ept->reserve;
	uint64_t hpa = r->page_hpa;

	r->total--;
	if (r->count)
		return r->page[r->count--];
	r->page_hpa = r->page[0];
	r->page = r->total ? vmemi_ept_at(ept, r->page_hpa) : NULL;
	r->count = r->total ? ADDRESSES : 0;
	return hpa;
}

int vmemi_ept_page_new(vmem_ept *ept, uint64_t *ret_hpa)
{
	uint64_t hpa;
	int err = ept->memory.allocate(ept->memory.context, &hpa);

	if (err)
		return err;
	if ((hpa & (VMEM_EPT_TABLE_BYTES - 1)) || hpa >= ept->host_end) {
		ept->memory.free(ept->memory.context, hpa);
		return -VMEM_ERANGE;
	}
	*ret_hpa = hpa;
	return 0;
}

void vmemi_ept_give_back(vmem_ept *ept)
{
	while (ept->reserve.total) {
		ept->memory.free(ept->memory.context, pop(ept));
		__atomic_fetch_sub(&ept->pages, 1, __ATOMIC_RELAXED);
	}
}

int vmemi_ept_take(struct vmemi_ept_call *c, uint64_t tables, uint64_t at)
{
	vmem_ept *ept = c->ept;
	uint64_t hpa;
	int err;

	if (tables > ept->max_tables - ept->pages)
		return vmemi_ept_fail(c, -VMEM_ENOSPC, VMEM_EPT_QUOTA, at);
	for (; tables; tables--) {
		err = vmemi_ept_page_new(ept, &hpa);
		if (err) {
			vmemi_ept_give_back(ept);
			return vmemi_ept_fail(
				c, err,
				err == -VMEM_ERANGE ? VMEM_EPT_HOST_WIDTH : VMEM_EPT_NO_MEMORY, at);
		}
		push(ept, hpa);
		__atomic_fetch_add(&ept->pages, 1, __ATOMIC_RELAXED);
	}
	return 0;
}

uint64_t *vmemi_ept_table_new(vmem_ept *ept, uint32_t level, uint64_t *ret_hpa)
{
	*ret_hpa = pop(ept);
	ept->tables[level - 1]++;
	return vmemi_ept_at(ept, *ret_hpa);
}
