#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# The doc comment of each public function says from which threads it may be called, and since when it
# is there.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
awk -f "$here/api.awk" "$here"/../../include/vmem/*.h | awk '
	{ functions++ }
	NF > 3 { $1 = ""; print "not documented:" $0; failed = 1 }
	END { exit failed || !functions }'
