# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# For the tests of the runner's balloon; to be sourced behind runner_lib.sh. Numbers are of the JSON object in $json.

# sum FIELD: over all VMs.
# shellcheck disable=SC2154 # $json is set there
sum() {
	awk -v field="\"$1\":" '$1 == "\"manager\":" { exit } $1 == field { sum += $2 } END { printf "%.0f\n", sum }' "$json"
}

# is FIELD NUMBER
is() {
	[ "$(sum "$1")" -eq "$2" ] || fail "$1 is $(sum "$1") instead of $2"
}

at_least() {
	[ "$(sum "$1")" -ge "$2" ] || fail "$1 is $(sum "$1"), less than $2"
}

no_fault_of_the_guest() {
	for field in outside inflated_twice not_inflated free_inflated malformed unexpected late_writes bad_buffers; do
		is $field 0
	done
}
