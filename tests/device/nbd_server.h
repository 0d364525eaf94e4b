/* SPDX-License-Identifier: BSD-2-Clause */
/* An NBD server of one's own, nbdkit, in memory: one at a time, which can be stopped, killed, or made to fail. */
#ifndef VMEMT_NBD_SERVER_H
#define VMEMT_NBD_SERVER_H
#include <stdbool.h>
#include <sys/types.h>
#include <vmem/nbd.h>

/* Once. False: nbdkit is not installed. */
bool vmemt_nbd_init(void);
/* What init() has made. */
void vmemt_nbd_end(void);

/* Starts `nbdkit @option memory @size @parameter @another`; the last two and @option may be NULL. It does not outlive this
 * program. */
void vmemt_nbd_start(const char *size, const char *option, const char *parameter,
		     const char *another);
/* Kills it. Nothing if none runs. */
void vmemt_nbd_stop(void);
/* Stops it: from then on it answers nothing, and keeps its connections. */
void vmemt_nbd_pause(void);
pid_t vmemt_nbd_server(void);
const char *vmemt_nbd_uri(void);

/* Opens a device as soon as the server listens. */
struct vmem_device *vmemt_nbd_open(uint32_t depth, uint64_t timeout_ms);

#endif
