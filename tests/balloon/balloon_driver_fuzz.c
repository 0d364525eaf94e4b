/* SPDX-License-Identifier: BSD-2-Clause */
/* A device that does anything: any features, any configuration at any time, buffers returned in any order or never.
 * The driver never gives a page twice, never has a page used that is away, and gives no more than it was asked for. */
#include <stdlib.h>
#include <string.h>
#include <vmem/balloon_driver.h>

enum { PAGES = 512 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static struct guest {
	uint8_t away[PAGES]; /* 1: given, 2: isolated */
	uint64_t cursor;
	uint64_t target; /* as the device has shown it */
} g;

static void require(int condition)
{
	if (!condition)
		abort();
}

static uint64_t take(void *context, uint64_t most, uint64_t *ret_gfn)
{
	uint64_t first = 0, n = 0, given = 0;

	(void)context;
	for (size_t i = 0; i < PAGES; i++)
		given += g.away[i] == 1;
	require(most && given + most <= g.target);
	while (first < PAGES && g.away[first])
		first++;
	for (; first + n < PAGES && n < most && n < 40 && !g.away[first + n]; n++)
		g.away[first + n] = 1;
	*ret_gfn = first;
	return n;
}

static void put(uint64_t first, uint64_t pages, uint8_t was)
{
	for (uint64_t i = first; i < first + pages; i++) {
		require(i < PAGES && g.away[i] == was);
		g.away[i] = 0;
	}
}

static void give(void *context, uint64_t gfn, uint64_t pages)
{
	(void)context;
	put(gfn, pages, 1);
}

static uint32_t stats(void *context, struct vmem_balloon_stat *s, uint32_t most)
{
	(void)context;
	for (uint32_t i = 0; i < most; i++)
		s[i] = (struct vmem_balloon_stat){ (uint16_t)i, i };
	return most + 1; /* it says more than it has */
}

static int isolate(void *context, struct vmem_balloon_piece *piece)
{
	uint64_t n = 0;

	(void)context;
	while (g.cursor < PAGES && g.away[g.cursor])
		g.cursor++;
	piece->gpa = g.cursor * 4096;
	for (; g.cursor < PAGES && n < 8 && !g.away[g.cursor]; n++)
		g.away[g.cursor++] = 2;
	piece->bytes = n * 4096;
	return n != 0;
}

static void begin_free(void *context)
{
	(void)context;
	g.cursor = 0;
}

static void release(void *context, const struct vmem_balloon_piece *piece)
{
	(void)context;
	put(piece->gpa / 4096, piece->bytes / 4096, 2);
}

static void release_all(void *context)
{
	(void)context;
	for (size_t i = 0; i < PAGES; i++)
		if (g.away[i] == 2)
			g.away[i] = 0;
}

static uint64_t number(const uint8_t **data, size_t *left, size_t bytes)
{
	uint64_t value = 0;

	for (size_t i = 0; i < bytes && *left; i++, --*left)
		value |= (uint64_t) * (*data)++ << 8 * i;
	return value;
}

/* A buffer goes out: its bytes are looked at, as the device does. */
static void look(const struct vmem_balloon_out *out)
{
	volatile uint8_t sum = 0;

	for (uint32_t i = 0; i < out->count; i++)
		sum = (uint8_t)(sum + ((const uint8_t *)out->bytes)[i]);
	for (uint32_t i = 0; i < out->piece_count; i++)
		require(out->pieces[i].bytes != 0 && g.away[out->pieces[i].gpa / 4096] == 2);
}

static void one_step(vmem_balloon_driver *d, const uint8_t **data, size_t *left)
{
	struct vmem_balloon_driver_state s = { .size = sizeof(s) };
	struct vmem_balloon_out out = { .size = sizeof(out) };
	uint8_t space[24];
	uint32_t count;

	switch (number(data, left, 1) % 8) {
	case 0:
		g.target = 0;
		(void)vmem_balloon_driver_negotiate(d, number(data, left, 8));
		break;
	case 1: vmem_balloon_driver_start(d); break;
	case 2:
		for (size_t i = 0; i < sizeof(space); i++)
			space[i] = (uint8_t)(i % 4 < 2 ? number(data, left, 1) : 0);
		count = (uint32_t)number(data, left, 1) % 25;
		if (count >= 4)
			g.target = space[0] | (uint64_t)space[1] << 8;
		vmem_balloon_driver_config(d, space, count);
		break;
	case 3:
		(void)vmem_balloon_driver_returned(
			d, (enum vmem_balloon_queue)(number(data, left, 1) % 8));
		break;
	case 4: vmem_balloon_driver_retry(d); break;
	case 5: (void)vmem_balloon_driver_oom(d, number(data, left, 2)); break;
	default:
		if (vmem_balloon_driver_next(d, &out))
			look(&out);
		break;
	}
	require(vmem_balloon_driver_get_state(d, &s) == 0);
	require(s.pages <= PAGES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static const struct vmem_balloon_guest_memory memory = { .size = sizeof(memory),
								 .take = take,
								 .give = give,
								 .stats = stats,
								 .isolate = isolate,
								 .begin_free = begin_free,
								 .release = release,
								 .release_all = release_all };
	struct vmem_balloon_driver_opts opts = { .size = sizeof(opts),
						 .memory = &memory,
						 .features = UINT64_MAX };
	vmem_balloon_driver *d;

	memset(&g, 0, sizeof(g));
	opts.max_spans = 1 + number(&data, &bytes, 1);
	opts.poison = (uint32_t)number(&data, &bytes, 1);
	opts.entries = opts.poison >> 1;
	opts.poison &= 1;
	require(vmem_balloon_driver_new(&d, &opts) == 0);
	while (bytes)
		one_step(d, &data, &bytes);
	/* A reset gives all of it back. */
	(void)vmem_balloon_driver_negotiate(d, 0);
	for (size_t i = 0; i < PAGES; i++)
		require(!g.away[i]);
	vmem_balloon_driver_free(d);
	return 0;
}
