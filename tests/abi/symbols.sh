#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# symbols.sh LIBVMEM.SO LIBVMEM.A LIBVMEM-CORE.A [LIBVMEM-SECOND.SO]...
# Says what differs between the functions marked VMEM_API in the headers, lib/libvmem.map, and what
# libvmem.so exports; which functions of libvmem.a have foreign names; and what second
# libraries (libvmem-NAME.so) export besides their headers (NAME.h). Says nothing and exits 0 when all is right.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$here/../..
[ $# -ge 3 ] || { sed -n '3,6s/^# //p' "$0"; exit 2; }
so=$1 archive=$2 core=$3
shift 3

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0

# same WHAT FILE-OF-WHAT WHERE FILE-OF-WHERE: names that stand in one of the files only.
same() {
	for pair in "$1|$2|$3|$4" "$3|$4|$1|$2"; do
		IFS='|' read -r in list not other <<-END
			$pair
		END
		comm -23 "$list" "$other" >"$tmp/only"
		if [ -s "$tmp/only" ]; then
			echo "in $in, but not in $not:"
			sed 's/^/	/' "$tmp/only"
			failed=1
		fi
	done
}

# Functions of headers, as "node name".
functions() {
	awk -f "$here/api.awk" "$@" | awk '{ print $1, $2 }'
}

for header in "$top"/include/vmem/*.h; do
	case $(basename "$header") in
	jemalloc.h | crypto.h | nbd.h) ;;
	*) functions "$header" ;;
	esac
done | sort >"$tmp/headers"
[ -s "$tmp/headers" ] || { echo 'no VMEM_API function found in the headers'; exit 1; }

awk '/^VMEM_[A-Z0-9_.]+ *\{/ { node = $1 } /local:/ { node = "" }
	node && /^[ \t]*vmem_[a-z0-9_]+;/ { sub(/;.*/, ""); print node, $1 }' \
	"$top/lib/libvmem.map" | sort >"$tmp/map"

nm -D --defined-only "$so" | awk '$2 != "A" && split($3, at, /@+/) == 2 { print at[2], at[1] }
	$2 != "A" && $3 !~ /@/ { print "(no node)", $3 }' | sort >"$tmp/so"

same 'the headers' "$tmp/headers" lib/libvmem.map "$tmp/map"
same 'the headers' "$tmp/headers" "$(basename "$so")" "$tmp/so"

# The archives have no map to hide anything.
for a in "$archive" "$core"; do
	nm -g --defined-only "$a" | awk 'NF == 3 && $3 !~ /^vmemi?_/ { print $3 }' >"$tmp/foreign"
	if [ -s "$tmp/foreign" ]; then
		echo "names of $(basename "$a") that do not begin with vmem_ or vmemi_:"
		sed 's/^/	/' "$tmp/foreign"
		failed=1
	fi
done

for second; do
	header=${second##*/libvmem-}
	header=${header%%.so*}.h
	functions "$top/include/vmem/$header" | awk '{ print $2 }' | sort >"$tmp/headers"
	nm -D --defined-only "$second" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort >"$tmp/so"
	same "$header" "$tmp/headers" "$(basename "$second")" "$tmp/so"
done
exit $failed
