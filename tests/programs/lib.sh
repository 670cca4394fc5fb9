# SPDX-License-Identifier: GPL-2.0-only OR MIT
# Shared by the scripts of tests/programs: a command under chaos, and what it comes out as.
. tests/lib/lib.sh
export LC_ALL=C
unset BALUN_LOG
balun=$(readlink -f "$BUILD")/balun
repo=$PWD
rate=${RATE:-20000}  # pages that chaos moves, a second and process
least=1000           # pages that are to be moved, a second of a run
share=${SHARE_ONLY:-} # not empty: what `make check` has time for
# the program's own scratch; TMPDIR may be memory, and some of it is large
tmp=$(mktemp -d)
job=
trap 'ended; [ -z "$job" ] || kill $job 2>/dev/null; rm -rf "$tmp"' EXIT
trap 'exit 143' TERM
pages=0 ns=0 why=

ended() { :; } # a script's own

# limited LIMIT COMMAND...: with all that it begins, for so many seconds at most; ends with us
limited() {
	timeout -k 5 "$@" </dev/null &
	job=$!
	wait $job
	local rc=$?
	job=
	return $rc
}

# chaos LIMIT COMMAND...: under chaos; what it printed is in $tmp/out, how it went in $tmp/stats
chaos() {
	local limit=$1
	shift
	rm -f "$tmp/stats"
	limited "$limit" "$balun" run --quiet --chaos "$rate" --stats "$tmp/stats" -- "$@" >"$tmp/out" 2>&1
}

plain() {
	local limit=$1
	shift
	limited "$limit" "$@" >"$tmp/out.plain" 2>&1
}

# adds up the pages of the last run; sets $why and says no if any was lost
how_much() {
	local p t lost
	read -r p t lost < <(/usr/bin/python3 - "$tmp/stats" <<-'END'
		import json, sys
		s = json.load(open(sys.argv[1]))
		print(sum(p['out'] + p['home'] for p in s['processes']) // 4096, s['ns'],
		      sum(p['lost'] for p in s['processes']))
	END
	)
	why=
	pages=$((pages + ${p:-0})) ns=$((ns + ${t:-0}))
	[ "${lost:-1}" -eq 0 ] && return 0
	why="${lost:-no statistics, so who knows how many} pages were lost"
	return 1
}

# says how many pages there were, and ends
finish() {
	if [ $ns -ne 0 ]; then
		echo "$pages pages in $((ns / 1000000000)) s: $((pages * 1000 / (ns / 1000000 + 1))) a second"
		if [ $((pages * 1000 / (ns / 1000000 + 1))) -lt $least ]; then
			fail "pages: fewer than $least a second"
		fi
	fi
	summary
}

# passes NAME LIMIT COMMAND...: exits with 0, as without Balun
passes() {
	local name=$1 limit=$2 rc
	shift 2
	chaos "$limit" "$@"
	rc=$?
	how_much
	if [ $rc -eq 0 ] && [ -z "$why" ]; then
		pass && echo "ok $name"
		return 0
	fi
	if [ $rc -eq 0 ]; then
		fail "$name: $why"
		return 1
	fi
	cp "$tmp/out" "$tmp/out.chaos"
	if plain "$limit" "$@"; then
		fail "$name: exit code $rc${why:+, $why}; without Balun it passes"
		tail -n 40 "$tmp/out.chaos" | sed 's/^/  | /'
		return 1
	fi
	skip "$name" "it fails without Balun too: $(grep -v '^$' "$tmp/out.plain" | tail -n 1 | cut -c1-100)"
}

# same NAME LIMIT COMMAND...: prints what it prints without Balun, and exits the same way
same() {
	local name=$1 limit=$2 rc want
	shift 2
	plain "$limit" "$@"
	want=$?
	chaos "$limit" "$@"
	rc=$?
	how_much
	if [ $want -ne 0 ] && [ $rc -eq $want ]; then
		skip "$name" "it fails without Balun too: $(tail -n 1 "$tmp/out.plain" | cut -c1-100)"
	elif [ $rc -ne $want ] || [ -n "$why" ] || ! cmp -s "$tmp/out" "$tmp/out.plain"; then
		fail "$name: exit code $rc, not $want${why:+; $why}; what it printed, < without Balun:"
		diff "$tmp/out.plain" "$tmp/out" | head -n 30 | sed 's/^/  | /'
		return 1
	else
		pass && echo "ok $name"
	fi
}

needs_uffd programs
