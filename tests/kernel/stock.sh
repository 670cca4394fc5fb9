#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# Debian's own kernel for the linux-headers that are installed here, unpacked into the cache.
# Prints one line: HEADERS - VERSION IMAGE. Exits 77 with the reason where it cannot be had.
cd "$(dirname "$0")/../.." || exit 1
. tests/kernel/lib.sh
headers=$(compgen -G '/usr/src/linux-headers-*-amd64' | sort -V | tail -n 1)
[ -n "$headers" ] || skip 'stock kernel: no headers here (package linux-headers-amd64)'
release=${headers#/usr/src/linux-headers-}
version=$(dpkg-query -W -f '${Version}' "linux-headers-$release")
dir=$cache/stock/$release-$version
image=$dir/boot/vmlinuz-$release

fetch() {
	[ -e "$image" ] && return 0
	say "stock kernel: fetching linux-image-$release $version"
	mkdir -p "$dir"
	(cd "$dir" && apt-get -q download "linux-image-$release=$version") >"$dir/log" 2>&1 ||
		skip "stock kernel: linux-image-$release $version: $(grep -m1 -E '^[WE]:' "$dir/log")"
	dpkg-deb -x "$dir"/*.deb "$dir/x" && mv "$dir/x/boot" "$dir/"
	rm -rf "$dir/x" "$dir"/*.deb
}
once stock fetch || exit 1
echo "$headers - $version $image"
