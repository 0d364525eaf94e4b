#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# RUNNER: memory that is kept in huge pages is right, also while they are split for room; damage is found.
# shellcheck source-path=SCRIPTDIR source=runner_lib.sh
. "$(dirname "$0")/runner_lib.sh"
find_backend
seed=${VMEM_TEST_SEED:-$(date +%s)}
echo "seed $seed: VMEM_TEST_SEED=$seed repeats it"
json=$scratch/run.json

# counted NAME: whether a VM of the last run had any.
counted() {
	grep -q "\"$1\":.*[1-9]" "$json"
}

set -- "$runner" --backend "$backend" --quiet --vms 2 --mem 32M --seed "$seed" --json "$json"

# Without the word there are none.
run 0 "$@" --budget 150% --seconds 1
says 'right: 2 of 2'
! counted huge_collapsed || fail "huge pages that nobody asked for"

# Room for all: as many as come, of memory that the runner mapped and of memory of the library.
for seconds in 1 3 9 27; do
	run 0 "$@" --huge --budget 150% --seconds $seconds
	says 'right: 2 of 2'
	! grep -q 'no huge pages: ' "$out" || skip "$(grep -o 'no huge pages: .*' "$out" | head -n 1)"
	! counted huge_collapsed || break
done
counted huge_collapsed || { counted huge_failed && skip "the kernel makes no huge pages now"; }
counted huge_collapsed || fail "no huge page was made, and none was tried"
counted huge_bytes || fail "none of the huge pages was there at the end"

# Less room: pages leave, and none is wrong.
for seconds in 3 9 27; do
	run 0 "$@" --huge --budget 60% --seconds $seconds --workload mixed
	says 'right: 2 of 2'
	! counted saved || break
done
counted saved || fail "nothing left"

# The check can fail there, too.
run 1 "$@" --huge --budget 70% --seconds 2 --inject drop-page
says 'vm 0: WRONG BYTE in frame '
says 'with a wrong byte: 1, .* right: 1 of 2'
