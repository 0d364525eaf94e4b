#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# What tests/support/results.sh says of tests that pass, fail and are late, with ctest itself. Each of these is one
# line of shell; its $runs tells how many times it ran before.
set -eu
. "$(dirname "$0")/setup.sh"
. "$(dirname "$0")/results.sh"
vmem_scratch "${TMPDIR:-/tmp}/vmem-results.XXXXXX"
wrong=0

LATE='echo "timed out: a < b"; exit 75'

# add NAME SHELL [TIMEOUT]
add() {
	{
		echo "runs=\$(cat '$scratch/$1.runs' 2>/dev/null || echo 0)"
		echo "echo \$((runs + 1)) >'$scratch/$1.runs'"
		echo "$2"
	} >"$scratch/$1.sh"
	{
		echo "add_test($1 sh \"$scratch/$1.sh\")"
		echo "set_tests_properties($1 PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT ${3:-60})"
	} >>"$scratch/CTestTestfile.cmake"
}

# expect CASE AGAIN STATUS: what was added ends so; standard input: the lines of the summary.
expect() {
	cat >"$scratch/want"
	status=0
	vmem_run_tests "$scratch" "$2" >"$scratch/all" 2>&1 || status=$?
	[ $status -eq 0 ] || status=1
	grep -E '^(skipped|unsteady|failed [^b]|[0-9]+ passed)' "$scratch/all" >"$scratch/got" || :
	if [ $status -ne "$3" ] || ! diff "$scratch/want" "$scratch/got"; then
		echo "$1: status $status; all it said:"
		cat "$scratch/all"
		wrong=1
	fi
}

# ran NAME TIMES
ran() {
	if [ "$(cat "$scratch/$1.runs")" -ne "$2" ]; then
		echo "$1 ran $(cat "$scratch/$1.runs") times, not $2"
		wrong=1
	fi
}

afresh() {
	find "$scratch" -mindepth 1 -delete
}

add one.good 'exit 0'
add two 'echo "skipped: no <such> thing"; exit 77'
expect 'none fails' 3 0 <<-END
	skipped two: no <such> thing
	1 passed, 0 failed, 1 skipped
END
ran one.good 1

afresh
add one.good 'exit 0'
add two.late "[ \$runs -gt 0 ] || { $LATE; }"
add slow "[ \$runs -gt 0 ] || sleep 60" 5
expect 'late once' 2 0 <<-END
	unsteady two.late: timed out: a < b
	unsteady slow: timed out: its end
	3 passed, 0 failed, 0 skipped
END
ran one.good 1
ran two.late 3
ran slow 3

afresh
add one.good 'exit 0'
add two.late "[ \$runs -gt 0 ] || { $LATE; }"
expect 'late once, and not asked again' 0 1 <<-END
	failed two.late
	1 passed, 1 failed, 0 skipped
END
ran two.late 1

afresh
add two.late "[ \$runs -eq 2 ] || { $LATE; }"
add three.late "[ \$runs -gt 0 ] || { $LATE; }"
expect 'late too often' 3 1 <<-END
	failed two.late
	failed three.late
	0 passed, 2 failed, 0 skipped
END

afresh
add two.late "[ \$runs -gt 0 ] || { $LATE; }"
add wrong 'exit 1'
expect 'another fails' 3 1 <<-END
	failed two.late
	failed wrong
	0 passed, 2 failed, 0 skipped
END
ran two.late 1

# Late, but not that alone.
for end in 'kill -ABRT $$' 'kill -SEGV $$'; do
	afresh
	add dies "[ \$runs -gt 0 ] || { echo 'timed out: x'; $end; }"
	expect "$end" 3 1 <<-END
		failed dies
		0 passed, 1 failed, 0 skipped
	END
	ran dies 1
done
for word in 'WARNING: ThreadSanitizer: data race' 'x.c:1: runtime error: shift' "x: Assertion \\\`y' failed."; do
	afresh
	add races "[ \$runs -gt 0 ] || { echo \"$word\"; $LATE; }"
	expect "$word" 3 1 <<-END
		failed races
		0 passed, 1 failed, 0 skipped
	END
	ran races 1
done
exit $wrong
