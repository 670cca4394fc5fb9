#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# gcc compiles Balun, with ninja, under chaos: the objects are those that it makes without.
# Usage: tests/programs/gcc.sh
cd "$(dirname "$0")/../.." || exit 1
. tests/programs/lib.sh

meson setup "$tmp/b" >"$tmp/log" 2>&1 || { fail "gcc: meson: $(tail -n 3 "$tmp/log")"; finish; }
target=all
[ -z "$share" ] || target=$(ninja -C "$tmp/b" -t targets all | sed -n 's/^\(.*core_[a-e].*\.o\):.*/\1/p' | head -n 6 | tr '\n' ' ')
cat >"$tmp/job.sh" <<END
ninja -C $tmp/b -t clean >/dev/null
ninja -C $tmp/b $target >$tmp/log || { grep -v '^\[' $tmp/log; exit 1; }
cd $tmp/b && find . -name '*.o' -exec sha256sum {} + | sort -k 2
END
same gcc 3000 sh "$tmp/job.sh"
finish
