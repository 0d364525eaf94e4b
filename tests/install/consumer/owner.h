/* SPDX-License-Identifier: BSD-2-Clause */
/* Whether malloc() or operator new is another library's than libc's and libstdc++'s. A program that is
 * linked statically has its own. */
#ifndef OWNER_H
#define OWNER_H
#include <dlfcn.h>
#include <stdio.h>

static int is_foreign(const char *function, const char *owner)
{
#ifdef LINKED_STATICALLY
	(void)function;
	(void)owner;
	return 0;
#else
	void *address = dlsym(RTLD_DEFAULT, function);
	Dl_info info;

	if (!address) /* a C program without libstdc++ has no operator new */
		return 0;
	if (!dladdr(address, &info) || !strstr(info.dli_fname, owner)) {
		printf("%s is that of %s\n", function, info.dli_fname);
		return 1;
	}
	return 0;
#endif
}

static int malloc_is_foreign(void)
{
	return is_foreign("malloc", "/libc.so") || is_foreign("free", "/libc.so") ||
	       is_foreign("_Znwm", "/libstdc++.so") || is_foreign("_ZdlPv", "/libstdc++.so");
}

#endif
