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
# what it says is said at once: where it is, if it hangs
python3 tests/cli/trace.py "$build/balun" "$build/tests/live/target" "$tmp" 2>&1 | tee "$tmp/out"
rc=${PIPESTATUS[0]}
passed=$(grep -c '^ok ' "$tmp/out")
failed=$(grep -c '^FAIL ' "$tmp/out")
skipped=$(grep -c '^SKIP ' "$tmp/out")
report $rc 'trace.py died'
summary
