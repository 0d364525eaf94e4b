#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# RUNNER BACKEND: VMs give pages by the balloon protocol and take them back, and every byte of theirs is right.
# shellcheck source-path=SCRIPTDIR source=runner_lib.sh
. "$(dirname "$0")/runner_lib.sh"
# shellcheck source-path=SCRIPTDIR source=runner_balloon_lib.sh
. "$(dirname "$0")/runner_balloon_lib.sh"
backend=$2
seed=${VMEM_TEST_SEED:-$(date +%s)}
echo "seed $seed: VMEM_TEST_SEED=$seed repeats it"
need "$backend"
set -- "$runner" --backend "$backend" --quiet --mem 16M --seed "$seed" --json "$json"

# both_ways VMS COMMAND...: longer, where the machine is so busy that a guest has not done both in time.
both_ways() {
	vms=$1
	shift
	for seconds in 1 4 16; do
		run 0 "$@" --vms "$vms" --seconds $seconds
		says "right: $vms of $vms"
		[ "$(sum 'done')" -lt $((2 * vms)) ] || break
	done
	is 'done' $((2 * vms))
}

half=$((8 << 20))
both_ways 2 "$@" --budget 70% --balloon 50%
no_fault_of_the_guest
is most_bytes $((2 * half))
is returned_bytes $((2 * half))
is bytes 0
is guest_total_bytes $((2 * 16 << 20))
at_least released_bytes 1048576
at_least pages_verified 2048
says "vm 1: balloon: asked for 8.00 MiB, given 8.00 MiB"

# Several vCPUs own the pages that the first one's driver takes; every workload; in ranges.
both_ways 6 "$@" --vcpus 2 --budget 70% --balloon 40% --balloon-ranges --workload mixed
no_fault_of_the_guest
grep -q '"balloon_unit":.*"range"' "$json" || fail "not in ranges"

# What is in the balloon takes no memory, and what is outside it is right. No faster than was said.
for seconds in 1 4 16; do
	run 0 "$@" --vms 1 --budget 120% --balloon 50% --balloon-keep --balloon-rate 16M --seconds $seconds \
		--save "$scratch/saved"
	[ "$(sum most_bytes)" -lt $half ] || break
done
says 'right: 1 of 1'
is most_bytes $half
is returned_bytes 0
at_least pages_left_out 2048
at_least since_asked_ns 490000000
held=$(($(sum resident_bytes) + $(sum staged_bytes) + $(sum stored_bytes)))
# Beside a page that faults, absent ones come, too, as zeros; a few of them may be in the balloon.
[ $held -le $((half + half / 8)) ] || fail "$held bytes are held of a VM of 16 MiB that gave 8"

# Saved with a balloon, restored without or with another: those pages hold anything until they are written.
run 0 "$@" --vms 1 --budget 120% --seconds 1 --restore "$scratch/saved"
says 'right: 1 of 1'
both_ways 1 "$@" --budget 120% --balloon 25% --restore "$scratch/saved" --lazy

# Pages that are pinned, that are not there, and twice the same: counted and left alone. So are registers and rings full
# of anything, before that.
both_bad() {
	run 0 "$@" --vms 2 --budget 80% --balloon 30% --seconds $seconds --inject bad-balloon
	says 'right: 2 of 2'
	[ "$(sum outside)" -gt 0 ] && [ "$(sum inflated_twice)" -gt 0 ] && [ "$(sum pinned_bytes)" -gt 0 ]
}
resets_and_bad_buffers() {
	at_least resets 100
	at_least bad_buffers 10
	at_least late_writes 10
}
seconds=1
until both_bad "$@"; do
	[ $seconds -le 16 ] || fail "the guests did nothing wrong"
	seconds=$((seconds * 4))
done
resets_and_bad_buffers

# Rings that are always full, and notifications without end: the others work, time ends it, and so does Ctrl-C.
for seconds in 1 4 16; do
	run 0 "$@" --vms 2 --vcpus 2 --budget 80% --balloon 30% --balloon-ranges --seconds $seconds --inject flood-balloon
	[ "$(sum not_inflated)" -eq 0 ] || break
done
says 'right: 2 of 2'
at_least not_inflated 1
start "$scratch/flood.txt" "$@" --vms 2 --vcpus 2 --budget 80% --balloon 30% --seconds 600 --inject flood-balloon
wait_for 'The VMs run'
kill -INT "$pid"
ended 130

# Ctrl-C while it fills.
start "$scratch/stopped.txt" "$@" --vms 2 --budget 80% --balloon 50% --balloon-rate 1M --seconds 600
wait_for 'The VMs run'
kill -INT "$pid"
ended 130
says 'balloon: asked for 8.00 MiB'

run 2 "$@" --balloon 91%
says 'up to 90%'
run 2 "$@" --balloon-keep
says 'needs --balloon'
run 2 "$@" --inject bad-balloon
says 'needs --balloon'
run 2 "$@" --balloon 10% --balloon-rate 1
says 'at least 4K'
