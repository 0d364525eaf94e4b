#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# RUNNER: saved memory, restored into a quarter of itself with a swap device.
# shellcheck source-path=SCRIPTDIR source=runner_lib.sh
. "$(dirname "$0")/runner_lib.sh"
find_backend
seed=${VMEM_TEST_SEED:-$(date +%s)}
echo "seed $seed: VMEM_TEST_SEED=$seed repeats it"
saved=$scratch/saved

set -- "$runner" --backend "$backend" --quiet --vms 1 --mem 32M --seconds 1 --seed "$seed" --json "$json"
run 0 "$@" --budget 150% --save "$saved"
says 'right: 1 of 1'
set -- "$@" --budget 25% --swap "$scratch:128M" --restore "$saved"
run 0 "$@" --workload churn
says 'right: 1 of 1'
was_used
run 0 "$@" --lazy --workload hotcold --writes 100
says 'right: 1 of 1'
was_used
