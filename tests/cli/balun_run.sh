#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# `balun run`: programs come out as without it, however they end and whatever they begin.
# Usage: tests/cli/balun_run.sh
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh
export LC_ALL=C
unset BALUN_LOG
balun=$(readlink -f "$BUILD")/balun
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# ---- to whom userfaultfd is for user mode only: not half of it ----

user() { # command...: as an ordinary user
	if [ "$(id -u)" -eq 0 ]; then setpriv --reuid 65534 --clear-groups "$@"; else "$@"; fi
}
if user "$balun" doctor 2>/dev/null | grep -q 'for user mode only'; then
	out=$(user "$balun" run --resident 64M -- echo began 2>&1)
	[ $? -eq 3 ] && [[ $out == *'sysctl vm.unprivileged_userfaultfd=1'* && $out != *began* ]]
	report $? "refused: $out"
	out=$(user "$balun" run --or-plain --resident 64M -- echo began 2>/dev/null)
	[ $? -eq 0 ] && [ "$out" = began ]
	report $? "or plain: $out"
else
	skip 'user mode only' 'an ordinary user has all of userfaultfd, or none, or cannot read this folder'
fi
needs_uffd 'balun run'
needs_plain_build 'balun run'

is() { # name, want, got
	if [ "$2" = "$3" ]; then pass && echo "ok $1"; else fail "$1: \"$3\", not \"$2\""; fi
}
b() { # options and program: Balun says nothing, what is left is the program's
	"$balun" run --quiet "$@"
}

# ---- how it ends ----

is 'exit code' 7 "$(b --resident 64M -- sh -c 'exit 7'; echo $?)"
is 'signal' 137 "$(sh -c "$balun run --quiet --resident 64M -- sh -c 'kill -9 \$\$'"' 2>/dev/null; echo $?' 2>/dev/null)"
is 'no program' 127 "$(b --resident 64M -- ./no-such 2>/dev/null; echo $?)"
is 'no program text' 'balun run: no-such: No such file or directory' "$(b --resident 64M no-such 2>&1)"
printf 'x' >"$tmp/text"
is 'not executable' 126 "$(b --resident 64M -- "$tmp/text" 2>/dev/null; echo $?)"
is 'no limit' 2 "$(b -- true 2>/dev/null; echo $?)"
is 'bad size' 2 "$(b --resident 12Q -- true 2>/dev/null; echo $?)"
is 'small size' 2 "$(b --resident 1M -- true 2>/dev/null; echo $?)"
is 'bad chaos' 2 "$(b --chaos x -- true 2>/dev/null; echo $?)"
is 'bad device' 2 "$(b --resident 64M --device nosuch:x=1 -- true 2>/dev/null; echo $?)"
is 'bad statistics' 2 "$(b --resident 64M --stats /nowhere/x -- touch "$tmp/began" 2>/dev/null; echo $?)"
is 'bad statistics begin nothing' 1 "$(test -e "$tmp/began"; echo $?)"
is 'full statistics' 7 "$(b --resident 64M --stats /dev/full -- sh -c 'exit 7' 2>/dev/null; echo $?)"
is 'full statistics are told' 'balun run: --stats: what happened is not written: No space left on device' \
	"$(b --resident 64M --stats /dev/full -- true 2>&1)"
is 'found in .' 0 "$(cd "$tmp" && cp /bin/true mytrue && PATH=:/bin b --resident 64M -- mytrue; echo $?)"
is 'its own options' '--resident x' "$(b --resident 64M echo --resident x)"

# a signal that is sent to balun is the program's
"$balun" run --quiet --resident 64M -- sh -c 'trap "echo got; exit 5" TERM; echo up; while :; do sleep 0.1; done' >"$tmp/sig" &
pid=$!
while kill -0 $pid 2>/dev/null && ! grep -q up "$tmp/sig"; do sleep 0.01; done
kill -TERM $pid
wait $pid
is 'sent signal' '5 up got' "$? $(tr '\n' ' ' <"$tmp/sig" | sed 's/ $//')"

# who is killed takes the program along
"$balun" run --quiet --resident 64M -- sleep 1000.25 &
pid=$!
child=
while ! grep -q '^sleep' "/proc/${child:-none}/cmdline" 2>/dev/null; do
	child=$(pgrep -P $pid)
	kill -0 $pid 2>/dev/null || { child= && break; }
	sleep 0.01
