/* SPDX-License-Identifier: BSD-2-Clause */
/* A bench that changes all that benches change on the system, says "all is held", and waits to be killed.
 * Exit status 77, with the reason, where that cannot be done. */
#include "harness.h"
#include "ksm_peer.h"
#include "machine.h"
#include "memory_group.h"
#include "undo.h"
#include "zram_peer.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EQUAL_PAGES ((size_t)16)

/* Equal pages are joined: it must be left in the middle of its work. */
static int hold_ksm(void)
{
	uint8_t *pages = machine_map(EQUAL_PAGES * PAGE);
	struct ksm_result joined;

	if (!pages || ksm_start() != 0)
		return -1;
	memset(pages, 0x5a, EQUAL_PAGES * PAGE);
	return ksm_join(pages, EQUAL_PAGES * PAGE, &joined) == 0 && joined.merged > 0 ? 0 : -1;
}

static int body(struct bench *bench)
{
	const char *missing = zram_missing() ? zram_missing() : memory_group_missing();
	struct memory_group group;
	int ready[2];
	pid_t child;
	char byte;

	(void)bench;
	if (missing) {
		printf("skipped: %s\n", missing);
		exit(77);
	}
	if ((!ksm_missing() && hold_ksm() != 0) || zram_start() != 0 ||
	    memory_group_new(&group, "held") != 0 || pipe(ready) != 0 || (child = undo_fork()) < 0)
		return -1;
	if (child == 0) {
		if (memory_group_enter(&group) == 0 && write(ready[1], "", 1) == 1)
			for (;;)
				pause();
		_exit(1);
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1) /* the child has died */
		return -1;
	printf("all is held\n");
	fflush(stdout);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	return bench_main(argc, argv, "held", body);
}
