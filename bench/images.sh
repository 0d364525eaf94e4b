#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Makes real guest memory images: raw dumps of the whole RAM of Debian guests under load.
#
# This script installs what is missing and prepares, once, what all guests boot from: Debian's
# own kernel and a small root file system. images/guests.py then boots the guests under QEMU
# (emulated, so neither KVM nor root is needed), waits until the workload of each is ready, stops
# it and saves its memory. What runs inside a guest is in images/guest/.

set -eu

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../tests/support/setup.sh
. "$here/../tests/support/setup.sh"
cache=${VMEM_IMAGE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/libvmem-images}
started=$(date +%s)

guests=redis-1,redis-2,sqlite-1,sqlite-2,web-1,web-2
mem=192
jobs=$(nproc)
[ "$jobs" -le 2 ] || jobs=2
keep=
prepare_only=
dir=

# In the order in which they must be loaded. One that the kernel package lacks is built in.
modules="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk
	crc16 mbcache crc32c_generic jbd2 ext4"
root_packages=redis-server,python3,nginx-light,sqlite3

usage() {
	cat <<END
Usage: sh bench/images.sh [OPTION]... DIR

Makes real guest memory images: boots Debian guests under QEMU, runs a workload in each, and saves
their whole RAM as DIR/WORKLOAD-SEED.img, with what it was made from in DIR/WORKLOAD-SEED.json.
An image that is there already and was made in the same way is kept.

  --guests LIST  guests to make, WORKLOAD-SEED with commas between them;
                 WORKLOAD is redis, sqlite or web, SEED a number from 1 on
                 (default: $guests)
  --mem MiB      RAM of each guest, 128 to 2816 (default: $mem)
  --jobs N       guests that run at the same time (default: $jobs)
  --keep         also keep what each guest wrote on its console, as DIR/WORKLOAD-SEED.log
  --prepare      only fill the cache; needs no DIR
  --help         show this text

The kernel and the root file system of the guests are kept in VMEM_IMAGE_CACHE, here
$cache
Remove that directory to have them made again from today's Debian packages.
Needs Debian on x86-64. Run as root it installs missing packages; the first run must be as root.
END
}

say() {
	printf '[%4d s] %s\n' $(($(date +%s) - started)) "$*" >&2
}

die() {
	printf 'images.sh: %s\n' "$@" >&2
	exit 1
}

bad_usage() {
	printf 'images.sh: %s\n' "$@" 'Try: sh bench/images.sh --help' >&2
	exit 2
}

is_number() {
	case $1 in
	'' | 0* | *[!0-9]* | ??????*) return 1 ;;
	esac
}

parse_arguments() {
	while [ $# -gt 0 ]; do
		case $1 in
		--guests | --mem | --jobs)
			[ $# -ge 2 ] || bad_usage "$1 needs a value."
			case $1 in
			--guests) guests=$2 ;;
			--mem) mem=$2 ;;
			--jobs) jobs=$2 ;;
			esac
			shift
			;;
		--keep) keep=--keep ;;
		--prepare) prepare_only=yes ;;
		-h | --help) usage; exit 0 ;;
		-*) bad_usage "there is no option $1." ;;
		*)
			[ -z "$dir" ] || bad_usage "one DIR only, but both $dir and $1 are given."
			dir=$1
			;;
		esac
		shift
	done
	[ -n "$dir$prepare_only" ] || bad_usage "where shall the images go? Name a directory."
	is_number "$jobs" || bad_usage "--jobs $jobs is not a number from 1 on."
	{ is_number "$mem" && [ "$mem" -ge 128 ] && [ "$mem" -le 2816 ]; } ||
		bad_usage "--mem $mem is not a number of MiB from 128 to 2816."
	case ,$guests, in
	*,,* | *[!a-z0-9,-]*) bad_usage "--guests $guests is not a list such as redis-1,web-2." ;;
	esac
	for guest in $(printf '%s' "$guests" | tr ',' ' '); do
		case $guest in
		redis-* | sqlite-* | web-*) ;;
		*) bad_usage "no workload for guest $guest: there are redis, sqlite and web." ;;
		esac
		is_number "${guest#*-}" ||
			bad_usage "guest $guest has no seed: write ${guest%%-*}-1, ${guest%%-*}-2, ..."
	done
}

# On a fresh machine or container apt does not know any package yet.
update_lists() {
	[ "$(id -u)" -eq 0 ] && [ -z "$(debian_mirror)" ] || return 0
	vmem_quietly "$scratch/log" apt-get update -qq
}

