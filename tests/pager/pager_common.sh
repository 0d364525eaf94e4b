# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034 # variables are for who reads this in
# What tests of vmem-pager share. PAGER CLIENT are the arguments of the test.
set -eu
pager=$1
client=$2
scratch=$(mktemp -d)
pids=
clean() {
	for pid in $pids; do
		kill -9 "$pid" 2>/dev/null || :
	done
	rm -rf "$scratch"
}
trap clean EXIT
memory=$scratch/memory socket=$scratch/socket log=$scratch/log

fail() {
	echo "$*" >&2
	cat "$scratch"/*.txt "$log" >&2 2>/dev/null || :
	exit 1
}

# over PID: it has been waited for, and may be somebody else by now; its exit status is $status
over() {
	status=0
	wait "$1" 2>/dev/null || status=$?
	left=
	for pid in $pids; do
		[ "$pid" = "$1" ] || left="$left $pid"
	done
	pids=$left
}

# until_true WHAT COMMAND...: waits for it
until_true() {
	what=$1
	shift
	n=0
	until "$@"; do
		n=$((n + 1))
		[ $n -lt 600 ] || fail "not in time: $what"
		sleep 0.1
	done
}

# wait_for FILE PATTERN
wait_for() {
	until_true "\"$2\"" grep -qs "$2" "$1"
}

# has_said FILE WORD PID WHY-NOT: whether it has; it may end before only for want of what this machine lacks
has_said() {
	grep -q "$2" "$1" && return 0
	kill -0 "$3" 2>/dev/null && return 1
	grep -q "$4" "$1" && { cat "$1"; exit 77; }
	fail "it ended before it said \"$2\""
}

# start_pager OPTION...: as $server
start_pager() {
	: >"$log" # what the last one said is no answer
	"$pager" --socket "$socket" --memory "$memory" "$@" >"$log" 2>&1 &
	server=$!
	pids="$pids $server"
	until_true "listening" has_said "$log" listening $server 'not permitted\|no such facility'
}

# --- VMMs whose memory is in files: twice what the pager may hold ---

memory_bytes=25165824
budget=12582912

# Bytes of blocks in the files of process $vmm, looked at from outside.
blocks() {
	sum=0
	# shellcheck disable=SC2013 # numbers
	for fd in $(sed -n 's/^memfds //p' "$1"); do
		n=$(stat -L -c %b "/proc/$vmm/fd/$fd") || fail "no file to look at"
		sum=$((sum + n * 512))
	done
	echo $sum
}

within_budget() {
	[ "$(blocks "$1")" -le $budget ]
}

# start_vmm HOW: as $vmm; what it says is in HOW.txt, and a line to descriptor 3 lets it go on.
start_vmm() {
	mkfifo "$scratch/$1.go"
	"$client" "$socket" "$memory" "$1" <"$scratch/$1.go" >"$scratch/$1.txt" 2>&1 &
	vmm=$!
	pids="$pids $vmm"
	exec 3>"$scratch/$1.go"
	until_true "all is touched" has_said "$scratch/$1.txt" touched $vmm 'no userfaultfd'
}

# go_on HOW WHAT: it ends well, and has said so.
go_on() {
	echo >&3
	exec 3>&-
	over "$vmm"
	[ $status -eq 0 ] || fail "$1: a VMM failed"
	grep -q "$2" "$scratch/$1.txt" || fail "$1: not $2"
}
