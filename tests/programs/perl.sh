#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# perl's own tests of the language (t/ of its source), each by the machine's perl under chaos: the
# same pass and fail as without. Those that need what only a build of perl leaves there fail in both.
# Usage: tests/programs/perl.sh
cd "$(dirname "$0")/../.." || exit 1
. tests/programs/lib.sh

src=$(tests/programs/source.sh perl 2>"$tmp/log") || { skip perl "$(cat "$tmp/log")"; summary; }
version=$(perl -e 'printf "%vd", $^V')
of_source=$(awk '/^#define PERL_(REVISION|VERSION|SUBVERSION)[ \t]/ { v = v s $3; s = "." } END { print v }' "$src/patchlevel.h")
if [ "$version" != "$of_source" ]; then
	skip perl "the machine's perl is $version, the source $of_source"
	summary
fi
# as t/ expects its surroundings
cp -r "$src/t" "$src/TestInit.pm" "$tmp"
ln -s "$(command -v perl)" "$tmp/perl"
ln -s ../perl "$tmp/t/perl"
mkdir "$tmp/lib"
for d in $(perl -e 'print "$_\n" for grep m{^/usr/(lib|share)/}, reverse @INC'); do
	[ -d "$d" ] && cp -rsf "$d/." "$tmp/lib/"
done
cd "$tmp/t" || exit 1

# results TEST...: "op/array ok" a line
results() {
	sed -n 's/^t\/\([^ ]*\) \.\.*\.* *\(ok\|skipped\)\{0,1\}.*/\1 \2/p' "$1" | sort
}
for d in ${share:-base cmd comp opbasic io re mro uni op}; do
	[ -z "$share" ] || d=base
	files=$(echo $d/*.t)
	plain 1200 ./perl TEST $files
	chaos 3000 ./perl TEST $files
	rc=$?
	how_much
	results "$tmp/out.plain" >"$tmp/want"
	results "$tmp/out" >"$tmp/got"
	n=$(grep -c ' ok$' "$tmp/got")
	if [ $rc -lt 124 ] && [ "$n" -gt 0 ] && [ -z "$why" ] && cmp -s "$tmp/want" "$tmp/got"; then
		pass && echo "ok perl/$d: $n pass"
	else
		fail "perl/$d: exit code $rc${why:+, $why}; < without Balun:"
		diff "$tmp/want" "$tmp/got" | head -n 20 | sed 's/^/  | /'
	fi
	skipped=$((skipped + $(grep -vc ' \(ok\|skipped\)$' "$tmp/want")))
	grep -v ' \(ok\|skipped\)$' "$tmp/want" | sed 's,^,SKIP perl/,; s,$,: it fails without Balun too,'
done
finish
