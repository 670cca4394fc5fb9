#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# libFuzzer with the address sanitizer on every target, SECONDS each; what it finds that is new goes
# into build-fuzz/corpus, a crash stops with the input's file name.
# Usage: tests/fuzz/run.sh [SECONDS]
set -eu
cd "$(dirname "$0")/../.."
seconds=${1:-60}
build=build-fuzz

if [ ! -f $build/build.ninja ]; then
	CC=clang CFLAGS='-fsanitize=fuzzer-no-link' meson setup $build -Dfuzz=true \
		-Db_sanitize=address,undefined -Db_lundef=false -Ddebug_checks=true >$build.log ||
		{ cat $build.log; exit 1; }
	rm -f $build.log
fi
ninja -C $build >/dev/null || ninja -C $build
for target in $build/tests/fuzz/fuzz_*; do
	[ -f "$target" ] && [ -x "$target" ] || continue
	name=${target##*/fuzz_}
	mkdir -p "$build/corpus/$name"
	echo "fuzz: $name, $seconds s"
	"$target" -max_total_time="$seconds" -print_final_stats=0 -verbosity=0 \
		-artifact_prefix="$build/$name-" "$build/corpus/$name" "tests/fuzz/corpus/$name"
done
echo "fuzz: nothing found"
