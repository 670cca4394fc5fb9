#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# Balun's modules from this checkout, against a built kernel or its headers, in a folder of their
# own (build-vm/modules-NAME): objects of several kernels do not mix, and the tree stays clean.
# Usage: tests/kernel/modules.sh KERNEL-BUILD-FOLDER [NAME]
# Prints the modules, one a line. A warning is an error.
cd "$(dirname "$0")/../.." || exit 1
. tests/kernel/lib.sh
[ $# -ge 1 ] || { sed -n '4,8s/^# \{0,1\}//p' "$0" && exit 2; }
kdir=$1
out=$PWD/build-vm/modules-${2:-${kdir##*/}}
sources=(include core env drivers engine Kbuild VERSION)

# newer files only, so that make compiles what changed; files that are gone go
sync_tree() {
	local f
	mkdir -p "$out"
	cp -ru "${sources[@]}" "$out/"
	(cd "$out" && find include core env drivers engine -name '*.[ch]' ! -name '*.mod.c') |
		while read -r f; do [ -e "$f" ] || rm -f "$out/$f"; done
}

build() {
	sync_tree
	nice -n 10 make -s -j"$(nproc)" -C "$kdir" M="$out" W=e modules >"$out/log" 2>&1 </dev/null || {
		cat "$out/log" >&2
		die "modules: do not build against $kdir"
	}
	find "$out" -name '*.ko' | sort
}

[ -d engine/kernel ] || skip 'modules: there is no kernel engine in this tree'
once "modules-$(echo "$out" | sha256sum | cut -c1-16)" build
