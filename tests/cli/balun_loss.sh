#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# What devices that fail cost a program under `balun run`: what balun(1) says, and no page more.
# Usage: tests/cli/balun_loss.sh
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh
export LC_ALL=C
unset BALUN_LOG
balun=$(readlink -f "$BUILD")/balun
lossy=$(readlink -f "$BUILD")/tests/stress/lossy
py=$(command -v /usr/bin/python3 || command -v python3)
needs_uffd loss
"$balun" doctor --json | grep -q -- '-POISON' && export LOSSY_SEGV=1
needs_plain_build loss
tmp=$(mktemp -d)
servers=()
finish() {
	for s in "${servers[@]}"; do kill "$s" 2>/dev/null; done
	mountpoint -q "$tmp/full" && umount "$tmp/full"
	rm -rf "$tmp"
}
trap finish EXIT

# lossy NAME FUNCTION OPTION...: runs the program; when it is ready FUNCTION is called, with a page that is
# away and the launcher's process. $out: what the program found; $log: what Balun said; $stat: statistics
lossy() {
	local what=$2 pid page
	name=$1
	shift 2
	rm -f "$tmp/in" "$tmp/out"
	mkfifo "$tmp/in" "$tmp/out"
	"$balun" run --resident 16M --stats "$tmp/stats" "$@" -- "$lossy" 64 <"$tmp/in" >"$tmp/out" 2>"$tmp/log" &
	pid=$!
	exec 8>"$tmp/in" 9<"$tmp/out"
	read -r _ page <&9
	$what "$page" "$pid"
	echo go >&8
	exec 8>&-
	out=$(cat <&9)
	exec 9<&-
	wait $pid
	status=$?
	echo "$name: $out; $(tail -n 1 "$tmp/log")"
	log=$(tr '\n' ' ' <"$tmp/log")
}
stat() { # of the process: lost, away, full_ns
	"$py" -c "import json; print(json.load(open('$tmp/stats'))['processes'][0]['$1'])"
}
# check CONDITION...: a shell test, with what is known if it fails
check() {
	[ "$@" ]
	report $? "$name: not $*; status $status, found: $out; said: $log"
}

# ---- a file system that is full ----

nothing() { :; }
mkdir "$tmp/full"
if ! "$balun" devices file >/dev/null 2>&1; then
	skip loss/file "$("$balun" devices file 2>&1 | head -n 1)"
elif ! mount -t tmpfs -o size=24M none "$tmp/full" 2>/dev/null; then
	skip loss/full 'no file system can be mounted here'
else
	lossy 'full file system' nothing --device "file:path=$tmp/full,size=512M"
	check "$status $out" = '0 lost 0 bad 0 fresh-bad 0'
	check "$(stat lost)" -eq 0
	check "$(stat full_ns)" -gt 0
	check "$(grep -c 'no more could be moved out' "$tmp/log")" -eq 1
	check "$(df --output=used "$tmp/full" | tail -n 1 | tr -d ' ')" -eq 0
	# the next device takes what the first has no room for
	lossy 'full, and another' nothing --device "file:path=$tmp/full,size=512M" --device crypt\(ram:mem=256M\)
	check "$status $out" = '0 lost 0 bad 0 fresh-bad 0'
	check "$(stat lost)" -eq 0
	check "$(stat peak)" -le $((20 << 20))
fi

# ---- a byte that changes in the file ----

# a byte of what the file has of a page, wherever it has it; the file is in the table of Balun's threads
spoil() { # page, launcher
	"$py" - "$1" "$(pgrep -P "$2")" "$tmp" <<-'END'
	import glob, os, sys
	page, pid, tmp = int(sys.argv[1]), sys.argv[2], sys.argv[3]
	done = 0
	for link in glob.glob(f"/proc/{pid}/task/*/fd/*"):
	    try:
	        if not os.readlink(link).startswith(tmp + "/spoil/"):
	            continue
	        fd = os.open(link, os.O_RDWR)
	    except OSError:
	        continue
	    at = 0
	    while True:
	        try:
	            at = os.lseek(fd, at, os.SEEK_DATA)
	        except OSError:
	            break
	        data = os.pread(fd, 4096, at)
	        if int.from_bytes(data[:8], "little") == page:
	            os.pwrite(fd, bytes([data[3000] ^ 1]), at + 3000)
	            done += 1
	        at += 4096
	    os.fsync(fd)
	    break
	sys.exit(done == 0)
	END
	spoiled=$?
}
if "$balun" devices file >/dev/null 2>&1; then
	mkdir "$tmp/spoil"
	lossy 'spoiled byte' spoil --device "file:path=$tmp/spoil,size=512M"
	check "$spoiled" -eq 0
	check "$status $out" = '0 lost 1 bad 0 fresh-bad 0'
	check "$(stat lost)" -eq 1
	check "$(grep -c 'reads back otherwise' "$tmp/log")" -eq 1
	check "$(grep -c '; 1 PAGES LOST' "$tmp/log")" -eq 1
	lossy 'spoiled in one of a mirror' spoil --device "mirror(file:path=$tmp/spoil,size=512M,ram:mem=512M)"
	check "$spoiled" -eq 0
	check "$status $out" = '0 lost 0 bad 0 fresh-bad 0'
	check "$(stat lost)" -eq 0
fi

# ---- an NBD server that is killed ----

serve() { # name
	nbd_serve "$tmp/$1" memory 512M
	servers+=($server)
}
kill_first() {
	kill -9 "${servers[0]}"
	wait "${servers[0]}" 2>/dev/null
}
has_nbd loss/nbd || summary
serve one
lossy 'killed server' kill_first --device "nbd:uri=nbd+unix:///?socket=$tmp/one"
check "$status" -eq 0
check "${out#lost * }" = 'bad 0 fresh-bad 0'
# all that was in RAM is there: of 64 MiB at most what is not kept in RAM is lost
lost=$(stat lost)
check "$out" = "lost $lost bad 0 fresh-bad 0"
check "$lost" -gt 0
check "$lost" -lt $(((64 - 8) * 256))
check "$(grep -c "; $lost PAGES LOST" "$tmp/log")" -eq 1
check "$(grep -c 'no more could be moved out' "$tmp/log")" -eq 1

servers=()
rm -f "$tmp"/one*
serve one
serve two
lossy 'mirror of two servers, one killed' kill_first \
	--device "mirror(nbd:uri=nbd+unix:///?socket=$tmp/one,nbd:uri=nbd+unix:///?socket=$tmp/two)"
check "$status $out" = '0 lost 0 bad 0 fresh-bad 0'
check "$(stat lost)" -eq 0
check "$(stat full_ns)" -eq 0
check "$(grep -c 'mirror: ' "$tmp/log")" -eq 1
summary
