#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# install.sh CMAKE BUILD
# Installs BUILD and builds other projects with it: with pkg-config and find_package(), shared and
# static, in C and C++, where it was installed and after it was moved. Checks what the libraries need.
# The same with the core alone, built for a machine without an operating system.
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

# with_pkg_config PREFIX
with_pkg_config() {
	PKG_CONFIG_PATH=$(dirname "$(find "$1" -name libvmem-core.pc)")
	export PKG_CONFIG_PATH
	for module in "$PKG_CONFIG_PATH"/*.pc; do
		prefix=$(pkg-config --variable=prefix "$(basename "$module" .pc)")
		[ "$(realpath "$prefix")" = "$1" ] || die "$module: its prefix is $prefix, not $1"
	done
	# shellcheck disable=SC2046  # flags
	must "pkg-config, core" "$CC" "$here/consumer/core.c" -o "$tmp/program" \
		$(pkg-config --cflags --libs libvmem-core)
	must "running it" "$tmp/program"
	[ -e "$PKG_CONFIG_PATH/libvmem.pc" ] || return 0
	[ -z "$(pkg-config --print-requires libvmem)" ] || die 'libvmem.pc: private needs are public'
	for language in c cpp; do
		compiler=$CC
		[ $language = c ] || compiler=$CXX
		source=$here/consumer/consumer.$language
		libdir=$(pkg-config --variable=libdir libvmem)
		# shellcheck disable=SC2046  # flags
		must "pkg-config, shared, $language" "$compiler" "$source" -o "$tmp/program" \
			$(pkg-config --cflags --libs libvmem) "-Wl,-rpath,$libdir"
		must "running it" "$tmp/program"
		# shellcheck disable=SC2046
		must "pkg-config, static, $language" "$compiler" -static -DLINKED_STATICALLY "$source" \
			-o "$tmp/program" $(pkg-config --static --cflags --libs libvmem)
		must "running it" "$tmp/program"
		if [ -e "$PKG_CONFIG_PATH/libvmem-crypto.pc" ]; then
			# shellcheck disable=SC2046
			must "pkg-config, crypto, $language" "$compiler" -DWITH_CRYPTO "$source" \
				-o "$tmp/program" $(pkg-config --cflags --libs libvmem-crypto libvmem) \
				"-Wl,-rpath,$libdir"
			must "running it" "$tmp/program"
		fi
		[ -e "$PKG_CONFIG_PATH/libvmem-jemalloc.pc" ] || continue
		# shellcheck disable=SC2046
		must "pkg-config, jemalloc, $language" "$compiler" -DWITH_JEMALLOC "$source" \
			-o "$tmp/program" $(pkg-config --cflags --libs libvmem-jemalloc libvmem) \
			"-Wl,-rpath,$libdir"
		must "running it" "$tmp/program"
	done
}

# with_find_package PREFIX PROGRAM...: the programs that must come of it, among others.
with_find_package() {
	rm -rf "$tmp/consumer"
	must 'find_package' "$cmake" -S "$here/consumer" -B "$tmp/consumer" \
		-DCMAKE_PREFIX_PATH="$1" -DCMAKE_FIND_PACKAGE_NO_PACKAGE_REGISTRY=ON
	must 'building with it' "$cmake" --build "$tmp/consumer"
	shift
	for program; do
		must "running $program" "$tmp/consumer/$program"
	done
	for program in "$tmp"/consumer/jemalloc_c* "$tmp"/consumer/crypto_c*; do
		[ ! -x "$program" ] || must "running $program" "$program"
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
programs='core_c shared_c shared_cpp static_c static_cpp'
with_pkg_config "$tmp/first"
# shellcheck disable=SC2086  # a list of names
with_find_package "$tmp/first" $programs

mv "$tmp/first" "$tmp/moved"
with_pkg_config "$tmp/moved"
# shellcheck disable=SC2086
with_find_package "$tmp/moved" $programs

! grep -rlF -e "$build" -e "$top" -e "$tmp/first" --include='*.cmake' --include='*.pc' "$tmp/moved" ||
	die 'a folder of this machine is named in these files'

must 'install with DESTDIR' env DESTDIR="$tmp/root" "$cmake" --install "$build" --prefix /usr
[ -e "$tmp/root/usr/include/vmem.h" ] || die 'DESTDIR was not obeyed'
with_pkg_config "$tmp/root/usr"

library=$(find "$tmp/moved" -name libvmem.so)
needs "$library" liblz4 libzstd
jemalloc=$(find "$tmp/moved" -name libvmem-jemalloc.so)
[ -z "$jemalloc" ] || needs "$jemalloc" libjemalloc libstdc++
crypto=$(find "$tmp/moved" -name libvmem-crypto.so)
[ -z "$crypto" ] || needs "$crypto" libcrypto
nbd=$(find "$tmp/moved" -name libvmem-nbd.so)
[ -z "$nbd" ] || needs "$nbd" libnbd
if grep -q '^VMEM_EXAMPLES:BOOL=ON' "$build/CMakeCache.txt"; then
	must 'vmem-estimate' env LD_LIBRARY_PATH="$(dirname "$library")" "$tmp/moved/bin/vmem-estimate" --help
	! readelf -dW "$tmp/moved/bin/vmem-estimate" | grep -E 'RPATH|RUNPATH' || die 'vmem-estimate: RPATH'
fi
readelf -dW "$library" | grep -q 'SONAME.*\[libvmem\.so\.1\]' || die 'soname is not libvmem.so.1'
must 'building opener.c' "$CC" "$here/consumer/opener.c" -o "$tmp/program" -ldl
must 'dlopen' "$tmp/program" "$library"

# The core alone, into a folder of libraries as Debian has it.
libdir=$("$CC" -print-multiarch 2>/dev/null) || libdir=
libdir=lib${libdir:+/$libdir}
must 'configuring the core' "$cmake" -S "$top" -B "$tmp/build" -DCMAKE_SYSTEM_NAME=Generic \
	-DCMAKE_C_COMPILER="$CC" -DCMAKE_INSTALL_LIBDIR="$libdir" -DVMEM_CORE_ONLY=ON -DVMEM_TESTS=OFF
must 'building the core' "$cmake" --build "$tmp/build"
must 'installing the core' "$cmake" --install "$tmp/build" --prefix "$tmp/core"
must 'checking the core' sh "$here/../freestanding/check.sh" "$tmp/core/$libdir/libvmem-core.a"
mv "$tmp/core" "$tmp/moved-core"
with_pkg_config "$tmp/moved-core"
with_find_package "$tmp/moved-core" core_c
