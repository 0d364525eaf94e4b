/* SPDX-License-Identifier: BSD-2-Clause */
/* For LD_PRELOAD with User-Mode Linux: its 6.1 keeps 2696 bytes of a process's extended processor state, enough for
 * AVX-512. Where the processor has more (AMX) the kernel refuses to set less than all of it, and no guest starts. The rest
 * is left as it is in the process; nothing in a guest can use it without having asked for it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

#define MOST_STATE 65536

typedef long ptrace_function(int request, pid_t pid, void *address, void *data);

static ptrace_function *real(void)
{
	static ptrace_function *found;

	if (!found)
		*(void **)&found = dlsym(RTLD_NEXT, "ptrace");
	return found;
}

/* The whole state of a process, what the caller has of it over the first bytes. */
static long set_state(pid_t pid, const struct iovec *given)
{
	static char state[MOST_STATE] __attribute__((aligned(64)));
	struct iovec all = { state, sizeof(state) };
	long result = real()(PTRACE_GETREGSET, pid, (void *)NT_X86_XSTATE, &all);

	if (result != 0)
		return result;
	memcpy(state, given->iov_base, given->iov_len < all.iov_len ? given->iov_len : all.iov_len);
	return real()(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, &all);
}

long ptrace(enum __ptrace_request request, ...)
{
	void *address, *data;
	va_list rest;
	pid_t pid;

	va_start(rest, request);
	pid = va_arg(rest, pid_t);
	address = va_arg(rest, void *);
	data = va_arg(rest, void *);
	va_end(rest);
	if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE)
		return set_state(pid, data);
	return real()((int)request, pid, address, data);
}