done
kill -9 $pid
{ wait $pid; } 2>/dev/null
[ -n "$child" ]
report $? 'killed with it: balun has ended before its program began'
if [ -n "$child" ]; then
	for _ in $(seq 1000); do
		kill -0 "$child" 2>/dev/null || break
		sleep 0.01
	done
	! kill -0 "$child" 2>/dev/null
	report $? 'killed, and the program lives on'
fi

# ---- what it refuses ----

cat >"$tmp/s.c" <<'END'
int main(void) { return 9; }
END
if gcc -static -o "$tmp/static" "$tmp/s.c" 2>/dev/null; then
	is 'static' 3 "$(b --resident 64M -- "$tmp/static" 2>/dev/null; echo $?)"
	is 'static or plain' 9 "$(b --resident 64M --or-plain -- "$tmp/static" 2>/dev/null; echo $?)"
	printf '#!%s\n' "$tmp/static" >"$tmp/script"
	chmod +x "$tmp/script"
	is 'script of a static one' 3 "$(b --resident 64M -- "$tmp/script" 2>/dev/null; echo $?)"
fi

# ---- memory ----

# sums what it has written into four times the limit, twice, with children that look at it meanwhile
cat >"$tmp/job.py" <<'END'
import hashlib, os, subprocess, sys
n = int(sys.argv[1]) << 20
a = bytearray(n)
for i in range(0, n, 4096):
    a[i:i + 8] = i.to_bytes(8, 'little')
h = hashlib.sha256()
for turn in range(2):
    for i in range(0, n, 65536):
        h.update(a[i:i + 65536])
pid = os.fork()
if not pid:
    for i in range(0, n, 4096):
        if a[i:i + 8] != i.to_bytes(8, 'little'):
            os._exit(1)
    os._exit(0)
print(h.hexdigest(), os.waitpid(pid, 0)[1], subprocess.run(['echo', 'x'], capture_output=True).stdout)
END
py=$(command -v /usr/bin/python3 || command -v python3)
want=$($py "$tmp/job.py" 128)
is 'four times the limit' "$want" "$(b --resident 32M --device ram:mem=256M --stats "$tmp/stats" -- $py "$tmp/job.py" 128)"
is 'statistics' True "$($py -c "
import json
s = json.load(open('$tmp/stats'))
p = s['processes'][0]
print(s['status'] == 0 and p['on'] and p['out'] > 64 << 20 and p['faults'] > 0 and p['lost'] == 0)")"
if "$balun" devices lz4 >/dev/null 2>&1; then
	is 'compressed' "$want" "$(b --resident 32M --device lz4 -- $py "$tmp/job.py" 128)"
	is 'encrypted file' "$want" "$(b --resident 32M --device 'crypt(file:size=256M)' -- $py "$tmp/job.py" 128)"
else
	skip 'compressed, encrypted' "$("$balun" devices lz4 2>&1 | head -n 1)"
