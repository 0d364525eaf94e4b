#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# RUNNER: a guest in a tenth of its memory, the rest on an NBD server; one that goes away takes pages along, but nobody
# reads a wrong byte, and nobody waits for ever.
# shellcheck source-path=SCRIPTDIR source=runner_lib.sh
. "$(dirname "$0")/runner_lib.sh"
find_backend
command -v nbdkit >/dev/null || skip 'nbdkit is not installed'
nbdkit memory --version >/dev/null 2>&1 || skip 'nbdkit has no memory plugin'
ldd "$runner" | grep -q libvmem-nbd || skip 'built without libvmem-nbd'
seed=${VMEM_TEST_SEED:-$(date +%s)}
echo "seed $seed: VMEM_TEST_SEED=$seed repeats it"
socket=$scratch/nbd.sock
server=
trap '[ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null || true
	[ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
	rm -rf "$scratch"' EXIT

# serve [OPTION]...: a server of 512 MiB, and wait for it.
serve() {
	rm -f "$socket"
	nbdkit -f -U "$socket" "$@" memory 512M &
	server=$!
	within 600 [ -S "$socket" ] || fail "nbdkit does not listen"
}

stop_server() {
	kill -KILL "$server" 2>/dev/null || true
	wait "$server" 2>/dev/null || true
	server=
}

set -- "$runner" --backend "$backend" --vms 1 --mem 64M --budget 15% --seed "$seed" \
	--swap "nbd+unix:///?socket=$socket"
secrecy=enciphered
enciphers || {
	set -- "$@" --swap-plain
	secrecy='plain text'
}

serve -r
run 2 "$@" --quiet
says 'lets it only be read'
stop_server

serve
run 0 "$@" --seconds 3
says "socket=.*: 512 MiB, $secrecy"
says 'right: 1 of 1'
says '^swap: .* written, .* read by [1-9].* loads, 0 lost'

# Killed in the middle: pages are there that the guest will want.
log=$scratch/log.txt
start "$log" "$@" --seconds 12 --workload scan
wait_for '^swap .* loads [1-9]'
stop_server
ended 1
! grep -q 'WRONG BYTE' "$out" || fail "a wrong byte"
says 'WARNING: pages could not be read back from swap'
says 'vm 0: frame .* is POISONED'
says '^swap: .* [1-9][0-9]* lost'
