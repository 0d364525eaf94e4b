#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Builds the benches and runs them: see usage().
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
. "$top/tests/support/setup.sh"

usage() {
	cat <<-END
		Usage: sh bench/run.sh [OPTION]...
		Installs what is missing (Debian, Ubuntu), builds libvmem in build-bench/ and measures it beside
		its peers, in the same run. Prints a table for each bench; bench/README.md tells how to read it.
		What a bench changes on the system (swap on zram, page-cluster, KSM, cgroups) it puts back, also
		when it fails or is interrupted. Nothing else should run meanwhile.

		  --only NAME   this bench: $benches
		  --images DIR  pages of the guest images DIR/*.img (bench/images.sh makes some); otherwise
		                pages of the files of this machine
		  --quick       a third of the work
		  --json FILE   write a line for each metric to FILE
		  --help        this text

		As an ordinary user the peers that need root are missing, and the benches say so.
	END
}

fail() {
	echo "bench/run.sh: $1" >&2
	exit 2
}

benches="store density scan slots swap track fault reclaim balloon ept"
only=
images=
quick=
json=
while [ $# -gt 0 ]; do
	case $1 in
	--only | --images | --json)
		[ $# -ge 2 ] || fail "$1 needs a value"
		eval "${1#--}=\$2"
		shift
		;;
	--quick) quick=--quick ;;
	--help | -h) usage; exit 0 ;;
	*) fail "unknown option $1; try --help" ;;
	esac
	shift
done
case " $benches " in
*" ${only:-store} "*) ;;
*) fail "no bench $only: there are $benches" ;;
esac
if [ -n "$images" ]; then
	set -- "$images"/*.img
	[ -e "$1" ] || fail "no *.img in $images; make some: sh bench/images.sh $images"
fi
[ -z "$json" ] || [ ! -d "$json" ] || fail "$json is a folder"

vmem_need build bench examples
# One guest of one bench, which says so where there is none.
case ${only:-balloon} in
balloon) vmem_need uml || true ;;
esac
build=$top/build-bench
vmem_build "$top" "$build" -DVMEM_TESTS=OFF -DVMEM_EXAMPLES=ON
[ -z "$json" ] || : >"$json"

[ "$(id -u)" -eq 0 ] ||
	echo "Not root: the peers zram-lz4, ksm and memory cgroup will be missing."
failed=
for name in ${only:-$benches}; do
	"$build/bench/bench-$name" $quick ${images:+--images "$images"} ${json:+--json "$json"} ||
		failed="$failed $name"
done
[ -z "$failed" ] || {
	echo "bench/run.sh: failed:$failed" >&2
	exit 1
}
