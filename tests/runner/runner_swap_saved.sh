#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# RUNNER: memory most of which is on a swap device, saved and restored.
# shellcheck source-path=SCRIPTDIR source=runner_lib.sh
. "$(dirname "$0")/runner_lib.sh"
find_backend
need_room 512
seed=${VMEM_TEST_SEED:-$(date +%s)}
echo "seed $seed: VMEM_TEST_SEED=$seed repeats it"
saved=$scratch/saved

set -- "$runner" --backend "$backend" --quiet --vms 1 --mem 32M --seconds 1 --seed "$seed" --json "$json" \
	--budget 25% --swap "$scratch:128M"

run 0 "$@" --save "$saved"
says 'right: 1 of 1'
was_used
run 0 "$@" --restore "$saved" --workload churn
says 'right: 1 of 1'
was_used
run 0 "$@" --restore "$saved" --lazy --workload hotcold --writes 100 --save "$scratch/again"
says 'right: 1 of 1'
was_used
run 0 "$@" --restore "$scratch/again" --workload scan
says 'right: 1 of 1'
