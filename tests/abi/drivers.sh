#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# The object of a driver refers to balun_*, env_* and libc, nothing else; a driver that is only for
# user space also to the library that it is made for. And to nothing that allocates: libc's heap may
# be away.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
libc=$(gcc -print-file-name=libc.so.6)
nm -D --defined-only "$libc" | awk '{ sub(/@.*/, "", $3); print $3 }' | sort -u >"$tmp/libc"

declare -A library=(
	[nbd]='@' # none: its helper's
	[crypt]='sodium_|crypto_aead_|randombytes_buf$'
	[file]='(__)?io_uring_'
	[lz4]='LZ4_'
)

for name in ram soft dmirror stripe mirror trace inject "${!library[@]}"; do
	objs=("$BUILD"/libbaluncore.a.p/drivers_"$name".c.o "$BUILD"/libbaluncore.a.p/drivers_"$name"_*.c.o)
	own=()
	for o in "${objs[@]}"; do [ -e "$o" ] && own+=("$o"); done
	if [ ${#own[@]} -eq 0 ] && [ -n "${library[$name]:-}" ]; then
		skip "$name" 'not in this build: the package of its library is missing'
		continue
	elif [ ${#own[@]} -eq 0 ]; then
		fail "no object of driver $name in $BUILD"
		continue
	fi
	# a driver of several files may call itself
	nm --defined-only "${own[@]}" | awk 'NF == 3 { print $3 }' | sort -u >"$tmp/own"
	out=$(nm -u "${own[@]}" | awk 'NF == 2 { print $2 }' | sort -u |
		grep -vE '^(balun_|env_|_GLOBAL_OFFSET_TABLE_$|__popcountdi2$|__(asan|ubsan|tsan|sanitizer|gcov|stack_chk))' |
		grep -vE "^(${library[$name]:-@})" | grep -vxFf "$tmp/libc" | grep -vxFf "$tmp/own")
	[ -z "$out" ]
	report $? "driver $name also refers to: $(echo $out)"
	out=$(nm -u "${own[@]}" | awk 'NF == 2 { print $2 }' | sort -u |
		grep -xE '[mc]alloc|realloc(array)?|memalign|aligned_alloc|posix_memalign|free|strn?dup|v?asprintf|v?f?printf|f?puts|fopen|opendir|getaddrinfo|qsort')
	[ -z "$out" ]
	report $? "driver $name uses libc's heap: $(echo $out)"
done
summary
