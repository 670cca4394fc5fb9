#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# Build a kernel for the VM tier, once: the result stays in the cache under the version of the
# source package and a hash of what configured it.
# Usage: tests/kernel/build.sh 6.1|6.12|newest plain|debug
# Prints one line: BUILD-FOLDER TREE VERSION. Exits 77 with the reason where there is no source.
cd "$(dirname "$0")/../.." || exit 1
. tests/kernel/lib.sh
kernel=${1:-}
config=${2:-plain}
fragments=("$here/hmm.fragment")
case $config in
plain) ;;
debug) fragments+=("$here/debug.fragment") ;;
*) sed -n '4,8s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac

# lines of the fragments that olddefconfig dropped: it does so without an error
lost() {
	local line
	cat "${fragments[@]}" | grep '^CONFIG_' | while read -r line; do
		case $line in
		*=n) ! grep -q "^${line%=n}=" "$b/.config" && continue ;;
		*) grep -qxF "$line" "$b/.config" && continue ;;
		esac
		line=${line#CONFIG_}
		if grep -rqE --include='Kconfig*' "^(menu)?config ${line%=*}$" "$tree"; then
			echo "CONFIG_$line"
		else
			echo "this kernel has no ${line%=*}" >&2
		fi
	done
}

configure() {
	local missing
	make -s -C "$tree" O="$b" tinyconfig &&
		(cd "$tree" && ARCH=x86 scripts/kconfig/merge_config.sh -O "$b" -m "$b/.config" "${fragments[@]}") &&
		make -s -C "$tree" O="$b" olddefconfig || return 1
	missing=$(lost)
	[ -z "$missing" ] || { echo "error: did not reach .config:" $missing && return 1; }
}

build() {
	[ -e "$b/done" ] && return 0
	local started=$SECONDS
	say "build: $kernel ($version) $config into $b"
	mkdir -p "$b"
	{ configure && nice -n 19 make -s -j"$(nproc)" -C "$tree" O="$b" bzImage modules; } \
		>"$b/log" 2>&1 </dev/null || {
		grep -E '[Ee]rror' "$b/log" | tail -n 20 >&2
		die "build: $kernel $config failed; the log is $b/log"
	}
	# 7.3's selftest wants the exported headers; modules out of the tree do not
	make -s -C "$tree" O="$b" headers >>"$b/log" 2>&1 || die "build: $kernel: make headers; see $b/log"
	touch "$b/done"
	say "build: $kernel $config took $((SECONDS - started)) s"
}

found=$("$here/source.sh" "$kernel")
rc=$?
[ $rc -eq 0 ] || { echo "$found" && exit $rc; }
read -r tree version <<<"$found"
key=$(cat "${fragments[@]}" | grep '^CONFIG_' | sha256sum | cut -c1-8)
b=$cache/build/$kernel-$config-$version-$key
once "build-${b##*/}" build || exit 1
echo "$b $tree $version"
