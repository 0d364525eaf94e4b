/* SPDX-License-Identifier: BSD-2-Clause */
/* The registers of virtio-mmio (VIRTIO 1.3, 4.2.2), 4 bytes each, by their offsets. Here they are ports. */
#ifndef VIRTIO_REGISTERS_H
#define VIRTIO_REGISTERS_H

#define VIRTIO_MAGIC 0x000u   /* R: VIRTIO_MAGIC_VALUE */
#define VIRTIO_VERSION 0x004u /* R: 2 */
#define VIRTIO_DEVICE 0x008u  /* R: VIRTIO_DEVICE_BALLOON */
#define VIRTIO_VENDOR 0x00cu  /* R */
#define VIRTIO_DEVICE_FEATURES 0x010u
#define VIRTIO_DEVICE_FEATURES_SELECT 0x014u
#define VIRTIO_DRIVER_FEATURES 0x020u
#define VIRTIO_DRIVER_FEATURES_SELECT 0x024u
#define VIRTIO_QUEUE_SELECT 0x030u
#define VIRTIO_QUEUE_SIZE_MOST 0x034u
#define VIRTIO_QUEUE_SIZE 0x038u
#define VIRTIO_QUEUE_READY 0x044u
#define VIRTIO_QUEUE_NOTIFY 0x050u
#define VIRTIO_INTERRUPT_STATUS 0x060u /* R: VIRTIO_INTERRUPT_* */
#define VIRTIO_INTERRUPT_ACK 0x064u
#define VIRTIO_STATUS 0x070u
#define VIRTIO_QUEUE_DESCRIPTORS 0x080u /* low half; the high half is 4 further */
#define VIRTIO_QUEUE_AVAILABLE 0x090u   /* "driver area" */
#define VIRTIO_QUEUE_USED 0x0a0u        /* "device area" */
#define VIRTIO_GENERATION 0x0fcu        /* R: changes with the configuration space */
#define VIRTIO_CONFIG 0x100u

#define VIRTIO_MAGIC_VALUE 0x74726976u /* "virt" */
#define VIRTIO_DEVICE_BALLOON 5u

#define VIRTIO_INTERRUPT_USED 1u
#define VIRTIO_INTERRUPT_CONFIG 2u

/* Device status (2.1), with those of <vmem/balloon_protocol.h>. */
#define VIRTIO_STATUS_ACKNOWLEDGE 1u
#define VIRTIO_STATUS_DRIVER 2u
#define VIRTIO_STATUS_NEEDS_RESET 64u

#endif
