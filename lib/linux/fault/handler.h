/* SPDX-License-Identifier: BSD-2-Clause */
/* A handler of faults that arrive as messages: reads them in batches, serves what it can at once,
 * and holds back what must wait, in order of arrival. One thread at a time works it. Several handlers
 * read the same descriptor: each message comes to one of them, and the words of the pages order what they do
 * (page.h). The first one waits for messages; the others sleep until there are more than one can do. */
#ifndef VMEMI_HANDLER_H
#define VMEMI_HANDLER_H
#include "linux/fault/serve.h"

#define VMEMI_HANDLER_HELD 1024 /* faults held back; more are left to fault again */
/* Slow loads of all handlers at a time: the other page buffers are for loads that are quick. */
#define VMEMI_HANDLER_LOADS (VMEMI_BUFFERS * 3 / 4)

struct vmemi_handler;

/* Handler @index of the host's. 0, -VMEM_ENOMEM. */
int vmemi_handler_new(struct vmemi_handler **ret_handler, struct vmemi_host *host, uint32_t index,
		      uint32_t spin_us);
void vmemi_handler_free(struct vmemi_handler *h);

/* Serves all that can be served now, without blocking. 1 if faults are held back, or there is more to do, else 0. */
int vmemi_handler_step(struct vmemi_handler *h);

/* Serves until host->stop_handlers is set (and it is kicked). The first handler looks for faults for a while
 * after each one, then sleeps; the others sleep when they find none. */
void vmemi_handler_run(struct vmemi_handler *h);

/* A slow load that nobody waits for any more, as its page is lost (vmemi_serve_give_up()): its end is seen to. */
void vmemi_handler_adopt(struct vmemi_handler *h, struct vmem_region *r,
			 const struct vmemi_fault *fault);

/* Forgets what is held back for a region that goes away, but for slow loads: those must be over first.
 * True if there are some. */
bool vmemi_handler_forget(struct vmemi_handler *h, const struct vmem_region *r);
/* Forgets what is held back for a peer's mapping, which no handler comes upon any more. */
void vmemi_handler_forget_peer(struct vmemi_handler *h, const struct vmemi_at *at);

#endif
