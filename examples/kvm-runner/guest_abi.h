/* SPDX-License-Identifier: BSD-2-Clause */
/* What the runner and the payload in the guest agree on: ports, parameters, and the table that says
 * what each page must hold. All of it lies in the low part of guest memory, which is pinned.
 *
 * The payload is compiled twice from one source: freestanding, to run in a VM, where addresses are
 * guest physical; and hosted, to run as a thread, where guest memory begins at `base`. */
#ifndef GUEST_ABI_H
#define GUEST_ABI_H
#include <stddef.h>
#include <stdint.h>

#define GUEST_PAGE_SIZE 4096u
#define GUEST_PAGE_SHIFT 12u
#define GUEST_PAGE_WORDS (GUEST_PAGE_SIZE / sizeof(uint64_t))
#define GUEST_MAX_VCPUS 16u

/* Page 0 stays empty. The payload is linked to run here, its parameters come behind it. */
#define GUEST_PAYLOAD_GPA 0x1000u
#define GUEST_PARAMS_GPA 0x8000u

/* Ports: OUT and IN at CPL 3, allowed by IOPL 3, leave the VM and are its hypercalls. */
#define GUEST_PORT_PRINT 0xe9u /* OUT, 1 byte: a character of output; a line ends with '\n' */
#define GUEST_PORT_TIME 0x500u /* IN, 4 bytes: milliseconds left to run, 0: time is up */
#define GUEST_PORT_WAIT 0x501u /* OUT, 4 bytes: do nothing for so many milliseconds */
#define GUEST_PORT_STOP 0x502u /* OUT, 4 bytes: enum guest_stop; does not come back */

/* A virtio device, the balloon, if there is one: the registers of virtio-mmio (VIRTIO 1.3, 4.2.2; virtio_registers.h)
 * at the same offsets from here, 4 bytes each. No interrupt comes: InterruptStatus is to be looked at. Rings, and what
 * the device reads, must lie in the low part. */
#define GUEST_PORT_VIRTIO 0x1000u
#define GUEST_PORT_VIRTIO_END 0x1200u

enum guest_stop {
	GUEST_STOP_DONE = 1, /* time was up, and every page was verified once more */
	GUEST_STOP_WRONG = 2 /* guest_vcpu.wrong tells which byte */
};

enum guest_workload {
	GUEST_SCAN = 0,     /* reads one page after the other */
	GUEST_ZIPF = 1,     /* reads and writes, Zipf-distributed */
	GUEST_CHURN = 2,    /* pages are overwritten with the contents of others */
	GUEST_HOTCOLD = 3,  /* 20 % of the pages get 95 % of reads and writes */
	GUEST_ZEROFILL = 4, /* zero to all memory first, as Windows does, then as zipf */
	GUEST_IDLE = 5,     /* now and then a read of one of a few pages */
	GUEST_WORKLOADS = 6
};

enum guest_phase {
	GUEST_PHASE_START = 0,
	GUEST_PHASE_FILL = 1, /* zero-fill */
	GUEST_PHASE_WORK = 2,
	GUEST_PHASE_SWEEP = 3, /* the last look at every page */
	GUEST_PHASE_END = 4
};

enum guest_content {
	GUEST_CONTENT_LOADED = 0,  /* as the runner loaded it */
	GUEST_CONTENT_STAMPED = 1, /* the stamps of `version` are in it */
	GUEST_CONTENT_ZEROED = 2,
	GUEST_CONTENT_ANYTHING = 3, /* free: overwritten before it is read */
	GUEST_CONTENT_REPORTED = 4  /* the same, and the balloon's device knows */
};

/* What the driver of the balloon does. */
enum guest_driver {
	GUEST_DRIVER_GOOD = 0,
	GUEST_DRIVER_BAD = 1,  /* all that it must not, and then its work */
	GUEST_DRIVER_FLOOD = 2 /* as much work for the device as it can, until time is up */
};

/* Who may touch a page and what stands here of it. Only looked at where there is a balloon. */
enum guest_holder {
	GUEST_HELD_BY_NOBODY = 0,
	GUEST_HELD_BY_OWNER = 1, /* while it touches the page */
	GUEST_HELD_BY_BALLOON = 2,
	GUEST_HELD_AS_FREE = 3 /* while it is made free, or reported */
};

