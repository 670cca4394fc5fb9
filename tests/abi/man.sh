#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# Every man page is clean for mandoc's lint, and names only functions that exist.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh

shopt -s nullglob
pages=(docs/man/*.[1-8])
[ ${#pages[@]} -gt 0 ]
report $? 'no man page in docs/man'
command -v mandoc >/dev/null || { skip man 'mandoc is not installed (package mandoc)'; summary; }
t=$(mktemp)
python3 tests/abi/api.py functions | cut -d' ' -f2 | sort -u >"$t"
for page in "${pages[@]}"; do
	out=$(mandoc -T lint -W warning "$page" 2>&1)
	report $? "$page: $out"
	out=$(grep -oE '\bbalun_[a-z_0-9]+ *\(' "$page" | tr -d ' (' | sort -u | grep -vxFf "$t" |
		grep -vx balun_driver_entry)
	[ -z "$out" ]
	report $? "$page: not a public function: $(echo $out)"
done
rm -f "$t"
summary
