/* SPDX-License-Identifier: BSD-2-Clause */
/* A bench that changes all that benches change on the system, says "held", and waits to be killed.
 * Exit status 77, with the reason, where that cannot be done. */
#include "harness.h"
#include "memory_group.h"
#include "undo.h"
#include "zram_peer.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

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
	if (zram_start() != 0 || memory_group_new(&group, "held") != 0 || pipe(ready) != 0 ||
	    (child = undo_fork()) < 0)
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
	printf("held\n");
	fflush(stdout);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	return bench_main(argc, argv, "held", body);
}
