# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# For jobs of tests/kernel/run.sh, in the guest.

# t NAME LIMIT_S COMMAND: one test. Its output stays between @@begin and @@end, at most
# 20,000 lines of it; the kernel's log since the last test follows, line by line, as "@@log ".
t() {
	local name=$1 limit=$2 t0 t1 rc
	shift 2
	echo "@@begin $name"
	echo "balun-test: $name" >/dev/kmsg
	t0=$(cut -d. -f1 /proc/uptime)
	# what it left running is no part of the next test, and holds the pipe
	{
		timeout -s KILL "$limit" sh -c "$*"
		echo $? >/tmp/.rc
		killall -q -9 $(cat /programs)
	} </dev/null 2>&1 | awk 'NR <= 20000'
	rc=$(cat /tmp/.rc)
	t1=$(cut -d. -f1 /proc/uptime)
	echo
	echo "@@end $name $rc $((t1 - t0))"
	dmesg -r -c | head -n 2000 | sed 's/^/@@log /'
}

# Ask kmemleak. It reports only what is older than five seconds, so that is waited for; everything
# is freed by then, or it has leaked.
leaks() {
	[ -e /sys/kernel/debug/kmemleak ] || return 0
	sleep 6
	echo scan >/sys/kernel/debug/kmemleak
	echo scan >/sys/kernel/debug/kmemleak
	cat /sys/kernel/debug/kmemleak
	! grep -q . /sys/kernel/debug/kmemleak
}

# All of Balun's modules; and gone again, those first that no other one needs
load() {
	local m
	for m in $(cat /modules); do
		modprobe "$m" || { echo "FAIL modprobe $m" && return 1; }
	done
}
unload() {
	local m left gone
	while :; do
		left='' gone=''
		for m in $(tr - _ </modules); do
			[ -d "/sys/module/$m" ] || continue
			if [ -z "$(ls "/sys/module/$m/holders")" ]; then
				rmmod "$m" || { echo "FAIL rmmod $m" && return 1; }
				gone=$m
			else
				left="$left $m"
			fi
		done
		[ -n "$left" ] || return 0
		[ -n "$gone" ] || { echo "FAIL modules need each other:$left" && return 1; }
	done
}
