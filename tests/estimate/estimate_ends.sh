#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# ESTIMATE VM: Ctrl-C ends it cleanly, in all it does; a full disk is told.
# shellcheck source-path=SCRIPTDIR source=estimate_lib.sh
. "$(dirname "$0")/estimate_lib.sh"
log=$scratch/log.txt

make small.img 1 letters:100
run 1 "$estimate" --quiet --json /dev/full "$scratch/small.img"
says 'json /dev/full cannot be written: No space left'
says '^Suggested'
[ -c /dev/full ] || fail "/dev/full is gone"
status=0
"$estimate" --quiet "$scratch/small.img" >/dev/full 2>"$out" || status=$?
[ $status -eq 1 ] || fail "exit status $status with standard output full"
says 'table cannot be written: No space left'

# Less memory than the pages take, compressed as they are.
make random.img 3 random:30000
# shellcheck disable=SC2016 # for the inner shell
run 1 sh -c 'ulimit -v 65536 && exec "$@"' sh "$estimate" --quiet "$scratch/random.img"
says 'out of memory.*try --sample'

# Interrupted while pages are read, and while they move.
make large.img 2 letters:20000
large=$scratch/large.img
for signal in INT TERM; do
	for step in reading sharing; do
		start "$log" "$estimate" --json "$json" "$large" "$large"
		wait_for $step
		kill -$signal "$pid"
		ended 130
		says 'Interrupted: nothing was written'
		! grep -q Suggested "$out" || fail "it went on"
		[ ! -e "$json" ] || fail "it wrote something"
	done
done
