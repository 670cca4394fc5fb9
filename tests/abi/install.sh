#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# What `make install` puts where, and that a program builds and runs against it, as C and as C++.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh

dest=$(mktemp -d)
trap 'rm -rf "$dest"' EXIT
out=$(DESTDIR=$dest meson install -C "$BUILD" --no-rebuild --quiet 2>&1)
rc=$?
report $rc "meson install: $out"
[ $rc -eq 0 ] || summary
prefix=$(find "$dest" -name balun.pc -printf '%h' | sed 's|/lib/pkgconfig$||')

version=$(cat VERSION)
{
	echo bin/balun
	printf 'include/balun/%s\n' balun.h dmirror.h driver.h live.h policy.h sim.h soft.h uapi.h
	printf 'lib/%s\n' balun/libbalun-run.so libbalun.so libbalun.so.0 "libbalun.so.$version" pkgconfig/balun.pc
	[ -e "$BUILD/balun-nbd" ] && echo libexec/balun/balun-nbd
	for page in docs/man/*.[1-8]; do echo "share/man/man${page##*.}/${page##*/}"; done
} | sort >"$dest/expected"
(cd "$prefix" && find . ! -type d -printf '%P\n' | sort) >"$dest/found"
out=$(diff "$dest/expected" "$dest/found")
report $? "installed: expected (<), found (>): $out"

export PKG_CONFIG_PATH=$prefix/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$dest
[ "$(pkg-config --modversion balun)" = "$version" ]
report $? 'pkg-config has another version'
cat >"$dest/user.c" <<'EOF'
#include <balun/balun.h>
#include <stdio.h>
int main(void)
{
	puts(balun_version());
	return 0;
}
EOF
for compiler in 'gcc -std=c11' 'g++ -x c++ -std=c++17'; do
	# shellcheck disable=SC2046,SC2086 # words wanted
	out=$($compiler -Wall -Wextra -Werror "$dest/user.c" -o "$dest/user" $(pkg-config --cflags --libs balun) 2>&1)
	report $? "$compiler against the install: $out"
	[ "$(LD_LIBRARY_PATH=$prefix/lib "$dest/user" 2>&1)" = "$version" ]
	report $? "$compiler: the program does not print $version"
done
if [ -e "$BUILD/balun-nbd" ]; then
	# the helper is found, and says why not
	out=$("$prefix/bin/balun" devices "nbd:uri=nbd+unix:///?socket=$dest/none" 2>&1)
	[[ $out == *'cannot connect'* ]]
	report $? "the installed driver nbd: $out"
fi
out=$("$prefix/bin/balun" --version 2>&1)
report $? "installed balun --version: $out"
summary
