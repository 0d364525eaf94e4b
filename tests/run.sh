#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Builds libvmem and runs its tests: see usage().
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"
. tests/support/setup.sh

usage() {
	cat <<-END
		Usage: sh tests/run.sh [OPTION]...
		Installs what is missing (Debian, Ubuntu), builds libvmem in build/ and runs the tests.
		The last line is "N passed, N failed, N skipped"; exit status 0 only if none failed.

		  --label L   only tests with this label: unit model fault linux stress fuzz abi install,
		              and timing, which measures: only if it is named, on an idle machine
		  --preset P  another build, in build-P/: debug asan tsan clang fuzz freestanding
		              freestanding-clang freestanding-aarch64
		  --jobs N    so many at a time; default: the number of processors
		  --help      this text

		VMEM_TEST_SEED=N in the environment repeats random tests with the seed that they printed.
	END
}

preset=release
label=
jobs=$(nproc 2>/dev/null || echo 2)
while [ $# -gt 0 ]; do
	case $1 in
	--label | --preset | --jobs)
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

build=build-$preset
[ "$preset" != release ] || build=build
results=$build/results.xml
mkdir -p "$build"

vmem_quietly "$build/log.txt" cmake --preset "$preset"
vmem_quietly "$build/log.txt" cmake --build --preset "$preset" --parallel "$jobs"

rm -f "$results"
status=0
if [ -n "$label" ]; then
	set -- -L "^$label\$"
else
	set -- -LE '^timing$'
fi
ctest --preset "$preset" --parallel "$jobs" --output-junit "$top/$results" --no-tests=error "$@" ||
	status=$?
[ -e "$results" ] || exit 1

# The reason of a skipped test is the last line that it printed.
awk '
	function text(s) {
		sub(/^skip(ped)?: */, "", s)
		gsub(/&lt;/, "<", s); gsub(/&gt;/, ">", s); gsub(/&quot;/, "\"", s)
		gsub(/&apos;/, "\047", s); gsub(/&amp;/, "\\&", s)
		return s
	}
	/<testcase / {
		name = $0; sub(/.* name="/, "", name); sub(/".*/, "", name)
		state = $0; sub(/.* status="/, "", state); sub(/".*/, "", state)
		code = why = ""
	}
	/<skipped message="/ { code = $0; sub(/.*<skipped message="/, "", code) }
	/<system-out>/ { out = 1; sub(/.*<system-out>/, "") }
	out { line = $0; sub(/<\/system-out>.*/, "", line); if (line ~ /[^ \t]/) why = line }
	/<\/system-out>/ { out = 0 }
	/<\/testcase>/ {
		if (state == "run")
			passed++
		else if (state == "notrun" && code ~ /^SKIP_RETURN_CODE/)
			reasons[++skipped] = name ": " text(why)
		else
			failures[++failed] = name
	}
	END {
		for (i = 1; i <= skipped; i++)
			print "skipped " reasons[i]
		for (i = 1; i <= failed; i++)
			print "failed " failures[i]
		printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
	}' "$results"
exit "$status"
