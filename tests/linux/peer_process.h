/* SPDX-License-Identifier: BSD-2-Clause */
/* Processes that map a region's file, as devices of a guest do: they map, touch and misbehave when they are told to.
 * They are made by a process that has no threads: vmemt_peers_prepare() comes first in main(). */
#ifndef VMEMT_PEER_PROCESS_H
#define VMEMT_PEER_PROCESS_H
#include "linux/guest.h"
#include <sys/types.h>
#include <vmem/peer.h>

struct vmemt_peer {
	pid_t pid;
	int socket;
	int uffd;         /* the peer's, as it was handed over */
	uint64_t address; /* of its mapping */
	uint64_t bytes;
	vmem_peer *peer; /* NULL: not added */
};

/* What it can be told to do, besides touching. */
enum vmemt_peer_trick {
	VMEMT_PEER_UNMAP,    /* its page */
	VMEMT_PEER_DONTNEED, /* likewise */
	VMEMT_PEER_OTHER, /* maps another file, of the same size, over all of it, and registers that */
	VMEMT_PEER_PRIVATE,  /* private memory */
	VMEMT_PEER_HUGE,     /* huge pages, where the kernel has some, and registers that */
	VMEMT_PEER_BLOCKING, /* its userfaultfd */
	VMEMT_PEER_CLOSE,    /* likewise */
	VMEMT_PEER_STEAL,    /* reads a message of it */
	VMEMT_PEER_FLOOD,    /* unmaps its page by MADV_DONTNEED and touches it, many times */
	VMEMT_PEER_SEAL      /* the file: with F_SEAL_FUTURE_WRITE */
};

void vmemt_peers_prepare(void);
void vmemt_peers_end(void);

/* A new process. It maps @bytes of @fd, and has a userfaultfd with @features. */
void vmemt_peer_start(struct vmemt_peer *p, int fd, uint64_t offset, uint64_t bytes,
		      uint64_t features);
/* Adds it for all of @r. */
int vmemt_peer_add(struct vmemt_peer *p, vmem_region *r);
/* Both of them, for all of @r; must work. */
void vmemt_peer_join(struct vmemt_peer *p, vmem_region *r);
/* It ends, if it has not been killed, and is removed if it was added. */
void vmemt_peer_leave(struct vmemt_peer *p);
/* It is killed, and is no more when that returns. */
void vmemt_peer_kill(struct vmemt_peer *p);

/* As vmemt_touch_begin() and so on, of a whole page. */
void vmemt_peer_begin(struct vmemt_peer *p, enum vmemt_touch touch, uint64_t page,
		      uint64_t version);
bool vmemt_peer_over(struct vmemt_peer *p);
/* 0, or the signal; *@ret_page: what was read, or NULL. */
int vmemt_peer_finish(struct vmemt_peer *p, struct vmemt_page *ret_page);
/* Whether a fault of it has not been read. */
bool vmemt_peer_pending(const struct vmemt_peer *p);
void vmemt_peer_put(struct vmemt_peer *p, uint64_t page, uint64_t version);
bool vmemt_peer_is(struct vmemt_peer *p, uint64_t page, uint64_t version);
/* The signal, or 0. */
int vmemt_peer_read(struct vmemt_peer *p, uint64_t page);
void vmemt_peer_trick(struct vmemt_peer *p, enum vmemt_peer_trick trick, uint64_t page);

/* Who counts, in a word of its own of each page, up and up, and looks whether that is what it was. */
struct vmemt_count {
	uint64_t seed, rounds, word;
};
/* Returns how often it was not. */
uint64_t vmemt_count_up(const struct vmemt_count *c, volatile unsigned char *base, uint64_t pages);
void vmemt_peer_count_begin(struct vmemt_peer *p, const struct vmemt_count *c);
uint64_t vmemt_peer_count_end(struct vmemt_peer *p);

/* A userfaultfd of this process for a second mapping. */
int vmemt_peer_uffd(uint64_t features);

/* Such a mapping, of a part of a region. */
struct vmemt_second {
	vmem_region *region;
	unsigned char *memory;
	uint64_t first, pages;
	int uffd; /* -1: that of another one */
	vmem_peer *peer;
};
/* Maps it, with nobody who knows of it. */
void vmemt_second_map(struct vmemt_second *s, vmem_region *r, uint64_t first, uint64_t pages);
/* Adds it, with a userfaultfd of its own, or that of @like. */
void vmemt_second_add(struct vmemt_second *s, const struct vmemt_second *like);
void vmemt_second_join(struct vmemt_second *s, vmem_region *r); /* both, of all of @r */
void vmemt_second_leave(struct vmemt_second *s);
bool vmemt_second_pending(const struct vmemt_second *s);

#endif
