#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# `balun top`: running processes as they are, and who may look at them (tests/cli/top.py).
# Usage: tests/cli/top.sh
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh
export LC_ALL=C
unset BALUN_LOG
build=$(readlink -f "$BUILD")
needs_uffd 'balun top'
out=$(python3 tests/cli/top.py "$build/balun" "$build/tests/live/target" 2>&1)
rc=$?
echo "$out"
passed=$(grep -c '^ok ' <<<"$out")
failed=$(grep -c '^FAIL ' <<<"$out")
skipped=$(grep -c '^SKIP ' <<<"$out")
report $rc 'top.py died'
summary
