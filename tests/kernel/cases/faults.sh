# SPDX-License-Identifier: GPL-2.0-only OR MIT
# limit: 300
# log: severe
#
# In the VM: allocations of one program fail at random, in the slab and page allocators. It may fail,
# but the kernel finds nothing wrong, all goes away with the program, and the next one is right.
. /lib.sh
rounds=${1:-10}
fault=/sys/kernel/debug
if [ ! -d $fault/failslab ]; then
	echo 'SKIP this kernel cannot make allocations fail (CONFIG_FAILSLAB)'
	exit 77
fi

# of a task that says so, whatever it is for, without a message
for f in failslab fail_page_alloc; do
	echo Y >$fault/$f/task-filter
	echo -1 >$fault/$f/times
	echo 0 >$fault/$f/verbose
	echo N >$fault/$f/ignore-gfp-wait
done
echo N >$fault/failslab/cache-filter
echo 0 >$fault/fail_page_alloc/min-order

i=0
failed=0
while [ $i -lt "$rounds" ]; do
	echo $((i % 2 ? 0 : 1 + i)) >$fault/failslab/probability
	echo $((i % 2 ? 1 + i : 0)) >$fault/fail_page_alloc/probability
	busy soft:mem=8M 2000 fail
	case $? in
	0) ;;
	2) echo 'FAIL what is to fail cannot be said' && exit 1 ;;
	1) echo "FAIL round $i: bytes were lost" && exit 1 ;;
	*) failed=$((failed + 1)) ;;
	esac
	i=$((i + 1))
done
echo "$failed of $rounds programs failed"
echo 0 >$fault/failslab/probability
echo 0 >$fault/fail_page_alloc/probability
if [ $failed -eq 0 ]; then
	echo 'FAIL no program noticed anything'
	exit 1
fi
busy soft:mem=8M 2000 || {
	echo 'FAIL when nothing fails any more'
	exit 1
}
unload && load
