/* SPDX-License-Identifier: BSD-2-Clause */
/* A region in a file that others map. What it is made of has short names: it is all that such a test is about. */
#ifndef VMEMT_PEER_GUEST_H
#define VMEMT_PEER_GUEST_H
#include "linux/failing_kernel.h"
#include "linux/peer_process.h"

#define PAGE VMEM_PAGE_SIZE
#define PAGES 64
#define BYTES (PAGES * PAGE)
#define FLAGS (VMEM_REGION_FILE | VMEM_REGION_DMA_PINNED)

extern struct vmemt_cpu cpu;
extern vmem_manager *manager;
extern vmem_region *region;
extern unsigned char *base;
extern struct vmemt_peer peer, other;
extern _Atomic uint32_t asked; /* atomic; times that the source said that it will come later */

/* The processor; skips the test where it cannot run. */
void vmemt_peers_begin(void);
void vmemt_peers_over(void);

/* A manager whose system calls can be made to fail, without threads yet. */
void vmemt_peer_make_manager(void);
/* With a region of PAGES pages that threads serve; and with one peer. */
void vmemt_peer_make(void);
void vmemt_peer_make_with(void);
/* The region has a source: of four pages one comes late, and one never. */
void vmemt_peer_make_with_source(uint64_t flags);
void vmemt_peer_end(void);

/* The kernel wakes who waits a moment before the library has booked it: waits for that. */
void vmemt_peer_booked(void);
void vmemt_peer_put_all(uint64_t version);

#endif
