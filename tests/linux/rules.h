/* SPDX-License-Identifier: BSD-2-Clause */
/* What a pager on userfaultfd must know of the kernel, rule by rule: rules_events_test.c (messages and
 * answers), rules_memory_test.c (kinds of memory and rights), rules_move_test.c (taking pages out),
 * rules_kvm_test.c. Each test bears the number of its rule, and says it. */
#ifndef VMEMT_RULES_H
#define VMEMT_RULES_H
#include "linux/failing_kernel.h"
#include "linux/guest.h"

#define PAGE VMEM_PAGE_SIZE
#define RULES_CPUS 4

/* A region over the table of failing_kernel.h, and processors that touch it. */
struct vmemt_rig {
	vmem_manager *manager;
	vmem_region *region;
	unsigned char *base;
	struct vmemt_cpu cpu[RULES_CPUS];
};

/* With an own table of system calls: NULL, that of failing_kernel.h. All pages have version 1. */
void vmemt_rig_make(struct vmemt_rig *t, uint64_t pages, uint64_t flags,
		    const struct vmemi_kernel *k);
/* Takes the place of the region's memory: attaches what is there at @memory. */
void vmemt_rig_attach(struct vmemt_rig *t, void *memory, uint64_t pages, uint64_t flags);
void vmemt_rig_threads(struct vmemt_rig *t);
/* All pages of [first, first + count) have @version. */
void vmemt_rig_expect(struct vmemt_rig *t, uint64_t first, uint64_t count, uint64_t version);
void vmemt_rig_end(struct vmemt_rig *t);

/* Whether all of [memory, memory + bytes) has the letters @flag in /proc/self/smaps. */
bool vmemt_has_flag(const void *memory, uint64_t bytes, const char *flag);
/* The sum of a field of smaps over the range, kB. */
uint64_t vmemt_smaps_kb(const void *memory, uint64_t bytes, const char *field);

/* Runs a test, and says so. */
#define VMEMT_RULE(test)               \
	do {                           \
		printf("%s\n", #test); \
		fflush(stdout);        \
		test();                \
	} while (0)
/* This part of a rule cannot be tried here. */
#define VMEMT_NOT_HERE(why) printf("    not tried: %s\n", why)

#endif
