/* SPDX-License-Identifier: BSD-2-Clause */
#include "guest_store.h"
#include "machine.h"
#include <errno.h>
#include <string.h>

#define COLD_AFTER_MS 2000u
#define PASSES 3 /* seen; encoded anew; and what lay in open segments before */
#define SLICE_NS UINT64_C(10000000)
#define GROUP 1

static int add_vms(struct guest_store *s, uint32_t sharing)
{
	int result = 0;

	for (size_t i = 0; i < s->guests->guests && result == 0; i++) {
		const struct vmem_store_vm_opts vm = {
			.size = sizeof(vm),
			.vm_bytes = s->guests->count[i] * PAGE,
			.cap_percent = VMEM_STORE_NO_CAP, /* all pages are kept */
			.sharing = sharing,
			.group = sharing == VMEM_STORE_SHARE_GROUP ? GROUP : 0,
		};

		result = vmem_store_add_vm(s->store, &vm, &s->vm[i]);
	}
	return result;
}

int guest_store_new(struct guest_store *s, const struct guest_pages *guests, vmem_store_ref *refs,
		    uint64_t flags, uint32_t sharing)
{
	struct vmem_store_opts opts = { .size = sizeof(opts),
					.flags = flags,
					.parallel = 1,
					.cpu = vmem_cpu_detect(),
					.seed = 1,
					.cold_after_ms = COLD_AFTER_MS };
	int result;

	*s = (struct guest_store){ .guests = guests, .refs = refs };
	result = vmem_jemalloc_new(&s->jemalloc, NULL);
	if (result == 0) {
		opts.allocator = vmem_jemalloc_allocator(s->jemalloc);
		result = vmem_store_new(&s->store, &opts);
	}
	if (result == 0)
		result = add_vms(s, sharing);
	if (result != 0)
		guest_store_free(s);
	return result;
}

void guest_store_free(struct guest_store *s)
{
	vmem_store_free(s->store);
	vmem_jemalloc_free(s->jemalloc);
	s->store = NULL;
	s->jemalloc = NULL;
}

int guest_store_save(struct guest_store *s)
{
	int result = 0;

	for (size_t guest = 0, at = 0; guest < s->guests->guests; guest++)
		for (size_t i = 0; i < s->guests->count[guest] && result == 0; i++, at++)
			result = vmem_store_save(s->store, s->vm[guest], at,
						 s->guests->pages[guest] + i * PAGE, &s->refs[at]);
	return result;
}

void guest_store_work(struct guest_store *s)
{
	for (int pass = 0; pass < PASSES; pass++) {
		s->now_ns += COLD_AFTER_MS * UINT64_C(1000000);
		while (vmem_store_work(s->store, SLICE_NS, s->now_ns))
			s->now_ns += SLICE_NS;
	}
}

int guest_store_check(struct guest_store *s)
{
	uint8_t page[PAGE] __attribute__((aligned(64)));
	int result = 0;

	for (size_t guest = 0, at = 0; guest < s->guests->guests; guest++) {
		for (size_t i = 0; i < s->guests->count[guest] && result == 0; i++, at++) {
			result = vmem_store_load(s->store, s->vm[guest], at, s->refs[at], page,
						 NULL);
			if (result == 0 &&
			    memcmp(page, s->guests->pages[guest] + i * PAGE, PAGE) != 0)
				result = -EBADMSG;
		}
	}
	return result;
}

uint32_t guest_store_vm(const struct guest_store *s, size_t number)
{
	size_t guest = 0;

	while (number >= s->guests->count[guest])
		number -= s->guests->count[guest++];
	return s->vm[guest];
}
