/* SPDX-License-Identifier: BSD-2-Clause */
/* Saving staged pages beside reclaim: it names them, threads of their own encode them. A job is a hint:
 * the page's word decides, when its turn has come, whether it is saved. So a job may be dropped at any time,
 * and a page that has gone back meanwhile costs nothing. No lock is held while a page is saved. */
#ifndef VMEMI_SAVERS_H
#define VMEMI_SAVERS_H
#include "linux/region/table.h"

#define VMEMI_SAVERS_MAX 16
#define VMEMI_SAVERS_QUEUE 512 /* jobs that wait */
#define VMEMI_SAVERS_PIECE 16  /* jobs that one takes at a time, of one region */

/* What became of pages that were to be saved. */
struct vmemi_settled {
	uint64_t saved;
	uint64_t refused; /* too large; back in place */
	bool full;        /* the store takes no more */
};

struct vmemi_savers {
	struct vmemi_host *host;
	struct vmemi_lock lock; /* guards head, count, queue, and the regions that savers are at */
	uint32_t head, count;
	struct vmemi_saver {
		struct vmem_region *at; /* NULL: none */
		uint32_t seen;          /* its own: of the handler's reads */
		uint32_t quiet;         /* its own: saves since there was another */
	} saver[VMEMI_SAVERS_MAX + 1];  /* the last is whoever helps */
	struct vmemi_save {
		struct vmem_region *region;
		uint64_t page;
	} queue[VMEMI_SAVERS_QUEUE];

	_Atomic uint32_t threads;        /* atomic; at work. 0: reclaim saves itself */
	_Atomic uint32_t numbers;        /* atomic; the next one's number */
	_Atomic uint32_t stop;           /* atomic; they end */
	_Atomic uint32_t pending;        /* atomic; jobs that wait or are worked at */
	_Atomic uint32_t full;           /* atomic; the store took no more */
	_Atomic uint32_t untold;         /* atomic; jobs done since reclaim was told */
	_Atomic uint32_t posted;         /* atomic; futex: jobs came, or the end */
	_Atomic uint32_t idle;           /* atomic; savers that wait for that */
	_Atomic uint32_t finished;       /* atomic; futex: somebody has left a region */
	_Atomic uint32_t waiters;        /* atomic; for that */
	_Atomic uint64_t saved, refused; /* atomic; since reclaim asked */
	_Atomic uint64_t cpu_ns;         /* atomic; counter */
};

/* 0, -VMEM_ENOMEM. */
int vmemi_savers_init(struct vmemi_savers *s, struct vmemi_host *host);
void vmemi_savers_destroy(struct vmemi_savers *s);

/* Names pages of a region that are to be saved; those for which there is no room are not. Serial. */
void vmemi_savers_add(struct vmemi_savers *s, struct vmem_region *r, const uint64_t *pages,
		      uint32_t count);

/* What was done since this was last asked. */
struct vmemi_settled vmemi_savers_done(struct vmemi_savers *s);

/* Saves a piece of what was named, as number @self. False: nothing waits. */
bool vmemi_savers_work(struct vmemi_savers *s, unsigned self);
/* The same for reclaim, in between. */
bool vmemi_savers_help(struct vmemi_savers *s);

/* A thread that saves, until s->stop is set (and vmemi_savers_wake() called). @context: the savers. */
void *vmemi_savers_run(void *context);
void vmemi_savers_wake(struct vmemi_savers *s);

/* Forgets what waits of a region, or of all (NULL), and waits until nobody is at it. */
void vmemi_savers_forget(struct vmemi_savers *s, const struct vmem_region *r);

#endif