fi
is 'chaos' "$want" "$(b --chaos 20000 --device ram:mem=256M -- $py "$tmp/job.py" 128)"
for last in no- ''; do
	is "--${last}follow is the last" "${last:+no}" \
		"$(b --resident 64M --no-follow --follow --${last}follow -- sh -c 'sh -c "[ -n \"\$LD_PRELOAD\" ] || echo no"')"
done
is 'no follow' "$want" "$(b --resident 32M --no-follow --device ram:mem=256M -- $py "$tmp/job.py" 128)"
is 'another preload' "$want" "$(LD_PRELOAD=libm.so.6 b --resident 32M --device ram:mem=256M -- $py "$tmp/job.py" 128)"

# ---- the limit ----

# However fast a program takes memory, it has no more than the limit in RAM, an eighth of that and
# what Balun needs itself; a file in memory is none of the process's.
grow() { # name, limit in kB that must hold, options and program's arguments
	local name=$1 most=$2 out
	shift 2
	out=$(b --resident 64M --stats "$tmp/stats" "$@" 2>&1)
	[[ $out =~ ^[0-9]+$ ]] && [ "$out" -le "$most" ]
	report $? "$name: peak $out kB, not $most: $(tr '\n' ' ' <"$tmp/stats")"
}
most=$(((64 + 8 + 8) * 1024))
full() { $py -c "import json; print(json.load(open('$tmp/stats'))['processes'][0]['full_ns'] > 0)"; }
if "$balun" devices file >/dev/null 2>&1; then
	grown="$BUILD/tests/stress/grow"
	for way in mmap huge arenas small large one; do
		grow "grow $way" $most --device file:path=/dev/shm,size=512M -- "$grown" $way 256
		is "grow $way: not full" False "$(full)"
	done
	for way in mmap small large; do
		grow "grow $way, 4 threads" $most --device file:path=/dev/shm,size=512M -- "$grown" $way 160 4
	done
	# an allocator of the program's own, which maps its memory before anything else runs
	cat >"$tmp/own.c" <<-'END'
	#define _GNU_SOURCE
	#include <stdio.h>
	#include <stdlib.h>
	#include <string.h>
	#include <sys/mman.h>
	static char *arena;
	static size_t used;
	void *malloc(size_t n)
	{
		n = (n + 31) & ~15UL;
		if (!arena)
			arena = mmap(NULL, 1UL << 30, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		*(size_t *)(arena + used) = n - 16;
		used += n;
		return arena + used - n + 16;
	}
	void free(void *p) { (void)p; }
	void *calloc(size_t a, size_t b) { return malloc(a * b); }
	void *realloc(void *p, size_t n)
	{
		size_t had = p ? ((size_t *)p)[-2] : 0;
		return p ? memcpy(malloc(n), p, n < had ? n : had) : malloc(n);
	}
	int main(void)
	{
		char line[256], *p[200];
		FILE *f = fopen("/proc/self/status", "r");
		int i;
		for (i = 0; i < 200; i++)
			memset(p[i] = malloc(1 << 20), i, 1 << 20);
		for (i = 0; i < 200; i++)
			if (p[i][i] != (char)i)
				return 1;
		while (fgets(line, sizeof(line), f))
			if (!strncmp(line, "VmHWM:", 6))
				printf("%d\n", atoi(line + 6));
		return 0;
	}
	END
	gcc -O1 -fno-builtin-malloc -o "$tmp/own" "$tmp/own.c"
	grow 'an allocator of its own' $most --device file:path=/dev/shm,size=512M -- "$tmp/own"
	# What it maps and does not use costs nothing, and it may use it later. Who has to wait for Balun
	# at a first touch sleeps: the 32,000 pages of small mappings did in 3,500 times, all watched
	cat >"$tmp/spare.c" <<-'END'
	#define _GNU_SOURCE
	#include <stdio.h>
	#include <stdlib.h>
	#include <string.h>
	#include <sys/mman.h>
	#include <sys/resource.h>
	#define SPARE (200UL << 20)
	#define SMALL (256UL << 10)
	static char *get(size_t len)
	{
		return mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	}
	int main(void)
	{
		char line[256], *p = get(SPARE), *q;
		FILE *f = fopen("/proc/self/status", "r");
		struct rusage u;
		size_t i;
		for (i = 0; i < 500; i++) {
			memset(q = get(SMALL), i, SMALL);
			munmap(q, SMALL);
		}
		getrusage(RUSAGE_THREAD, &u);
		if (u.ru_nvcsw > 500)
			return printf("slept %ld times\n", u.ru_nvcsw);
		for (i = 0; i < SPARE; i++)
			p[i] = i >> 12;
		for (i = 0; i < SPARE; i++)
			if (p[i] != (char)(i >> 12))
				return 1;
		while (fgets(line, sizeof(line), f))
			if (!strncmp(line, "VmHWM:", 6))
				printf("%d\n", atoi(line + 6));
		return 0;
	}
	END
	gcc -O1 -o "$tmp/spare" "$tmp/spare.c"
	grow 'mapped and not used yet' $most --device file:path=/dev/shm,size=512M -- "$tmp/spare"
	# memory that does not count for the limit (a file's, mapped privately) goes, and new comes; and
	# what is to be there at once
	cat >"$tmp/new.c" <<-'END'
	#define _GNU_SOURCE
	#include <stdio.h>
	#include <string.h>
	#include <sys/mman.h>
	#include <sys/resource.h>
	#include <unistd.h>
	#define OTHER (256UL << 20)
	#define NEW (200UL << 20)
	int main(int argc, char **argv)
	{
		int own = MAP_PRIVATE | MAP_ANONYMOUS, rw = PROT_READ | PROT_WRITE;
		FILE *f = tmpfile();
		struct rusage u;
		char *p;
		if (argc == 1) {
			if (ftruncate(fileno(f), OTHER))
				return 1;
			p = mmap(NULL, OTHER, rw, MAP_PRIVATE, fileno(f), 0);
			usleep(200000); /* it is looked at */
			munmap(p, OTHER);
		}
		p = mmap(NULL, NEW, rw, argc == 1 ? own : own | MAP_POPULATE, -1, 0);
		memset(p, 1, NEW);
		getrusage(RUSAGE_SELF, &u);
		printf("%ld\n", u.ru_maxrss);
		return 0;
	}
	END
	gcc -O1 -o "$tmp/new" "$tmp/new.c"
	grow 'after the mapping of a file' $most --device file:path=/dev/shm,size=512M -- "$tmp/new"
	grow 'MAP_POPULATE' $most --device file:path=/dev/shm,size=512M -- "$tmp/new" populate
	# what a child had too since a fork goes again when it is gone, though it is only read; and the
	# limit holds from then on
	cat >"$tmp/forked.py" <<-'END'
	import mmap, os, sys, time
	n = int(sys.argv[1]) << 20
	def rss():
	    return [int(s.split()[1]) for s in open('/proc/self/status') if s.startswith('RssAnon')][0]
	def check():
	    assert all(m[i:i + 8] == i.to_bytes(8, 'little') for i in range(0, n, 4096))
	m = mmap.mmap(-1, n, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
	for i in range(0, n, 4096):
	    m[i:i + 8] = i.to_bytes(8, 'little')
	if not os.fork():
	    time.sleep(0.3)
	    os._exit(0)
	os.wait()
	until = time.time() + 20
	while rss() > 80 << 10 and time.time() < until:
	    check()
	most, until = 0, time.time() + 1
	while time.time() < until:
	    check()
	    most = max(most, rss())
	print(most)
	END
	for i in 150 192; do
		grow "$i MiB after a fork" $most --device file:path=/dev/shm,size=512M -- $py "$tmp/forked.py" $i
	done
	# no place left: then the limit cannot be kept, nothing waits, and it is said; but nothing is in
	# RAM twice either: there is the program, the eighth and what Balun needs
	for way in mmap small; do
		grow "grow $way, full" $(((256 + 8 + 8) * 1024)) --device file:path=/dev/shm,size=64M -- "$grown" $way 256 2
		is "grow $way: full" True "$(full)"
	done
	is 'full is said' 'above the limit' "$("$balun" run --resident 64M --device file:path=/dev/shm,size=64M -- "$grown" mmap 256 2>&1 |
		grep -o 'above the limit')"
else
	skip 'grow' "$("$balun" devices file 2>&1 | head -n 1)"
fi

if "$balun" devices lz4 >/dev/null 2>&1; then
	out=$(BUILD=$BUILD examples/words.sh 12 2>&1)
	[ "$(tail -n 1 <<<"$out")" = 'the output is the same' ]
	report $? "words.sh: $out"
fi

# ---- what is the program's ----

# descriptors: it finds and closes its own only, while pages are away and move
cat >"$tmp/files.py" <<'END'
import os, time
a = bytearray(24 << 20)
for i in range(0, len(a), 4096):
    a[i:i + 8] = i.to_bytes(8, 'little')
os.closerange(3, 2000)
end = time.time() + 1.5
seen = set()
while time.time() < end:
    seen.add((os.open('/dev/null', 0), len(os.listdir('/proc/self/fd'))))
    os.closerange(3, 2000)
    if not os.fork():
        os.closerange(3, 2000)
        os._exit(any(a[i:i + 8] != i.to_bytes(8, 'little') for i in range(0, len(a), 1 << 20)))
    assert not os.wait()[1]
print(seen, all(a[i:i + 8] == i.to_bytes(8, 'little') for i in range(0, len(a), 4096)))
END
is 'descriptors' '{(3, 5)} True' "$(b --chaos 20000 --resident 16M --device ram:mem=256M -- $py "$tmp/files.py")"

# the end of its last thread, also where the first has ended before, and in a child of a thread
cat >"$tmp/last.c" <<'END'
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static void said(void) { puts("ended"); }
static void *run(void *arg)
{
	pid_t pid = fork();
	int status;
	if (!pid)
		return NULL; /* the child's only thread */
	printf("%d\n", waitpid(pid, &status, 0) == pid && !status);
	return arg;
}
int main(void)
{
	pthread_t t;
	atexit(said);
	setvbuf(stdout, NULL, _IONBF, 0);
	pthread_create(&t, NULL, run, NULL);
	pthread_exit(NULL);
}
END
gcc -o "$tmp/last" "$tmp/last.c" -pthread
want=$("$tmp/last"; echo $?)
is 'the last thread' "$want" "$(b --chaos 20000 --device ram:mem=256M -- timeout 20 "$tmp/last"; echo $?)"
is 'the last thread, nothing moved' "$want" "$(b --resident 64M -- timeout 20 "$tmp/last"; echo $?)"

is 'nothing is written' '' "$(b --resident 64M -- true 2>&1)"
summary
