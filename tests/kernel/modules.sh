#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# Balun's modules from this checkout, against a built kernel or its headers, in a folder of their
# own (build-vm/modules-NAME): the modules of several kernels stay side by side.
# Usage: tests/kernel/modules.sh KERNEL-BUILD-FOLDER
# Prints the modules, one a line.
cd "$(dirname "$0")/../.." || exit 1
. tests/kernel/lib.sh
[ $# -eq 1 ] || { sed -n '4,8s/^# \{0,1\}//p' "$0" && exit 2; }
out=$PWD/build-vm/modules-${1##*/}

build() {
	nice -n 10 scripts/module.sh "$1" "$out" >"$out.log" 2>&1 </dev/null || {
		cat "$out.log" >&2
		die "modules: do not build against $1"
	}
	find "$out" -name '*.ko' | sort
}
mkdir -p build-vm
once "modules-$(echo "$out" | sha256sum | cut -c1-16)" build "$1"
