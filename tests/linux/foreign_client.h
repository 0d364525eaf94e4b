/* SPDX-License-Identifier: BSD-2-Clause */
/* A second process whose memory is served by the test: this program, executed anew. It registers memory with a
 * userfaultfd of its own, hands that over, and then does what it is told, on several channels at a time. */
#ifndef VMEMT_FOREIGN_CLIENT_H
#define VMEMT_FOREIGN_CLIENT_H
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define VMEMT_CHANNELS 3

enum vmemt_order {
	VMEMT_ORDER_READ,   /* answers how many pages have the version (0: zeros) */
	VMEMT_ORDER_WRITE,  /* pages get the version */
	VMEMT_ORDER_REMOVE, /* MADV_DONTNEED */
	VMEMT_ORDER_UNMAP,
	VMEMT_ORDER_THREADS, /* READ of all by 8 threads, from different pages on; answers the sum */
	VMEMT_ORDER_CHURN, /* removes pages and reads them, again and again; answers those that were zeros */
	VMEMT_ORDER_FLOOD, /* removes pages one by one, all and again, until STOP; answers how many */
	VMEMT_ORDER_STOP,
	VMEMT_ORDER_BLOCKING, /* makes reads of its userfaultfd wait */
	VMEMT_ORDER_END
};

#define VMEMT_MET_ERROR (-1) /* an answer: SIGBUS */

struct vmemt_client {
	pid_t pid;
	int channel[VMEMT_CHANNELS];
	int uffd; /* of its, here */
	unsigned char *base;
	uint64_t pages;
	uint64_t shared; /* of them, the last ones: shared memory; set before it starts */
};

/* Must come to be. @features: of its userfaultfd. Its memory is of many mappings in the kernel's eyes. */
void vmemt_client_start(struct vmemt_client *c, uint64_t pages, uint64_t features);
/* Ends it, and waits for that; @kill: by SIGKILL. */
void vmemt_client_end(struct vmemt_client *c, bool kill);

void vmemt_order_begin(struct vmemt_client *c, unsigned channel, enum vmemt_order order,
		       uint64_t first, uint64_t count, uint64_t version);
bool vmemt_order_over(struct vmemt_client *c, unsigned channel);
/* The answer, which none in time fails. */
int64_t vmemt_order_end(struct vmemt_client *c, unsigned channel);
/* Both, on channel 0. */
int64_t vmemt_order(struct vmemt_client *c, enum vmemt_order order, uint64_t first, uint64_t count,
		    uint64_t version);

/* To be called first by main(). Does not return in the client. */
void vmemt_client_main(int argc, char **argv);

#endif
