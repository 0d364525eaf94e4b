#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# RUNNER DENY: without KVM, and without the right to use userfaultfd, it says what to do.
# shellcheck source-path=SCRIPTDIR source=runner_lib.sh
. "$(dirname "$0")/runner_lib.sh"
deny=$2
small='--quiet --vms 1 --mem 32M --budget 80% --seconds 1'

unshare -m true 2>/dev/null || skip "needs root, to hide devices from the runner"
need thread

# hidden DEVICE... -- COMMAND...: with these devices not there.
hidden() {
	# shellcheck disable=SC2016 # for the inner shell
	command='set -e; while [ "$1" != -- ]; do mount --bind /dev/null "$1"; shift; done; shift; exec "$@"'
	unshare -m sh -c "$command" sh "$@"
}

# Words of $small are meant to be split.
# shellcheck disable=SC2086
{
	if may kvm; then
		run 2 hidden /dev/kvm -- "$runner" $small --backend kvm
		says 'No KVM: .*--backend thread'
		run 0 hidden /dev/kvm -- "$runner" $small
		says 'the same payloads run as threads of this process'
		says 'right: 1 of 1'
	else
		echo "left out, without /dev/kvm: $why"
	fi

	devices=
	[ ! -e /dev/userfaultfd ] || devices=/dev/userfaultfd
	run 2 hidden $devices -- "$deny" "$runner" $small --backend thread
	says 'may not use userfaultfd.*vm.unprivileged_userfaultfd=1'

	# Faults of user mode alone: enough for threads, not for KVM.
	if [ "$(cat /proc/sys/vm/unprivileged_userfaultfd 2>/dev/null)" != 0 ]; then
		echo 'left out, faults of user mode alone: vm.unprivileged_userfaultfd is not 0 here'
	else
		weak='setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace'
		run 0 hidden $devices -- $weak "$runner" $small --backend thread
		says 'right: 1 of 1'
		if may kvm; then
			run 2 hidden $devices -- $weak "$runner" $small --backend kvm
			says 'only use userfaultfd for faults of user mode.*vm.unprivileged_userfaultfd=1'
			run 0 hidden $devices -- $weak "$runner" $small
			says 'No right to serve the faults of KVM.*run as threads'
			says 'right: 1 of 1'
		fi
	fi
}
