#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# Build the modules: scripts/module.sh [KDIR [OUT]]
#   KDIR  a kernel's build folder; without it the running kernel's, or the newest that is installed
#   OUT   where to (build-module)
# Works in a copy of the sources, so the tree stays clean; what OUT has of another kernel goes. Our
# files compile without a warning or not at all. Exits 77 with the reason where there are no headers.
set -eu
cd "$(dirname "$0")/.."
export LC_ALL=C

KDIR=${1:-}
if [ -z "$KDIR" ]; then
	KDIR=$(printf '%s\n' /lib/modules/*/build /usr/src/linux-headers-*-amd64 | sort -V |
		while read -r d; do [ -e "$d/Makefile" ] && echo "$d"; done | tail -n 1)
	running=/lib/modules/$(uname -r)/build
	[ ! -e "$running/Makefile" ] || KDIR=$running
fi
out=${2:-build-module}
if [ -z "$KDIR" ]; then
	echo 'SKIP module: no kernel headers here (package linux-headers-amd64)'
	exit 77
fi

kernel="$KDIR $(cat "$KDIR/include/config/kernel.release")"
if [ -e "$out/.kernel" ]; then
	[ "$(cat "$out/.kernel")" = "$kernel" ] || rm -rf "$out"
elif [ -n "$(ls -A "$out" 2>/dev/null)" ]; then
	echo "$out is no folder of this script: remove it first"
	exit 1
fi
mkdir -p "$out"
out=$(cd "$out" && pwd)
echo "$kernel" >"$out/.kernel"
# a copy keeps its time: what has not changed is not compiled again
find "$out" -name '*.[ch]' ! -name '*.mod.c' ! -name have.h -delete
sources=(include core env drivers engine/kernel tests/conformance tests/hmm-selftest)
cp -pr --parents Kbuild VERSION "${sources[@]}" "$out"

log=$out/log
if ! make -s -j"$(nproc)" -C "$KDIR" M="$out" W=e BALUN_TESTS=1 modules >"$log" 2>&1; then
	cat "$log"
	exit 1
fi
# an expected line: there is no vmlinux beside installed headers
bad=$(grep -vE 'Skipping BTF generation|compiler differs from the one|^  The kernel was built by:|^  You are using:|^make' \
	"$log" || true)
if [ -n "$bad" ]; then
	echo "FAIL warnings of the build for $KDIR:"
	echo "$bad"
	exit 1
fi
echo "$kernel: $(cd "$out" && echo *.ko)"
[ -e "$out/balun-edu.ko" ] || echo 'no balun-edu.ko, balun-ivshmem.ko: this kernel was configured without CONFIG_PCI'
