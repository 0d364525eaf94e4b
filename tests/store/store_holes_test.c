/* SPDX-License-Identifier: BSD-2-Clause */
/* A file under a store has holes where pages were. */
#define _GNU_SOURCE
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vmem/device_file.h>
#include "store/fault_store.h"
#include "support/deadline.h"

static char folder[] = "/tmp/vmem-holes-XXXXXX";
static char path[sizeof(folder) + 8];
static struct vmemt_fault_store f;

static uint64_t allocated(void)
{
	struct stat st;

	assert(!stat(path, &st));
	return (uint64_t)st.st_blocks * 512;
}

/* False: there are no holes on this file system. */
static bool open_store(void)
{
	const struct vmem_device_file_opts opts = { .size = sizeof(opts),
						    .flags = VMEM_DEVICE_FILE_CREATE,
						    .size_bytes = 32 * VMEMT_MIB };
	struct vmem_device *device;

	vmemt_fault_open(&f);
	assert(!vmem_device_file_open(&device, path, &opts));
	if (!(device->flags & VMEM_DEVICE_CAN_DISCARD)) {
		vmem_device_close(device);
		return false;
	}
	(void)vmemt_fault_add(&f, device, 0);
	return true;
}

int main(void)
{
	uint64_t full, half;

	assert(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/swap", folder);
	if (!open_store()) {
		puts("no holes can be made in files of /tmp");
		vmemt_fault_close(&f);
		assert(!unlink(path) && !rmdir(folder));
		return 77;
	}
	assert(vmemt_fault_fill(&f) == VMEMT_FAULT_PAGES);
	vmemt_fault_settle(&f);
	full = allocated();
	assert(full >= vmemt_fault_device(&f, 0).taken_bytes / 2);
	/* By age: whole segments go. */
	for (uint32_t i = 0; i < VMEMT_FAULT_PAGES / 2; i++)
		vmemt_fault_drop(&f, i);
	half = full * 3 / 4;
	VMEMT_UNTIL((vmemt_fault_work(&f), allocated() < half));
	vmemt_fault_check_all(&f);
	for (uint32_t i = VMEMT_FAULT_PAGES / 2; i < VMEMT_FAULT_PAGES; i++)
		vmemt_fault_drop(&f, i);
	VMEMT_UNTIL((vmemt_fault_work(&f), allocated() < full / 8));
	vmemt_fault_close(&f);
	assert(!unlink(path) && !rmdir(folder));
	return 0;
}
