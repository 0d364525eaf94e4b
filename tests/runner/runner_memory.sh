#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# RUNNER: each allocation fails once in turn. It ends with a message and nothing worse, or, where the
# library can do without, every page is still right.
# shellcheck source-path=SCRIPTDIR source=runner_lib.sh
. "$(dirname "$0")/runner_lib.sh"
backend='--backend thread'
if { true <>/dev/kvm; } 2>/dev/null; then
	backend=
fi
refused=0
survived=0

# $backend may be nothing.
# shellcheck disable=SC2086
set -- "$runner" $backend --quiet --vms 2 --mem 16M --budget 80% --seconds 1

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
	n=$((n + 1))
done
echo "$refused failed allocations were refused with a message, $survived were survived"
[ "$refused" -ge 20 ] || fail "only $refused allocations failed: does the injection work?"

# Those behind them are of the JSON object: it is left out as a whole.
run 1 "$@" --json "$scratch/x.json" --inject "fail-alloc=$((n + 20))"
says 'Out of memory for --json'
[ ! -e "$scratch/x.json" ] || fail "half of an object was written"
