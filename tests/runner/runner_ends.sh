#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# RUNNER OUTSIDE: Ctrl-C ends it cleanly, at any time; kill -9 leaves nothing behind.
# shellcheck source-path=SCRIPTDIR source=runner_lib.sh
. "$(dirname "$0")/runner_lib.sh"
outside=$2
log=$scratch/log.txt
setup=$(cd "$(dirname "$0")/../support" && pwd)/setup.sh
find_backend
mkdir "$scratch/empty"
cd "$scratch/empty"

# In which folders vmem-outside can make a cgroup: those that count memory, if that is allowed here.
hierarchies() {
	awk '$3 == "cgroup" && $4 ~ /(^|,)memory(,|$)/ || $3 == "cgroup2" { print $2 }' /proc/self/mounts |
		while read -r root; do
			mkdir "$root/vmem-test-$$" 2>/dev/null || continue
			! ls "$root/vmem-test-$$/memory.stat" >/dev/null 2>&1 || echo "$root"
			rmdir "$root/vmem-test-$$"
		done
}

cgroups() {
	for root in $roots; do
		find "$root" -maxdepth 1 -name "vmem-outside-$1"
	done
}

# measured COMMAND...: in the background, below vmem-outside. There a shell lets SIGQUIT be ignored.
measured() {
	start "$log" env --default-signal=QUIT "$outside" "$@"
	wait_for 'The VMs run'
	outside_pid=$pid
	[ -z "$roots" ] || [ -n "$(cgroups "$pid")" ] || fail "it is not measured in a cgroup"
}

no_cgroup() {
	[ -z "$(cgroups "$outside_pid")" ] || fail "the cgroup was left behind"
}

set -- "$runner" --backend "$backend" --quiet --vms 2 --mem 64M --budget 70% --seconds 300

# Ctrl-C while the guests run, each kind of them.
start "$log" "$@" --workload zipf,idle
wait_for 'The VMs run'
kill -INT "$pid"
ended 130
says 'Interrupted'
says '^total: '
says 'with a wrong byte: 0, .* stopped early: 2'

# In whatever it does: faults that are served where they happen.
for _ in 1 2 3; do
	start "$log" "$@" --backend thread --fault-way sigbus --vcpus 4 --skew 0
	wait_for 'The VMs run'
	kill -INT "$pid"
	ended 130
	says 'with a wrong byte: 0, .* stopped early: 2'
done

# Where there is no room left, and everybody waits for some: what is written does not compress as well
# as the zeros before.
head -c 4096 /dev/zero >"$scratch/zero.img"
for way in "$backend thread" 'thread sigbus'; do
	start "$log" "$runner" --backend "${way% *}" --fault-way "${way#* }" --vms 2 --mem 64M --budget 7M \
		--seconds 300 --skew 0 --writes 100 --image "$scratch/zero.img"
	wait_for 'STUCK'
	kill -INT "$pid"
	ended 130
	says 'with a wrong byte: 0, .* stopped early: 2'
done

# While images are loaded.
start "$log" "$@" --mem 1G
wait_for 'in a budget of'
kill -TERM "$pid"
ended 130
says '^Until then .* of 2.00 GiB were loaded; no VM has run'

# A wrong byte found before counts more.
start "$log" "$@" --seconds 8 --inject drop-page
wait_for 'WRONG BYTE'
kill -INT "$pid"
ended 1

# kill -9: no file, no process.
start "$log" "$@" --json "$scratch/empty/never.json"
wait_for 'The VMs run'
was=$pid
kill -KILL "$pid"
ended 137
[ -z "$(ls -A "$scratch/empty")" ] || fail "files were left behind"
[ ! -e "/proc/$was" ] || fail "the process is still there"

# From outside. Without the right to make a cgroup, Pss is measured.
roots=$(hierarchies)
[ -n "$roots" ] || echo "left out, what becomes of cgroups: none can be made here"

# kill -9 of what is measured.
measured "$@"
kill -KILL "$(cat "/proc/$pid/task/$pid/children")"
ended 137
says 'physical memory from outside'
no_cgroup

# Signals are passed on.
measured "$@"
kill -TERM "$pid"
ended 130
says '^total: '
no_cgroup
for signal in 1 3; do # SIGHUP, SIGQUIT
	measured "$@"
	kill -$signal "$pid"
	ended $((128 + signal))
	no_cgroup
done

# kill -9 of vmem-outside: what is measured ends, and the next one removes the cgroup.
measured "$@"
child=$(cat "/proc/$pid/task/$pid/children")
kill -KILL "$pid"
ended 137
within 600 has_ended "$child" || fail "what was measured runs on"
run 0 "$outside" true
no_cgroup

# The scripts that run them leave no folder behind, whatever ends them.
for signal in 1 2 3 15; do
	run $((128 + signal)) env --default-signal \
		sh -c ". '$setup' && vmem_scratch '$scratch/XXXXXX' && echo \"\$scratch\" && kill -$signal \$\$ && sleep 60"
	folder=$(cat "$out")
	if [ -z "$folder" ] || [ -e "$folder" ]; then
		fail "a folder was left behind: $folder"
	fi
done

# It measures, and compares with the budget: the program itself is above it, a little.
run 0 "$outside" --json x.json --tolerance 400 "$@" --seconds 1 --json x.json
says ': held$'
grep -q '"held":.*true' x.json || fail "the measure is not in the JSON file"
peak=$(sed -n 's/.*"peak_bytes":[^0-9]*\([0-9]*\).*/\1/p' x.json)
[ "$peak" -gt 16777216 ] || fail "a peak of $peak bytes for 128 MiB of guests"
one_byte='echo "{\"options\":{\"budget_bytes\":1}}" >x.json; sleep 0.3'
run 1 "$outside" --json x.json sh -c "$one_byte"
says ': EXCEEDED$'

# What cannot be measured has not held. Without /proc there is neither cgroup nor Pss.
if unshare -m true 2>/dev/null; then
	hidden='mount -t tmpfs none /proc; exec "$@"'
	run 125 unshare -m sh -c "$hidden" sh "$outside" --json x.json sh -c "$one_byte"
	says 'could not be read'
else
	echo "left out, what cannot be measured: needs root, to hide /proc"
fi
