#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# The examples run and say what they should, also through wrappers of the device.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh

# the program in the README is the one that is compiled here
sed -n '/^```c$/,/^```$/p' README.md | sed '1d;$d' >"$BUILD/readme.c"
san=()
nm -D "$BUILD/libbalun.so" | grep -q ' U __asan_init' && san=(-fsanitize=address,undefined)
out=$(gcc "${san[@]}" -Wall -Wextra -Werror -Iinclude "$BUILD/readme.c" -o "$BUILD/readme" -L"$BUILD" -lbalun \
	-Wl,-rpath,"$PWD/$BUILD" 2>&1)
report $? "the program of README.md: $out"
has_memory examples || summary
out=$("$BUILD/readme" 2>&1)
report $? "the program of README.md: $out"
out=$("$BUILD/examples/hello" 2>&1)
[ "$out" = '1000000 squares, 0 wrong' ]
report $? "hello: $out"
out=$("$BUILD/examples/hello" 'trace(soft:mem=4M,workers=2)' 2>&1)
[ "$(tail -n 1 <<<"$out")" = '1000000 squares, 0 wrong' ]
report $? "hello on trace(soft) with 4 MiB: $(tail -n 3 <<<"$out")"
out=$("$BUILD/examples/hello" nothing 2>&1)
[ $? -eq 1 ] && [[ $out == nothing:* ]]
report $? "hello on a device that does not exist: $out"
out=$("$BUILD/examples/policy" 2>&1)
report $? "policy: $out"
summary
