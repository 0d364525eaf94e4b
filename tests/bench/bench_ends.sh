#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# A bench that is killed leaves the machine as it was: swap, page-cluster, zswap, zram, KSM, cgroups and files.
# Needs root, zram and memory cgroups. bench_ends.sh BENCH_HELD BENCH_STORE BENCH_SCAN BENCH_SWAP
set -eu
held=$1
store=$2
scan=$3
swap=$4
ksm=/sys/kernel/mm/ksm
lock=/tmp/vmem-bench.lock # of the harness: held until the last process of a bench has ended
scratch=$(mktemp -d)
out=$scratch/out.txt
export TMPDIR="$scratch/files" # of benches
mkdir "$TMPDIR"
pid=

clean_up() {
	[ -z "$pid" ] || kill -TERM "$pid" 2>/dev/null || true
	rm -rf "$scratch"
}
trap clean_up EXIT

fail() {
	echo "FAILED: $*"
	sed 's/^/    /' "$out"
	exit 1
}

skip() {
	echo "skipped: $*"
	exit 77
}

# All that benches change. The use of other swap changes by itself.
machine() {
	awk '{ print $1, $5 }' /proc/swaps
	for file in /proc/sys/vm/page-cluster /sys/module/zswap/parameters/enabled \
		/sys/block/zram0/disksize /sys/block/zram0/comp_algorithm \
		/sys/fs/cgroup/cgroup.subtree_control; do
		[ ! -e "$file" ] || echo "$file $(cat "$file")"
	done
	# Settings are what can be written.
	[ ! -d $ksm ] || find $ksm \( -type f -perm -u+w -o -name pages_shared \) -exec grep -H . {} + | sort
	find /sys/fs/cgroup -maxdepth 2 -name 'vmem-bench-*'
	open_files
	find "$TMPDIR" -mindepth 1
}

# That have no name any more, too.
open_files() {
	find /proc/[0-9]*/fd -lname "$TMPDIR/*" 2>/dev/null || true
}

a_file_is_open() {
	[ -n "$(open_files)" ]
}

swap_is_on() {
	grep -q '^/dev/zram0 ' /proc/swaps
}

ksm_runs() {
	[ "$(cat $ksm/run)" -eq 1 ]
}

says_held() {
	grep -qx "all is held" "$out"
}

# ends NUMBER:SIGNAL CONDITION PROGRAM...: once the condition holds, it is killed.
ends() {
	signal=${1#*:}
	number=${1%:*}
	condition=$2
	shift 2
	machine >"$scratch/before.txt"
	# A shell starts what is in the background with some signals ignored.
	env --default-signal prlimit --core=0 "$@" >"$out" 2>&1 &
	pid=$!
	until "$condition"; do
		if ! kill -0 "$pid" 2>/dev/null; then
			status=0
			wait "$pid" || status=$?
			pid=
			[ "$status" -ne 77 ] || skip "$(sed -n 's/^skipped: //p' "$out")"
			fail "$1 ended, $status, before it could be killed"
		fi
		sleep 0.01
	done
	machine >"$scratch/during.txt"
	! cmp -s "$scratch/before.txt" "$scratch/during.txt" || fail "$1 changed nothing"
	kill -s "$signal" "$pid"
	status=0
	wait "$pid" || status=$?
	pid=
	[ "$status" -eq $((128 + number)) ] || fail "exit status $status after $signal"
	flock -w 60 "$lock" true || fail "$1 did not end after $signal"
	machine >"$scratch/after.txt"
	diff "$scratch/before.txt" "$scratch/after.txt" ||
		fail "$1, killed by $signal, left the machine changed: see above"
}

[ "$(id -u)" -eq 0 ] || skip "swap on zram and memory cgroups need root"
[ ! -e "$lock" ] || flock -n "$lock" true || skip "another bench is running"

for signal in 1:HUP 2:INT 3:QUIT 9:KILL 15:TERM; do
	ends $signal says_held "$held"
done
for signal in 3:QUIT 9:KILL 15:TERM; do
	ends $signal swap_is_on "$store" --quick
done
for signal in 9:KILL 15:TERM; do
	ends $signal a_file_is_open "$swap" --quick
done
if [ ! -d $ksm ] || ksm_runs; then
	echo 'left out, a scan that is killed: there is no KSM, or somebody else uses it'
else
	for signal in 9:KILL 15:TERM; do
		ends $signal ksm_runs "$scan" --quick
	done
fi
echo "left as it was found"
