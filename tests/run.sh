#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Builds libvmem and runs its tests: see usage().
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"
. tests/support/setup.sh
. tests/support/results.sh

usage() {
	cat <<-END
		Usage: sh tests/run.sh [OPTION]...
		Installs what is missing (Debian, Ubuntu), builds libvmem in build/ and runs the tests.
		The last line is "N passed, N failed, N skipped"; exit status 0 only if none failed.

		  --label L   only tests with this label: unit model fault linux hardware stress fuzz abi install,
		              and timing, which measures: only if it is named, on an idle machine
		  --preset P  another build, in build-P/: debug asan tsan clang fuzz freestanding
		              freestanding-clang freestanding-aarch64
		  --again N   what fails by the clock alone is run N times more, with nothing beside it; if it
		              passes each time it counts as passed, and is told as "unsteady NAME". Default: 0
		  --jobs N    so many at a time; default: the number of processors
		  --help      this text

		VMEM_TEST_SEED=N in the environment repeats random tests with the seed that they printed.
	END
}

preset=release
label=
again=0
jobs=$(nproc 2>/dev/null || echo 2)
while [ $# -gt 0 ]; do
	case $1 in
	--label | --preset | --again | --jobs)
		[ $# -ge 2 ] || { echo "tests/run.sh: $1 needs a value" >&2; exit 2; }
		eval "${1#--}=\$2"
		shift
		;;
	--help | -h) usage; exit 0 ;;
	*) echo "tests/run.sh: unknown option $1; try --help" >&2; exit 2 ;;
	esac
	shift
done

vmem_need build tests examples bench # all of it is built
case $preset in
*clang | *aarch64 | fuzz) vmem_need ci ;;
esac
case $preset in
release | debug | clang) vmem_need hardware || echo "tests that need these will be skipped" >&2 ;;
esac

build=build-$preset
[ "$preset" != release ] || build=build
mkdir -p "$build"

vmem_quietly "$build/log.txt" cmake --preset "$preset"
vmem_quietly "$build/log.txt" cmake --build --preset "$preset" --parallel "$jobs"

if [ -n "$label" ]; then
	set -- -L "^$label\$"
else
	set -- -LE '^timing$'
fi
status=0
vmem_run_tests "$top/$build" "$again" --parallel "$jobs" "$@" || status=$?
exit "$status"
