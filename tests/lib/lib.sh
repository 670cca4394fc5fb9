# SPDX-License-Identifier: GPL-2.0-only OR MIT
# Shared by the test scripts: count, say only what went wrong, end with the plain line.
set -u
BUILD=${BUILD:-build}
passed=0 failed=0 skipped=0

pass() {
	passed=$((passed + 1))
}
fail() { # message...
	failed=$((failed + 1))
	echo "FAIL $*"
}
skip() { # name, reason
	skipped=$((skipped + 1))
	echo "SKIP $1: $2"
}
# report RC MESSAGE...: passes when RC is 0
report() {
	local rc=$1
	shift
	if [ "$rc" -eq 0 ]; then pass; else fail "$*"; fi
}
summary() {
	echo "$passed passed, $failed failed, $skipped skipped"
	[ "$failed" -eq 0 ]
	exit
}
