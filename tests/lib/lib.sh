# SPDX-License-Identifier: GPL-2.0-only OR MIT
# Shared by the test scripts: count, say only what went wrong, end with the plain line.
set -u
BUILD=${BUILD:-build}
passed=0 failed=0 skipped=0

pass() {
	passed=$((passed + 1))
}
fail() { # message...
	failed=$((failed + 1))
	echo "FAIL $*"
}
skip() { # name, reason
	skipped=$((skipped + 1))
	echo "SKIP $1: $2"
}
# report RC MESSAGE...: passes when RC is 0
report() {
	local rc=$1
	shift
	if [ "$rc" -eq 0 ]; then pass; else fail "$*"; fi
}
# has_sanitizer: a program without one takes no library with one
has_sanitizer() {
	ldd "$BUILD/balun" | grep -qE 'lib[at]san'
}
# needs_uffd NAME: ends here with a skip where the engine uffd does not work, or not for all that
# programs do
needs_uffd() {
	"$BUILD/balun" doctor --json 2>/dev/null | grep -q '"ok", "what": "engine uffd"' && return
	skip "$1" 'userfaultfd may not be used here, or not for all (balun doctor has the remedy)'
	summary
}
# has_memory NAME: whether the memory of a real process can move here, all that it does or not
has_memory() {
	"$BUILD/balun" doctor >/dev/null 2>&1
	[ $? -ne 3 ] && return
	skip "$1" 'userfaultfd may not be used here (balun doctor has the remedy)'
	return 1
}
# needs_plain_build NAME: ends here with a skip if programs cannot be preloaded with this build. Tried
# with ASan, also with programs of the same build: it refuses when its library is not the first, and
# told not to (verify_asan_link_order=0) calls malloc() as it begins, which is then balun run's, and
# the check in that reads shadow memory that is not there yet
needs_plain_build() {
	has_sanitizer || return 0
	skip "$1" 'this build has a sanitizer, whose library must be the first, and malloc() of balun run is before it'
	summary
}
# has_nbd NAME: whether a server can be begun; says why not
has_nbd() {
	[ -x "$BUILD/balun-nbd" ] && command -v nbdkit >/dev/null && return
	skip "$1" 'there is no nbdkit or no balun-nbd (packages nbdkit, libnbd-dev)'
	return 1
}
# nbd_serve SOCKET PLUGIN ARGUMENT...: begins a server and waits until it is ready: $server. It ends
# with the script at the latest; SOCKET.pid and SOCKET.log are written
nbd_serve() {
	local socket=$1
	shift
	nbdkit -f --exit-with-parent -U "$socket" -P "$socket.pid" "$@" 2>"$socket.log" &
	server=$!
	# it writes the file when it is ready
	until [ -s "$socket.pid" ]; do
		kill -0 $server 2>/dev/null || { fail "nbdkit: $(cat "$socket.log")"; summary; }
		sleep 0.1
	done
}
summary() {
	echo "$passed passed, $failed failed, $skipped skipped"
	[ "$failed" -eq 0 ]
	exit
}
