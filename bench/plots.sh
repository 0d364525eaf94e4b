#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Draws what the benches have written: see usage().
set -eu

usage() {
	cat <<-END
		Usage: sh bench/plots.sh FILE DIR
		Draws curves of FILE, which bench/run.sh --json has written, as DIR/*.svg. Needs gnuplot.

		  churn.svg  what is lost beside the stored bytes while pages come and go: bench density
	END
}

fail() {
	echo "bench/plots.sh: $1" >&2
	exit 2
}

case ${1:-} in
--help | -h) usage; exit 0 ;;
esac
[ $# -eq 2 ] || fail 'give a file of JSON lines and a folder; try --help'
json=$1
dir=$2
[ -r "$json" ] || fail "cannot read $json"
[ -d "$dir" ] || fail "$dir is no folder"
command -v gnuplot >/dev/null ||
	fail 'gnuplot is missing. On Debian or Ubuntu: apt-get install gnuplot-nox'

# points FIELD: "CHURN VALUE" of each line that has one, the last run's if there are several.
points() {
	sed -n 's/^{"bench":"density","metric":"overhead_percent",.*"'"$1"'":\([0-9.e+-]*\),.*"case":"churn=\([0-9.]*\)"}$/\2 \1/p' "$json" |
		awk '{ value[$1] = $2 } END { for (at in value) print at, value[at] }' | sort -n
}

ours=$(points ours)
peer=$(points peer_value)
bar=$(points limit)
[ -n "$ours" ] || fail "$json has no overhead_percent: sh bench/run.sh --only density --json $json"

# Written beside, so that a drawing that fails leaves the old one.
trap 'rm -f "$dir/churn.svg.new"' EXIT
gnuplot <<END
set terminal svg size 560,320 font 'sans-serif,12' background '#ffffff'
set output '$dir/churn.svg.new'
set xlabel 'pages replaced since the start, as a share of those stored'
set ylabel 'lost, % of the stored bytes'
set yrange [0:*]
set grid ytics linecolor rgb '#dddddd'
set border 3
set tics nomirror
set key outside top center horizontal
\$ours << EOD
$ours
EOD
\$peer << EOD
${peer:-0 NaN}
EOD
\$bar << EOD
${bar:-0 NaN}
EOD
plot \$bar with lines linecolor rgb '#bbbbbb' dashtype 2 linewidth 1.5 title 'bar', \\
	\$ours with linespoints linecolor rgb '#4477aa' pointtype 7 pointsize 0.5 linewidth 2 title 'libvmem', \\
	\$peer with linespoints linecolor rgb '#ee6677' pointtype 5 pointsize 0.5 linewidth 2 title 'zram-lz4'
END
mv "$dir/churn.svg.new" "$dir/churn.svg"
