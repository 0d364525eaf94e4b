#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# RUNNER BACKEND FAULT_WAY: short runs that must be right, and damage that must be found.
# shellcheck source-path=SCRIPTDIR source=runner_lib.sh
. "$(dirname "$0")/runner_lib.sh"
backend=$2
way=$3
seed=${VMEM_TEST_SEED:-$(date +%s)}
echo "seed $seed: VMEM_TEST_SEED=$seed repeats it"

need "$backend"
set -- "$runner" --backend "$backend" --fault-way "$way" --quiet --mem 32M --seed "$seed"

# Six tenths of the memory, as in the demo; then every workload.
for seconds in 1 3 9; do
	run 0 "$@" --vms 2 --budget 60% --seconds $seconds --json "$scratch/run.json"
	says 'right: 2 of 2'
	! grep -q '"faults_stored":.*[1-9]' "$scratch/run.json" || break
done
grep -q '"end":.*"right"' "$scratch/run.json" || fail "no JSON"
grep -q '"memory":.*"attached"' "$scratch/run.json" || fail "no VM with attached memory"
grep -q '"memory":.*"allocated"' "$scratch/run.json" || fail "no VM with allocated memory"
grep -q '"faults_stored":.*[1-9]' "$scratch/run.json" || fail "nothing ever came back from the store"

run 0 "$@" --vms 6 --vcpus 2 --budget 70% --seconds 3 --workload mixed
says 'right: 6 of 6'

# An image as long as the VM, and one that is shorter.
head -c 33554432 /dev/urandom >"$scratch/random.img"
head -c 4096 /dev/zero >"$scratch/short.img"
run 0 "$@" --vms 2 --budget 90% --seconds 1 --image "$scratch/random.img" --image "$scratch/short.img"
says 'right: 2 of 2'
says 'random.img: 100.0 % other pages'

# What is stored, and stays, is encoded anew, so fast as was said or not at all.
# recompress NAME [OPTION]...: pages that were, and seconds that it took, to a file of that name.
recompress() {
	out=$scratch/$1.txt
	json=$scratch/$1.json
	numbers=$scratch/$1
	shift
	begun=$(date +%s)
	run 0 "$@" --vms 2 --budget 60% --seconds 4 --workload idle --json "$json"
	elapsed=$(($(date +%s) - begun + 2))
	awk -v elapsed=$elapsed '$1 == "\"manager\":" { total = 1 }
		total && ($1 == "\"pages_zstd\":" || $1 == "\"pages_delta\":") { sum += $2 }
		END { print sum + 0, elapsed }' "$json" >"$numbers"
}
# At the same time: such guests sleep.
(recompress default "$@") &
(recompress slow "$@" --recompress 20) &
(recompress off "$@" --recompress off) &
wait
recompressed() {
	[ -s "$scratch/$1" ] || { cp "$scratch/$1.txt" "$out" && fail "the run with recompression $1"; }
	read -r pages elapsed <"$scratch/$1"
	said="$pages pages were recompressed in $elapsed s"
}
recompressed default
[ "$pages" -gt $((20 * elapsed)) ] || fail "no more than $said"
recompressed slow
[ "$pages" -le $((20 * elapsed)) ] || fail "$said"
recompressed off
[ "$pages" -eq 0 ] || fail "$said"

# The check can fail.
run 1 "$@" --vms 2 --budget 70% --seconds 2 --inject drop-page
frame=$(sed -n 's/^Injected: frame \(0x[0-9a-f]*\) .*/\1/p' "$out")
says "vm 0: WRONG BYTE in frame $frame "
says 'with a wrong byte: 1, .* right: 1 of 2'

# So it can where pages are first overwritten without a look: the damage comes after that, if the time
# is long enough.
run 1 "$@" --vms 1 --mem 128M --budget 70% --seconds 2 --workload zerofill --inject drop-page
says "$(grep -q '^Injected' "$out" && echo 'WRONG BYTE' || echo 'Nothing was dropped')"

# A stored page whose bytes changed: that frame is poisoned, nothing else.
run 1 "$@" --vms 2 --budget 70% --seconds 2 --inject corrupt-page
frame=$(sed -n 's/^Injected: a bit of frame \(0x[0-9a-f]*\) .*/\1/p' "$out")
says "vm 0: frame $frame .* is POISONED: .*checksum"
says 'with a wrong byte: 0, with a poisoned page: 1, .* right: 1 of 2'
