/* SPDX-License-Identifier: BSD-2-Clause */
/* The least guest that can touch memory: one vCPU in long mode at CPL 3, where KVM runs it at full
 * speed even on hosts that emulate CPL 0. Without KVM the same code runs as a thread. */
#ifndef BENCH_KVM_GUEST_H
#define BENCH_KVM_GUEST_H
#include "guest_code.h"
#include <stddef.h>
#include <stdint.h>

struct kvm_guest;

/* Why KVM guests cannot be paged here, or NULL. */
const char *kvm_guest_missing(void);

/* @param ram  the guest works on this memory, up to 1 GiB; it stays the caller's
 *  @param kvm  0: a thread
 *  @return 0, -errno */
int kvm_guest_new(struct kvm_guest **ret_guest, void *ram, size_t bytes, int kvm);
void kvm_guest_free(struct kvm_guest *guest);

/* What it works on next: these pages, in this order, at most KVM_GUEST_ORDER_MAX. */
#define KVM_GUEST_ORDER_MAX ((size_t)1 << 21)
void kvm_guest_set_order(struct kvm_guest *guest, const uint32_t *pages, size_t count);
/* The same without a copy: pages is the start of a MAP_SHARED mapping, which the caller may write to
 * whenever the guest is stopped. @return 0, -errno */
int kvm_guest_share_order(struct kvm_guest *guest, uint32_t *pages, size_t count);
struct guest_box *kvm_guest_box(struct kvm_guest *guest);

/* Once through the order, on the calling thread. @return 0, -errno, -EFAULT: the guest died */
int kvm_guest_run(struct kvm_guest *guest);

/* On through the order, again and again, on a thread of its own bound to a processor, until stopped: it
 * goes on where it was stopped. @return as above */
int kvm_guest_start(struct kvm_guest *guest, unsigned cpu);
int kvm_guest_stop(struct kvm_guest *guest);
/* Operations since the guest was made. */
uint64_t kvm_guest_operations(const struct kvm_guest *guest);
/* Wait until it has done so many more, or has died. */
void kvm_guest_await(const struct kvm_guest *guest, uint64_t operations);
/* Operations a second of a running guest over the next milliseconds. */
double kvm_guest_speed(const struct kvm_guest *guest, unsigned ms);

#endif
