#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# The same set of functions three times: prototypes in the headers, libbalun.map, dynamic symbols of
# libbalun.so. Beyond it the library exports only the libc calls that engine/uffd watches (hooks.c,
# ending.c).
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 tests/abi/api.py functions | cut -d' ' -f2 | sort >"$tmp/headers"
sed -n 's/^\t\([a-z_0-9]*\);$/\1/p' libbalun.map | sort >"$tmp/map"
nm -D --defined-only "$BUILD/libbalun.so" | awk '$2 ~ /[TtWDBRV]/ { print $3 }' |
	grep -v '^__\(asan\|ubsan\|tsan\|odr_asan\)' | sort >"$tmp/exported"
grep '@@BALUN_' "$tmp/exported" | sed 's/@.*//' | sort >"$tmp/so"
grep -v '@@BALUN_' "$tmp/exported" >"$tmp/bare"
printf '%s\n' free madvise mprotect mremap munmap pthread_create realloc reallocarray >"$tmp/hooks"

same() { # what, file, file
	out=$(diff "$2" "$3")
	report $? "$1: $out"
}
same 'headers (<) and libbalun.map (>)' "$tmp/headers" "$tmp/map"
same 'libbalun.map (<) and libbalun.so (>)' "$tmp/map" "$tmp/so"
same 'hooks expected (<) and unversioned symbols of libbalun.so (>)' "$tmp/hooks" "$tmp/bare"
summary
