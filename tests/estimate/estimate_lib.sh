# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# For the tests of vmem-estimate; to be sourced, with the paths of it and of estimate_vm in $1 and $2.
# shellcheck source=../runner/runner_lib.sh
. "$(dirname "$0")/../runner/runner_lib.sh"
# shellcheck disable=SC2034 # used there
estimate=$1
vm=$2
json=$scratch/out.json

# number_of SECTION NAME: of the JSON. SECTION: vms total shared; of VMs it is that of the first.
number_of() {
	awk -v section="\"$1\":" -v name="\"$2\":" '
		$1 == section { inside = 1 }
		inside && $1 == name { sub(/,$/, "", $2); print $2; exit }' "$json"
}

# has SECTION NAME VALUE: that is what it is.
has() {
	found=$(number_of "$1" "$2")
	[ "$found" = "$3" ] || fail "$1: $2 is ${found:-not there} instead of $3"
}

# has_about SECTION NAME VALUE DIFFERENCE
has_about() {
	found=$(number_of "$1" "$2")
	if [ "${found:-0}" -lt $(($3 - $4)) ] || [ "$found" -gt $(($3 + $4)) ]; then
		fail "$1: $2 is ${found:-not there} instead of about $3"
	fi
}

# pages_of SECTION ZERO SAME EQUAL ALIKE ZSTD LZ4 INCOMPRESSIBLE: and their sum.
pages_of() {
	section=$1
	shift
	sum=0
	for kind in zero same_filled equal alike zstd lz4 incompressible; do
		case $kind in
		# A page may be one that Zstandard does not make that much smaller.
		zstd | lz4) has_about "$section" "${kind}_pages" "$1" 2 ;;
		*) has "$section" "${kind}_pages" "$1" ;;
		esac
		sum=$((sum + $1))
		shift
	done
	has "$section" pages "$sum"
}

# make IMAGE SEED KIND:COUNT...: adds pages to it. The store lets the last segment of a VM be: random pages
# at the end, whose form is final, are those in it.
make() {
	image=$scratch/$1
	shift
	"$vm" make "$@" >>"$image"
}
