#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# RUNNER: one allocation after the other fails. It ends with a message and nothing worse, or, where the
# library can do without, every page is still right.
# shellcheck source-path=SCRIPTDIR source=runner_lib.sh
. "$(dirname "$0")/runner_lib.sh"
find_backend
refused=0
survived=0

set -- "$runner" --backend "$backend" --quiet --vms 2 --mem 16M --budget 80% --balloon 20% --seconds 1

n=1
while :; do
	status=0
	"$@" --inject "fail-alloc=$n" >"$out" 2>&1 || status=$?
	case $status in
	0)
		says 'right: 2 of 2'
		! grep -q '^Injected nothing' "$out" || break
		survived=$((survived + 1))
		;;
	1)
		grep -q -i -e 'out of memory' -e 'cannot allocate' "$out" || fail "allocation $n: no message"
		! grep -q -e 'WRONG BYTE' -e POISONED "$out" || fail "allocation $n: a page was lost"
		refused=$((refused + 1))
		;;
	*) fail "allocation $n: exit status $status" ;;
	esac
	# The first ones make things, each in its own place; later ones let the same tables grow.
	n=$((n + 1 + (n > 60 ? (n - 60) / 2 : 0)))
done
echo "$refused failed allocations were refused with a message, $survived were survived"
[ "$refused" -ge 20 ] || fail "only $refused allocations failed: does the injection work?"

# Those behind them are of the JSON object: it is left out as a whole. No two runs allocate exactly as
# often before it.
status=0
while [ $status -eq 0 ]; do
	n=$((n + 50))
	"$@" --json "$scratch/x.json" --inject "fail-alloc=$n" >"$out" 2>&1 || status=$?
	! grep -q '^Injected nothing' "$out" || fail "no allocation of the JSON object failed"
	[ $status -ne 0 ] || rm "$scratch/x.json"
done
says 'Out of memory for --json'
[ ! -e "$scratch/x.json" ] || fail "half of an object was written"
