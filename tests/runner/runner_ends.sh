#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# RUNNER OUTSIDE: Ctrl-C ends it cleanly, at any time; kill -9 leaves nothing behind.
# shellcheck source-path=SCRIPTDIR source=runner_lib.sh
. "$(dirname "$0")/runner_lib.sh"
outside=$2
log=$scratch/log.txt
mkdir "$scratch/empty"
cd "$scratch/empty"
backend='--backend thread'
if { true <>/dev/kvm; } 2>/dev/null; then
	backend=
fi

# start COMMAND...: in the background; $pid is its process.
start() {
	: >"$log"
	"$@" >"$log" 2>&1 &
	pid=$!
}

# ended STATUS: wait for it.
ended() {
	status=0
	wait "$pid" || status=$?
	cp "$log" "$out"
	[ "$status" -eq "$1" ] || fail "exit status $status instead of $1"
}

cgroups() {
	find /sys/fs/cgroup -maxdepth 2 -name "vmem-outside-$1" 2>/dev/null
}

# $backend may be nothing.
# shellcheck disable=SC2086
set -- "$runner" $backend --quiet --vms 2 --mem 64M --budget 70% --seconds 300

# Ctrl-C while the guests run, each kind of them.
start "$@" --workload zipf,idle
wait_for "$log" 'The VMs run' "$pid"
kill -INT "$pid"
ended 130
says 'Interrupted'
says '^total: '
says 'with a wrong byte: 0, .* stopped early: 2'

# While images are loaded.
start "$@" --mem 1G
wait_for "$log" 'in a budget of' "$pid"
kill -TERM "$pid"
ended 130

# A wrong byte found before counts more.
start "$@" --seconds 8 --inject drop-page
wait_for "$log" 'WRONG BYTE' "$pid"
kill -INT "$pid"
ended 1

# kill -9: no file, no process.
start "$@" --json "$scratch/empty/never.json"
wait_for "$log" 'The VMs run' "$pid"
kill -KILL "$pid"
ended 137
[ -z "$(ls -A "$scratch/empty")" ] || fail "files were left behind"
[ ! -e "/proc/$pid" ] || fail "the process is still there"

# kill -9 of what is measured: its cgroup goes, too. (Without root there is none, and Pss is measured.)
start "$outside" "$@"
wait_for "$log" 'The VMs run' "$pid"
child=$(cat "/proc/$pid/task/$pid/children")
had=$(cgroups "$pid")
if [ "$(id -u)" -eq 0 ] && grep -q 'cgroup.*memory' /proc/self/mounts && [ -z "$had" ]; then
	fail "it is not measured in a cgroup"
fi
# shellcheck disable=SC2086
kill -KILL $child
ended 137
says 'physical memory from outside'
[ -z "$(cgroups "$pid")" ] || fail "the cgroup was left behind"

# SIGTERM is passed on.
start "$outside" "$@"
wait_for "$log" 'The VMs run' "$pid"
kill -TERM "$pid"
ended 130
says '^total: '
[ -z "$(cgroups "$pid")" ] || fail "the cgroup was left behind"

# It measures, and compares with the budget: the program itself is above it, a little.
run 0 "$outside" --json x.json --tolerance 400 "$@" --seconds 1 --json x.json
says ': held$'
grep -q '"held":.*true' x.json || fail "the measure is not in the JSON file"
peak=$(sed -n 's/.*"peak_bytes":[^0-9]*\([0-9]*\).*/\1/p' x.json)
[ "$peak" -gt 16777216 ] || fail "a peak of $peak bytes for 128 MiB of guests"
run 1 "$outside" --json x.json --tolerance 0 "$@" --budget 40M --vms 1 --seconds 1 --json x.json
says ': EXCEEDED$'
