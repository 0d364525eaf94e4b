/* SPDX-License-Identifier: BSD-2-Clause */
/* A store on an NBD server that is killed while it writes or reads, hangs, fails now and then, or is slow. What was on
 * a server that is gone is an error at once, and everything else is right. */
#define _GNU_SOURCE
#include <assert.h>
#include <signal.h>
#include <unistd.h>
#include <vmem/device_file.h>
#include "device/nbd_server.h"
#include "store/fault_store.h"
#include "support/deadline.h"

#define DEPTH 32u
#define LOADS 16u

static struct vmemt_fault_store f;

static void open_with_server(uint64_t timeout_ms)
{
	vmemt_fault_open(&f);
	assert(!vmemt_fault_add(&f, vmemt_nbd_open(DEPTH, timeout_ms), 1));
}

static void add_file(void)
{
	const struct vmem_device_file_opts opts = { .size = sizeof(opts),
						    .size_bytes = 32 * VMEMT_MIB };
	struct vmem_device *device;

	assert(!vmem_device_file_open(&device, "/tmp", &opts));
	assert(vmemt_fault_add(&f, device, 0) == 1);
}

static void close_all(void)
{
	vmemt_fault_close(&f);
	vmemt_nbd_stop();
}

static enum vmemt_fate gone(const struct vmemt_place *place, void *context)
{
	(void)context;
	return place->device ? VMEMT_THERE : VMEMT_LOST;
}

static enum vmemt_fate any(const struct vmemt_place *place, void *context)
{
	(void)place;
	(void)context;
	return VMEMT_EITHER;
}

/* What comes goes into memory or to another device, and what was on the server is lost, and nothing else. */
static void is_gone(void)
{
	uint32_t saved = vmemt_fault_fill(&f), lost;

	vmem_store_write_out(f.store, VMEMT_MIB);
	vmemt_fault_work(&f);
	vmemt_fault_settle(&f);
	assert(vmemt_fault_device(&f, 0).is_bad && vmemt_fault_device(&f, 0).write_errors);
	lost = vmemt_fault_check(&f, gone, NULL);
	assert(lost && lost < saved);
	add_file();
	assert(vmemt_fault_fill(&f) == VMEMT_FAULT_PAGES);
	assert(vmemt_fault_check(&f, gone, NULL) == lost);
	/* Lost pages can be dropped, and saved anew. */
	for (uint32_t i = 0; i < VMEMT_FAULT_PAGES; i++) {
		struct vmemt_place place;

		if (vmemt_fault_where(&f, i, &place) && !place.device)
			vmemt_fault_drop(&f, i);
	}
	assert(vmemt_fault_fill(&f) == VMEMT_FAULT_PAGES);
	assert(vmemt_fault_device(&f, 1).written_bytes);
	vmemt_fault_check_all(&f);
}

/* Saves until segments are out and others on their way. */
static void begin_writes(void)
{
	for (uint32_t i = 0; i < VMEMT_FAULT_PAGES; i++) {
		if (vmemt_fault_out(&f).segments >= 8)
			break;
		assert(vmemt_fault_save(&f, i));
	}
	vmem_store_write_out(f.store, VMEMT_MIB);
	f.now_ns++;
	(void)vmem_store_work(f.store, 1000000, f.now_ns);
}

static void killed_while_writing(void)
{
	vmemt_nbd_start("64M", NULL, NULL, NULL);
	open_with_server(0);
	begin_writes();
	assert(vmemt_fault_out(&f).segments >= 8);
	vmemt_nbd_stop();
	is_gone();
	close_all();
}

/* Loads that the server will not answer in time. Their number. */
static uint32_t begin_loads(struct vmemt_page *page)
{
	vmem_store_token token;
	struct vmemt_place place;
	uint32_t n = 0;

	for (uint32_t i = 0; i < VMEMT_FAULT_PAGES && n < LOADS; i++)
		if (f.ref[i] && vmemt_fault_where(&f, i, &place))
			assert(vmem_store_load(f.store, f.vm, i, f.ref[i], page[n++].bytes,
					       &token) == -VMEM_EINPROGRESS);
	assert(n == LOADS);
	return n;
}

/* All of them end, and none has touched its page. */
static void loads_are_lost(struct vmemt_page *page, uint32_t count)
{
	uint64_t end_ms = vmemt_now_ms() + VMEMT_DEADLINE_MS;
	struct vmem_store_event event;

	for (uint32_t n = 0; n < count;) {
		VMEMT_NOT_AFTER(end_ms, "the end of loads");
		if (!vmem_store_poll(f.store, &event, 1)) {
			vmem_store_wait(f.store, 1000000);
		} else if (event.type == VMEM_STORE_LOADED) {
			assert(event.result == -VMEM_EIO);
			n++;
		}
	}
	for (uint32_t n = 0; n < count; n++)
		for (uint32_t at = 0; at < VMEM_PAGE_SIZE; at++)
			assert(page[n].bytes[at] == 0x77);
}

