#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# ESTIMATE VM: bad options and input are refused with a message that says what to do.
# shellcheck source-path=SCRIPTDIR source=estimate_lib.sh
. "$(dirname "$0")/estimate_lib.sh"

run 0 "$estimate" --help
for option in pid mapping resident sample seed json plot; do
	says "--$option="
done

refused() {
	message=$1
	shift
	run 2 "$estimate" "$@"
	says "$message"
}

make good.img 1 random:8
good=$scratch/good.img
refused 'give images of guest memory, or --pid'
refused 'unrecognized option' --surprise "$good"
refused 'pid 0: give a whole number from 1' --pid 0
refused 'pid me: give a whole number from 1' --pid me
refused 'pid -1: give a whole number from 1' --pid=-1
refused 'there is no such process' --pid 2147483647
refused 'resident 101: give a whole number from 0 to 100' --resident 101 "$good"
refused 'resident : give a whole number' --resident '' "$good"
refused 'sample 0: give a number from 0.001 to 100' --sample 0 "$good"
refused 'sample 10%: give a number' --sample 10% "$good"
refused 'sample nan: give a number' --sample nan "$good"
refused 'seed 1x: give a whole number' --seed 1x "$good"

refused 'No such file. For a running VM: --pid' "$scratch/missing.img"
: >"$scratch/empty.img"
refused 'the file is empty' "$scratch/empty.img"
head -c 5000 /dev/zero >"$scratch/odd.img"
refused 'not a multiple of the page of 4096 bytes' "$scratch/odd.img"
refused 'not a regular file' "$scratch"
mkfifo "$scratch/pipe.img"
refused 'not a regular file' "$scratch/pipe.img"
# All are looked at before any is read.
refused 'the file is empty' "$good" "$scratch/empty.img"
! grep -q reading "$out" || fail "it read before it looked"

refused 'cannot be written: No such file' --json "$scratch/no/such/folder.json" "$good"
refused 'cannot be written: Is a directory' --json "$scratch" "$good"
refused 'cannot be written: No such file' --plot "$scratch/no/such/folder.png" "$good"
mkdir "$scratch/bin"
ln -s "$(command -v sh)" "$scratch/bin/sh"
run 2 env PATH="$scratch/bin" "$estimate" --plot "$scratch/plot.png" "$good"
says 'apt-get install gnuplot-nox'

# A sample of nothing.
run 1 "$estimate" --sample 0.001 "$good"
says 'Try a larger --sample'
