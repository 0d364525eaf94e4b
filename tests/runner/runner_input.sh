#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# RUNNER: bad options and input are refused with a message that says what to do.
# shellcheck source-path=SCRIPTDIR source=runner_lib.sh
. "$(dirname "$0")/runner_lib.sh"

run 0 "$runner" --help
for option in vms mem budget recompress image workload seconds vcpus backend json seed skew; do
	says "--$option="
done

refused() {
	message=$1
	shift
	run 2 "$runner" --quiet --seconds 1 "$@"
	says "$message"
}

refused 'whole number from 1 to 64' --vms 0
refused 'whole number from 1 to 16' --vcpus 17
refused 'whole pages of 4K, from 4M' --mem 1M
refused 'whole pages of 4K, from 4M' --mem 8388609
refused 'whole pages of 4K, from 4M' --mem many
refused 'a size such as 600M' --budget 0
refused '1% to 1000%' --budget 0%
refused 'there is scan, zipf' --workload chess
refused 'a number from 0 to 4' --skew -1
refused 'there is kvm and thread' --backend xen
refused 'pages a second, or off' --recompress 0
refused 'pages a second, or off' --recompress on
refused 'needs --backend thread' --fault-way sigbus
refused 'not an option' surprise
refused 'unrecognized option' --surprise
refused 'json .* cannot be written' --json "$scratch/no/such/folder/x.json"
refused 'json .* cannot be written: Is a directory' --json "$scratch"

refused 'No such file.*Make images with' --image "$scratch/missing.img"
: >"$scratch/empty.img"
refused 'the file is empty' --image "$scratch/empty.img"
head -c 5000 /dev/zero >"$scratch/odd.img"
refused 'not a multiple of the page' --image "$scratch/odd.img"
truncate -s 64M "$scratch/large.img"
refused 'larger (64.0 MiB) than the VM (32.0 MiB)' --mem 32M --image "$scratch/large.img"
refused 'not a regular file' --image "$scratch"
mkfifo "$scratch/pipe.img"
refused 'not a regular file' --image "$scratch/pipe.img"
# The second image of two is looked at, too, before anything runs.
head -c 4096 /dev/zero >"$scratch/good.img"
refused 'the file is empty' --vms 2 --image "$scratch/good.img" --image "$scratch/empty.img"

refused 'is below the .* that the VMs keep pinned' --vms 4 --mem 1G --budget 16M

may thread || { echo "left out, budgets that only the library can judge: $why" && exit 0; }
refused 'is less than libvmem can work with' --vms 1 --mem 4M --budget 2M --backend thread

# More than the budget can hold, even compressed: seen while it is loaded.
head -c 33554432 /dev/urandom >"$scratch/random.img"
refused 'does not hold what the VMs are loaded with.*--budget' --vms 1 --mem 32M --budget 24M \
	--image "$scratch/random.img" --backend thread
