#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# Does the exploration find bugs? Each line below breaks one thing in one file; sim_stress must
# notice within N schedules (default 4000), and must pass without the bug.
# Usage: tests/sim/mutants.sh [REGEX of names]
set -u
cd "$(dirname "$0")/../.." || exit 1
export LC_ALL=C
N=${N:-4000}
CC=${CC:-gcc}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# name | file | perl substitution over the whole file
mutants=(
	'stale translation: nobody looks whether memory changed|core/mirror.c|s/return st->active \|\| st->seq != seq;/return false;/'
	'stale translation: an invalidation removes nothing|core/mirror.c|s/\t\tcore_unmap_all\(sp, from, to - from, cause\);\n//'
	'stale translation: a large invalidation removes nothing|core/mirror.c|s/core_unmap_all\(sp, va, len, cause\);/;/'
	'stale translation: the device does not finish what it does|tests/sim/testdev.c|s/while \(t->draining\)/while (0)/'
	'stale permission: every entry may write|core/fault.c|s/\.len = r->len, \.perm = r->perm/.len = r->len, .perm = 3/'
	'lost page: a failed copy counts|core/copy.c|s/\t\t\tfail_piece\(&w->b, &w->b.piece\[w->op_piece\[i\]\]\);/;/'
	'lost page: not put back after a failure|engine/sim/flight.c|s/\*sim_frame\(s, at\) = src;/*sim_frame(s, at) = NULL;/'
	'lost page: mremap while it is in transit|engine/sim/memory.c|s/tell_flights\(s, from, len, to\);//'
	'lost page: a page is taken twice|engine/sim/flight.c|s/\tif \(r->busy\)\n\t\treturn PAGE_BUSY;\n//'
	'undead page: dropped while it is in transit|engine/sim/memory.c|s/tell_flights\(s, va, len, SIM_GONE\);//'
	'undead page: holes keep what was in device memory|core/copy.c|s/if \(p->moved\)\n/if (p->moved || kind == BALUN_KIND_ZERO)\n/'
	'double free: of memory that is in transit|engine/sim/sim.c|s/\t\tif \(r\.busy\)\n\t\t\tcontinue;\n//'
	'double free: of the place that a page has moved to|core/migrate.c|s/b->place\[i\] == ~0u \|\| b->status\[i\] == PAGE_MOVED/b->place[i] == ~0u/'
	'leak: the old place of a dropped page|core/migrate.c|s/b->status\[i\] != PAGE_MOVED && b->status\[i\] != PAGE_GONE/b->status[i] != PAGE_MOVED/'
	'teardown: faults in progress are not waited for|core/device.c|s/while \(dev->users\)/while (0)/'
	'fork: migrations in progress are not waited for|core/space.c|s/while \(sp->moves_out\)/while (0)/'
)

flags=(-std=gnu11 -D_GNU_SOURCE -DBALUN_DEBUG '-DBALUN_VERSION_STRING="0"' -O1 -g -w -I. -Iinclude)
files=(core/*.c engine/sim/*.c env/env_sim*.c env/env_text.c drivers/ram.c drivers/inject.c
	tests/sim/*.c)

object() { # source
	local o=${1//\//_}
	echo "$tmp/${o%.c}.o"
}

compile() { # as, text
	# shellcheck disable=SC2068
	"$CC" ${flags[@]} -c -o "$(object "$1")" "$2" || exit 1
}

link() { # program
	local f objects=()
	for f in "${files[@]}"; do objects+=("$(object "$f")"); done
	"$CC" -o "$1" "${objects[@]}" -lpthread -lm -ldl
}

passed=0 failed=0
result() { # 0 or not, name
	if [ "$1" -eq 0 ]; then
		passed=$((passed + 1))
		echo "ok $2"
	else
		failed=$((failed + 1))
		echo "not ok $2"
	fi
}

for f in "${files[@]}"; do compile "$f" "$f"; done
link "$tmp/sim_stress" || exit 1
[ $# -gt 0 ] || {
	"$tmp/sim_stress" -n 500 --no-shrink >/dev/null 2>&1
	result $? 'without a bug: passes'
}

for m in "${mutants[@]}"; do
	IFS='|' read -r name file rest <<<"${m//\\|\\|/@OR@}"
	rest=${rest//@OR@/\\|\\|}
	[[ $name =~ ${1:-.} ]] || continue
	perl -0pe "$rest" "$file" >"$tmp/mutant.c"
	if cmp -s "$file" "$tmp/mutant.c"; then
		result 1 "$name: $file has changed, the line here no longer fits"
		continue
	fi
	compile "$file" "$tmp/mutant.c"
	link "$tmp/mutant"
	timeout 120 "$tmp/mutant" -n "$N" --no-shrink >"$tmp/log" 2>&1
	rc=$?
	[ $rc -eq 1 ]
	result $? "$name: $(grep -a -m 1 -oE 'FAIL seed [0-9]+' "$tmp/log" || echo "exit status $rc")"
	compile "$file" "$file"
done

echo "$passed passed, $failed failed, 0 skipped"
[ $failed -eq 0 ]
