#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# What CONTRIBUTING.md says of style, as far as a program can see it.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh

mapfile -t all < <(git ls-files -co --exclude-standard | while read -r f; do
	[ -f "$f" ] && echo "$f"
done)
mapfile -t c < <(printf '%s\n' "${all[@]}" | grep -E '\.[ch]$')

out=$(clang-format --dry-run -Werror "${c[@]}" 2>&1 | grep -oE '^[^ :]+:[0-9]+' | sort -u -t: -k1,1)
[ -z "$out" ]
report $? "not as clang-format wants it: $(echo $out)"

bad=
for f in "${all[@]}"; do
	case $f in
	*.c | *.h | *.sh | *.py | *.map | meson.build | */meson.build | Makefile | Kbuild | */Kbuild | .ci/run | *.[1-8])
		head -n 2 "$f" | grep -q 'SPDX-License-Identifier: \(GPL-2.0-only OR MIT\|GPL-2.0-only\)' ||
			bad+=" $f"
		;;
	esac
done
[ -z "$bad" ]
report $? "no SPDX line at the top:$bad"

bad=$(wc -l "${c[@]}" | awk '$2 != "total" && $1 > 1000 { print $2 ":" $1 }')
[ -z "$bad" ]
report $? "files over 1000 lines: $bad"
bad=$(wc -l drivers/*.c 2>/dev/null | awk '$2 != "total" && $1 > 600 { print $2 ":" $1 }')
[ -z "$bad" ]
report $? "a driver is one file of at most 600 lines: $bad"

bad=$(awk 'FNR == 1 { start = 0 }
	/^{/ { start = FNR }
	/^}/ { if (start && FNR - start > 120) print FILENAME ":" start ": " FNR - start " lines"; start = 0 }' \
	"${c[@]}")
[ -z "$bad" ]
report $? "functions over 120 lines: $bad"

bad=$(awk '{ s = $0; n = 0; while ((i = index(s, "\t")) > 0) { n += i - 1; n += 8 - n % 8; s = substr(s, i + 1) }
	if (n + length(s) > 100) print FILENAME ":" FNR }' "${c[@]}")
[ -z "$bad" ]
report $? "lines over 100 columns: $(echo $bad)"

bad=$(grep -nE '\b(TODO|FIXME|XXX|HACK)\b' "${c[@]}")
[ -z "$bad" ]
report $? "unfinished business: $bad"

# a file says what is; which machine or account it was made on is nobody's business
bad=$(grep -nIE '/home/[a-z]+/|/root/|localhost:[0-9]|(pypi|crates|npmjs|artifactory|nexus)\.[a-z]+' \
	"${all[@]}" | grep -v '^tests/abi/style.sh:')
[ -z "$bad" ]
report $? "names of a machine: $bad"

while read -r header name documented; do
	[ "$documented" = 1 ]
	report $? "$header: no kernel-doc for $name()"
done < <(python3 tests/abi/api.py functions)

bad=
for f in $(printf '%s\n' "${all[@]}" | grep -E '\.sh$|^\.ci/run$'); do
	bash -n "$f" 2>/dev/null || bad+=" $f"
	case $f in tests/lib/lib.sh | tests/programs/lib.sh | tests/cli/cases/*) ;; # sourced, not run
	 *) [ -x "$f" ] || bad+=" $f(not executable)" ;; esac
done
[ -z "$bad" ]
report $? "shell scripts:$bad"
summary
