#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# Verifies the models of docs/model: every configuration of the protocol must hold in an exhaustive
# search, and every deliberate bug must be found. One line each, with the states explored and the
# seconds. Usage: tests/model.sh [REGEX of lines]
cd "$(dirname "$0")/.." || exit 1
. tests/lib/lib.sh
command -v spin >/dev/null || { skip model "spin is missing: scripts/setup.sh model"; summary; }
export LC_ALL=C
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
MEM=900 # MiB of one search; two run at a time

# what must come out | model | switches | what it is. "live": no process waits for ever and nothing
# goes round for ever, under weak fairness; "safe": assertions and no deadlock; "BUG", "LIMIT": an
# error must be found
lines=(
	'safe|engine|-DCALL_DONTNEED|discards that are not hooked'
	'safe|engine|-DCALL_DONTNEED -DHOOKS|discards, hooked'
	'safe|engine|-DCALL_MUNMAP -DOPS0=3|munmap and mmap that are not hooked'
	'safe|engine|-DCALL_MUNMAP -DHOOKS|munmap and mmap, hooked'
	'safe|engine|-DCALL_DONTNEED -DNHOME=1 -DFAILS=1 -DOPS1=0|another thread migrates home, a copy fails'
	'safe|engine|-DCALL_MREMAP -DNADDR=2|mremap'
	'safe|engine|-DCALL_MREMAP -DCALL_MUNMAP -DNADDR=2 -DOPS0=1 -DCALLS=2 -DAPART|mremap and munmap of two threads, hooked'
	'safe|engine|-DCALL_DONTNEED -DNADDR=2 -DOPS1=0|a batch of two pages, discards'
	'safe|engine|-DCOPYWAY -DCALL_DONTNEED -DHOOKS|the copying way, discards, hooked'
	'safe|engine|-DCOPYWAY -DCALL_DONTNEED|the copying way, discards that are not hooked'
	'safe|engine|-DCOPYWAY -DCALL_MUNMAP -DHOOKS|the copying way, munmap and mmap, hooked'
	'live|engine|-DCALL_DONTNEED -DOPS0=1|every fault is answered, every migration ends: discards'
	'live|engine|-DCALL_MUNMAP -DOPS0=2 -DOPS1=0|every fault is answered, every migration ends: munmap'
	'live|engine|-DCOPYWAY -DCALL_DONTNEED -DOPS0=1 -DOPS1=0|and on the copying way'
	'safe|core|-DNDEV=1|mirror, eviction, discards; one device'
	'safe|core|-DFAILS=1 -DFETCHES=1|and a copy fails'
	'safe|core|-DNDEV=2 -DWORK=1 -DFETCHES=1 -DDROPS=0|two devices, one page of memory each'
	'live|core|-DWORK=1|every device and CPU fault is answered'
	'safe|drain|-DFORK|fork: the child has every byte'
	'safe|drain|-DCLOSE|a device is closed: nothing lost, not used afterwards'
	'live|drain|-DFORK -DROUNDS=1 -DFORKS=1|a fork ends'
	'live|drain|-DCLOSE -DROUNDS=1|closing ends'
	'BUG|engine|-DCALL_MUNMAP -DOPS0=3 -DBUG_TRAP2|trap 2: frames of another context, no EAGAIN in between'
	'BUG|engine|-DCALL_DONTNEED -DBUG_TRAP5|trap 5: no quarantine after REMOVE'
	'BUG|engine|-DCALL_MUNMAP -DOPS0=3 -DBUG_TRAP3|trap 3: the lock is taken after the read'
	'BUG|engine|-DCALL_MUNMAP -DOPS0=3 -DBUG_LOOK_UNLOCKED|the lock is let go of between the look and the move'
	'BUG|engine|-DCALL_MUNMAP -DBUG_NO_REPLAY|commit does not replay events'
	'BUG|engine|-DCALL_DONTNEED -DBUG_FAULT_DROPPED|trap 1: a fault is dropped on EAGAIN'
	'BUG|engine|-DBUG_NO_WAKE|commit wakes nobody'
	'BUG|engine|-DCALL_DONTNEED -DNADDR=2 -DBUG_STALE_LOG|events before a page was taken count for it'
	'BUG|engine|-DCOPYWAY -DCALL_DONTNEED -DBUG_ZAP_FAULT|a fault is served while an own discard of its page is under way'
	'BUG|core|-DBUG_NO_RETRY|mapped without a look at the sequence'
	'BUG|core|-DWORK=3 -DTOUCHES=0 -DDROPS=0 -DBUG_EVICT_NO_UNMAP|eviction without unmap'
	'BUG|core|-DBUG_FREE_EARLY|device memory is freed before commit'
	'BUG|core|-DFAILS=1 -DBUG_FAILED_COUNTS|a failed copy counts'
	'BUG|core|-DBUG_NO_BARRIER|unmap without a barrier'
	'BUG|core|-DBUG_NO_WAIT|unmap does not wait for the device'
	'BUG|core|-DBUG_DROP_BEFORE_UNMAP|memory is released before the devices forget it'
	'BUG|core|-DFAIR -DWORK=1 -DBUG_SEQUENCE_ONCE|the sequence is read once, outside the loop: livelock'
	'BUG|core|-DFAIR -DWORK=1 -DDROPS=0 -DBUG_NO_THRASHING|nothing stays: CPU and device livelock'
	'BUG|drain|-DFORK -DBUG_FORK_NO_WAIT|fork does not wait for migrations'
	'BUG|drain|-DCLOSE -DBUG_CLOSE_NO_USERS|closing does not wait for faults'
	'BUG|drain|-DCLOSE -DBUG_CLOSE_NO_SYNC|closing does not wait for migrations home'
	'LIMIT|engine|-DCOPYWAY -DCALL_MUNMAP|the copying way, munmap that is not hooked, mapped anew at once'
	'LIMIT|engine|-DCALL_MREMAP -DCALL_MUNMAP -DNADDR=2 -DOPS0=1 -DCALLS=2|mremap onto what another thread unmaps at this moment, not hooked'
)

