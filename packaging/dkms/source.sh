#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# What DKMS wants below /usr/src: the sources of the modules, and a dkms.conf.
# Usage: packaging/dkms/source.sh FOLDER    makes FOLDER/balun-VERSION, and prints its name
set -eu
cd "$(dirname "$0")/../.."
[ $# -eq 1 ] || { sed -n '4,5s/^# \{0,1\}//p' "$0" && exit 2; }
version=$(cat VERSION)
out=$1/balun-$version
rm -rf "$out"
mkdir -p "$out"
cp -pr --parents Kbuild VERSION LICENSES include core env drivers engine/kernel "$out"
{
	sed "s/@VERSION@/$version/" packaging/dkms/dkms.conf.in
	i=0
	for m in balun $(sed -n 's/^drivers := //p' Kbuild | sed 's/\<[a-z]/balun-&/g'); do
		printf 'BUILT_MODULE_NAME[%d]="%s"\nDEST_MODULE_LOCATION[%d]="/updates"\n' $i "$m" $i
		i=$((i + 1))
	done
} >"$out/dkms.conf"
echo "$out"
