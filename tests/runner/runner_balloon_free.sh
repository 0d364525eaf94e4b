#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# RUNNER BACKEND: VMs report free pages to their balloons, and take pages back when they miss some; every byte is right.
# shellcheck source-path=SCRIPTDIR source=runner_lib.sh
. "$(dirname "$0")/runner_lib.sh"
# shellcheck source-path=SCRIPTDIR source=runner_balloon_lib.sh
. "$(dirname "$0")/runner_balloon_lib.sh"
backend=$2
seed=${VMEM_TEST_SEED:-$(date +%s)}
echo "seed $seed: VMEM_TEST_SEED=$seed repeats it"
need "$backend"
set -- "$runner" --backend "$backend" --mem 16M --seed "$seed" --json "$json" --budget 120%

# until_more FIELD NUMBER COMMAND...: longer, where the machine is so busy that it is less in a second.
until_more() {
	field=$1
	least=$2
	shift 2
	for seconds in 1 4 16; do
		run 0 "$@" --seconds $seconds
		[ "$(sum "$field")" -lt "$least" ] || break
	done
	at_least "$field" "$least"
	no_fault_of_the_guest
}

# What was freed was in use: really released. It is used again meanwhile, by several vCPUs.
until_more reported_released_bytes 1048576 "$@" --vms 2 --vcpus 3 --balloon 25% --balloon-report --workload zipf,hotcold
says 'right: 2 of 2'
for vm in 0 1; do
	reported=$(sed -n "s/^vm $vm: balloon: \(.*\) reported free.*/\1/p" "$out")
	says "^ *$vm .* $reported  *right" # the column of the table
done
[ "$(sum reported_released_bytes)" -le $(($(sum reported) * 4096)) ] || fail "more was released than reported"

# Nobody uses it again: no more is freed than an eighth, and what comes back is free, too; the rest is as it was.
until_more reported 512 "$@" --vms 1 --balloon 25% --balloon-report --workload idle
[ "$(sum pages_verified)" -ge 2048 ] || fail "only $(sum pages_verified) pages are in use"

# Half of memory is asked for, all of it is needed: it comes back too early. Not where that was not agreed on.
until_more leaks 1 "$@" --vms 1 --balloon 50% --balloon-keep --balloon-oom --workload scan
says 'right: 1 of 1'
says 'took pages back that were asked for'
at_least deflated 256
run 0 "$@" --vms 1 --balloon 50% --balloon-keep --workload scan --seconds 1
is leaks 0
is deflated 0
is reported 0

# Free pages that are being reported are not missed: nothing is in the balloon yet, at a page a second.
for try in 1 2 3 4 5; do
	run 0 "$@" --vms 1 --vcpus 3 --balloon 25% --balloon-rate 4K --balloon-keep --balloon-report --balloon-oom \
		--workload zipf --seconds 1 --seed $((seed + try))
	is most_bytes 0
	is missed 0
	[ "$(sum reported)" -lt 512 ] || break
done
at_least reported 512
says 'right: 1 of 1'

run 2 "$@" --balloon-report
says 'needs --balloon'
run 2 "$@" --balloon-oom
says 'needs --balloon'
