#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# RUNNER: a guest in a tenth of its memory, with swap devices: every page is right, and what should be on them is.
# shellcheck source-path=SCRIPTDIR source=runner_lib.sh
. "$(dirname "$0")/runner_lib.sh"
find_backend
need_room 512
seed=${VMEM_TEST_SEED:-$(date +%s)}
echo "seed $seed: VMEM_TEST_SEED=$seed repeats it"

set -- "$runner" --backend "$backend" --vms 1 --seed "$seed" --json "$json"

# Memory that does not fit, whatever is done to it.
run 0 "$@" --mem 128M --budget 10% --seconds 3 --swap "$scratch:512M"
says 'right: 1 of 1'
says 'swap in/s'
says '^swap .*:512M: 512 MiB, gone with this process'
says '^swap: .* written, .* read by .* loads, 0 lost'
was_used
[ "$(find "$scratch" -size +1M)" = "" ] || fail "a file was left behind"

# Pages that tell who can read them: in plain text only if that was asked for. A file is made, and used again.
head -c 12582912 /dev/urandom | base64 -w 2000 |
	awk -v mark=this-is-a-secret-that-nobody-may-read '{ printf "%-2000s%-2095s\n", $0, mark }' |
	head -c 33554432 >"$scratch/secret.img"
set -- "$@" --quiet --mem 32M --budget 30% --image "$scratch/secret.img" --swap "$scratch/file:64M"
if enciphers; then
	run 0 "$@" --seconds 1
	says 'file:64M: 64.0 MiB, enciphered'
	was_used
	! grep -q -a nobody-may-read "$scratch/file" || fail "secrets are on the device"
else
	run 2 "$@" --seconds 1
	says 'it was built without libvmem-crypto'
	echo "left out, a device that is enciphered: built without libvmem-crypto"
fi
run 0 "$@" --seconds 1 --swap-plain --workload scan
says 'file:64M: 64.0 MiB, plain text'
was_used
grep -q -a nobody-may-read "$scratch/file" || fail "the file does not hold what was written"

# What the first device has no room for goes to the second. Where none has room the rest stays in memory, and that is said.
set -- "$runner" --backend "$backend" --quiet --vms 1 --seed "$seed" --json "$json" --mem 32M --seconds 1
run 0 "$@" --budget 25% --swap "$scratch:2M" --swap "$scratch:256M"
says 'right: 1 of 1'
was_used
[ "$(of_device 1 written_bytes)" -gt 0 ] || fail "the first device was not used"
[ "$(of_device 2 written_bytes)" -gt 0 ] || fail "the second device was not used"
run 0 "$@" --budget 80% --swap "$scratch:2M"
says 'right: 1 of 1'
says 'WARNING: no swap device has room'

# What does not compress at all leaves, too.
head -c 33554432 /dev/urandom >"$scratch/noise.img"
run 0 "$@" --budget 25% --image "$scratch/noise.img" --swap "$scratch:256M"
says 'right: 1 of 1'
was_used
