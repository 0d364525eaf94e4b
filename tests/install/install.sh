#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# install.sh CMAKE BUILD
# Installs BUILD and builds other projects with it: with pkg-config and find_package(), shared and
# static, in C and C++, where it was installed and after it was moved. Checks what the libraries need.
set -eu
cmake=$1 build=$2
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
CC=${CC:-cc} CXX=${CXX:-c++}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

die() {
	echo "$*"
	exit 1
}

# must WHAT COMMAND...: its output is shown if it fails.
must() {
	what=$1
	shift
	"$@" >"$tmp/log" 2>&1 || { cat "$tmp/log"; die "failed: $what"; }
}

# with_pkg_config PREFIX PKG-CONFIG...
with_pkg_config() {
	prefix=$1
	shift
	PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name libvmem.pc)")
	export PKG_CONFIG_PATH
	[ "$("$@" --variable=prefix libvmem)" = "$prefix" ] || die "libvmem.pc: prefix is not $prefix"
	[ -z "$("$@" --print-requires libvmem)" ] || die 'libvmem.pc: private needs are public'
	for language in c cpp; do
		compiler=$CC
		[ $language = c ] || compiler=$CXX
		source=$here/consumer/consumer.$language
		libdir=$("$@" --variable=libdir libvmem)
		# shellcheck disable=SC2046  # flags
		must "pkg-config, shared, $language" "$compiler" "$source" -o "$tmp/program" \
			$("$@" --cflags --libs libvmem) "-Wl,-rpath,$libdir"
		must "running it" "$tmp/program"
		# shellcheck disable=SC2046
		must "pkg-config, static, $language" "$compiler" -static -DLINKED_STATICALLY "$source" \
			-o "$tmp/program" $("$@" --static --cflags --libs libvmem)
		must "running it" "$tmp/program"
		[ -e "$PKG_CONFIG_PATH/libvmem-jemalloc.pc" ] || continue
		# shellcheck disable=SC2046
		must "pkg-config, jemalloc, $language" "$compiler" -DWITH_JEMALLOC "$source" \
			-o "$tmp/program" $("$@" --cflags --libs libvmem-jemalloc libvmem) \
			"-Wl,-rpath,$libdir"
		must "running it" "$tmp/program"
	done
}

with_find_package() {
	rm -rf "$tmp/consumer"
	must 'find_package' "$cmake" -S "$here/consumer" -B "$tmp/consumer" \
		-DCMAKE_PREFIX_PATH="$1" -DCMAKE_FIND_PACKAGE_NO_PACKAGE_REGISTRY=ON
	must 'building with it' "$cmake" --build "$tmp/consumer"
	for program in "$tmp"/consumer/*_c "$tmp"/consumer/*_cpp; do
		must "running $(basename "$program")" "$program"
	done
}

# needs LIBRARY NAME...: exactly these, besides libc and the loader
needs() {
	file=$1
	shift
	readelf -dW "$file" >"$tmp/dynamic"
	found=$(sed -n 's/.*(NEEDED).*\[\(.*\)\.so.*/\1/p' "$tmp/dynamic" |
		grep -vE '^(libc|ld-linux.*)$' | sort | tr '\n' ' ')
	[ "$found" = "$*${*:+ }" ] || die "$(basename "$file") needs: $found; expected: $*"
	! grep -E 'RPATH|RUNPATH|TEXTREL|STATIC_TLS' "$tmp/dynamic" ||
		die "$(basename "$file"): not in an installed library"
}

# Where the installation will finally be is known late: --prefix, or DESTDIR for packages.
must 'install' "$cmake" --install "$build" --prefix "$tmp/first"
with_pkg_config "$tmp/first" pkg-config
with_find_package "$tmp/first"

mv "$tmp/first" "$tmp/moved"
with_pkg_config "$tmp/moved" pkg-config --define-prefix
with_find_package "$tmp/moved"

! grep -rlF -e "$build" -e "$top" -e "$tmp/first" --include='*.cmake' "$tmp/moved" ||
	die 'a folder of this machine is named in these files'

must 'install with DESTDIR' env DESTDIR="$tmp/root" "$cmake" --install "$build" --prefix /usr
[ -e "$tmp/root/usr/include/vmem.h" ] || die 'DESTDIR was not obeyed'
grep -qx 'prefix=/usr' "$(find "$tmp/root" -name libvmem.pc)" || die 'libvmem.pc: prefix is not /usr'

library=$(find "$tmp/moved" -name libvmem.so)
needs "$library" liblz4
jemalloc=$(find "$tmp/moved" -name libvmem-jemalloc.so)
[ -z "$jemalloc" ] || needs "$jemalloc" libjemalloc libstdc++
readelf -dW "$library" | grep -q 'SONAME.*\[libvmem\.so\.1\]' || die 'soname is not libvmem.so.1'
must 'building opener.c' "$CC" "$here/consumer/opener.c" -o "$tmp/program" -ldl
must 'dlopen' "$tmp/program" "$library"
