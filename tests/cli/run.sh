#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# Command line goldens: each cases/NAME.sh runs some commands with `t`; what they print, numbers that
# vary replaced, must equal cases/NAME.out.
# Usage: tests/cli/run.sh [--update] [NAME...]     --update writes the .out files
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh
export LC_ALL=C
unset BALUN_LOG
BUILD=$(readlink -f "$BUILD")
cd tests/cli || exit 1
update=0
if [ "${1:-}" = --update ]; then
	update=1
	shift
fi
if [ ! -x "$BUILD/balun" ]; then
	fail "no $BUILD/balun: build first"
	summary
fi
if [ $# -eq 0 ]; then
	set -- cases/*.sh
	set -- "${@#cases/}"
	set -- "${@%.sh}"
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# t ARGUMENT...: runs balun, prints both outputs and the exit code
t() {
	echo "\$ balun $*"
	"$BUILD/balun" "$@" 2>&1 </dev/null
	echo "exit $?"
}
# numbers with a unit of time, sizes of what was moved, and counters that vary
vary() {
	sed -E -e 's/[0-9.]+ (ns|us|ms|s)\b/# \1/g' -e 's/[0-9.]+ ([KMGT]iB|B)\b/# \1/g' -e 's/# [KMGT]?i?B/# B/g'
}
export BUILD
export -f t vary

for name; do
	bash -u "cases/$name.sh" >"$tmp/out" 2>"$tmp/err"
	rc=$?
	cat "$tmp/err" >>"$tmp/out"
	if [ $rc -eq 77 ]; then
		skip "$name" "$(tail -n 1 "$tmp/out")"
	elif [ $update -eq 1 ]; then
		cp "$tmp/out" "cases/$name.out"
		pass
	elif diff -u "cases/$name.out" "$tmp/out" >"$tmp/diff"; then
		pass
		echo "ok $name"
	else
		fail "$name"
		cat "$tmp/diff"
	fi
done
summary
