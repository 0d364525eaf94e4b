#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Each public header compiles alone, twice in a row, as C99 and as C++11, with and without what is
# experimental; and vmem.h includes all but those of second libraries.
set -eu
cd "$(dirname "$0")/../../include"
failed=0

compile() {
	printf '#include <%s>\n#include <%s>\n' "$header" "$header" |
		"$@" -I. -Wall -Wextra -pedantic -Werror -fsyntax-only - || {
		echo "<$header> does not compile with: $*"
		failed=1
	}
}

for header in vmem.h vmem/*.h; do
	for more in -UVMEM_EXPERIMENTAL -DVMEM_EXPERIMENTAL; do
		compile "${CC:-cc}" -x c -std=c99 $more
		compile "${CXX:-c++}" -x c++ -std=c++11 $more
	done
	case $header in
	vmem.h | vmem/jemalloc.h | vmem/crypto.h | vmem/nbd.h) ;;
	*)
		grep -q "^#include <$header>\$" vmem.h || {
			echo "vmem.h does not include <$header>"
			failed=1
		}
		;;
	esac
done
exit $failed
