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

# refuses COMMAND...: status 2, and a word of how to use it.
refuses() {
	status=0
	output=$("$@" 2>&1 >/dev/null) || status=$?
	[ "$status" = 2 ] || failed "$* ended with $status"
	echo "$output" | grep -q Usage || failed "$* says: $output"
}

for program in "$walkthrough" "$share" "$pageout"; do
	says Usage "$program" --help
	refuses "$program" --nothing
	refuses "$program" more
done
says '^write firmware .*violation at level 1, qualification 0x1aa$' "$walkthrough"
says '1 GiB -> 0x280000000' "$walkthrough" --levels 5
says '^run firmware .*: 0x1c000fff0' "$walkthrough" --format amd
says '^amd, 5 levels' "$walkthrough" --format amd --levels 5
for levels in 3 4 5; do
	says '^write firmware .*violation at level 1, qualification 0xa$' "$walkthrough" --format vtd --levels $levels
done
refuses "$walkthrough" --format arm
refuses "$walkthrough" --levels 3
refuses "$walkthrough" --levels 44
says '^parted: [1-9][0-9]* by a copy, [1-9][0-9]* were the last' "$share"
says 'every byte checked' "$share" --pages 1
says 'every byte checked' "$share" --pages 20000
refuses "$share" --pages 0
refuses "$share" --pages many
says '^4000 pages, 1001 of them with a frame, 2999 in ' "$pageout"
says '[1-9][0-9]* pages saved, [1-9][0-9]* loaded, every byte checked$' "$pageout"
says '^700 pages, 1 of them with a frame' "$pageout" --pages 700 --frames 1
says ' 0 pages saved, 0 loaded, every byte' "$pageout" --pages 1
refuses "$pageout" --frames none --pages 0
