#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# Pack an initramfs: static busybox, the init of tests/kernel/guest, a job, programs, modules.
# Usage: tests/kernel/initramfs.sh OUT.gz JOB LIMIT_S RELEASE FILE...
#   FILE*.ko     goes to /lib/modules/RELEASE, where modprobe finds it
#   FILE         a program, with the shared objects that it needs, goes to /bin
#   FILE:PATH    a file for PATH
cd "$(dirname "$0")/../.." || exit 1
. tests/kernel/lib.sh
[ $# -ge 4 ] || { sed -n '4,8s/^# \{0,1\}//p' "$0" && exit 2; }
out=$1 job=$2 limit=$3 release=$4
shift 4
busybox=$(command -v busybox) || die 'initramfs: no busybox (package busybox-static)'
! ldd "$busybox" >/dev/null 2>&1 || die "initramfs: $busybox is not static (package busybox-static)"

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
mkdir -p "$root"/{bin,dev,proc,sys,tmp,var/tmp,lib64,usr/lib,etc/modprobe.d} "$root/lib/modules/$release"
cp "$busybox" "$root/bin/busybox"
cp "$here/guest/init" "$root/init"
cp "$here/guest/lib.sh" "$root/lib.sh"
cp "$job" "$root/job"
echo "$limit" >"$root/limit"
echo "$module_options" >"$root/etc/modprobe.d/tests.conf"
chmod 755 "$root/init"

# the loader where the program asks for it, everything else where the loader looks
libraries() { # PROGRAM
	ldd "$1" 2>/dev/null | awk '/=> \// { print $3 } $1 ~ /^\// { print $1 }' | while read -r so; do
		case $so in
		*/ld-linux*) cp -uL "$so" "$root/lib64/" ;;
		*) cp -uL "$so" "$root/usr/lib/" ;;
		esac
	done
}

for f in "$@"; do
	case $f in
	*:*) mkdir -p "$root$(dirname "${f#*:}")" && cp -L "${f%%:*}" "$root${f#*:}" || exit 1 ;;
	*.ko) cp "$f" "$root/lib/modules/$release/" || exit 1 ;;
	*)
		cp -L "$f" "$root/bin/" && libraries "$f" || exit 1
		echo "${f##*/}" >>"$root/programs"
		;;
	esac
done
depmod -b "$root" "$release" 2>/dev/null
(cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) | gzip -1 >"$out"
