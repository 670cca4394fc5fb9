#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# redis-server under chaos: redis-benchmark on it, keys that are known, a save in a forked child and
# one without; what it has after loading that is what a server without Balun has.
# Usage: tests/programs/redis.sh
cd "$(dirname "$0")/../.." || exit 1
. tests/programs/lib.sh

server=
ended() {
	[ -z "$server" ] || kill -9 $server 2>/dev/null
}
# the server and the tool that looks at its files are one program; it goes by its name
ln -s "$(command -v redis-check-rdb)" "$tmp/redis-server"
requests=${share:+3000}
requests=${requests:-50000}
keys=${share:+20000}
keys=${keys:-200000}
cat >"$tmp/conf" <<END
port 0
unixsocket $tmp/sock
dir $tmp
dbfilename dump.rdb
save ""
enable-debug-command yes
activedefrag no
END
# what every server is given: the protocol is lines
awk -v n=$keys 'BEGIN {
	for (i = 0; i < n; i++) {
		k = "key:" i * 7919 % n
		printf "SET %s %08x%0200d\r\n", k, i, i
		if (i % 4 == 0) printf "LPUSH list:%d %s\r\n", i % 97, k
		if (i % 5 == 0) printf "ZADD z:%d %d %s\r\n", i % 89, i * 31 % 1009, k
		if (i % 7 == 0) printf "HSET hash:%d %s %d\r\n", i % 83, k, i
		if (i % 11 == 0) printf "DEL key:%d\r\n", i * 13 % n
	}
}' >"$tmp/commands"

cli() {
	timeout 300 redis-cli -s "$tmp/sock" "$@"
}
start() { # prefix of the command...
	rm -f "$tmp/sock"
	"$@" "$tmp/redis-server" "$tmp/conf" >"$tmp/log" 2>&1 &
	server=$!
	for _ in $(seq 600); do
		[ "$(cli ping 2>/dev/null)" = PONG ] && return 0
		kill -0 $server 2>/dev/null || break
		sleep 0.1
	done
	fail "redis: the server does not begin: $(tail -n 3 "$tmp/log")"
	finish
}
stop() {
	cli shutdown nosave >/dev/null 2>&1
	wait $server
	rc=$?
	server=
	return $rc
}
under_chaos() {
	start "$balun" run --quiet --chaos "$rate" --stats "$tmp/stats" --
}
is() { # name, want, got
	if [ "$2" = "$3" ]; then pass && echo "ok redis/$1"; else fail "redis/$1: \"$3\", not \"$2\""; fi
}
stopped() {
	stop
	is "$1" 0 $?
	how_much || fail "redis/$1: $why"
}

# without Balun
start env
cli --pipe <"$tmp/commands" >/dev/null 2>&1
want=$(cli debug digest)
stop

# filled, saved by a child while it is changed, and by itself
under_chaos
is fill 'errors: 0' "$(cli --pipe <"$tmp/commands" 2>&1 | grep -o 'errors: [0-9]*')"
is digest "$want" "$(cli debug digest)"
cli bgsave >/dev/null
redis-benchmark -s "$tmp/sock" -q -n "$requests" -c 20 -r 10000 -t set,get,incr,lpush,rpop,sadd,hset,zadd,mset \
	>"$tmp/bench" 2>&1
is benchmark '0 9' "$? $(tr '\r' '\n' <"$tmp/bench" | grep -c 'requests per second.*p50')"
for _ in $(seq 600); do
	cli info persistence | grep -q 'rdb_bgsave_in_progress:0' && break
	sleep 0.1
done
is 'save in a child' 'ok' "$(cli info persistence | tr -d '\r' | sed -n 's/rdb_last_bgsave_status://p')"
mv "$tmp/dump.rdb" "$tmp/child.rdb"
all=$(cli debug digest)
is save OK "$(cli save)"
stopped 'the server ends'

# loaded
under_chaos
is load "$all" "$(cli debug digest)"
stopped 'and ends again'
start env
is 'load without Balun' "$all" "$(cli debug digest)"
stop
mv "$tmp/child.rdb" "$tmp/dump.rdb"
under_chaos
is 'load what the child saved' "$want" "$(cli debug digest)"
stopped 'and once more'
finish
