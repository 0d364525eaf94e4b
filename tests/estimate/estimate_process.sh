#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# ESTIMATE VM: the memory of a process gives what its image gives, and it stays as it is.
# shellcheck source-path=SCRIPTDIR source=estimate_lib.sh
. "$(dirname "$0")/estimate_lib.sh"
log=$scratch/log.txt

make a.img 1 zero:100 word:30 letters:200 equal:7 random:300 alike:50 lines:150
make a.img 2 random:200
run 0 "$estimate" --quiet --json "$scratch/image.json" "$scratch/a.img"

# What it says of pages and bytes, without the names and the processor's time.
numbers() {
	grep -v -e '"name"' -e '"kind"' -e '"memory_pages"' -e '"untouched_pages"' -e '_ns"' "$1"
}

same_as_image() {
	numbers "$scratch/image.json" >"$scratch/image.txt"
	numbers "$json" >"$scratch/process.txt"
	diff "$scratch/image.txt" "$scratch/process.txt" >"$out" || fail "$1: not what the image gives"
	has vms memory_pages 2074
	has vms untouched_pages 1037
}

resident() {
	awk '$1 == "VmRSS:" { print $2 }' "/proc/$pid/status"
}

for kind in private shared; do
	start "$log" "$vm" hold "$scratch/a.img" $kind
	wait_for '^at 0x'
	before=$(resident)
	status=0
	"$estimate" --quiet --json "$json" --pid "$pid" >"$out" 2>&1 || status=$?
	if grep -q 'no permission to read its memory.*ptrace_scope' "$out"; then
		[ $status -eq 2 ] || fail "exit status $status without permission"
		skip 'no permission to read the memory of another process'
	fi
	[ $status -eq 0 ] || fail "exit status $status"
	says 'left out are .* never touched'
	same_as_image $kind
	[ "$(resident)" -eq "$before" ] || fail "the process has other memory now than before"

	# By its address, anywhere in it.
	run 0 "$estimate" --quiet --json "$json" --pid "$pid" --mapping "$(awk '{ print $2 }' "$log")"
	same_as_image address
	run 2 "$estimate" --quiet --pid "$pid" --mapping 0x1000
	says 'has no such mapping'
	run 2 "$estimate" --quiet --pid "$pid" --mapping no-such-name
	says 'no-such-name: .* has no such mapping'
	[ $kind = private ] || {
		run 0 "$estimate" --quiet --json "$json" --pid "$pid" --mapping /dev/zero
		same_as_image name
	}

	# With an image beside it all that is not random is equal, and so is what is.
	run 0 "$estimate" --quiet --json "$json" --pid "$pid" "$scratch/a.img"
	has shared equal_across_pages 900
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null || true
	run 2 "$estimate" --quiet --pid "$pid"
	says 'there is no such process'
	pid=
done

# Not ours to read.
if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then
	run 2 setpriv --reuid 65534 --clear-groups "$estimate" --quiet --pid $$
	says 'no permission to read its memory. Run this as root'
else
	echo 'left out, a process of another user: needs root and setpriv'
fi

# It ends while it is read.
make large.img 3 letters:40000
start "$log" "$vm" hold "$scratch/large.img" private
wait_for '^at 0x'
held=$pid
start "$scratch/estimate.txt" "$estimate" --pid "$held" --pid "$held"
wait_for reading
kill -KILL "$held"
wait "$held" 2>/dev/null || true
ended 1
says 'the process has ended while it was read'
