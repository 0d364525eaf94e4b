/* SPDX-License-Identifier: BSD-2-Clause */
/* A guest whose swap is on an NBD server that is killed while it writes and reads, stopped, or slow. */
#define _GNU_SOURCE
#include "device/nbd_server.h"
#include "linux/swap_guest.h"
#include <poll.h>
#include <signal.h>

#define BUDGET (8 * VMEMT_MIB)
#define DEPTH 32u

static struct vmemt_swap_guest g;

static void begin(const char *option, const char *parameter, uint64_t timeout_ms)
{
	vmemt_nbd_start("64M", option, parameter, NULL);
	vmemt_swap_begin(&g, BUDGET, 0);
	assert(!vmemt_swap_add(&g, vmemt_nbd_open(DEPTH, timeout_ms), 0));
}

static void end(void)
{
	vmemt_swap_end(&g);
	vmemt_nbd_stop();
}

/* What was on it is lost and nothing else, and the guest goes on elsewhere. */
static void lose(void)
{
	uint32_t lost;

	vmemt_swap_settle(&g);
	lost = vmemt_swap_check(&g, 1, 0);
	assert(lost && lost < VMEMT_SWAP_PAGES && vmemt_swap_out(&g).lost);
	(void)vmemt_swap_add_file(&g, -1);
	vmemt_swap_heal(&g, 1, 0);
	end();
}

static void killed(void)
{
	begin(NULL, NULL, 0);
	vmemt_swap_fill(&g, 1);
	assert(vmemt_swap_out(&g).segments);
	vmemt_nbd_stop();
	lose();
}

static bool has_something(void)
{
	struct pollfd fd = { .fd = vmem_manager_fd(g.manager), .events = POLLIN };
	int ready = poll(&fd, 1, 0);

	assert(ready >= 0);
	return ready > 0;
}

/* One step without reclaim, which could write to the device and so find out. */
static bool is_quiet(void)
{
	assert(vmem_manager_step(g.manager, 0, NULL) >= 0);
	return !has_something();
}

/* A VMM that steps the manager itself is told of it once, and not for ever. */
static void killed_while_idle(void)
{
	begin(NULL, NULL, 0);
	vmemt_swap_fill(&g, 1);
	vmem_manager_thread_stop(g.manager);
	VMEMT_STEP_UNTIL(g.manager, !vmemt_swap_out(&g).writing && !has_something());
	vmemt_nbd_stop();
	VMEMT_UNTIL(has_something());
	VMEMT_UNTIL(is_quiet());
	assert(!vmem_manager_thread_start(g.manager));
	lose();
}

/* While the guest waits for a page that the server takes its time to read. */
static void killed_while_reading(void)
{
	uint64_t word = 77, page = 0;
	unsigned char *at;

	begin("--filter=delay", "rdelay=1000", 0);
	vmemt_swap_fill(&g, 1);
	vmemt_swap_settle(&g);
	while (!vmemt_swap_is_out(&g, page))
		page++;
	at = g.base + page * VMEM_PAGE_SIZE;
	vmemt_touch_begin(&g.cpu, VMEMT_READ, at, &word, sizeof(word));
	VMEMT_UNTIL(vmemt_state(g.region, page) == VMEM_PAGE_ARRIVING);
	vmemt_nbd_stop();
	assert(vmemt_touch_end(&g.cpu) && word == 77 && atomic_load(&g.told[page]));
	lose();
}

/* It keeps the connection, says nothing, and is given up. */
static void silent(void)
{
	begin(NULL, NULL, 2000);
	vmemt_swap_fill(&g, 1);
	vmemt_swap_settle(&g);
	vmemt_nbd_pause();
	lose();
}

/* Slower than pages leave, to the point of doing nothing: that is seen, and when it goes on nothing is lost. */
static void slow(void)
{
	bool goes_on = false;

	begin(NULL, NULL, UINT64_MAX);
	vmemt_nbd_pause();
	for (uint64_t i = 0; i < VMEMT_SWAP_PAGES; i++) {
		struct vmemt_page p;

		vmemt_make(&p, i, 1);
		vmemt_touch_begin(&g.cpu, VMEMT_WRITE, g.base + i * VMEM_PAGE_SIZE, &p, sizeof(p));
		VMEMT_UNTIL(vmemt_touch_over(&g.cpu) || vmemt_swap_out(&g).saves_waited);
		if (!goes_on && vmemt_swap_out(&g).saves_waited) {
			assert(vmemt_swap_out(&g).writing);
			assert(!kill(vmemt_nbd_server(), SIGCONT));
			goes_on = true;
		}
		assert(!vmemt_touch_end(&g.cpu));
	}
	assert(goes_on);
	assert(!vmemt_swap_check(&g, 1, 0));
	assert(!vmemt_swap_device(&g, 0).write_errors && vmemt_swap_device(&g, 0).written_bytes);
	end();
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_POISON | VMEM_KERNEL_MOVE | VMEM_KERNEL_WP |
		   VMEM_KERNEL_KERNEL_FAULTS);
	if (!vmemt_nbd_init())
		vmemt_skip("nbdkit is not installed");
	vmemt_cpu_start(&g.cpu);
	killed();
	killed_while_idle();
	killed_while_reading();
	silent();
	slow();
	vmemt_cpu_stop(&g.cpu);
	vmemt_nbd_end();
	return 0;
}
