#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# PAGER CLIENT: VMMs hand memory over that is in files: it is kept within the budget, and no byte of it is wrong.
# shellcheck source=tests/pager/pager_common.sh
. "$(dirname "$0")/pager_common.sh"

# end_vmm HOW: it is killed, and its name is free
end_vmm() {
	kill -9 "$vmm"
	over "$vmm"
	exec 3>&-
	rm "$scratch/$1.txt" "$scratch/$1.go"
}

# So much less that pages which were not written are away, too.
well_within_budget() {
	[ "$(blocks "$1")" -le $((budget - 262144)) ]
}

# Ctrl-C, and what is away cannot be read any more: the VM cannot be left alone.
lose_pages() {
	head -c $memory_bytes /dev/urandom >"$memory"
	start_pager --budget 12M
	start_vmm orphan
	until_true "the files within the budget" well_within_budget "$scratch/orphan.txt"
	: >"$memory"
	kill -INT "$server"
	wait_for "$log" 'a second signal leaves them waiting'
	grep -q "process $vmm: not all could be brought in" "$log" || fail "which VM is it?"
	[ ! -e "$socket" ] || fail "the socket stays"
}

is_refused_again() {
	[ "$(grep -c 'memory that overlaps, or is served already' "$log")" -eq 2 ]
}

status=0
"$pager" --socket "$socket" --memory "$0" --budget 1M >"$log" 2>&1 || status=$?
[ $status -eq 2 ] || fail "exit status $status with a budget that is too small"

head -c $memory_bytes /dev/urandom >"$memory"
start_pager --budget 12M --json "$scratch/json"

# Twice what fits, half of it written; the files fall to what fits, and the bytes are right.
start_vmm good
until_true "the files within the budget" within_budget "$scratch/good.txt"
[ "$(blocks "$scratch/good.txt")" -gt 0 ] || fail "its files are empty"
go_on good 'all right'
wait_for "$log" 'pages from the file'

# The same userfaultfd again: refused, and the first goes on.
start_vmm twice
wait_for "$log" 'memory that overlaps, or is served already'
go_on twice 'all right'

# What is not as it must be, and why.
for how in small pipe regular unwritable frozen unsealable read-only huge unaligned overlap hidden fewer more \
	elsewhere events; do
	"$client" "$socket" "$memory" $how >"$scratch/wrong.txt" 2>&1 || fail "$how: not sent"
done
wait_for "$log" 'a memfd that is too small'
wait_for "$log" 'a descriptor that is no memfd'
wait_for "$log" 'a memfd that is sealed against writing'
wait_for "$log" 'a memfd that can shrink'
wait_for "$log" 'not open for reading and writing'
wait_for "$log" 'a memfd_offset that is not at a page'
wait_for "$log" 'two ranges overlap in a memfd'
until_true "the same file refused" is_refused_again
wait_for "$log" 'fewer descriptors than it says'
wait_for "$log" 'more descriptors than it says'
wait_for "$log" 'no mapping of memory at that address'
wait_for "$log" 'features that cannot be served'

# A VMM is killed: its memory goes, and the next one has it.
start_vmm orphan
end_vmm orphan
until_true "the end of process $vmm" grep -q "process $vmm: .* pages from the file" "$log"

# The pager ends while one lives, which goes on by itself.
start_vmm stay
kill -INT "$server"
over "$server"
[ $status -eq 0 ] || fail "exit status $status after Ctrl-C"
[ "$(blocks "$scratch/stay.txt")" -eq $memory_bytes ] || fail "not all was brought back"
go_on stay 'all right'
grep -q '"pages_saved"' "$scratch/json" || fail "no JSON"

# The pager is killed: who misses something waits, and never reads zeros.
start_pager --budget 12M
start_vmm orphan
until_true "the files within the budget" within_budget "$scratch/orphan.txt"
kill -9 "$server"
over "$server"
go_on orphan 'stopped'
rm "$scratch/orphan.txt" "$scratch/orphan.go" "$socket"

# Pages are lost when the pager is to end: it goes on for who needs it, until that has ended, or it is told again.
lose_pages
end_vmm orphan
over "$server"
[ $status -eq 0 ] || fail "exit status $status when all have ended"
lose_pages
kill -INT "$server"
over "$server"
[ $status -eq 1 ] || fail "exit status $status when a VM is left"
end_vmm orphan