# verify N LINE: writes the result into $work/N.line
verify() {
	local dir=$work/$1 kind model flags what opts='-DSAFETY' args='' out states
	IFS='|' read -r kind model flags what <<<"$2"
	mkdir "$dir" && cd "$dir" || exit 1
	[[ $kind == live ]] && flags="$flags -DFAIR"
	# no progress label anywhere: every run that does not end is an error
	[[ $flags == *-DFAIR* ]] && opts='-DNP -DNFAIR=3' args='-l -f'
	cp "$OLDPWD"/docs/model/*.pml .
	# shellcheck disable=SC2086
	spin -a $flags "$model.pml" >log 2>&1 &&
		gcc -O0 -w $opts -DCOLLAPSE -DMEMLIM=$MEM -o pan pan.c >>log 2>&1 &&
		timeout 600 ./pan -m200000 -w20 $args >>log 2>&1
	out=$(sed -n 's/^pan:1: //p' log | head -n 1)
	states=$(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' log)
	case $kind in
	safe | live)
		if grep -q 'errors: 0$' log && ! grep -qE 'too small|out of memory|memory limit|not completed|not complete' log; then
			kind="ok   $kind"
		else
			kind="FAIL $kind" what+=": ${out:-$(tail -n 1 log)}"
		fi
		;;
	*)
		if grep -q 'errors: 1$' log && [[ $out == 'assertion violated'* || $out == 'invalid end state'* ||
			$out == 'non-progress cycle'* ]]; then
			kind="ok   $kind" what+=" (found: ${out%% (*})"
			what=${what/assertion violated*/assertion)}
		else
			kind="FAIL $kind" what+=': not found'
		fi
		;;
	esac
	printf '%-10s %-6s %9s states %5s s  %s [%s]\n' "$kind" "$model" "${states:-0}" \
		"$(sed -n 's/^pan: elapsed time \([0-9.]*\) seconds/\1/p' log)" "$what" "$flags" >"$work/$1.line"
	cd / && rm -rf "$dir"
}

n=0
for l in "${lines[@]}"; do
	[[ $l =~ ${1:-.} ]] || continue
	n=$((n + 1))
	while [ "$(jobs -pr | wc -l)" -ge 2 ]; do wait -n; done
	(verify $n "$l") &
done
wait
for i in $(seq 1 $n); do
	cat "$work/$i.line" 2>/dev/null
	grep -q '^ok' "$work/$i.line" 2>/dev/null
	if [ $? -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
done
echo "$SECONDS s"
summary
