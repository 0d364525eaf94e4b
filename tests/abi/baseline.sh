#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# baseline.sh --make LIBVMEM.SO      write tests/abi/libvmem.abi, at a release
# baseline.sh --compare LIBVMEM.SO   what changed in the binary interface since then
# Comparing fails on each change but new functions and what libvmem.abignore allows. Both libraries
# must be built with gcc and debug information (preset release).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
baseline=$here/libvmem.abi
[ $# -eq 2 ] || { sed -n '3,7s/^# //p' "$0"; exit 2; }

command -v abidw >/dev/null || {
	echo 'skipped: abidw is missing: apt-get install abigail-tools'
	exit 77
}

# What is defined outside of include/ is private, and stays out.
describe() {
	abidw --headers-dir "$top/include" --drop-private-types --no-corpus-path --no-comp-dir-path \
		--no-show-locs --type-id-style hash --out-file "$2" "$1"
	if ! grep -q "class-decl name='vmem_allocator'" "$2"; then
		echo "$1 has no debug information"
		exit 1
	fi
}

case $1 in
--make) describe "$2" "$baseline" ;;
--compare)
	new=$(mktemp --suffix=.abi)
	trap 'rm -f "$new"' EXIT
	describe "$2" "$new"
	abidiff --suppressions "$here/libvmem.abignore" --no-added-syms "$baseline" "$new"
	;;
esac
