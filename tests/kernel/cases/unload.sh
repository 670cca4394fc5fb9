# SPDX-License-Identifier: GPL-2.0-only OR MIT
# limit: 120
#
# In the VM: rmmod again and again while programs use the modules. It is refused as long as somebody
# does, the programs do not notice, and it works as soon as nobody does; also when they were killed.
. /lib.sh
rounds=${1:-4}
refused=0
i=0
while [ $i -lt "$rounds" ]; do
	busy soft:mem=8M 3000 &
	pid=$!
	while kill -0 $pid 2>/dev/null && [ "$(cat /sys/module/balun_soft/refcnt)" -eq 0 ]; do
		:
	done
	n=0
	while kill -0 $pid 2>/dev/null && ! rmmod balun_soft 2>/dev/null; do
		n=$((n + 1))
		[ $((i % 2)) -eq 0 ] || [ $n -lt 10 ] || kill -9 $pid
	done
	wait $pid
	rc=$?
	if [ $((i % 2)) -eq 0 ] && [ $rc -ne 0 ]; then
		echo "FAIL round $i: the program ended with $rc while the module was to go"
		exit 1
	fi
	refused=$((refused + n))
	unload && load || exit 1
	i=$((i + 1))
done
echo "rmmod was refused $refused times"
if [ $refused -eq 0 ]; then
	echo 'FAIL nothing was in use'
	exit 1
fi
