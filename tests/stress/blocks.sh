#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# Large blocks of the heap of several threads under `balun run --chaos`, on both ways: blocks.c.
# Usage: tests/stress/blocks.sh [SECONDS] [SEED]
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh
export LC_ALL=C
unset BALUN_LOG BALUN_UFFD_COPY

seconds=${1:-10}
seed=${2:-${SEED:-$(od -An -N2 -tu2 /dev/urandom | tr -d ' ')}}
needs_uffd stress/blocks
needs_plain_build stress/blocks

run() { # name
	local out rc
	out=$("$BUILD/balun" run --resident 1G --device ram --chaos "20000,$seed" -- \
		"$BUILD/tests/stress/blocks" 4 "$seconds" "$seed" 2>&1)
	rc=$?
	[ $rc -eq 0 ] && [[ $out =~ [1-9][0-9.]*\ [KMG]iB\ came\ home ]]
	report $? "$1, SEED=$seed: exit code $rc: $out"
}
run "pages that move"
BALUN_UFFD_COPY=1 run "pages that are copied"
summary
