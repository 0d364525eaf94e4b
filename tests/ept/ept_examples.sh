#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# The programs of examples/ept: each verifies itself; here are their options, and what they must not accept.
# Usage: ept_examples.sh WALKTHROUGH SHARE PAGEOUT
set -eu
walkthrough=$1 share=$2 pageout=$3

failed() {
	echo "$*" >&2
	exit 1
}

# says PATTERN COMMAND...: it ends well and prints that.
says() {
	pattern=$1
	shift
	output=$("$@") || failed "$* ended with $?"
	echo "$output" | grep -Eq "$pattern" || failed "$* does not say '$pattern': $output"
}

# fails STATUS PATTERN COMMAND...: it ends with that, and says that on stderr.
fails() {
	wanted=$1 pattern=$2
	shift 2
	status=0
	output=$("$@" 2>&1 >/dev/null) || status=$?
	[ "$status" = "$wanted" ] || failed "$* ended with $status"
	echo "$output" | grep -Eq -e "$pattern" || failed "$* does not say '$pattern': $output"
}

# refuses PATTERN COMMAND...: for that reason, with a word of how to use it.
refuses() {
	pattern=$1
	shift
	fails 2 Usage "$@"
	fails 2 "$pattern" "$@"
}

for program in "$walkthrough" "$share" "$pageout"; do
	says Usage "$program" --help
	refuses "unrecognized option '--nothing'" "$program" --nothing
	refuses "^'more' is no option$" "$program" more
done
says '^write firmware .*violation at level 1, qualification 0x1aa$' "$walkthrough"
says '1 GiB -> 0x280000000' "$walkthrough" --levels 5
says '^run firmware .*: 0x1c000fff0' "$walkthrough" --format amd
says '^amd, 5 levels' "$walkthrough" --format amd --levels 5
for levels in 3 4 5; do
	says '^write firmware .*violation at level 1, qualification 0xa$' "$walkthrough" --format vtd --levels $levels
done
says '^vtd, 3 levels' "$walkthrough" --levels 3 --format vtd
refuses "^--format: 'arm' is no format$" "$walkthrough" --format arm
refuses "^--format: '' is no format$" "$walkthrough" --format ''
refuses '^--levels: intel has no tables of 3$' "$walkthrough" --levels 3
refuses '^--levels: amd has no tables of 3$' "$walkthrough" --levels 3 --format amd
for levels in 2 6 44 4x x ' 4' -4 ''; do
	refuses "^--levels: '$levels' is no number from 3 to 5$" "$walkthrough" --levels "$levels"
done
says '^parted: [1-9][0-9]* by a copy, [1-9][0-9]* were the last' "$share"
says 'every byte checked' "$share" --pages 1
says 'every byte checked' "$share" --pages 20000
pages='0 1000001 -1 12x many 4294967297 18446744073709551617'
for number in $pages ''; do
	refuses "^--pages: '$number' is no number from 1 to 1000000$" "$share" --pages "$number"
	refuses "^--pages: '$number' is no number from 1 to 1000000$" "$pageout" --pages "$number"
	refuses "^--frames: '$number' is no number from 1 to 1000000$" "$pageout" --frames "$number"
done
says '^4000 pages, 1001 of them with a frame, 2999 in ' "$pageout"
says '[1-9][0-9]* pages saved, [1-9][0-9]* loaded, every byte checked$' "$pageout"
says '^700 pages, 1 of them with a frame' "$pageout" --pages 700 --frames 1
says ' 0 pages saved, 0 loaded, every byte' "$pageout" --pages 1
refuses "^--store: '101' is no number from 1 to 100$" "$pageout" --store 101
fails 1 '^what has a frame has all rights, every byte checked$' "$pageout" --store 1
