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
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# what it says is said at once: where it is, if it hangs
python3 tests/cli/top.py "$build/balun" "$build/tests/live/target" 2>&1 | tee "$tmp/out"
rc=${PIPESTATUS[0]}
passed=$(grep -c '^ok ' "$tmp/out")
failed=$(grep -c '^FAIL ' "$tmp/out")
skipped=$(grep -c '^SKIP ' "$tmp/out")
report $rc 'top.py died'
summary
