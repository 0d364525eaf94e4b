/* SPDX-License-Identifier: BSD-2-Clause */
/* Opens libvmem.so, named by the argument, while the program runs. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "owner.h"

int main(int argc, char **argv)
{
	void *library = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
	uint32_t (*version)(void);

	if (!library) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	*(void **)&version = dlsym(library, "vmem_version");
	if (!version || version() >> 16 != 1)
		return 1;
	return dlclose(library) || malloc_is_foreign();
}
