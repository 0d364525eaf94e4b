# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# For the tests of the runner; to be sourced, with the path of the runner in $1.
set -eu
# shellcheck source=../support/setup.sh
. "$(dirname "$0")/../support/setup.sh"
# shellcheck disable=SC2034 # used there
runner=$1
pid= # of a process in the background
vmem_scratch "${TMPDIR:-/tmp}/vmem.XXXXXX"
trap '[ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null || true; rm -rf "$scratch"' EXIT
out=$scratch/out.txt
json=$scratch/run.json # for those that ask with swapped

fail() {
	echo "FAILED: $*"
	[ ! -s "$out" ] || sed 's/^/    /' "$out"
	exit 1
}

skip() {
	echo "skipped: $*"
	exit 77
}

# run STATUS COMMAND...: it must end with that status; what it says goes to $out.
run() {
	wanted=$1
	shift
	status=0
	"$@" >"$out" 2>&1 || status=$?
	[ "$status" -eq "$wanted" ] || fail "exit status $status instead of $wanted: $*"
}

# What was said must contain this.
says() {
	grep -q -e "$1" "$out" || fail "this was not said: $1"
}

# may BACKEND: whether this machine and this user can run the VMs so; else $why says why not.
may() {
	"$runner" --backend "$1" --quiet --vms 1 --mem 4M --budget 16M --seconds 1 >"$out" 2>&1 &&
		return
	why=$(grep -o -e 'No KVM: .*' -e 'This process may not use userfaultfd' \
		-e 'may only use userfaultfd for faults of user mode' \
		-e 'This kernel has no userfaultfd' "$out") || fail "$1 does not work, for no good reason"
	return 1
}

# need BACKEND: skips the test where the VMs cannot run so.
need() {
	may "$1" || skip "$why"
}

# Sets $backend to what the VMs can run with here.
find_backend() {
	# shellcheck disable=SC2034 # used there
	if may kvm; then
		backend=kvm
	else
		need thread
		backend=thread
	fi
}

# need_room MEBIBYTES: skips the test where the file system of the scratch folder has less.
need_room() {
	room=$(df -Pk "$scratch" | awk 'NR == 2 { print int($4 / 1024) }')
	[ "$room" -ge "$1" ] || skip "$scratch has room for $room MiB; set TMPDIR to a folder with $1 MiB"
}

# enciphers: whether the runner can write to devices that outlive it other than in plain text.
enciphers() {
	ldd "$runner" | grep -q libvmem-crypto
}

# start LOG COMMAND...: in the background; $pid is its process.
start() {
	log=$1
	shift
	: >"$log"
	"$@" >"$log" 2>&1 &
	pid=$!
}

# within TENTHS COMMAND...: repeats it until it succeeds; returns 1 if it has not after so long.
within() {
	tenths=$1
	shift
	until "$@"; do
		[ "$tenths" -gt 0 ] || return 1
		tenths=$((tenths - 1))
		sleep 0.1
	done
}

has_said_or_ended() {
	grep -q -e "$1" "$log" || ! kill -0 "$pid" 2>/dev/null
}

# Wait until what was started has said this; it must live.
wait_for() {
	within 600 has_said_or_ended "$1" || { cp "$log" "$out" && fail "for a minute it did not say: $1"; }
	grep -q -e "$1" "$log" || { cp "$log" "$out" && fail "it ended before it said: $1"; }
}

# Whether the process is gone: the one that was started, or another.
has_ended() {
	! kill -0 "${1:-$pid}" 2>/dev/null
}

# ended STATUS: what was started must end with it.
ended() {
	within 600 has_ended || { cp "$log" "$out" && fail "for a minute it did not end"; }
	status=0
	wait "$pid" || status=$?
	pid=
	cp "$log" "$out"
	[ "$status" -eq "$1" ] || fail "exit status $status instead of $1"
}

# swapped FIELD: a number of all devices, from the JSON object in $json.
swapped() {
	awk -v field="\"$1\":" '$1 == "\"swap\":" && /{/ { inside = 1 }
		inside && $1 == field { print $2 + 0; exit }' "$json"
}

# of_device N FIELD: the same of the N-th one.
of_device() {
	awk -v n="$1" -v field="\"$2\":" '$1 == "\"path\":" { device++ }
		device == n && $1 == field { print $2 + 0; exit }' "$json"
}

# was_used: much was written and read, nothing lost.
was_used() {
	[ "$(swapped written_bytes)" -gt 1048576 ] || fail "only $(swapped written_bytes) bytes were written"
	[ "$(swapped loads)" -gt 0 ] || fail "nothing was read back"
	[ "$(swapped lost)" -eq 0 ] || fail "$(swapped lost) pages were lost"
}
