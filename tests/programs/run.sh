#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# The runner behind `make check-programs`: programs' own tests while all their memory moves to a
# device and back (balun run --chaos). What comes out must be what comes out without Balun.
# Usage: tests/programs/run.sh [--share] [PROGRAM...]
#   --share   what `make check` has time for
#   PROGRAM   python sqlite redis gcc git perl xz; all of them
# RATE=N      pages a second and process
#
# Ends with the plain line "N passed, N failed, N skipped".
cd "$(dirname "$0")/../.." || exit 1
set -u
BUILD=${BUILD:-build}
export BUILD
# what our make was told (PROGRAMS=xz) is nothing for the makefiles of the programs: automake has a PROGRAMS too
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL PROGRAMS
programs=()
for a in "$@"; do
	case $a in
	--share) export SHARE_ONLY=1 ;;
	-*) sed -n '4,13s/^# \{0,1\}//p' "$0" && exit 2 ;;
	*) programs+=("$a") ;;
	esac
done
[ ${#programs[@]} -gt 0 ] || programs=(python sqlite redis gcc git perl xz)
[ -n "${SHARE_ONLY:-}" ] && [ $# -eq 1 ] && programs=(python sqlite redis gcc git)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0 failed=0 skipped=0
for p in "${programs[@]}"; do
	if [ ! -x "tests/programs/$p.sh" ] || [ "$p" = run ] || [ "$p" = source ]; then
		echo "no such program: $p"
		exit 2
	fi
	started=$SECONDS
	"tests/programs/$p.sh" >"$log" 2>&1
	rc=$?
	sed '$d' "$log"
	if read -r n _ f _ s _ < <(tail -n 1 "$log") && [[ "$(tail -n 1 "$log")" =~ ^[0-9]+\ passed,\ [0-9]+\ failed,\ [0-9]+\ skipped$ ]]; then
		passed=$((passed + n)) failed=$((failed + f)) skipped=$((skipped + s))
		[ $rc -eq 0 ] || [ "$f" -gt 0 ] || failed=$((failed + 1))
	else
		tail -n 1 "$log"
		echo "FAIL $p: it ended with $rc and without a result"
		failed=$((failed + 1))
	fi
	echo "$p: $((SECONDS - started)) s"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $((passed + failed)) -gt 0 ] || exit 77 # nothing was tried
[ $failed -eq 0 ]