/* What one page must hold. Only who holds the page changes it, and only by what it writes itself: nothing here is ever taken from the page again, so a lost write cannot make itself right. */
struct guest_truth {
	uint64_t sum;     /* page_sum() of the right bytes */
	uint32_t version; /* writes to this page so far */
	uint16_t content; /* enum guest_content */
	uint16_t holder;  /* enum guest_holder */
};

static inline int guest_is_free(const struct guest_truth *truth)
{
	return truth->content >= GUEST_CONTENT_ANYTHING;
}

/* A write changes a few words to a stamp: which page, which write, by whom, which of the words. A
 * wrong stamp tells whose bytes they are and how old. */
#define GUEST_STAMPS 4u

static inline uint64_t guest_stamp(uint64_t gfn, uint32_t version, uint32_t vcpu, uint32_t k)
{
	return gfn << 36 | (uint64_t)(version & 0xffffffu) << 12 | (uint64_t)vcpu << 4 | k;
}

/* The stamp's word in the page: one of 16 in each quarter, so that at most an eighth of a page ever
 * becomes stamps and the rest keeps compressing as it did. */
static inline uint32_t guest_stamp_word(uint32_t version, uint32_t k)
{
	uint32_t mixed = version * 0x9e3779b1u;

	return k * 128u + ((mixed >> (28u - 4u * k)) & 15u) * 8u;
}

/* A class of ranks that are drawn alike (ranks: 0 is the hottest page). Drawing one is O(1) by
 * Walker's alias method (1977); the runner fills the table, as the guest has no floating point. */
struct guest_zipf {
	uint32_t first;     /* first rank */
	uint32_t count;     /* ranks in the class */
	uint32_t threshold; /* of 2^32: a draw at or above it means `alias` */
	uint32_t alias;     /* another class */
};

/* What the guest found where a byte was wrong. */
struct guest_wrong {
	uint64_t gfn;
	uint64_t expected_sum;
	uint64_t found_sum;
	uint32_t version;
	uint32_t content;       /* enum guest_content that it must be */
	uint32_t is_zero;       /* 1: the whole page reads as zeros */
	uint32_t offset;        /* of a stamp that is wrong; GUEST_PAGE_SIZE: no stamp tells */
	uint64_t expected_word; /* there */
	uint64_t found_word;
};

/* One vCPU. The runner fills the first part before the start; the vCPU owns the rest, and the runner
 * reads its counters while it runs. */
struct guest_vcpu {
	uint64_t first; /* first page that this vCPU owns; the others follow in steps of `vcpus` */
	uint64_t count; /* how many */
	uint64_t scatter; /* coprime to count: spreads ranks over pages */

	uint64_t accesses; /* pages read or written and verified, the sweep not counted */
	uint64_t writes;   /* of them written */
	uint64_t verified; /* pages verified by the sweep */
	uint64_t left_out; /* by the sweep: in the balloon, or not used since they came back */
	uint32_t phase;    /* enum guest_phase */
	uint32_t pad;
	struct guest_wrong wrong;
};

struct guest_params {
	uint64_t base; /* where guest memory begins: 0 in a VM */
	uint64_t seed;
	uint64_t truth_gpa; /* struct guest_truth, one a page of guest memory */
	uint64_t zipf_gpa;  /* struct guest_zipf */
	uint32_t zipf_classes;
	uint32_t workload; /* enum guest_workload */
	uint32_t vcpus;
	uint32_t write_percent; /* of accesses by zipf, hotcold and zerofill */
	uint32_t balloon;       /* 1: there is one; vCPU 0 has its driver */
	uint32_t driver;        /* enum guest_driver */
	uint32_t frees; /* 1: the guest has no need of some of its pages from time to time */
	uint32_t pad;
	uint64_t balloon_gpa;   /* memory for the driver */
	uint64_t balloon_bytes; /* of it */
	uint64_t pages;         /* of guest memory */
	uint64_t unused;        /* pages that are free and nobody's, as the guest sees it */
	uint64_t missed;        /* how often a page was wanted that is in the balloon */
	struct guest_vcpu vcpu[GUEST_MAX_VCPUS];
};

_Static_assert(sizeof(struct guest_params) <= GUEST_PAGE_SIZE, "parameters fit one page");

#ifndef GUEST_FREESTANDING
/* The ports, for the payload as a thread. */
void guest_out(uint32_t port, uint32_t value);
uint32_t guest_in(uint32_t port);
#endif

/* Where the payload begins: parameters at their guest physical (in a thread: real) address. */
__attribute__((noreturn)) void guest_main(struct guest_params *params, uint32_t index);

#endif
