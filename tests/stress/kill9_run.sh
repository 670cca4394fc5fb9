#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# kill -9 at random moments of `balun run`, of the launcher or of the program, with devices in turn:
# no process is left, no file, and no shared memory.
# Usage: tests/stress/kill9_run.sh [ROUNDS] [SEED]
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh
. tests/lib/left.sh
export LC_ALL=C
unset BALUN_LOG

rounds=${1:-72}
seed=${2:-$(od -An -N2 -tu2 /dev/urandom | tr -d ' ')}
RANDOM=$seed
balun=$(readlink -f "$BUILD")/balun
grow=$(readlink -f "$BUILD")/tests/stress/grow
needs_uffd kill9/run
needs_plain_build kill9/run
tmp=$(mktemp -d)
server=
trap '[ -n "$server" ] && kill $server; left_end; rm -rf "$tmp"' EXIT
mkdir "$tmp/files"
left_begin "$tmp/files" kill9/run
export TMPDIR=$tmp/files

devices=()
for d in lz4 file:size=512M 'crypt(file:size=512M)'; do
	if "$balun" devices "$d" >/dev/null 2>&1; then
		devices+=("$d")
	else
		skip "kill9/run/$d" "$("$balun" devices "$d" 2>&1 | head -n 1)"
	fi
done
# the helper's own copy tells it from those of others
if has_nbd kill9/run/nbd; then
	cp "$BUILD/balun-nbd" "$tmp/balun-nbd"
	export BALUN_NBD_HELPER=$tmp/balun-nbd
	nbd_serve "$tmp/sock" memory 512M
	devices+=("nbd:uri=nbd+unix:///?socket=$tmp/sock")
fi
[ ${#devices[@]} -eq 0 ] && summary

# of a run: its session's, and the helper
left_processes() { # session
	local p
	for p in $(ps -o pid= -s "$1" 2>/dev/null); do
		echo "$p $(tr "\0" " " 2>/dev/null <"/proc/$p/cmdline")"
	done
	for p in /proc/[0-9]*; do
		[[ $(readlink "$p/exe" 2>/dev/null) == "$tmp"/* ]] && echo "${p#/proc/} balun-nbd"
	done
}
left_files() { # with a name
	find /dev/shm "$tmp/files" -newer "$tmp/stamp" \( -name '*balun*' -o -path "$tmp/files/*" \) 2>/dev/null
}

whole=()
run() { # device
	left_run setsid "$balun" run --quiet --resident 16M --device "$1" -- "$grow" small 64 2 >/dev/null 2>&1
}
for d in "${devices[@]}"; do
	t0=$(date +%s%N)
	(run "$d")
	report $? "$d: fails without being killed"
	whole+=($((($(date +%s%N) - t0) / 1000000)))
done

for ((i = 0; i < rounds; i++)); do
	n=$((i % ${#devices[@]}))
	at=$(((RANDOM << 15 | RANDOM) % (whole[n] + 1)))
	whom=$((RANDOM % 3))
	touch "$tmp/stamp"
	run "${devices[n]}" &
	pid=$!
	sleep "$((at / 1000)).$(printf %03d $((at % 1000)))"
	# the program if there is one, in a third of the rounds; it goes with the launcher otherwise
	[ $whom -eq 0 ] && child=$(pgrep -P $pid) || child=
	kill -9 ${child:-$pid} 2>/dev/null
	wait $pid 2>/dev/null
	# they end by themselves: the program is told, the helper sees that the program has gone
	for _ in $(seq 1000); do
		left=$(left_processes $pid)
		[ -z "$left" ] && break
		sleep 0.01
	done
	[ -z "$left" ]
	report $? "seed $seed, round $i, ${devices[n]} at $at ms: processes are left: $left"
	left=$(left_files)$(left_memory)
	[ -z "$left" ]
	report $? "seed $seed, round $i, ${devices[n]} at $at ms: files or shared memory are left: $left"
done
echo "seed $seed"
summary
