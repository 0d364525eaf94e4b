# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# Runs tests and counts; to be sourced.
#
#	vmem_run_tests BUILD AGAIN [CTEST-OPTION]...
# runs ctest in the folder BUILD (an absolute path) and sums up: lines that begin with "skipped", "unsteady" and
# "failed", then "N passed, N failed, N skipped". Returns 0 only if none failed.
#
# A test that failed by the clock alone is run AGAIN times more, with nothing beside it; if it passes each time it
# counts as passed, and is told as unsteady. By the clock alone: it ended with a line that begins with "timed out: "
# (support/deadline.h), or ctest ended it, and no sanitizer and no assertion said anything. Where anything else has
# failed nothing is run again. AGAIN 0: no test is.

# The tests that failed by what ctest printed, as lines "NAME REASON"; its own word for the reason.
vmem_failed_tests() {
	sed -n '/^The following tests FAILED:/,$s/^[[:space:]]*[0-9]* - \([^ ]*\) (\([^)]*\)).*/\1 \2/p' "$1"
}

# Of those in the file FAILED, the ones that failed by the clock alone, as lines "NAME WHAT": RESULTS FAILED.
vmem_late_tests() {
	awk -v failed="$2" '
		FILENAME == failed { reason[$1] = substr($0, length($1) + 2); next }
		/<testcase / {
			name = $0; sub(/.* name="/, "", name); sub(/".*/, "", name)
			what = ""; wrong = 0
		}
		/Sanitizer|runtime error:|Assertion/ { wrong = 1 }
		/^(.*<system-out>)?timed out: / { what = $0; sub(/.*timed out: /, "timed out: ", what) }
		/<\/testcase>/ && name in reason && !wrong {
			if (reason[name] == "Timeout")
				print name " timed out: its end"
			else if (reason[name] == "Failed" && what != "")
				print name " " what
		}' "$2" "$1"
}

# Sums up RESULTS, where the tests in the file LATE are unsteady; fails if a test has. The reason of a skipped test
# is the last line that it printed.
vmem_sum_up() {
	awk -v unsteady="$2" '
		function text(s) {
			sub(/^skip(ped)?: */, "", s)
			gsub(/&lt;/, "<", s); gsub(/&gt;/, ">", s); gsub(/&quot;/, "\"", s)
			gsub(/&apos;/, "\047", s); gsub(/&amp;/, "\\&", s)
			return s
		}
		FILENAME == unsteady {
			late[$1] = substr($0, length($1) + 2)
			next
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
			else if (name in late) {
				passed++
				unsteadies[++count] = name ": " text(late[name])
			} else
				failures[++failed] = name
		}
		END {
			for (i = 1; i <= skipped; i++)
				print "skipped " reasons[i]
			for (i = 1; i <= count; i++)
				print "unsteady " unsteadies[i]
			for (i = 1; i <= failed; i++)
				print "failed " failures[i]
			printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
			exit failed > 0
		}' "$2" "$1"
}

vmem_ctest() {
	vmem_output=$1
	shift
	{
		vmem_status=0
		ctest --output-on-failure "$@" || vmem_status=$?
		echo "$vmem_status" >"$vmem_output.status"
	} | tee "$vmem_output"
	read -r vmem_status <"$vmem_output.status"
	return "$vmem_status"
}

# All in the file LATE run again, AGAIN times each.
vmem_run_late() {
	vmem_steady=0
	while read -r vmem_name vmem_what; do
		echo "failed by the clock, once more: $vmem_name ($vmem_what)"
		vmem_name=$(printf '%s\n' "$vmem_name" | sed 's/[.+]/\\&/g')
		vmem_ctest "$vmem_tests/again.txt" --test-dir "$vmem_tests" -R "^$vmem_name\$" \
			--repeat "until-fail:$2" </dev/null || vmem_steady=1
	done <"$1"
	return $vmem_steady
}

vmem_run_tests() {
	vmem_tests=$1 vmem_again=$2 vmem_error=0
	shift 2
	vmem_results=$vmem_tests/results.xml vmem_late=$vmem_tests/late.txt vmem_failed=$vmem_tests/failed.txt
	rm -f "$vmem_results"
	vmem_ctest "$vmem_tests/ctest.txt" --test-dir "$vmem_tests" --no-tests=error \
		--output-junit "$vmem_results" "$@" || vmem_error=$?
	[ -e "$vmem_results" ] || return 1
	vmem_failed_tests "$vmem_tests/ctest.txt" >"$vmem_failed"
	vmem_late_tests "$vmem_results" "$vmem_failed" >"$vmem_late"
	if [ "$vmem_again" -gt 0 ] && [ -s "$vmem_late" ] &&
		[ "$(wc -l <"$vmem_late")" -eq "$(wc -l <"$vmem_failed")" ] &&
		vmem_run_late "$vmem_late" "$vmem_again"; then
		vmem_error=0
	else
		: >"$vmem_late"
	fi
	vmem_sum_up "$vmem_results" "$vmem_late" || vmem_error=1
	return $vmem_error
}
