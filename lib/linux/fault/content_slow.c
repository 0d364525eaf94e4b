/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading a page that is on a device without bringing it back: it needs no frame, so what is read displaces nothing,
 * and a guest that is quiesced can be read as a whole. The page is claimed meanwhile. See content.c. */
#include "linux/fault/content_slow.h"
#include "base/mem.h"
#include "linux/fault/loads.h"
#include "linux/manager/manager.h"
#include <vmem/store_device.h>

#define WAIT_NS 1000000

static void wait_a_moment(struct vmemi_host *host)
{
	if (vmemi_loads_poll(host))
		vmemi_loads_tell(host);
	if (atomic_load(&host->devices.count) && !atomic_load(&host->serve_faults))
		vmem_store_wait(host->store, WAIT_NS);
	else
		vmemi_host_wait(host);
}

/* It has taken too long, as for a fault: the page is lost, and a handler sees to the end of its load. False: not now. */
static bool give_up(struct vmem_region *r, struct vmemi_fault *f)
{
	struct vmemi_handler *h = ((struct vmem_manager *)r->host)->handlers[0];

	if (!vmemi_serve_give_up(r, f, -VMEM_EIO))
		return false;
	vmemi_handler_adopt(h, r, f);
	return true;
}

/* 0, or the error of the load; or LOST. */
static int wait_for(struct vmem_region *r, struct vmemi_fault *f)
{
	struct vmemi_host *host = r->host;
	uint64_t since = host->k->clock_ns();
	int result;

	while (!vmemi_loads_take(host, f->token, &result)) {
		if (host->k->clock_ns() - since >= r->opts.fault_deadline_ms * 1000000 &&
		    give_up(r, f))
			return VMEMI_CONTENT_LOST;
		wait_a_moment(host);
	}
	return result;
}

int vmemi_content_peek_slow(struct vmem_region *r, uint64_t page, uint64_t old, void *data,
			    bool lent)
{
	struct vmemi_host *host = r->host;
	struct vmemi_fault f = { .page = page };
	int error = -VMEM_EAGAIN;

	if (!vmemi_loads_reserve(host, VMEMI_HANDLER_LOADS))
		return error;
	f.buffer = lent ? data : vmemi_host_buffer(host);
	if (f.buffer)
		error = vmem_store_peek(host->store, r->vm, vmemi_region_key(r, page),
					vmemi_page_ref(old), f.buffer, &f.token);
	if (error == -VMEM_EINPROGRESS)
		error = wait_for(r, &f);
	if (error == VMEMI_CONTENT_LOST) /* all of it is the handler's */
		return error;
	if (!error && !lent)
		memcpy(data, f.buffer, VMEM_PAGE_SIZE);
	if (f.buffer && !lent)
		vmemi_host_buffer_return(host, f.buffer);
	vmemi_loads_release(host);
	return error;
}
