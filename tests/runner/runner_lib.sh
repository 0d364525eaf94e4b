# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# For the tests of the runner; to be sourced, with the path of the runner in $1.
set -eu
# shellcheck disable=SC2034 # used there
runner=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
out=$scratch/out.txt

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

# Wait until a file has a line with this in it; the process that writes it must live.
wait_for() {
	while ! grep -q -e "$2" "$1"; do
		kill -0 "$3" 2>/dev/null || fail "process $3 ended before it said: $2"
		sleep 0.05
	done
}
