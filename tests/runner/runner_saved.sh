#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# RUNNER: memory saved by one process is right in another one, at once or page by page; damage is found.
# shellcheck source-path=SCRIPTDIR source=runner_lib.sh
. "$(dirname "$0")/runner_lib.sh"
find_backend
seed=${VMEM_TEST_SEED:-$(date +%s)}
echo "seed $seed: VMEM_TEST_SEED=$seed repeats it"
saved=$scratch/saved

set -- "$runner" --quiet --vms 2 --mem 16M --budget 80% --seconds 1 --seed "$seed"

no_rest() {
	[ -z "$(find "$scratch" -name '*.new')" ] || fail "files were left behind"
}

run 0 "$@" --backend "$backend" --workload zipf,churn --save "$saved"
says 'right: 2 of 2'
says '^vm 1: saved in .*saved.1: .* pages with contents'
[ -s "$saved.0" ] || fail "nothing was saved"
[ "$(stat -c %a "$saved.0")" = 600 ] || fail "others may read it"
no_rest

# Nothing is written to what lies there under the name of the unfinished file.
echo untouched >"$scratch/other"
ln -s "$scratch/other" "$saved.0.new"
ln -s "$scratch/other" "$saved.1.new"

# What each page must hold is saved with the pages. Other work, another backend.
run 0 "$@" --backend thread --restore "$saved" --workload hotcold,zerofill
says '^vm 1: 16.0 MiB, 1 vCPU, restored from .*saved.1'
says 'right: 2 of 2'

# Page by page; and saved over what it comes from.
run 0 "$@" --backend thread --fault-way sigbus --workload churn --restore "$saved" --lazy --save "$saved" \
	--json "$scratch/run.json"
says '^vm 0: 16.0 MiB, 1 vCPU, restored as it is touched from .*saved.0'
says 'right: 2 of 2'
grep -q '"faults_source":.*[1-9]' "$scratch/run.json" || fail "no page came when it was touched"
no_rest
[ "$(cat "$scratch/other")" = untouched ] || fail "a link was followed"

# More than the budget can hold, as long as it is only read.
head -c 16777216 /dev/urandom >"$scratch/noise.img"
set -- "$runner" --quiet --vms 1 --mem 16M --seconds 1 --workload scan --backend "$backend"
run 0 "$@" --budget 150% --image "$scratch/noise.img" --save "$saved"
run 0 "$@" --budget 60% --restore "$saved" --lazy
says 'right: 1 of 1'
run 2 "$@" --budget 60% --restore "$saved"
says 'does not hold what is in .*--budget'

# Another VM than the one that was saved. Without a word for --lazy there is none.
# shellcheck disable=SC2086
for lazy in '' --lazy; do
	run 2 "$@" --mem 8M --budget 150% --restore "$saved" $lazy
	says 'of a VM with another --mem than 8.00 MiB'
done
run 2 "$@" --vcpus 2 --budget 150% --restore "$saved"
says 'another number of --vcpus than 2'

# Another byte in the last page, which is the last but the end of 40 bytes: that frame is poisoned, or nothing runs.
at=$(($(wc -c <"$saved.0") - 40 - 100))
byte=$(od -An -tu1 -j "$at" -N 1 "$saved.0")
# shellcheck disable=SC2059 # an octal number, for printf to make a byte of
printf "\\$(printf '%03o' $(((byte + 1) % 256)))" | dd of="$saved.0" bs=1 seek="$at" conv=notrunc status=none
run 1 "$@" --budget 60% --restore "$saved" --lazy --save "$scratch/bad"
says 'vm 0: frame 0xfff .* is POISONED'
[ ! -e "$scratch/bad.0" ] || fail "what is not right was saved"
no_rest
run 2 "$@" --budget 150% --restore "$saved"
says 'is no saved VM, damaged, or cut short'
truncate -s "$at" "$saved.0"
run 2 "$@" --budget 150% --restore "$saved" --lazy
says 'is no saved VM, damaged, or cut short'

# Refused.
run 2 "$@" --restore "$scratch/missing"
says 'missing.0 cannot be opened: No such file'
run 2 "$@" --lazy
says 'lazy needs --restore'
run 2 "$@" --restore "$saved" --image "$scratch/noise.img"
says 'a VM starts with one of them'
run 2 "$@" --save "$scratch/no/such/folder"
says 'save: .* cannot be written: No such file'
