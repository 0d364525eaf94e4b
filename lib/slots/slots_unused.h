/* SPDX-License-Identifier: BSD-2-Clause */
/* Slots that were taken in vain, for other modules. */
#ifndef VMEMI_SLOTS_UNUSED_H
#define VMEMI_SLOTS_UNUSED_H
#include <vmem/slots.h>

/* As vmem_slots_give(), of slots that nothing was written to since they were taken: there is nothing to discard, and
 * they are free at once. */
int vmemi_slots_give_unused(vmem_slots *s, uint64_t slot, uint32_t count);

#endif
