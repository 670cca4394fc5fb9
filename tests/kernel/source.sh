#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# A kernel's source tree in the cache, from Debian's packages: 6.1 and 6.12 are those that
# scripts/setup.sh installs; newest is the highest linux-source-* of the newer suites on the same
# mirror, got through an apt folder of its own (the machine's apt configuration is not touched).
# Usage: tests/kernel/source.sh 6.1|6.12|newest
# Prints one line: TREE VERSION-OF-THE-PACKAGE. Exits 77 with the reason where there is none.
cd "$(dirname "$0")/../.." || exit 1
. tests/kernel/lib.sh

suites="trixie trixie-backports sid"
apt_dir=$cache/apt

# unpack TARBALL TREE
unpack() {
	[ -e "$2/Makefile" ] && return 0
	say "source: unpacking ${1##*/}"
	rm -rf "$2.part"
	mkdir -p "$2.part"
	tar -xf "$1" -C "$2.part" --strip-components=1 && mv "$2.part" "$2"
}

private_apt() { # apt-get or apt-cache, arguments
	local tool=$1
	shift
	"$tool" -q -o "Dir::State::Lists=$apt_dir/lists" -o "Dir::Cache=$apt_dir/cache" \
		-o "Dir::Etc::SourceList=$apt_dir/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o APT::Get::List-Cleanup=0 "$@"
}

# the machine's own mirror, with the newer suites
write_sources() {
	local uri keyring=/usr/share/keyrings/debian-archive-keyring.gpg s codename
	[ -e "$keyring" ] || skip "source newest: no $keyring (package debian-archive-keyring)"
	codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	uri=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 2>/dev/null |
		awk -v c="$codename" '$2 == c { print $1; exit }')
	[ -n "$uri" ] || skip "source newest: apt knows no mirror of Debian ${codename:-here}"
	mkdir -p "$apt_dir/lists/partial" "$apt_dir/cache/archives/partial"
	for s in $suites; do
		echo "deb [signed-by=$keyring] $uri $s main"
	done >"$apt_dir/sources.list"
}

# sets $name and $version to the highest of the suites; the lists are renewed once a day
find_newest() {
	if ! find "$apt_dir/updated" -mtime -1 2>/dev/null | grep -q .; then
		say 'source: reading the lists of the newer suites'
		write_sources
		private_apt apt-get update >"$apt_dir/log" 2>&1 && ! grep -qE '^(E:|W: Failed)' "$apt_dir/log" &&
			touch "$apt_dir/updated"
	fi
	name=$(private_apt apt-cache pkgnames linux-source- 2>/dev/null |
		grep -E '^linux-source-[0-9]+\.[0-9]+$' | sort -V | tail -n 1)
	[ -n "$name" ] ||
		skip "source newest: apt finds no list of the newer suites: $(grep -m1 -E '^[WE]:' "$apt_dir/log")"
	version=$(private_apt apt-cache madison "$name" | awk '{ print $3 }' | sort -V | tail -n 1)
}

fetch_newest() {
	local deb
	tree=$cache/src/${name#linux-source-}-$version
	[ -e "$tree/Makefile" ] && return 0
	say "source: fetching $name $version"
	mkdir -p "$apt_dir/get" "$cache/src"
	(cd "$apt_dir/get" && private_apt apt-get download "$name=$version") >"$apt_dir/log" 2>&1 ||
		skip "source newest: $name $version: $(grep -m1 -E '^[WE]:' "$apt_dir/log")"
	deb=$(compgen -G "$apt_dir/get/${name}_*.deb")
	dpkg-deb -x "$deb" "$apt_dir/get/x" && unpack "$apt_dir/get/x/usr/src/$name.tar.xz" "$tree"
	local rc=$?
	rm -rf "$apt_dir/get"
	[ $rc -eq 0 ] || die "source: $name $version does not unpack"
}

newest() {
	mkdir -p "$apt_dir"
	find_newest
	fetch_newest
	echo "$tree $version"
}

installed() { # 6.1
	local tar=/usr/src/linux-source-$1.tar.xz version
	[ -e "$tar" ] || skip "source $1: no $tar (package linux-source-$1)"
	version=$(dpkg-query -W -f '${Version}' "linux-source-$1")
	mkdir -p "$cache/src"
	unpack "$tar" "$cache/src/$1-$version" || die "source: $tar does not unpack"
	echo "$cache/src/$1-$version $version"
}

case ${1:-} in
6.1 | 6.12) once "source-$1" installed "$1" ;;
newest) once source-newest newest ;;
*) sed -n '4,9s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
