#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# hw_bochs.sh IMAGE: Intel's EPT, as Bochs walks it.
set -eu
here=$(dirname "$0")
. "$here/../support/setup.sh"
. "$here/hw_lib.sh"
image=$1
model=tigerlake # the richest in second-stage features
bios=/usr/share/bochs/BIOS-bochs-latest
vga=/usr/share/vgabios/vgabios.bin

command -v bochs >/dev/null || skip "no bochs (Debian: bochs bochsbios bochs-term vgabios)"
command -v script >/dev/null || skip "no script, which makes a terminal for bochs"
for file in "$bios" "$vga"; do
	[ -r "$file" ] || skip "no $file (Debian: bochsbios vgabios)"
done
bochs -help cpu 2>&1 | grep -qx "$model" || skip "this bochs knows no $model"

vmem_scratch "${TMPDIR:-/tmp}/vmem-bochs.XXXXXX"
disk "$image" "$scratch/disk.img"
cat >"$scratch/bochsrc" <<END
display_library: term
cpu: model=$model, ips=50000000, reset_on_triple_fault=0
megs: 128
romimage: file=$bios
vgaromimage: file=$vga
ata0-master: type=disk, path=$scratch/disk.img, mode=flat, cylinders=0
boot: disk
com1: enabled=1, mode=file, dev=$scratch/output
log: $scratch/log
panic: action=fatal
error: action=ignore
info: action=ignore
END
echo c >"$scratch/commands" # for a bochs that starts in its debugger
TERM=xterm timeout 250 script -qec "bochs -q -f $scratch/bochsrc -rc $scratch/commands" /dev/null \
	</dev/null >"$scratch/terminal" 2>&1 || :
[ -s "$scratch/output" ] || { tail -n 20 "$scratch/log"; echo "it has said nothing"; exit 1; }
judge "$scratch/output"
