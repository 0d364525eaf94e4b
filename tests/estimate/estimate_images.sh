#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# ESTIMATE VM: images of which it is known where each page goes.
# shellcheck source-path=SCRIPTDIR source=estimate_lib.sh
. "$(dirname "$0")/estimate_lib.sh"

make a.img 1 zero:100 half:20 word:30 word:30 letters:200 equal:7 random:300 alike:50 lines:150 tail:60
make a.img 2 random:200
run 0 "$estimate" --json "$json" "$scratch/a.img"
says 'a.img: reading'
pages_of vms 100 80 7 50 350 60 500
pages_of total 100 80 7 50 350 60 500
has vms memory_pages 1147
has vms tried_pages 121 # of 967, one in 8
! grep -q shared "$json" || fail "one image shares nothing"

# The same again is all equal, but for what is so within it; a third has 90 pages of the first.
make c.img 1 letters:90
make c.img 3 zero:10 equal:2 random:200
run 0 "$estimate" --quiet --json "$json" "$scratch/a.img" "$scratch/a.img" "$scratch/c.img"
! grep -q reading "$out" || fail "it is not quiet"
says '^all, sharing '
pages_of vms 100 80 7 50 350 60 500
pages_of total 210 160 15 100 791 120 1200
has shared equal_across_pages 1050 # 960 and 90
pages_of shared 210 160 1065 50 351 60 700

# The rule, and what is stored.
make random.img 5 random:1000
run 0 "$estimate" --quiet --json "$json" "$scratch/random.img"
has total safe_ratio 1
says 'saves nothing here'
make zero.img 1 zero:1000
run 0 "$estimate" --quiet --json "$json" --resident 40 "$scratch/zero.img"
has total stored_bytes 0
has total metadata_bytes 0
has total safe_ratio 2 # 1 / (0.4 + 0.1)

# A sample follows from its seed; the processor's time does not.
same_sample() {
	grep -v '_ns"' "$scratch/first.json" >"$scratch/first"
	grep -v '_ns"' "$json" | cmp -s - "$scratch/first"
}
make large.img 6 random:20000
run 0 "$estimate" --quiet --sample 10 --seed 7 --json "$json" "$scratch/large.img"
says 'sample of 10 %, seed 7'
pages=$(awk '$1 == "\"pages\":" { print $2 + 0; exit }' "$json")
{ [ "$pages" -gt 1800 ] && [ "$pages" -lt 2200 ]; } || fail "$pages pages are not 10 % of 20000"
cp "$json" "$scratch/first.json"
run 0 "$estimate" --quiet --sample 10 --seed 7 --json "$json" "$scratch/large.img"
same_sample || fail "the same seed gives another sample"
run 0 "$estimate" --quiet --sample 10 --seed 8 --json "$json" "$scratch/large.img"
! same_sample || fail "another seed gives the same sample"

# Twice 128 MiB that are stored in about half of it: it needs not much more, though all of it moves.
make half.img 7 letters:32768
make more.img 8 letters:32768
# shellcheck disable=SC2016 # for the inner shell
run 0 sh -c 'ulimit -v 204800 && exec "$@"' sh "$estimate" --quiet "$scratch/half.img" "$scratch/more.img"
says '^all, sharing .* 13[0-9] MiB'

if command -v gnuplot >/dev/null; then
	run 0 "$estimate" --quiet --plot "$scratch/it's.png" "$scratch/a.img" "$scratch/c.img"
	head -c 4 "$scratch/it's.png" | grep -q PNG || fail "this is not a picture"
else
	echo 'left out, --plot: there is no gnuplot'
fi

# On a terminal a bar says how far each step is, and is gone before the table comes; elsewhere there is none.
return_key=$(printf '\r')
! grep -q "$return_key" "$out" || fail "there is a bar without a terminal"
if command -v script >/dev/null; then
	# shellcheck disable=SC2016 # for the inner shell
	bar='"$ESTIMATE" $QUIET "$IMAGE" "$IMAGE"'
	export ESTIMATE="$estimate" IMAGE="$scratch/large.img"
	run 0 env QUIET= script -qec "$bar" "$scratch/terminal.txt"
	tr '\r' '\n' <"$scratch/terminal.txt" >"$out"
	says '^\[#* *\] *[0-9]* % .*reading'
	says '^\[#* *\] *[0-9]* % .*sharing'
	says '^all, sharing '
	# Each is wiped out before the next line is said.
	awk '/^\[/ { bar = 1; next } bar { bar = 0; left += /[^ ]/ } END { exit left > 0 }' "$out" ||
		fail "a bar was left"
	run 0 env QUIET=--quiet script -qec "$bar" "$scratch/terminal.txt"
	! grep -qF '[#' "$scratch/terminal.txt" || fail "there is a bar with --quiet"
else
	echo 'left out, the bar on a terminal: there is no script(1)'
fi
