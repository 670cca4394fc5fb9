#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# The far benches leave nothing behind: no swap, no zram device, no cgroup, no file, no process;
# also when they are interrupted, or killed. What ended a side that did not get to its end is said.
# Without root they are skipped with a reason.
# Usage: [SEED=N] tests/cli/bench_far.sh     the moments of the signals, as a run with that seed had them
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh
seed=${SEED:-$(od -An -N2 -tu2 /dev/urandom | tr -d ' ')}
RANDOM=$seed
echo "seed $seed"
balun=$(readlink -f "$BUILD")/balun
[ -x "$balun" ] || { fail "no $balun: build first" && summary; }
tmp=$(mktemp -d /var/tmp/balun-test-far-XXXXXX)
export TMPDIR=$tmp
trap 'rm -rf "$tmp"' EXIT

state() {
	tail -n +2 /proc/swaps
	ls /sys/block
	ls -d /sys/fs/cgroup/balun-far-* /sys/fs/cgroup/memory/balun-far-* 2>/dev/null
	ls "$tmp"
}

# until the keeper has ended, whom nobody waits for when the bench was killed
settled() { # what was before
	for _ in $(seq 200); do
		[ "$(state)" = "$1" ] && return 0
		sleep 0.1
	done
	diff <(echo "$1") <(state)
	return 1
}

# the cgroup with the limit that a bench has made
cgroup_of() { # pid of the bench
	local child
	for child in $(cat /proc/$1/task/$1/children 2>/dev/null); do
		ls -d /sys/fs/cgroup/memory/balun-far-$child-1 /sys/fs/cgroup/balun-far-$child-1 2>/dev/null
	done
}

# The kernel's side is ended while Balun's goes on: who, and by what, is said. Where the kernel itself
# did it there is nothing to compare with, which is no failure.
ended() { # by: oom or kill, the bench, what it must say, its exit code
	local by=$1 name=$2 want=$3 want_rc=$4 out=$tmp/out group='' pid rc
	"$balun" bench --json --runs 1 "$name" >"$out" 2>&1 &
	pid=$!
	for _ in $(seq 1200); do
		kill -0 $pid 2>/dev/null || break
		group=$(cgroup_of $pid)
		if [ -n "$group" ] && [ "$by" = oom ]; then # no swap for it
			echo 0 2>/dev/null >"$group/memory.swap.max" ||
				cat "$group/memory.limit_in_bytes" >"$group/memory.memsw.limit_in_bytes"
			break
		elif [ -n "$group" ] && kill -9 $(cat "$group/cgroup.procs") 2>/dev/null; then
			break
		fi
		sleep 0.05
	done
	wait $pid
	rc=$?
	if [ $rc -eq "$want_rc" ] && grep -q "$want" "$out"; then pass; else fail "$name, the kernel's side ended by $by: exit $rc: $(cat "$out")"; fi
	rm -f "$out"
}

before=$(state)
for name in far_lz4_seq_write_2x far_file_seq_write_2x; do
	out=$("$balun" bench --json --runs 1 $name 2>&1)
	rc=$?
	case $rc:$out in
	3:*'"skipped":"'?*) skip "$name" "$(sed 's/.*"skipped":"\([^"]*\)".*/\1/' <<<"$out")" ;;
	0:*'"ratio":'*'"detail":"peak resident '*) pass ;;
	*) fail "$name: exit $rc: $out" ;;
	esac
	if state_diff=$(settled "$before"); then pass; else fail "$name leaves: $state_diff"; fi
	[ $rc -eq 0 ] || continue
	ended oom $name "\"skipped\":\"the kernel's side cannot be compared: its OOM killer" 3
	ended kill $name '"failed":"the program without Balun was ended by signal 9 (Killed)"' 1
	if state_diff=$(settled "$before"); then pass; else fail "$name, the kernel's side ended, leaves: $state_diff"; fi
	for sig in INT TERM KILL; do
		# in a process group of its own, as a terminal would have it
		env --default-signal=INT setsid "$balun" bench --runs 1 $name >/dev/null 2>&1 &
		pid=$!
		for _ in $(seq 100); do # something is there: the moment does not matter more than that
			[ "$(state)" != "$before" ] && break
			sleep 0.05
		done
		at=0.$((RANDOM % 10))
		sleep $at
		kill -$sig -- -$pid 2>/dev/null
		wait $pid 2>/dev/null
		if state_diff=$(settled "$before"); then pass; else fail "seed $seed: $name, SIG$sig after $at s, leaves: $state_diff"; fi
	done
done
summary
