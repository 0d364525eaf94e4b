#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Shows what libvmem does: VMs with more memory than there is, and not one wrong byte. See usage().
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=../tests/support/setup.sh
. "$top/tests/support/setup.sh"

usage() {
	cat <<-END
		Usage: sh examples/demo.sh [OPTION]...
		Installs what is missing (Debian, Ubuntu), builds libvmem in build-demo/ and runs 4 VMs of
		256 MiB in 40 % of their memory for 30 s, with different workloads, under a live table.
		They are one sharing group: what is equal in their memory is kept once. Each gives 10 % of its
		memory by a virtio balloon, and takes it back before the end. The guests verify every page. Their physical memory is measured from outside: by the usage of a
		memory cgroup of its own as root, else by Pss. Before that, in a run of 2 s, a page is dropped
		on purpose, to show that a wrong byte would be found.

		--swap, alone and first: memory that does not fit even compressed. One VM of 1 GiB in 10 % of
		that for 60 s; the rest goes to a file without a name in build-demo/. The kernel's own memory
		is measured and shown, but not judged: page tables alone, which no budget holds, are 7 % of this one.

		Exit status 0 only if no byte was wrong, and never more than budget + 5 % was used.

		Options are those of the runner, which come after the demo's own:
		  --seconds 60  --budget 500M  --image FILE  --workload scan  --json FILE  --backend thread ...
		See all with: build-demo/examples/kvm-runner/vmem-kvm-runner --help
	END
}

json=
previous=
for argument; do
	case $argument in
	--help | -h) usage; exit 0 ;;
	--json=*) json=${argument#--json=} ;;
	esac
	[ "$previous" != --json ] || json=$argument
	previous=$argument
done

vmem_need build examples

build=$top/build-demo
apart=
# With a path behind it, it is the runner's, as any other option.
case "${1:-} ${2:-}" in
'--swap ' | '--swap -'*)
	shift
	apart=--kernel-apart
	set -- --vms 1 --mem 1G --budget 10% --seconds 60 --workload zipf --swap "$build:4G" "$@"
	;;
*) set -- --vms 4 --mem 256M --budget 40% --sharing group --balloon 10% --seconds 30 \
	--workload zipf,hotcold,churn,zerofill "$@" ;;
esac
vmem_build "$top" "$build" -DVMEM_TESTS=OFF -DVMEM_BENCH=OFF
runner=$build/examples/kvm-runner/vmem-kvm-runner
outside=$build/examples/kvm-runner/vmem-outside

vmem_scratch "${TMPDIR:-/tmp}/vmem.XXXXXX"
[ -n "$json" ] || json=$scratch/demo.json

# The same VMs as below: so what the kernel needs to know of the files that their memory is made of is in
# its caches then, and does not count as memory of theirs.
echo "1. Can the check fail? A page is dropped behind a guest's back."
status=0
"$runner" "$@" --seconds 2 --workload zipf --quiet --json "$scratch/drop.json" --inject drop-page \
	>"$scratch/drop.txt" 2>&1 || status=$?
if [ $status -ne 1 ] || ! grep 'WRONG BYTE' "$scratch/drop.txt"; then
	cat "$scratch/drop.txt"
	[ $status -le 1 ] || exit $status # it has said why
	echo "FAILED: the dropped page was not found."
	exit 1
fi
echo "   It was found."
echo
echo "2. More memory than there is."
status=0
# shellcheck disable=SC2086 # an option or none
"$outside" --json "$json" --tolerance 5 $apart "$runner" --json "$json" "$@" || status=$?
echo
if [ $status -eq 0 ]; then
	echo "ALL HELD: every page of every guest was right, in no more memory than budget + 5 %."
else
	echo "FAILED, exit status $status: see above."
fi
exit $status
