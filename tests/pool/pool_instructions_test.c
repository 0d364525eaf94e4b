/* SPDX-License-Identifier: BSD-2-Clause */
/* What another processor could see between two instructions: the thread traps after each one. A handle
 * that can be taken has to be among those that whoever drops a stream looks at. */
#include <signal.h>
#include <stdio.h>
#include <vmem/pool.h>
#include "pool/pool_internal.h"

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)

#define TRAP_FLAG UINT64_C(0x100)

static vmem_pool *pool;
static volatile uint64_t instructions, unseen;

static void look(int signal_number)
{
	(void)signal_number;
	instructions++;
	unseen += (uint32_t)atomic_load(&pool->free_handles) >= vmemi_index_end(pool);
}

/* Takes the last free handle and then one of the next chunk, which has to be made first. */
int main(void)
{
	const struct sigaction action = { .sa_handler = look };
	uint32_t handle = 0;

	if (sigaction(SIGTRAP, &action, NULL) || vmem_pool_new(&pool, NULL))
		return 1;
	while (handle + 1 < 1u << VMEMI_INDEX_CHUNK_SHIFT)
		if (vmemi_handle_new(pool, &handle))
			return 1;
	__builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() | TRAP_FLAG);
	int err = vmemi_handle_new(pool, &handle);
	__builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() & ~TRAP_FLAG);
	vmem_pool_free(pool);
	printf("%llu instructions, a handle out of sight at %llu of them\n",
	       (unsigned long long)instructions, (unsigned long long)unseen);
	return err || handle != 1u << VMEMI_INDEX_CHUNK_SHIFT ||
	       instructions < 1u << VMEMI_INDEX_CHUNK_SHIFT || unseen;
}

#else

int main(void)
{
	puts("needs to stop after each instruction: x86-64, without ThreadSanitizer");
	return 77;
}

#endif
