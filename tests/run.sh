#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# The runner behind `make check` and `make check-all`.
# Usage: tests/run.sh [--all] [SUITE...]     a SUITE is a name or the beginning of one
#
# One line a suite with its time; its output only when it failed. Ends with the plain line
# "N passed, N failed, N skipped" after the reason of every skip, and exits non-zero on failure.
cd "$(dirname "$0")/.." || exit 1
set -u
export LC_ALL=C
BUILD=${BUILD:-build}
all=0
prefix=
wanted=()
for a in "$@"; do
	case $a in
	--all) all=1 ;;
	-*)
		sed -n '4,9s/^# \{0,1\}//p' "$0"
		exit 2
		;;
	*) wanted+=("$a") ;;
	esac
done
logs=$(mktemp -d)
# what runs beside goes with us: the shells, and what they wait for
trap 'for j in $(jobs -p); do kill $(cat /proc/$j/task/$j/children) $j; done 2>/dev/null; rm -rf "$logs"' EXIT
: >"$logs/skips"
: >"$logs/failures"
total_passed=0 total_failed=0 total_skipped=0
started=$SECONDS

is_wanted() { # name
	local w
	[ ${#wanted[@]} -eq 0 ] && return 0
	for w in "${wanted[@]}"; do [[ $1 == "$w"* ]] && return 0; done
	return 1
}

# counts LOG RC: sets p, f, s from what the suite says of itself
counts() {
	local log=$1 rc=$2 line
	p=0 f=0 s=0
	line=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -n 1)
	if [ -n "$line" ]; then
		read -r p _ f _ s _ <<<"$line"
	elif grep -q '^\[  PASSED  \]' "$log"; then # cmocka
		p=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log" | awk '{ n += $1 } END { print n + 0 }')
		f=$(sed -n 's/^\[  FAILED  \] \([0-9]*\) test.*/\1/p' "$log" | awk '{ n += $1 } END { print n + 0 }')
		s=$(sed -n 's/^\[  SKIPPED \] \([0-9]*\) test.*/\1/p' "$log" | awk '{ n += $1 } END { print n + 0 }')
	elif [ "$rc" -eq 77 ]; then
		s=1
	elif [ "$rc" -eq 0 ]; then
		p=1
	fi
	[ "$rc" -ne 0 ] && [ "$rc" -ne 77 ] && [ "$f" -eq 0 ] && f=1
}

# run LOG LIMIT_S COMMAND...: how it went is in LOG.rc, LOG.ms
run() {
	local log=$1 limit=$2 t0
	shift 2
	t0=$(date +%s%N)
	timeout -k 5 "$limit" "$@" >"$log" 2>&1 </dev/null
	echo $? >"$log.rc"
	echo $((($(date +%s%N) - t0) / 1000000)) >"$log.ms"
}

# report NAME LIMIT_S LOG COMMAND...: what run() has left
report() {
	local name=$1 limit=$2 log=$3 rc ms p f s
	shift 3
	rc=$(cat "$log.rc") ms=$(cat "$log.ms")
	counts "$log" $rc
	total_passed=$((total_passed + p))
	total_failed=$((total_failed + f))
	total_skipped=$((total_skipped + s))
	printf '%-30s %6d passed %3d failed %3d skipped  %4d.%d s\n' "$name" "$p" "$f" "$s" \
		$((ms / 1000)) $((ms / 100 % 10))
	if [ "$f" -ne 0 ]; then
		[ $rc -eq 124 ] || [ $rc -eq 137 ] && echo "  $name: still running after $limit s"
		[ $rc -gt 128 ] && [ $rc -ne 137 ] && echo "  $name: died of signal $((rc - 128))"
		echo "  command: $*"
		# a suite that says what failed is believed; else its last words
		grep -aE '^ *(FAIL|not ok)|^\[  FAILED' "$log" >"$logs/what" ||
			grep -aE 'error:' "$log" >"$logs/what" || tail -n 30 "$log" >"$logs/what"
		head -n 30 "$logs/what" | cut -c1-400 | sed 's/^/  | /'
		head -n 5 "$logs/what" | cut -c1-400 | sed "s|^ *|  $name: |" >>"$logs/failures"
	fi
	if [ "$s" -ne 0 ]; then
		{ grep -aE '^ *(SKIP|skip)|^\[  SKIPPED \] [a-z]' "$log" || tail -n 1 "$log"; } |
			sed -E "s/^ *(SKIP|skip) *|^\[  SKIPPED \] //; s|^|$name	|" >>"$logs/skips"
	fi
}

# suite NAME LIMIT_S COMMAND...; the limit is for what hangs: ten times what it takes
suite() {
	local name=$prefix$1 limit=$2
	shift 2
	is_wanted "$name" || return 0
	run "$logs/log" "$limit" "$@"
	report "$name" "$limit" "$logs/log" "$@"
}

# beside NAME LIMIT_S COMMAND...: a suite of one thread or process, on the other processor while
# the next ones run, one after another; its line comes with collect
beside_names=() beside_limits=() beside_commands=() beside_pid=
beside() {
	local name=$prefix$1 limit=$2 log=$logs/beside.${#beside_names[@]} before=$beside_pid
	shift 2
	is_wanted "$name" || return 0
	beside_names+=("$name")
	beside_limits+=("$limit")
	beside_commands+=("$*")
	{
		[ -z "$before" ] || tail --pid="$before" -f /dev/null
		run "$log" "$limit" "$@"
	} &
	beside_pid=$!
}

collect() {
	local i
	wait
	for i in "${!beside_names[@]}"; do
		report "${beside_names[i]}" "${beside_limits[i]}" "$logs/beside.$i" "${beside_commands[i]}"
	done
	beside_names=() beside_limits=() beside_commands=() beside_pid=
}

# suite, and its cells by name
matrix_suite() { # name, command...
	local name=$1 limit=$((240 * slow))
	shift
	is_wanted "$prefix$name" || return 0
	: >"$logs/log"
	suite "$name" "$limit" "$@"
	# the device in the names is the suite's
	sed -nE 's/^(ok|FAIL|SKIP) ([^ :]+)\/[^ :]+.*/\1 \2/p' "$logs/log" |
		awk '{ print ($1 == "ok" ? "" : $1 ":") $2 }' | fmt -w 110 | sed 's/^/    /'
}

matrix() {
	local d
	if ! uffd_works; then
		skip_suite "matrix" "$refusal"
		return
	fi
	for d in ram soft; do
		matrix_suite "matrix/$d" "$BUILD/tests/matrix/matrix" --driver "$d"
		matrix_suite "matrix/$d-copy" env BALUN_UFFD_COPY=1 \
			"$BUILD/tests/matrix/matrix" --driver "$d"
	done
	# a device that copies slowly: the fork comes while pages are in transit
	local slow_copy='inject(soft):op=copy_wait,every=1,delay=1ms'
	matrix_suite matrix/soft-slow "$BUILD/tests/matrix/matrix" --driver "$slow_copy" \
		--label soft-slow --case '*clone*'
	matrix_suite matrix/soft-slow-copy env BALUN_UFFD_COPY=1 "$BUILD/tests/matrix/matrix" \
		--driver "$slow_copy" --label soft-slow --case '*clone*'
}

# as matrix(), the cells of a memory call on one line: tests/barrier
barrier() {
	local w
	if ! uffd_works; then
		skip_suite barrier "$refusal"
		return
	fi
	for w in move frame coherent copy; do
		is_wanted "${prefix}barrier/$w" || continue
		suite "barrier/$w" $((60 * slow)) "$BUILD/tests/barrier/barrier" "$w/*"
		sed -nE 's,^(ok|FAIL|SKIP) [a-z]+/([^ :]+).*,\1 \2,p' "$logs/log" | awk '{
			call = at = $2
			sub(/\/.*/, "", call)
			sub(/[^\/]*\//, "", at)
			if (!(call in list)) order[++n] = call
			list[call] = list[call] " " ($1 == "ok" ? "" : $1 ":") at
		}
		END { for (i = 1; i <= n; i++) print order[i] ":" list[order[i]] }' |
			fmt -s -w 110 | sed 's/^/    /'
	done
}

unit() { # pattern of names
	local t name
	if [ ! -x "$BUILD/tests/unit/test_env" ]; then
		suite unit 1 sh -c "echo 'error: $BUILD was configured without cmocka'; exit 1"
		return
	fi
	for t in "$BUILD"/tests/unit/test_*; do
		[ -f "$t" ] && [ -x "$t" ] || continue
		name=${t##*/test_}
		[[ $name =~ $1 ]] && suite "unit/$name" $((60 * slow)) "$t"
	done
}

skip_suite() { # name, reason
	is_wanted "$prefix$1" || return 0
	total_skipped=$((total_skipped + 1))
	printf '%-30s skipped\n' "$prefix$1"
	printf '%s\tall: %s\n' "$prefix$1" "$2" >>"$logs/skips"
}

# whether this machine lets a process use userfaultfd; sets $refusal
uffd_works() {
	refusal=$("$BUILD/balun" doctor 2>&1)
	[ $? -ne 3 ] && return 0
	refusal='userfaultfd may not be used here (balun doctor has the remedy)'
	return 1
}

conform() { # engine, specs...
	local engine=$1 spec
	shift
	if [ "$engine" = uffd ] && ! uffd_works; then
		skip_suite "conform/uffd" "$refusal"
		return
	fi
	for spec in "$@"; do
		suite "conform/$engine/$spec" $((120 * slow)) \
			"$BUILD/balun" conform --engine "$engine" --driver "$spec"
	done
}

nbd() { # engine, arguments of balun conform
	if [ "$1" = uffd ] && ! uffd_works; then
		skip_suite "conform/uffd/nbd" "$refusal"
		return
	fi
	suite "conform/$1/nbd" $((300 * slow)) tests/nbd.sh "$@"
}

fallback() {
	local spec
	if ! uffd_works; then
		skip_suite "conform/uffd-copy" "$refusal"
		return
	fi
	for spec in ram soft; do
		suite "conform/uffd-copy/$spec" $((120 * slow)) env BALUN_UFFD_COPY=1 \
			"$BUILD/balun" conform --engine uffd --driver "$spec"
	done
}

functional() { # what every kind of build runs
	unit .
	conform uffd "${specs[@]}"
	conform sim "${specs[@]}"
	conform uffd "${stores[@]}"
	nbd uffd --case 'copy*'
	fallback
	matrix
	barrier
	suite examples $((60 * slow)) tests/cli/examples.sh
	suite demo $((300 * slow)) tests/cli/demo.sh
	suite cli $((60 * slow)) tests/cli/run.sh
	suite run $((300 * slow)) tests/cli/balun_run.sh
	suite run/loss $((120 * slow)) tests/cli/balun_loss.sh
	suite top $((120 * slow)) tests/cli/top.sh
	suite trace $((120 * slow)) tests/cli/trace.sh
	suite fuzz-replay $((60 * slow)) tests/fuzz/replay.sh
}

abi() {
	local t
	for t in headers symbols users layers drivers style man install; do
		suite "abi/$t" 60 "tests/abi/$t.sh"
	done
	suite abi/mutants 60 tests/sim/mutants.sh --fit
}

variant() { # name, meson arguments...: another build directory, quietly; if its suites are wanted
	local log=$logs/build w any=${#wanted[@]}
	for w in "${wanted[@]}"; do [[ $w == "$prefix"* || $prefix == "$w"* ]] && any=0; done
	[ $any -eq 0 ] || return 1
	BUILD=build-$1
	shift
	if ! { [ -f "$BUILD/meson-private/coredata.dat" ] && meson setup --reconfigure "$@" "$BUILD" ||
		meson setup "$@" "$BUILD"; } >"$log" 2>&1 || ! ninja -C "$BUILD" >>"$log" 2>&1; then
		suite "build" 1 sh -c "grep -aE 'error|ERROR|FAILED' $log | head -n 20; exit 1"
		return 1
	fi
	suite "build" 1 true
}

specs=(ram soft 'dmirror:coherent=1' 'trace(soft)' 'inject(soft)')
# stores: wrappers all in one, and one by one
failing='mirror(inject(ram):op=copy_wait,nth=7,lost=1,ram)'
stores=("stripe(crypt(ram),$failing)" lz4 'file:path=/dev/shm,size=64M,direct=0')
stores_all=('trace(lz4):quiet=1' 'inject(lz4)' 'trace(file:path=/dev/shm,size=64M,direct=0):quiet=1'
	'inject(file:path=/dev/shm,size=64M,direct=0)'
	'crypt(mirror(lz4,file:path=/dev/shm,size=64M,direct=0))' 'crypt(ram)' 'stripe(ram,ram,ram)' "$failing")
export BUILD slow=1

abi
# real programs under chaos: a share of make check-programs
beside programs 300 tests/programs/run.sh --share
beside sim/20000 300 "$BUILD/tests/sim/sim_stress" --seed 1 --count 20000
functional
suite mydriver 300 tests/cli/mydriver.sh
suite hmm-smoke 60 tests/hmm-selftest/smoke.sh
suite stress/fork 60 "$BUILD/tests/stress/fork_rounds" 200
suite stress/compaction 60 "$BUILD/tests/stress/compaction" 5
suite stress/blocks 60 tests/stress/blocks.sh 2
suite stress/kill9-run 300 tests/stress/kill9_run.sh 8 1
collect

if [ $all -eq 1 ]; then
	conform uffd "${stores_all[@]}"
	conform sim "${stores_all[@]}"
	slow=4 conform uffd file:size=64M # past the page cache, as the disk allows
	nbd uffd
	nbd sim
	suite module 600 scripts/module.sh
	suite dkms 600 tests/dkms.sh
	suite hmm-selftest 1800 tests/hmm-selftest/run.sh
	suite stress/fork 1200 "$BUILD/tests/stress/fork_rounds" 10000
	suite stress/compaction 300 "$BUILD/tests/stress/compaction" 60
	suite stress/compaction/soft 300 "$BUILD/tests/stress/compaction" 60 soft:mem=64M
	suite stress/blocks 300 tests/stress/blocks.sh 60
	suite stress/kill9 600 tests/stress/kill9.sh
	suite stress/kill9-run/72 1800 tests/stress/kill9_run.sh 72
	suite bench-far 600 tests/cli/bench_far.sh
	suite sim/mutants 1200 tests/sim/mutants.sh
	suite sim/long 1200 "$BUILD/tests/sim/sim_stress" --seed 1000000 --count 200000

	prefix=asan/ slow=8
	export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=0:abort_on_error=0
	export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
	if variant asan -Db_sanitize=address,undefined -Db_lundef=false -Ddebug_checks=true --werror; then
		functional
		suite sim/2000 600 "$BUILD/tests/sim/sim_stress" --seed 1 --count 2000
	fi

	prefix=tsan/
	# a report must not look for names: it would call munmap(), which is ours, and wait for itself
	export TSAN_OPTIONS=die_after_fork=0:halt_on_error=1:second_deadlock_stack=1:symbolize=0
	if variant tsan -Db_sanitize=thread -Db_lundef=false -Ddebug_checks=true --werror; then
		unit .
		conform uffd "${specs[@]}"
		conform sim "${specs[@]}"
		matrix
		barrier
		suite demo 1200 tests/cli/demo.sh
	fi

	prefix=clang/ slow=1
	export CC=clang
	if variant clang --werror; then
		unit .
		conform uffd soft
	fi
	unset CC
fi

# one line a reason and suite, the cases after it; what failed once more, where the eye is
if [ -s "$logs/skips" ]; then
	echo
	echo "Skipped:"
	awk -F'\t' '{
		i = index($2, ": ")
		key = "  " $1 ": " substr($2, i + 2)
		if (!(key in cases)) order[++n] = key
		cases[key] = cases[key] " " substr($2, 1, i - 1)
	}
	END { for (i = 1; i <= n; i++) printf "%s:%s\n", order[i], cases[order[i]] }' "$logs/skips"
fi
if [ -s "$logs/failures" ]; then
	echo
	echo "Failed:"
	cat "$logs/failures"
fi
echo
echo "$((SECONDS - started)) s"
echo "$total_passed passed, $total_failed failed, $total_skipped skipped"
[ $((total_passed + total_failed)) -gt 0 ] && [ $total_failed -eq 0 ]
