#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# DKMS makes the modules from what `make dkms` gives it, for the newest headers that are installed,
# all of them, in folders of its own: nothing is installed or loaded.
cd "$(dirname "$0")/.." || exit 1
. tests/lib/lib.sh

command -v dkms >/dev/null || { skip dkms 'dkms is not installed (package dkms)'; summary; }
headers=$(printf '%s\n' /usr/src/linux-headers-*-amd64 | sort -V | tail -n 1)
[ -e "$headers/Makefile" ] || { skip dkms 'no kernel headers here (package linux-headers-amd64)'; summary; }
release=${headers#/usr/src/linux-headers-}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/tree" "$tmp/src"
source=$(packaging/dkms/source.sh "$tmp/src")
report $? 'packaging/dkms/source.sh'
run() {
	# without a tool to sign with it makes no key, which would be the machine's
	sign_file=/nonexistent dkms "$@" --dkmstree "$tmp/tree" --sourcetree "$tmp/src" >"$tmp/log" 2>&1
	report $? "dkms $1: $(tail -n 20 "$tmp/log"; cat "$tmp"/tree/*/*/build/make.log 2>/dev/null | grep -iE 'error|warning')"
}
version=${source##*balun-}
run add -m balun -v "$version"
run build -m balun -v "$version" -k "$release" --kernelsourcedir "$headers"
built=$(cd "$tmp/tree/balun/$version/$release"/*/module && echo *.ko*)
named=$(sed -n 's/^BUILT_MODULE_NAME\[.*="\(.*\)"$/\1.ko/p' "$source/dkms.conf" | sort | xargs)
[ -n "$named" ] && [ "$(xargs -n 1 <<<"$built" | sed 's/\.[gx]z$//' | sort | xargs)" = "$named" ]
report $? "DKMS has built $built, not $named"
summary
