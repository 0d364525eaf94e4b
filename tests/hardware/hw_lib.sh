# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# What runs the program for the bare machine have in common. To be sourced.

# skip REASON
skip() {
	echo "skipped: $1"
	exit 77
}

# disk IMAGE FILE: a disk of 2 MiB that begins with the image
disk() {
	cp "$1" "$2"
	truncate -s 2M "$2"
}

# judge FILE: the program's output tells, whatever the emulator thinks of its end.
judge() {
	cat "$1"
	summary=$(tail -n 1 "$1")
	case $summary in
	*' passed, 0 failed') ;;
	*) echo "failed, or ended early"; exit 1 ;;
	esac
	[ "${summary%% *}" -gt 0 ] || { echo "no case ran"; exit 1; }
}
