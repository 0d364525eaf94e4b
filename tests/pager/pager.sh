#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# PAGER CLIENT: VMMs hand their memory over, right and wrong; Ctrl-C leaves those that live whole.
# shellcheck source=tests/pager/pager_common.sh
. "$(dirname "$0")/pager_common.sh"

"$pager" --help | grep -q -- --memory || fail "no help"
status=0
"$pager" --socket "$socket" >"$log" 2>&1 || status=$?
[ $status -eq 2 ] || fail "exit status $status without --memory"
status=0
"$pager" --socket "$socket" --memory "$scratch/none" >"$log" 2>&1 || status=$?
[ $status -eq 1 ] || fail "exit status $status without a memory file"

head -c 8388608 /dev/urandom >"$memory"
start_pager --json "$scratch/json"

status=0
"$client" "$socket" "$memory" good >"$scratch/good.txt" 2>&1 || status=$?
[ $status -ne 77 ] || { echo "no userfaultfd"; exit 77; }
[ $status -eq 0 ] || fail "a VMM has wrong bytes"
wait_for "$log" 'pages from the file'

for how in garbage huge nothing two other beyond; do
	"$client" "$socket" "$memory" $how >"$scratch/wrong.txt" 2>&1 || fail "$how: not sent"
done
wait_for "$log" 'no JSON'
wait_for "$log" 'huge pages cannot be served'
wait_for "$log" 'no descriptor came'
wait_for "$log" 'more descriptors than it says'
wait_for "$log" 'an argument is out of its range\|not served: .*argument'
wait_for "$log" 'not in the memory file'

# One that lives when the pager is ended has all it needs.
mkfifo "$scratch/go"
"$client" "$socket" "$memory" stay <"$scratch/go" >"$scratch/stay.txt" 2>&1 &
vmm=$!
pids="$pids $vmm"
exec 3>"$scratch/go"
wait_for "$scratch/stay.txt" waiting
kill -INT $server
status=0
wait $server || status=$?
pids=$vmm # what has been waited for may be somebody else by now
[ $status -eq 0 ] || fail "exit status $status after Ctrl-C"
[ ! -e "$socket" ] || fail "the socket stays"
echo >&3
status=0
wait $vmm || status=$?
pids=
[ $status -eq 0 ] || fail "a VMM is not whole without its pager"
grep -q 'all right' "$scratch/stay.txt" || fail "not all right"
grep -q '"pages_from_file"' "$scratch/json" || fail "no JSON"
