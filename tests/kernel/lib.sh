# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# What the scripts of tests/kernel share; sourced with the root of the checkout as current folder.
# shellcheck shell=bash disable=SC2034
# Sources, apt lists and built kernels stay in one cache folder, which git ignores:
# build-kernel, or what BALUN_KERNEL_CACHE names.
set -u
export LC_ALL=C
here=$PWD/tests/kernel
cache=$(realpath -m "${BALUN_KERNEL_CACHE:-build-kernel}")
mkdir -p "$cache"

say() { # progress; results of a script go to stdout
	echo "$*" >&2
}

skip() { # this cannot be done here, and why
	echo "SKIP $*"
	exit 77
}

die() {
	echo "error: $*" >&2
	exit 1
}

# once NAME COMMAND...: no two at the same time, in all users of the cache
once() {
	local name=$1 fd
	shift
	exec {fd}>"$cache/.lock-$name"
	flock "$fd"
	"$@"
	local rc=$?
	exec {fd}>&-
	return $rc
}

# Physical memory of the VM that is kept from the kernel, for coherent device memory: a chunk of
# 256 MiB for each of two devices is what the kernel's own test driver wants; twice that for balun,
# where the devices of a process that has just ended may not have given theirs back yet
coherent_append='memmap=1G$0x80000000'
HMM_MEM=${HMM_MEM:-32M} # of a device of hmm-tests
module_options='options balun coherent=1G@0x80000000
options balun_hmm_dmirror mem='$HMM_MEM'
options test_hmm spm_addr_dev0=0x80000000 spm_addr_dev1=0x90000000'

# A debug kernel is so slow that tests of fixed length (the selftest's 30 s) would fail wherever the
# machine is slow or busy. So its time is that of its instructions, a nanosecond each: a second takes
# longer then on a slower machine, and none where the guest is idle. Its two processors take turns.
# The plain kernels' run at the same time, as the machine can.
cpus_plain='-accel tcg,thread=multi'
cpus_counted='-accel tcg,thread=single -icount shift=0,sleep=off'

# count_time NAME: of 6.1 with one processor, for the second never gets its turn to start (qemu 7.2)
count_time() {
	cpus=$cpus_counted patience=10
	[ "$1" != 6.1 ] || smp=1
}

# boot IMAGE INITRD LIMIT_S APPEND [QEMU-OPTION...]: the serial line on stdout, at most 64 MiB of it.
# The guest ends itself LIMIT_S of its time after its start; so if it lasts several times as long, it
# cannot. no_timer_check: where the machine is busy the timer is late, which some kernels take for a
# broken one.
boot() {
	local image=$1 initrd=$2 limit=$3 append=$4
	shift 4
	# in the foreground: who ends this script, from a terminal or by a time limit, ends qemu too
	# shellcheck disable=SC2086
	timeout --foreground -k 5 $((limit * patience + 60)) qemu-system-x86_64 $cpus -smp $smp -m "${VM_MEM:-4G}" \
		-nographic -nodefaults -serial stdio -no-reboot -kernel "$image" -initrd "$initrd" \
		-append "console=ttyS0 panic=-1 quiet no_timer_check log_buf_len=4M $coherent_append $append" "$@" \
		</dev/null 2>&1 | stdbuf -oL tr -d '\r' | stdbuf -oL head -c 67108864
}

# what of the kernel's log, with levels ("<4>[ 1.2] ..."), fails a test: warnings and worse, and
# reports that are printed with a lower level; without a level it came to the console of a dying VM
klog_bad() {
	grep -aE "^<[0-4]>|^\\[|$reports|Call Trace:" | grep -avE "$harmless"
}
# only what says that the kernel is wrong: where allocations fail on purpose, a warning may say so,
# and add_pages() of x86 takes the first lack of memory for a device's struct pages for a mistake
klog_severe() {
	grep -aE "^\\[|$reports" | grep -avE "$harmless|WARNING: .* add_pages\+"
}
reports='WARNING:|BUG|KASAN|Oops|general protection|unable to handle|blocked for more than'
reports+='|possible .* locking|suspicious RCU|lock state|ODEBUG|[Bb]ad page|corruption|refcount_t'
reports+='|kmemleak: [0-9]+ new|stall'
# timers that come late are this emulation's; pages that a test loses are the test's affair
harmless='hrtimer: interrupt took|clocksource: |balun-test:|^\[[ 0-9.]+\] reboot: '
harmless+='|loading out-of-tree module taints kernel|module verification failed'
harmless+='|balun: .* (is|are|KiB:) lost(:|$)'

# find_kernel NAME CONFIG: sets $image, $release, $kdir, $ktree, $kversion, and how boot() runs it; builds
# what is missing
find_kernel() {
	local found rc
	cpus=$cpus_plain smp=2 patience=2
	[ "$2" != debug ] || count_time "$1"
	if [ "$1" = stock ]; then
		found=$("$here/stock.sh")
	else
		found=$("$here/build.sh" "$1" "$2")
	fi
	rc=$?
	[ $rc -eq 0 ] || { echo "$found" && exit $rc; }
	read -r kdir ktree kversion image <<<"$found"
	# its selftest has huge pages on both sides, and a benchmark that fills 256 MiB. Every test takes
	# a device's memory anew, which a debug kernel does page by page: there the benchmark is left out
	[ "$1" != newest ] || VM_MEM=${VM_MEM:-6G}
	export HMM_MEM=32M
	[ "$1-$2" != newest-plain ] || HMM_MEM=256M
	image=${image:-$kdir/arch/x86/boot/bzImage}
	release=$(cat "$kdir/include/config/kernel.release")
	# Debian's headers say 6.1.192 there and mean 6.1.0-57-amd64
	[ "$ktree" != - ] || release=${image##*/vmlinuz-}
}

# the kernel's own test driver and test
kernel_files() {
	[ "$ktree" != - ] || return 0
	echo "$kdir/lib/test_hmm.ko"
	"$here/hmm-tests.sh" "$kdir" "$ktree"
}

# this checkout's modules for it; none is no error
own_modules() {
	local out rc
	out=$("$here/modules.sh" "$kdir")
	rc=$?
	[ $rc -eq 77 ] && say "$out" && return 0
	[ $rc -ne 0 ] || echo "$out"
	return $rc
}