# Prints the mirror of this Debian release that apt is configured with.
debian_mirror() {
	apt-get indextargets --format "\$(ORIGIN) \$(RELEASE) \$(COMPONENT) \$(REPO_URI)" \
		'Created-By: Packages' | sed -n "s/^Debian $suite main //p" | head -n 1
}

# Fills $cache/kernel: vmlinuz, the modules in order of loading, a static busybox for the initrd.
prepare_kernel() {
	[ ! -d "$cache/kernel" ] || return 0
	package=$(apt-cache depends linux-image-amd64 |
		sed -n 's/^ *Depends: *\(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
	[ -n "$package" ] || die "apt does not know linux-image-amd64. Run: sudo apt-get update"
	say "downloading $package"
	mkdir "$scratch/deb" "$scratch/kernel"
	(cd "$scratch/deb" && vmem_quietly "$scratch/log" apt-get download -qq "$package" busybox-static)
	for deb in "$scratch"/deb/*.deb; do
		dpkg-deb -x "$deb" "$scratch/tree"
	done
	cp "$scratch/tree/bin/busybox" "$scratch/kernel/busybox" 2>/dev/null ||
		cp "$scratch/tree/usr/bin/busybox" "$scratch/kernel/busybox"
	cp "$scratch"/tree/boot/vmlinuz-* "$scratch/kernel/vmlinuz"
	number=10
	for module in $modules; do
		file=$(find "$scratch/tree" -name "$module.ko*")
		case $file in
		*.ko) cp "$file" "$scratch/kernel/$number-$module.ko" ;;
		*.ko.xz) xz -dc "$file" >"$scratch/kernel/$number-$module.ko" ;;
		esac
		number=$((number + 1))
	done
	printf '%s\n' "${package#linux-image-}" >"$scratch/kernel/version"
	mv -T "$scratch/kernel" "$cache/kernel" 2>/dev/null ||
		[ -d "$cache/kernel" ] || die "cannot write to $cache." # else: another run was faster
}

# Fills $cache/root.img: a minimal Debian with the programs that the workloads use.
prepare_root() {
	[ ! -e "$cache/root.img" ] || return 0
	mirror=$(debian_mirror)
	[ -n "$mirror" ] || die \
		"apt has no mirror of Debian $suite (main) configured: add one to /etc/apt/sources.list."
	say "making a root file system of Debian $suite with $root_packages"
	eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
	[ -z "${http_proxy-}" ] || export http_proxy
	vmem_quietly "$scratch/log" debootstrap --variant=minbase --include="$root_packages" \
		"$suite" "$scratch/root" "$mirror"
	rm -rf "$scratch"/root/var/cache/apt/* "$scratch"/root/var/lib/apt/lists/*
	vmem_quietly "$scratch/log" mkfs.ext4 -q -L root -d "$scratch/root" "$scratch/root.img" 6G
	mv "$scratch/root.img" "$cache/root.img"
}

is_prepared() {
	[ -d "$cache/kernel" ] && [ -e "$cache/root.img" ] &&
		command -v qemu-system-x86_64 >/dev/null && command -v python3 >/dev/null
}

prepare() {
	[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || die "this needs Debian on x86-64."
	# shellcheck source=/dev/null
	suite=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME-}")
	[ -e "$cache/root.img" ] || [ "$(id -u)" -eq 0 ] || die \
		"there is no root file system for the guests yet, and only root can make it. Once, run:" \
		"sudo env VMEM_IMAGE_CACHE=$cache sh $0 --prepare"
	umask 022
	if ! mkdir -p "$cache" || ! vmem_scratch "$cache/tmp.XXXXXX"; then
		die "cannot write to $cache: set VMEM_IMAGE_CACHE to another directory."
	fi
	update_lists
	vmem_need images
	prepare_kernel
	prepare_root
	rm -rf "$scratch" # now: exec runs no EXIT trap
	trap - EXIT HUP INT QUIT TERM
}

PATH=$PATH:/usr/sbin:/sbin
parse_arguments "$@"
if ! is_prepared; then
	prepare
fi
if [ -n "$dir" ]; then
	# shellcheck disable=SC2086  # $keep is one option or nothing
	exec python3 -B "$here/images/guests.py" --cache "$cache" --guests "$guests" --mem "$mem" \
		--jobs "$jobs" --started "$started" $keep -- "$dir"
fi
