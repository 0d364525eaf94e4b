#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# PAGER CLIENT: VMMs whose memory is in files write what does not compress: it goes to swap devices, and no byte of it is wrong.
# shellcheck source=tests/pager/pager_common.sh
. "$(dirname "$0")/pager_common.sh"

# refused MESSAGE OPTION...: before anything is served
refused() {
	message=$1
	shift
	status=0
	"$pager" --socket "$socket.no" --memory "$0" "$@" >"$scratch/no.txt" 2>&1 || status=$?
	grep -q -e "$message" "$scratch/no.txt" || fail "this was not said: $message"
	[ $status -eq 2 ] || fail "exit status $status instead of 2"
	[ ! -e "$socket.no" ] || fail "it listens"
}

# swapped FIELD: of all devices, from the JSON object
swapped() {
	awk -v field="\"$1\":" '$1 == "\"swap\":" { inside = 1 }
		inside && $1 == field { print $2 + 0; exit }' "$scratch/json"
}

refused 'swap needs --budget' --swap "$scratch:64M"
refused 'swap-plain needs --swap' --budget 12M --swap-plain
refused 'does not exist' --budget 12M --swap "$scratch/missing"

head -c $memory_bytes /dev/urandom >"$memory"
start_pager --budget 12M --swap "$scratch:64M" --json "$scratch/json"
grep -q '^swap .*:64M: 64.0 MiB, gone with this process' "$log" || fail "what becomes of swap was not said"
refused 'Give more with --budget' --budget 4M --swap "$scratch:64M"

# More than the budget is written, and twice.
start_vmm noise
until_true "the files within the budget" within_budget "$scratch/noise.txt"
go_on noise 'all right'
rm "$scratch/noise.txt" "$scratch/noise.go"

# The pager ends while one lives: what is on the device comes back, too.
start_vmm noise
kill -INT "$server"
over "$server"
[ $status -eq 0 ] || fail "exit status $status after Ctrl-C"
[ "$(blocks "$scratch/noise.txt")" -eq $memory_bytes ] || fail "not all was brought back"
go_on noise 'all right'

grep -q '^swap: .* written, .* read by .* loads, 0 lost' "$log" || fail "no totals of swap"
[ "$(swapped written_bytes)" -gt 1048576 ] || fail "only $(swapped written_bytes) bytes were written"
[ "$(swapped loads)" -gt 0 ] || fail "nothing was read back"
[ "$(swapped lost)" -eq 0 ] || fail "$(swapped lost) pages were lost"
