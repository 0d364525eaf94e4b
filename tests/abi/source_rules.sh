#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Who may include whom, and how long a file may be. The table has one line a module: its name, the
# modules of lib/ that it may include besides itself, and the headers of include/vmem/ ("all": any).
# A module that is not in the table fails.
set -eu
cd "$(dirname "$0")/../.."

export RULES='
base      -                          allocator common device env codec
balloon   base                       allocator balloon balloon_driver balloon_host balloon_protocol common
codec     base                       allocator common env codec
dedup     base                       allocator common env dedup
ept       base                       allocator common ept ept_format ept_track ept_walk
pool      base                       allocator common env codec pool
share     base,dedup                 allocator common env dedup share
similar   base                       allocator common similar
slots     base                       allocator common env slots
track     base                       allocator common threshold trace track
store     base,codec,dedup,pool,similar,slots allocator common device env codec dedup pool similar slots store store_device
linux     base,codec,pool,store      all
jemalloc  base                       allocator common jemalloc
crypto    base                       allocator common crypto device
nbd       base,linux                 allocator common device nbd
'

# Each prints what is against the rules.
who_includes_whom() {
	find lib -name '*.[ch]' -exec awk '
		BEGIN {
			lines = split(ENVIRON["RULES"], line, "\n")
			for (l = 1; l <= lines; l++) {
				fields = split(line[l], field, " ")
				if (!fields)
					continue
				modules = split(field[2] "," field[1], module, ",")
				for (m = 1; m <= modules; m++)
					may[field[1], module[m] "/"] = 1
				for (f = 3; f <= fields; f++)
					may[field[1], "<" field[f] ">"] = 1
			}
		}
		FNR == 1 {
			split(FILENAME, path, "/")
			if (!((path[2], path[2] "/") in may))
				print FILENAME ": module " path[2] " is not in the table"
		}
		/^[ \t]*#[ \t]*include[ \t]*"/ {
			split($0, part, "\"")
			folder = part[2]
			sub(/\/.*/, "/", folder)
			if (part[2] ~ /\.\./ || part[2] !~ /\//)
				print FILENAME ":" FNR ": \"" part[2] "\" is not relative to lib/"
			else if (!((path[2], folder) in may))
				print FILENAME ":" FNR ": may not include \"" part[2] "\""
		}
		/^[ \t]*#[ \t]*include[ \t]*<vmem/ {
			name = $0
			gsub(/.*<vmem\/?|\.h>.*/, "", name)
			if (!((path[2], "<" name ">") in may) && !((path[2], "<all>") in may))
				print FILENAME ":" FNR ": may not include <vmem/" name ".h>"
		}' {} +
}

# Examples and benches know public headers only: a header in quotes is a neighbour of theirs.
neighbours_only() {
	find examples bench -name '*.[ch]' -exec grep -H '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' {} + |
		while IFS=:\" read -r file _ name _; do
			[ -e "${file%/*}/$name" ] || [ -e "${file%%/*}/$name" ] ||
				echo "$file: \"$name\" is neither public nor a neighbour"
		done
}

sizes_and_names() {
	find include lib bench examples tests -name '*.[ch]' -exec awk '
		FNR == 301 && FILENAME ~ /h$/ { print FILENAME ": more than 300 lines" }
		FNR == 601 && FILENAME ~ /c$/ { print FILENAME ": more than 600 lines" }' {} +
	find lib bench examples tests -name '*.[ch]' | sed 's|.*/||' | sort | uniq -d |
		sed 's/$/: two files of this name/'
}

found=$(who_includes_whom && neighbours_only && sizes_and_names)
[ -z "$found" ] || { printf '%s\n' "$found"; exit 1; }
