#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# RUNNER: what --swap cannot use is refused before anything runs, with a message that says what to do; nothing is left behind.
# shellcheck source-path=SCRIPTDIR source=runner_lib.sh
. "$(dirname "$0")/runner_lib.sh"
need_room 512

run 0 "$runner" --help
says '--swap=PATH'
says '--swap-plain'

refused() {
	message=$1
	shift
	run 2 "$runner" --quiet --vms 1 --mem 16M --seconds 1 --backend thread "$@"
	says "$message"
}

refused 'is no path' --swap ''
refused 'It is a folder: give the size .* as in .*:4G' --swap "$scratch"
refused 'does not exist. To have a file made, give its size' --swap "$scratch/missing"
refused 'the folder where it should be does not exist' --swap "$scratch/no/such:4M" --swap-plain
refused '4k2 is no size for it: give whole pages of 4K, at least 2.00 MiB' --swap "$scratch:4k2"
refused '1M is no size for it' --swap "$scratch/file:1M"
refused '8388609 is no size for it' --swap "$scratch/file:8388609"
refused '0 is no size for it' --swap "$scratch/file:0"
refused 'neither a folder, a file, nor a block device' --swap /dev/null
mkfifo "$scratch/pipe"
refused 'neither a folder, a file, nor a block device' --swap "$scratch/pipe"
: >"$scratch/empty"
refused 'The file is empty: give its size' --swap "$scratch/empty"
truncate -s 1M "$scratch/small"
refused 'It is too small: 1.00 MiB; give at least 2.00 MiB' --swap "$scratch/small"
refused 'has 1.00 MiB, which is less than 4.00 MiB' --swap "$scratch/small:4M"
refused 'Not a directory' --swap "$scratch/small/file:4M"
refused 'swap-plain needs --swap' --swap-plain
# shellcheck disable=SC2046 # seventeen times
refused 'more than 16 devices' $(printf -- '--swap x%s ' 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17)

# More than the file system has, empty.
mebibytes=$(df -Pk "$scratch" | awk 'NR == 2 { print int($2 / 1024) + 1024 }')
refused 'No space' --swap "$scratch/file:${mebibytes}M" --swap-plain
refused 'No space' --swap "$scratch:${mebibytes}M"
refused 'No space' --swap "$scratch/file:4000T" --swap-plain
[ ! -e "$scratch/file" ] || fail "a file was left behind"

# Of a link that leads to nothing, what it leads to is made; the link is somebody's.
ln -s "$scratch/target" "$scratch/link"
refused 'No space' --swap "$scratch/link:${mebibytes}M" --swap-plain
[ -L "$scratch/link" ] || fail "somebody's link was removed"
rm -f "$scratch/target"

# What cannot be enciphered, for want of the library or of memory, is not made or gone again.
if ldd "$runner" | grep -q libvmem-crypto; then
	seen=
	for n in $(seq 100); do
		status=0
		"$runner" --quiet --vms 1 --mem 16M --budget 16M --seconds 1 --backend thread \
			--swap "$scratch/file:4M" --inject "fail-alloc=$n" >"$out" 2>&1 || status=$?
		! grep -q '^swap .*, enciphered' "$out" || break
		[ ! -e "$scratch/file" ] || fail "allocation $n: a file was left behind"
		! grep -q 'It cannot be enciphered' "$out" || seen=1
	done
	[ "$seen" ] || fail "memory was never too little to encipher"
	rm -f "$scratch/file"
else
	refused 'install libssl-dev' --swap "$scratch/file:4M"
	[ ! -e "$scratch/file" ] || fail "a file was left behind"
fi

# The second of two is looked at, too.
refused 'does not exist' --swap "$scratch:4M" --swap "$scratch/missing"

# Servers.
if ldd "$runner" | grep -q libvmem-nbd; then
	refused 'No connection to an NBD server' --swap "nbd+unix:///?socket=$scratch/no.sock"
	refused 'It is no NBD URI' --swap 'nbd+surprise://host'
else
	refused 'install libnbd-dev' --swap "nbd+unix:///?socket=$scratch/no.sock"
fi

if ! ldd "$runner" | grep -q libvmem-crypto; then
	echo "left out, missing rights and block devices: built without libvmem-crypto"
	exit 0
fi

# No right. The folder of the test is nobody's but its owner's.
mkdir "$scratch/closed"
chmod 500 "$scratch/closed"
chmod 400 "$scratch/small"
if [ "$(id -u)" -ne 0 ]; then
	refused 'No permission to make a file there' --swap "$scratch/closed/file:4M"
	refused 'No permission to make a file in this folder' --swap "$scratch/closed:4M"
	refused 'No permission to read and write it' --swap "$scratch/small"
elif chmod 755 "$scratch" "$scratch/closed" &&
	setpriv --reuid=65534 --clear-groups "$runner" --help >/dev/null 2>&1 &&
	setpriv --reuid=65534 --clear-groups test -x "$scratch"; then
	run 2 setpriv --reuid=65534 --clear-groups "$runner" --backend thread --swap "$scratch/closed/file:4M"
	says 'No permission to make a file there'
	run 2 setpriv --reuid=65534 --clear-groups "$runner" --backend thread --swap "$scratch/closed:4M"
	says 'No permission to make a file in this folder'
	run 2 setpriv --reuid=65534 --clear-groups "$runner" --backend thread --swap "$scratch/small"
	says 'No permission to read and write it'
else
	echo "left out, missing rights: another user cannot run this, or not get there"
fi

# A block device that is mounted. Needs root, and a machine where that can be had.
for command in losetup mkfs.ext4 unshare; do
	command -v $command >/dev/null || { echo "left out, block devices: no $command" && exit 0; }
done
truncate -s 8M "$scratch/disk"
mkfs.ext4 -q "$scratch/disk"
loop=$(losetup --find --show "$scratch/disk" 2>/dev/null) ||
	{ echo "left out, block devices: losetup may not be used" && exit 0; }
trap 'losetup -d "$loop"; rm -rf "$scratch"' EXIT
refused 'The block device has less than 16.0 MiB' --swap "$loop:16M"
mkdir "$scratch/mounted"
# shellcheck disable=SC2016 # for the inner shell
mounted='mount "$1" "$2" || exit 99; shift 2; status=0; "$@" || status=$?; umount "$0"; exit $status'
status=0
unshare -m sh -c "$mounted" "$scratch/mounted" "$loop" "$scratch/mounted" \
	"$runner" --backend thread --swap "$loop" >"$out" 2>&1 || status=$?
if [ $status -eq 99 ]; then
	echo "left out, mounted block devices: it cannot be mounted"
else
	[ $status -eq 2 ] || fail "exit status $status with a mounted block device"
	says 'The block device is in use: it is mounted'
fi
