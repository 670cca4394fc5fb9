#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# kill -9 at many moments of the demo: nothing of it may be left behind, neither a process nor a file
# nor shared memory.
# Usage: tests/stress/kill9.sh [ROUNDS]
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh
. tests/lib/left.sh

rounds=${1:-40}
tmp=$(mktemp -d)
trap 'left_end; rm -rf "$tmp"' EXIT
mkdir "$tmp/files"
left_begin "$tmp/files" kill9
export TMPDIR=$tmp/files

files() {
	find /dev/shm /tmp /var/tmp -maxdepth 1 ! -type d -newer "$tmp/stamp" -name '*balun*' 2>/dev/null
}
touch "$tmp/stamp"

t0=$(date +%s%N)
"$BUILD/balun" demo --hammer 2 >/dev/null 2>&1
report $? 'the demo fails without being killed'
whole_ms=$((($(date +%s%N) - t0) / 1000000))

for ((i = 0; i < rounds; i++)); do
	left_run setsid "$BUILD/balun" demo --hammer 2 >/dev/null 2>&1 &
	pid=$!
	# moments spread over the whole run
	at=$((whole_ms * i / rounds))
	sleep "$((at / 1000)).$(printf %03d $((at % 1000)))"
	kill -9 "$pid" 2>/dev/null
	wait "$pid" 2>/dev/null
	left=$(ps -o pid= -s "$pid" 2>/dev/null)
	[ -z "$left" ]
	report $? "round $i: processes of its session are left: $left"
	left=$(files)
	[ -z "$left" ]
	report $? "round $i: files are left: $left"
	left=$(left_memory)
	[ -z "$left" ]
	report $? "round $i: files without a name or shared memory are left: $left"
done
summary
