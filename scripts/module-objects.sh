#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# Compile core/ and the portable drivers with Kbuild, as listed in ./Kbuild: objects only, no module.
# KDIR=... names a kernel build directory; without it the newest installed linux-headers are taken.
# Exits 77 with the reason where there are none. Works in build-module/, so the tree stays clean.
set -eu
cd "$(dirname "$0")/.."
export LC_ALL=C

KDIR=${KDIR:-$(printf '%s\n' /lib/modules/*/build /usr/src/linux-headers-*-amd64 | sort -V |
	while read -r d; do [ -e "$d/Makefile" ] && echo "$d"; done | tail -n 1)}
if [ -z "$KDIR" ]; then
	echo 'SKIP module-objects: no kernel headers here (package linux-headers-amd64)'
	exit 77
fi

out=build-module
mkdir -p $out
for dir in include core env drivers; do
	mkdir -p $out/$dir
	cp -ru $dir/. $out/$dir/
done
cp -u Kbuild VERSION $out/
make -s -C "$KDIR" M="$PWD/$out" W=e balun.o
n=$(nm -A --defined-only $out/balun.o | grep -c ' [Tt] ')
undefined=$(nm -u $out/balun.o | awk '{ print $2 }' | grep -E '^(balun|core|env|softpt|devmem|hint|spec)_' || true)
if [ -n "$undefined" ]; then
	echo "FAIL Kbuild misses the definition of:" $undefined
	exit 1
fi
echo "$KDIR: $(find $out/core $out/drivers -name '*.o' ! -name '.*' | wc -l) objects, $n functions"
