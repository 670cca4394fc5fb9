#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# The source of a Debian package as its authors made it, unpacked in build-programs: got with
# apt-get source from the machine's own mirror through an apt folder of its own (the machine's apt
# configuration is not touched).
# Usage: tests/programs/source.sh PACKAGE
# Prints the folder. Exits 77 with the reason where there is none.
cd "$(dirname "$0")/../.." || exit 1
set -u
cache=$PWD/build-programs
apt_dir=$cache/apt

no_source() {
	echo "$*" >&2
	exit 77
}

private_apt() { # apt-get's arguments
	apt-get -q -o "Dir::State::Lists=$apt_dir/lists" -o "Dir::Cache=$apt_dir/cache" \
		-o "Dir::Etc::SourceList=$apt_dir/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o APT::Sandbox::User=root "$@"
}

lists() {
	local keyring=/usr/share/keyrings/debian-archive-keyring.gpg codename uri
	find "$apt_dir/updated" -mtime -7 2>/dev/null | grep -q . && return
	[ -e "$keyring" ] || no_source "no $keyring (package debian-archive-keyring)"
	codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	uri=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 2>/dev/null |
		awk -v c="$codename" '$2 == c { print $1; exit }')
	[ -n "$uri" ] || no_source "apt knows no mirror of Debian ${codename:-here}"
	mkdir -p "$apt_dir/lists/partial" "$apt_dir/cache/archives/partial"
	echo "deb-src [signed-by=$keyring] $uri $codename main" >"$apt_dir/sources.list"
	private_apt update >"$apt_dir/log" 2>&1 && ! grep -qE '^(E:|W: Failed)' "$apt_dir/log" &&
		touch "$apt_dir/updated"
}

package=${1:-}
[ -n "$package" ] || { sed -n '4,9s/^# \{0,1\}//p' "$0" && exit 2; }
if [ ! -e "$cache/$package/unpacked" ]; then
	mkdir -p "$apt_dir" "$cache/$package"
	lists
	(cd "$apt_dir" && rm -f ./*.orig.tar.* && private_apt source --download-only "$package") >"$apt_dir/log" 2>&1 ||
		no_source "apt-get source $package: $(grep -m1 -E '^[WE]:' "$apt_dir/log")"
	tar -xf "$(compgen -G "$apt_dir/${package}_*.orig.tar.?z" | head -n 1)" -C "$cache/$package" --strip-components=1 ||
		no_source "$package does not unpack"
	touch "$cache/$package/unpacked"
fi
echo "$cache/$package"
