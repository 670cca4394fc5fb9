#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# Does the exploration find bugs? Each mutant breaks one thing in one file; sim_stress must notice
# within N schedules (default 20000), and must pass without the bug. A mutant belongs to an
# invariant of docs/coherence.md, and each invariant there has one, but those in elsewhere[].
# Usage: tests/sim/mutants.sh [REGEX of "I3 name"]
#        tests/sim/mutants.sh --fit    only whether each still fits its file, in a second
set -u
cd "$(dirname "$0")/../.." || exit 1
export LC_ALL=C
N=${N:-20000}
JOBS=${JOBS:-2}
CC=${CC:-gcc}
LIMIT_S=300
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

invariant=() name=() file=() edit=()
# mutant INVARIANT NAME FILE EDIT: a perl expression over the whole file, true if all of it fits
mutant() {
	invariant+=("$1") name+=("$2") file+=("$3") edit+=("$4")
}
. tests/sim/mutants.list

# invariants that only the uffd engine can break, each with what looks after it
declare -A elsewhere=([I8]='tests/conformance, tests/cli: real programs over uffd'
	[I15]='tests/matrix: clone() over uffd')

flags=(-std=gnu11 -D_GNU_SOURCE -DBALUN_DEBUG '-DBALUN_VERSION_STRING="0"' -O1 -g -w -I. -Iinclude)
sources=(core/*.c engine/sim/*.c env/env_sim*.c env/env_probe.c env/env_text.c
	drivers/ram.c drivers/inject.c tests/sim/*.c)

object() { # source
	local o=${1//\//_}
	echo "$tmp/${o%.c}.o"
}

compile() { # text, object
	"$CC" "${flags[@]}" -c -o "$2" "$1"
}

link() { # program, source that is replaced, object that replaces it
	local f objects=()
	for f in "${sources[@]}"; do
		[ "$f" = "${2:-}" ] && objects+=("$3") || objects+=("$(object "$f")")
	done
	"$CC" -o "$1" "${objects[@]}" -lpthread -lm -ldl
}

fit() { # number
	perl -0pe "(${edit[$1]}) or die" "${file[$1]}" >/dev/null 2>&1
	[ $? -eq 0 ] && echo "ok ${name[$1]}" && return
	echo "FAIL ${invariant[$1]} ${name[$1]}: ${file[$1]} has changed, the mutant no longer fits"
}
if [ "${1:-}" = --fit ]; then
	for i in "${!name[@]}"; do fit "$i"; done >"$tmp/results"
	grep -v '^ok' "$tmp/results"
	failed=$(grep -vc '^ok' "$tmp/results")
	echo "$((${#name[@]} - failed)) passed, $failed failed, 0 skipped"
	exit $((failed > 0))
fi

# one mutant: its verdict is printed as one line
try() { # number
	local i=$1 me=$tmp/$1 what="${invariant[$1]} ${name[$1]}" rc
	if ! perl -0pe "(${edit[$i]}) or die" "${file[$i]}" >"$me.c" 2>"$me.log"; then
		echo "not ok $what: ${file[$i]} has changed, the mutant no longer fits"
	elif ! compile "$me.c" "$me.o" 2>"$me.log" || ! link "$me" "${file[$i]}" "$me.o"; then
		echo "not ok $what: does not compile: $(grep -m 1 error "$me.log")"
	else
		timeout "$LIMIT_S" "$me" -n "$N" --no-shrink >"$me.log" 2>&1
		rc=$?
		if [ $rc -eq 1 ]; then
			echo "ok $what: $(grep -a -m 1 -oE 'FAIL seed [0-9]+.*' "$me.log")"
		else
			echo "not ok $what: not found in $N schedules, exit status $rc"
		fi
	fi
	rm -f "$me" "$me".*
}

in_parallel() { # command, arguments...
	local cmd=$1 a
	shift
	for a in "$@"; do
		while [ "$(jobs -pr | wc -l)" -ge "$JOBS" ]; do wait -n; done
		"$cmd" "$a" &
	done
	wait
}

build_one() {
	compile "$1" "$(object "$1")" || touch "$tmp/broken"
}

in_parallel build_one "${sources[@]}"
[ ! -e "$tmp/broken" ] && link "$tmp/sim_stress" || exit 1

{
	if [ $# -eq 0 ]; then
		if "$tmp/sim_stress" -n 2000 --no-shrink >"$tmp/log" 2>&1; then
			echo 'ok without a bug: passes'
		else
			echo "not ok without a bug: $(grep -a -m 1 FAIL "$tmp/log")"
		fi
		for i in $(grep -oE '^\*\*I[0-9]+\.' docs/coherence.md | tr -d '*.'); do
			[[ " ${invariant[*]} " == *" $i "* || -v elsewhere[$i] ]] ||
				echo "not ok $i: no mutant breaks this invariant"
		done
	fi
	wanted=()
	for i in "${!name[@]}"; do
		[[ "${invariant[$i]} ${name[$i]}" =~ ${1:-.} ]] && wanted+=("$i")
	done
	in_parallel try ${wanted[@]+"${wanted[@]}"}
} | tee "$tmp/results"

passed=$(grep -c '^ok' "$tmp/results") failed=$(grep -c '^not ok' "$tmp/results")
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
