/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem.h
 *  All of libvmem. <vmem/jemalloc.h>, <vmem/crypto.h> and <vmem/nbd.h> are apart: they belong to
 *  libvmem-jemalloc, libvmem-crypto and libvmem-nbd. */
#ifndef VMEM_H
#define VMEM_H

#include <vmem/allocator.h>
#include <vmem/balloon.h>
#include <vmem/balloon_driver.h>
#include <vmem/balloon_host.h>
#include <vmem/balloon_protocol.h>
#include <vmem/codec.h>
#include <vmem/common.h>
#include <vmem/dedup.h>
#include <vmem/device.h>
#include <vmem/device_file.h>
#include <vmem/discard.h>
#include <vmem/env.h>
#include <vmem/ept.h>
#include <vmem/ept_format.h>
#include <vmem/ept_track.h>
#include <vmem/ept_walk.h>
#include <vmem/fault.h>
#include <vmem/feed.h>
#include <vmem/foreign.h>
#include <vmem/grow.h>
#include <vmem/huge.h>
#include <vmem/manager.h>
#include <vmem/manager_device.h>
#include <vmem/page_state.h>
#include <vmem/peer.h>
#include <vmem/pool.h>
#include <vmem/region.h>
#include <vmem/region_metrics.h>
#include <vmem/share.h>
#include <vmem/similar.h>
#include <vmem/slots.h>
#include <vmem/source.h>
#include <vmem/snapshot.h>
#include <vmem/snapshot_source.h>
#include <vmem/store.h>
#include <vmem/store_device.h>
#include <vmem/threshold.h>
#include <vmem/trace.h>
#include <vmem/track.h>
#include <vmem/working_set.h>

#endif
