#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# xz's own tests (make check of its source), all of them under chaos: make, the shells, the programs.
# Usage: tests/programs/xz.sh
cd "$(dirname "$0")/../.." || exit 1
. tests/programs/lib.sh

src=$(tests/programs/source.sh xz-utils 2>"$tmp/log") || { skip xz "$(cat "$tmp/log")"; summary; }
mkdir "$tmp/b"
cd "$tmp/b" || exit 1
{ "$src/configure" --disable-nls --disable-doc && make && make check TESTS=; } >"$tmp/log" 2>&1 ||
	{ fail "xz: it is not built: $(tail -n 3 "$tmp/log")"; finish; }
chaos 1800 make -C tests check
rc=$?
how_much
n=$(sed -n 's/^# PASS: *//p' "$tmp/out" | awk '{ n += $1 } END { print n + 0 }')
if [ $rc -eq 0 ] && [ "$n" -gt 0 ] && [ -z "$why" ]; then
	pass && echo "ok xz: $n pass"
elif plain 1800 make -C tests check; then
	fail "xz: exit code $rc${why:+, $why}; without Balun all pass"
	grep -aE '^(FAIL|ERROR)' "$tmp/out" | sed 's/^/  | /'
else
	skip xz "make check fails without Balun too"
fi

# and a large one, both ways, with threads
cat "$src"/src/liblzma/*/*.[ch] >"$tmp/text"
for _ in 1 2 3 4 5; do cat "$tmp/text" "$tmp/text" >"$tmp/twice" && mv "$tmp/twice" "$tmp/text"; done
xz=$tmp/b/src/xz/xz
same 'xz/threads' 900 sh -c "$xz -T2 -6 --block-size=2MiB -c $tmp/text | sha256sum"
$xz -T2 -6 --block-size=2MiB -c "$tmp/text" >"$tmp/text.xz"
same 'xz/back' 900 sh -c "$xz -T2 -dc $tmp/text.xz | cmp - $tmp/text && echo equal"
finish
