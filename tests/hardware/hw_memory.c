/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages for tables, a heap for the object, frames that tell where they are, and the guest's own tables. */
#include "hw.h"
#include "hw_cpu.h"
#include "support/mem_functions.h"

#define PAGES ((HW_POOL_END - HW_POOL) / 4096)
#define IN_USE 1
#define BASE 2
#define HEAP_BYTES 65536u
/* A table that was given back: each entry would be a misconfiguration (Intel: 010b; AMD: reserved bits). */
#define POISON UINT64_C(0x000ff000000001f2)

int hw_tables_may_go;
static uint16_t free_pages[PAGES];
static uint8_t used[PAGES]; /* 0, IN_USE or BASE */
static unsigned free_count, next_page, live_pages;
/* Tables of which the first entry leads to the program, and others to what is tested. */
static unsigned trunk[2];
static unsigned char heap[HEAP_BYTES] __attribute__((aligned(4096)));
static size_t heap_used, heap_live;

static void poison(uint64_t hpa)
{
	for (unsigned i = 0; i < VMEM_EPT_ENTRIES; i++)
		hw_word(hpa)[i] = POISON;
}

static int allocate_table(void *context, uint64_t *ret_hpa)
{
	unsigned page;

	(void)context;
	if (free_count)
		page = free_pages[--free_count];
	else if (next_page < PAGES)
		page = next_page++;
	else
		return -VMEM_ENOMEM;
	used[page] = IN_USE;
	live_pages++;
	*ret_hpa = HW_POOL + page * UINT64_C(4096);
	poison(*ret_hpa);
	return 0;
}

static void free_table(void *context, uint64_t hpa)
{
	unsigned page = (unsigned)((hpa - HW_POOL) / 4096);

	(void)context;
	HW_CHECK(page < PAGES && used[page]);
	HW_CHECK(hw_tables_may_go);
	used[page] = 0;
	live_pages--;
	free_pages[free_count++] = (uint16_t)page;
	poison(hpa);
}

const struct vmem_ept_memory hw_tables = {
	.size = sizeof(hw_tables),
	.allocate = allocate_table,
	.free = free_table,
};

void hw_tables_are_base(uint64_t root, uint32_t levels)
{
	trunk[0] = (unsigned)((root - HW_POOL) / 4096);
	trunk[1] = trunk[0];
	if (levels == 5)
		trunk[1] = (unsigned)(((*hw_word(root) & VMEM_EPT_ADDRESS) - HW_POOL) / 4096);
	for (unsigned page = 0; page < next_page; page++)
		if (used[page])
			used[page] = BASE;
}

/* Tables that are copied and compared: all but those of the program. */
static int is_trunk(unsigned page)
{
	return page == trunk[0] || page == trunk[1];
}

static int is_shadowed(unsigned page)
{
	return used[page] == IN_USE || is_trunk(page);
}

static uint64_t *page_words(uint64_t start, unsigned page)
{
	return (uint64_t *)(uintptr_t)(start + page * UINT64_C(4096));
}

void hw_shadow_take(void)
{
	for (unsigned page = 0; page < next_page; page++) {
		const uint64_t *from = page_words(HW_POOL, page);
		uint64_t *to = page_words(HW_SHADOW, page);

		for (unsigned i = 0; is_shadowed(page) && i < VMEM_EPT_ENTRIES; i++)
			to[i] = from[i];
	}
}

static int is_shadow(uint64_t hpa)
{
	return hpa >= HW_POOL && hpa < HW_POOL_END &&
	       is_shadowed((unsigned)((hpa - HW_POOL) / 4096));
}

static int shadow_read(void *context, uint64_t hpa, uint64_t *ret_entry)
{
	(void)context;
	if (!is_shadow(hpa))
		return -1;
	*ret_entry = *hw_word(hpa - HW_POOL + HW_SHADOW);
	return 0;
}

static int live_read(void *context, uint64_t hpa, uint64_t *ret_entry)
{
	(void)context;
	if (hpa < HW_POOL || hpa >= HW_POOL_END || !used[(hpa - HW_POOL) / 4096])
		return -1;
	*ret_entry = *hw_word(hpa);
	return 0;
}

const struct vmem_ept_view hw_live = {
	.size = sizeof(hw_live),
	.read = live_read,
};

static int shadow_set(void *context, uint64_t hpa, uint64_t expected, uint64_t bits)
{
	volatile uint64_t *entry = hw_word(hpa - HW_POOL + HW_SHADOW);

	(void)context;
	if (!is_shadow(hpa))
		return -1;
	if (*entry != expected)
		return 1;
	*entry |= bits;
	return 0;
}

const struct vmem_ept_view hw_shadow = {
	.size = sizeof(hw_shadow),
	.read = shadow_read,
	.set = shadow_set,
};

/* One table, from an entry on. */
static unsigned compare_table(unsigned page, unsigned i, uint64_t may)
{
	const uint64_t *is = page_words(HW_POOL, page), *want = page_words(HW_SHADOW, page);
	unsigned unlike = 0;

	for (; i < VMEM_EPT_ENTRIES; i++) {
		if (is[i] == want[i] || (!(want[i] & ~is[i]) && !((is[i] ^ want[i]) & ~may)))
			continue;
		if (!unlike++)
			hw_printf("entry %u of table %lx: is %lx, should be %lx\n", i,
				  HW_POOL + page * UINT64_C(4096), is[i], want[i]);
	}
	return unlike;
}

int hw_shadow_compare(uint64_t may)
{
	unsigned unlike = 0;

	for (unsigned page = 0; page < next_page; page++)
		if (is_shadowed(page))
			unlike += compare_table(page, (unsigned)is_trunk(page), may);
	return !unlike;
}

/* The heap begins anew when all is given back. */
static void *heap_alloc(void *context, size_t bytes, size_t align)
{
	size_t at = (heap_used + align - 1) & ~(align - 1);

	(void)context;
	if (align > 4096 || at > HEAP_BYTES || bytes > HEAP_BYTES - at)
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
	if (!heap_live)
		heap_used = 0;
}

const struct vmem_allocator hw_allocator = {
	.size = sizeof(hw_allocator),
	.alloc = heap_alloc,
	.free = heap_free,
};

int hw_memory_idle(void)
{
	return !heap_live && !live_pages;
}

void hw_frames_fill(void)
{
	for (uint64_t hpa = HW_DATA; hpa < HW_DATA_END; hpa += 4096) {
		hw_word(hpa)[0] = hw_frame_word(hpa);
		*hw_word(hpa + HW_FRAME_WRITTEN) = 0;
		/* mov $imm32, %eax; ret */
		*hw_word(hpa + HW_FRAME_CODE) =
			0xb8 | (uint64_t)hw_frame_result(hpa) << 8 | UINT64_C(0xc3) << 40;
	}
}

uint64_t hw_guest_tables(void)
{
	static uint64_t table[4][512] __attribute__((aligned(4096)));
	const uint64_t bits = 0x63; /* present, writable, accessed, dirty */

	if (!table[0][0]) {
		for (uint64_t i = 0; i < 1024; i++)
			table[2 + i / 512][i % 512] = i * HW_GIB | bits | 0x80;
		for (unsigned i = 0; i < 2; i++)
			table[1][i] = (uintptr_t)table[2 + i] | bits;
		table[0][0] = (uintptr_t)table[1] | bits;
	}
	return (uintptr_t)table[hw_read_cr4() & HW_CR4_LA57 ? 0 : 1];
}
