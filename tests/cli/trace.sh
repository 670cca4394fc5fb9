#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# `balun trace`: its events against what processes count themselves (tests/cli/trace.py).
# Usage: tests/cli/trace.sh
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh
export LC_ALL=C
unset BALUN_LOG
build=$(readlink -f "$BUILD")
needs_uffd 'balun trace'
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
out=$(python3 tests/cli/trace.py "$build/balun" "$build/tests/live/target" "$tmp" 2>&1)
rc=$?
echo "$out"
passed=$(grep -c '^ok ' <<<"$out")
failed=$(grep -c '^FAIL ' <<<"$out")
skipped=$(grep -c '^SKIP ' <<<"$out")
report $rc 'trace.py died'
summary
