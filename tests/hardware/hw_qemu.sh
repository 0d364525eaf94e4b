#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# hw_qemu.sh IMAGE 4|5: AMD's nested paging with so many levels, as QEMU's translator walks it.
set -eu
here=$(dirname "$0")
. "$here/../support/setup.sh"
. "$here/hw_lib.sh"
image=$1
case $2 in
4) cpu=max,+svm,+npt,-la57 ;;
5) cpu=max,+svm,+npt,+la57 ;;
esac

command -v qemu-system-x86_64 >/dev/null || skip "no qemu-system-x86_64 (Debian: qemu-system-x86)"

vmem_scratch "${TMPDIR:-/tmp}/vmem-qemu.XXXXXX"
disk "$image" "$scratch/disk.img"
timeout 250 qemu-system-x86_64 -accel tcg -cpu "$cpu" -m 128 -display none -nodefaults \
	-no-reboot -serial "file:$scratch/output" -monitor none \
	-drive "file=$scratch/disk.img,format=raw,if=ide" -device isa-debug-exit,iobase=0xf4 \
	>"$scratch/log" 2>&1 </dev/null || :
[ -s "$scratch/output" ] || { tail -n 20 "$scratch/log"; echo "it has said nothing"; exit 1; }
judge "$scratch/output"
