#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# The kernel's own HMM selftest from a kernel's tree, static, into the kernel's build folder.
# Usage: tests/kernel/hmm-tests.sh BUILD-FOLDER TREE    prints the program
cd "$(dirname "$0")/../.." || exit 1
. tests/kernel/lib.sh
b=$1 tree=$2
selftests=$tree/tools/testing/selftests
test=$(compgen -G "$selftests/[mv]m/hmm-tests.c") || die "hmm-tests: none in $tree"
dir=${test%/*}
helpers=()
for f in vm_util.c thp_settings.c hugepage_settings.c; do # what 7.3 shares among its tests
	grep -qE "[\"/]${f%.c}\.h[\">]" "$test" && helpers+=("$dir/$f")
done

build() {
	[ -x "$b/hmm-tests" ] && return 0
	gcc -O2 -w -static -pthread -D_GNU_SOURCE= -I"$tree" -I"$b/usr/include" -I"$tree/tools/include/uapi" \
		-I"$selftests" "$test" "${helpers[@]}" -o "$b/hmm-tests.part" >"$b/hmm-tests.log" 2>&1 &&
		mv "$b/hmm-tests.part" "$b/hmm-tests"
}
once "hmm-tests-${b##*/}" build || { cat "$b/hmm-tests.log" >&2 && die "hmm-tests: does not build; $b/hmm-tests.log"; }
echo "$b/hmm-tests"
