#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# A driver outside the tree: built against an installation in an empty place, loaded as a shared
# object, through the whole conformance kit on both engines.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh

dest=$(mktemp -d)
trap 'rm -rf "$dest"' EXIT
DESTDIR=$dest meson install -C "$BUILD" --no-rebuild --quiet >"$dest/log" 2>&1 || {
	cat "$dest/log"
	exit 1
}
prefix=$(find "$dest" -name balun.pc -printf '%h' | sed 's|/lib/pkgconfig$||')
cp -r examples/mydriver "$dest/mydriver"
engines=sim
has_memory uffd && engines='uffd sim'
cd "$dest/mydriver" || exit 1
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$dest
out=$(make CFLAGS="-O2 -g -Werror" 2>&1)
report $? "make in examples/mydriver: $out"

for engine in $engines; do
	"$prefix/bin/balun" conform --engine $engine --so ./mydriver.so --driver mydriver:mem=64M \
		>"$dest/log" 2>&1
	rc=$?
	line=$(tail -n 1 "$dest/log")
	if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
		passed=$((passed + BASH_REMATCH[1]))
		failed=$((failed + BASH_REMATCH[2]))
		skipped=$((skipped + BASH_REMATCH[3]))
		grep -aE '^ *(FAIL|SKIP|skip|not ok)' "$dest/log" | sed -E "s,^ *(FAIL|SKIP|skip|not ok) ,\1 $engine/,"
		[ $rc -eq 0 ] || [ "${BASH_REMATCH[2]}" -gt 0 ] || fail "conform on $engine exits with $rc"
	else
		fail "conform on $engine exits with $rc: $(tail -n 20 "$dest/log")"
	fi
done
summary
