#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# Every file of every corpus, once.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh

for dir in tests/fuzz/corpus/*/; do
	name=$(basename "$dir")
	if [ ! -x "$BUILD/tests/fuzz/replay_$name" ]; then
		fail "no target for corpus $name"
		continue
	fi
	for f in "$dir"*; do
		out=$("$BUILD/tests/fuzz/replay_$name" "$f" 2>&1)
		report $? "$name: $f: $(tail -n 5 <<<"$out")"
	done
done
summary
