#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# Each public header compiles alone, as C11 and as C++17, without a warning.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh

flags=(-Wall -Wextra -Wpedantic -Werror -fsyntax-only -Iinclude)
for h in include/balun/*.h; do
	for lang in c:c11 c++:c++17; do
		out=$(echo "#include \"${h#include/}\"" |
			gcc -x "${lang%%:*}" -std="${lang##*:}" "${flags[@]}" - 2>&1)
		report $? "$h as ${lang##*:}: $out"
	done
done
summary
