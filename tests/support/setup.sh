# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# What the scripts share; to be sourced. One place for the names of packages.
#
#	vmem_need build|tests|hardware|examples|bench|uml|images|ci...
# installs what is missing (Debian, Ubuntu), as root or with sudo if that asks for no password, and
# otherwise says what to run and returns 1. Does nothing, and needs no right, when all is there.
#
#	vmem_quietly LOG COMMAND...
# runs a command whose output matters only if it fails; then shows it and ends the script.
#
#	vmem_build SOURCE BUILD [CMAKE-OPTION]...
# configures and builds, quietly.
#
#	vmem_scratch TEMPLATE
# makes a folder as mktemp does, sets $scratch to its path, and removes it when the script ends, by a
# signal as well.

# One a line: package, or command=package where the command is what counts.
vmem_packages() {
	case $1 in
	build)
		echo cc=gcc libc6-dev make=make cmake=cmake pkg-config=pkg-config
		echo liblz4-dev libzstd-dev libxxhash-dev libjemalloc-dev libssl-dev libnbd-dev
		;;
	tests)
		echo c++=g++ libcriterion-dev readelf=binutils abidiff=abigail-tools gnuplot=gnuplot-nox nbdkit=nbdkit
		vmem_packages uml
		;;
	hardware)
		echo qemu-system-x86_64=qemu-system-x86
		echo bochs=bochs bochsbios bochs-term vgabios script=bsdutils
		;;
	uml) [ "$(uname -m)" != x86_64 ] || echo linux.uml=user-mode-linux busybox-static cpio=cpio ;;
	examples) echo libcjson-dev libncurses-dev ;;
	bench) echo libcjson-dev ;;
	images)
		echo qemu-system-x86_64=qemu-system-x86 python3=python3 debootstrap=debootstrap
		echo mkfs.ext4=e2fsprogs xz=xz-utils
		;;
	ci)
		echo clang=clang libclang-rt-dev clang-format=clang-format shellcheck=shellcheck git=git
		echo aarch64-linux-gnu-gcc=gcc-aarch64-linux-gnu qemu-aarch64=qemu-user
		;;
	*)
		echo "vmem_need: no such set: $1" >&2
		return 1
		;;
	esac
}

vmem_need() {
	vmem_missing=
	for vmem_set in "$@"; do
		vmem_list=$(vmem_packages "$vmem_set") || return 1
		for vmem_item in $vmem_list; do
			vmem_package=${vmem_item#*=}
			case $vmem_item in
			*=*) PATH=$PATH:/usr/sbin:/sbin command -v "${vmem_item%%=*}" >/dev/null && continue ;;
			*)
				# Elsewhere than on Debian the configuration of the build will say what it lacks.
				command -v dpkg-query >/dev/null || continue
				dpkg-query -W -f '${Status}' "$vmem_package" 2>/dev/null |
					grep -q 'ok installed' && continue
				;;
			esac
			case "$vmem_missing " in
			*" $vmem_package "*) ;;
			*) vmem_missing="$vmem_missing $vmem_package" ;;
			esac
		done
	done
	[ -n "$vmem_missing" ] || return 0

	if ! command -v apt-get >/dev/null; then
		echo "Missing, by their Debian names:$vmem_missing" >&2
		return 1
	elif [ "$(id -u)" -eq 0 ]; then
		vmem_root=
	elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
		vmem_root='sudo -n'
	else
		echo "Some packages are missing. Run this, then try again:" >&2
		echo "    sudo apt-get install$vmem_missing" >&2
		return 1
	fi
	echo "installing:$vmem_missing" >&2
	vmem_log=$(mktemp)
	# The lists of a fresh machine may be empty or old: fetch them only if it does not work without.
	# shellcheck disable=SC2086  # lists
	if vmem_install $vmem_missing >"$vmem_log" 2>&1 || {
		$vmem_root apt-get update && vmem_install $vmem_missing
	} >"$vmem_log" 2>&1; then
		rm -f "$vmem_log"
		return 0
	fi
	cat "$vmem_log" >&2
	rm -f "$vmem_log"
	echo "could not install:$vmem_missing" >&2
	return 1
}

vmem_quietly() {
	vmem_log=$1
	shift
	"$@" >"$vmem_log" 2>&1 || {
		cat "$vmem_log"
		echo "$0: failed: $*" >&2
		exit 1
	}
}

vmem_build() {
	vmem_source=$1 vmem_folder=$2
	shift 2
	mkdir -p "$vmem_folder"
	vmem_quietly "$vmem_folder/log.txt" cmake -S "$vmem_source" -B "$vmem_folder" "$@"
	vmem_quietly "$vmem_folder/log.txt" cmake --build "$vmem_folder" --parallel "$(nproc)"
}

# dash runs no EXIT trap when a signal ends it.
vmem_scratch() {
	scratch=$(mktemp -d "$1") || return
	trap 'rm -rf --one-file-system "$scratch"' EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 131' QUIT
	trap 'exit 143' TERM
}

vmem_install() {
	$vmem_root env DEBIAN_FRONTEND=noninteractive \
		apt-get install -q -y --no-install-recommends "$@" </dev/null
}
