#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# check.sh LIBVMEM-CORE.A
# What a hypervisor without libc relies on: nothing undefined but the four mem functions, no vector or
# floating-point register, nothing below the stack pointer, no thread-local storage, no writable data.
set -eu
archive=$1
nm=${NM:-nm} ld=${LD:-ld} objdump=${OBJDUMP:-objdump} readelf=${READELF:-readelf}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# nothing WHAT < LINES. Runs at the end of pipes, so it leaves its result in a file.
nothing() {
	sort -u >"$tmp/found"
	[ -s "$tmp/found" ] || return 0
	{
		echo "libvmem-core.a has $1:"
		sed 10q "$tmp/found" | sed 's/^/	/'
	} >>"$tmp/wrong"
}

"$ld" -r --whole-archive "$archive" -o "$tmp/core.o"
"$nm" -g --defined-only "$tmp/core.o" >"$tmp/defined"
[ -s "$tmp/defined" ] || { echo 'libvmem-core.a is empty'; exit 1; }

"$nm" -u "$tmp/core.o" | awk '$2 !~ /^(memcpy|memset|memcmp|memmove)$/ { print $2 }' |
	nothing 'undefined symbols besides memcpy, memset, memcmp and memmove'

# Function name and instruction. In x86 code also the x87 and segment registers (fs, gs: per thread).
"$objdump" -d --no-show-raw-insn "$tmp/core.o" >"$tmp/code"
case $("$readelf" -h "$tmp/core.o" | sed -n 's/ *Machine: *//p') in
*X86-64) registers='%([xyz]mm[0-9]|st|mm[0-7]|k[0-7]|[fg]s:)|\tf[a-z]' ;;
AArch64) registers='[ ,{\t][vqdsh][0-9]+([.,]|$)|tpidr_el' ;;
*) registers= ;;
esac
# x86-64's red zone, which an interrupt on the same stack overwrites.
awk '/>:$/ { name = $2 } /-0x[0-9a-f]+\(%rsp/ && !/\tlea / { print name $0 }' "$tmp/code" |
	nothing 'data below the stack pointer'
[ -z "$registers" ] || awk -v registers="$registers" '/>:$/ { name = $2 }
	/^ / && $0 ~ registers { print name $0 }' "$tmp/code" |
	nothing 'vector, floating-point or per-thread registers in its code'

"$readelf" -SW "$tmp/core.o" | sed 's/^ *\[ *[0-9]*\] *//' | awk '
	$1 ~ /^\.(data|bss|tdata|tbss|init_array|fini_array|ctors|dtors)/ &&
	$1 !~ /^\.data\.rel\.ro/ && $5 !~ /^0+$/ { print $1, "of 0x" $5, "bytes" }' |
	nothing 'writable or thread-local data, or constructors'
"$readelf" -sW "$tmp/core.o" | awk '$4 == "TLS" { print $8 }' | nothing 'thread-local symbols'
[ ! -s "$tmp/wrong" ] || { cat "$tmp/wrong"; exit 1; }