static void killed_while_reading(void)
{
	static struct vmemt_page page[LOADS];
	uint32_t count;

	memset(page, 0x77, sizeof(page));
	vmemt_nbd_start("64M", "--filter=delay", "rdelay=1000", NULL);
	open_with_server(0);
	assert(vmemt_fault_fill(&f) == VMEMT_FAULT_PAGES);
	count = begin_loads(page);
	vmemt_nbd_stop();
	loads_are_lost(page, count);
	is_gone();
	close_all();
}

/* It keeps the connection and says nothing: given up after a while, and until then others are served. */
static void hangs(void)
{
	static struct vmemt_page page[LOADS];
	uint32_t count, saved;

	memset(page, 0x77, sizeof(page));
	vmemt_nbd_start("64M", NULL, NULL, NULL);
	open_with_server(1000);
	begin_writes();
	vmemt_fault_settle(&f);
	vmemt_nbd_pause();
	count = begin_loads(page);
	saved = VMEMT_FAULT_PAGES - 1;
	assert(vmemt_fault_save(&f, saved) && !vmemt_fault_load(&f, saved));
	loads_are_lost(page, count);
	is_gone();
	close_all();
}

/* It goes on before it is given up. */
static void hangs_for_a_while(void)
{
	static struct vmemt_page page[LOADS];
	struct vmem_store_event event;
	uint32_t count;

	vmemt_nbd_start("64M", NULL, NULL, NULL);
	open_with_server(UINT64_MAX);
	assert(vmemt_fault_fill(&f) == VMEMT_FAULT_PAGES);
	vmemt_nbd_pause();
	count = begin_loads(page);
	vmem_store_wait(f.store, 1000000);
	assert(!vmem_store_poll(f.store, &event, 1));
	assert(!kill(vmemt_nbd_server(), SIGCONT));
	while (count) {
		VMEMT_UNTIL(vmem_store_poll(f.store, &event, 1));
		assert(!event.result);
		count -= event.type == VMEM_STORE_LOADED;
	}
	vmemt_fault_check_all(&f);
	close_all();
}

/* Writes that fail now and then are made elsewhere, or stay in memory. */
static void some_writes_fail(const char *error)
{
	vmemt_nbd_start("64M", "--filter=error", error, "error-pwrite-rate=50%");
	open_with_server(0);
	(void)vmemt_fault_fill(&f);
	assert(vmemt_fault_device(&f, 0).write_errors);
	vmemt_fault_check_all(&f);
	add_file();
	assert(vmemt_fault_fill(&f) == VMEMT_FAULT_PAGES);
	vmemt_fault_check_all(&f);
	close_all();
}

/* A read that fails is an error, of this load: the next one may find the page. */
static void some_reads_fail(void)
{
	uint32_t lost;

	vmemt_nbd_start("64M", "--filter=error", "error-pread=EIO", "error-pread-rate=50%");
	open_with_server(0);
	assert(vmemt_fault_fill(&f) == VMEMT_FAULT_PAGES);
	lost = vmemt_fault_check(&f, any, NULL);
	assert(lost && lost < VMEMT_FAULT_PAGES);
	assert(vmemt_fault_device(&f, 0).read_errors >= lost);
	for (uint32_t i = 0; i < VMEMT_FAULT_PAGES; i += 16)
		VMEMT_UNTIL(!vmemt_fault_load(&f, i));
	close_all();
}

/* Slower than pages come: saves have to wait, which is told, and nothing is lost. */
static void is_slow(void)
{
	uint32_t i = 0;
	uint64_t waited;

	vmemt_nbd_start("64M", "--filter=delay", "wdelay=100ms", NULL);
	open_with_server(0);
	for (; i < VMEMT_FAULT_PAGES && !vmemt_fault_out(&f).saves_waited; i++)
		VMEMT_UNTIL(vmemt_fault_save(&f, i));
	assert(i < VMEMT_FAULT_PAGES);
	waited = vmemt_fault_out(&f).saves_waited;
	assert(vmemt_fault_fill(&f) == VMEMT_FAULT_PAGES);
	assert(vmemt_fault_out(&f).saves_waited > waited);
	assert(!vmemt_fault_device(&f, 0).write_errors);
	vmemt_fault_check_all(&f);
	close_all();
}

int main(void)
{
	if (!vmemt_nbd_init()) {
		printf("nbdkit is not installed\n");
		return 77;
	}
	killed_while_writing();
	killed_while_reading();
	hangs();
	hangs_for_a_while();
	some_writes_fail("error-pwrite=EIO");
	some_writes_fail("error-pwrite=ENOSPC");
	some_reads_fail();
	is_slow();
	vmemt_nbd_end();
	return 0;
}
