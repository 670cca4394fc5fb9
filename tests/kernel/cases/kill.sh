# SPDX-License-Identifier: GPL-2.0-only OR MIT
# limit: 300
#
# In the VM: kill -9 at many moments of programs that have pages in every state. The space goes away
# with the process, with all that it held: memory comes back, and the modules can be unloaded.
rounds=${1:-20}
. /lib.sh
available() {
	awk '/^MemAvailable:/ { print $2 }' /proc/meminfo
}

busy soft:mem=8M 1000 || exit 1
before=$(available)
i=0
while [ $i -lt "$rounds" ]; do
	busy soft:mem=8M 60000 &
	pid=$!
	usleep $((i * 50000))
	kill -9 $pid
	wait $pid 2>/dev/null
	i=$((i + 1))
done
left=$(pidof busy)
if [ -n "$left" ]; then
	echo "FAIL processes are left: $left"
	exit 1
fi
if [ $((before - $(available))) -ge 65536 ]; then
	echo "FAIL available memory went from $before to $(available) KiB"
	exit 1
fi
unload && load
