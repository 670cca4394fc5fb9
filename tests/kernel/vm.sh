#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# Run shell commands in a VM: one of the kernels of tests/kernel, this checkout's modules and
# programs. Output and exit status are those of the commands.
#
# Usage: tests/kernel/vm.sh 6.1|6.12|newest|stock [OPTION...] -- COMMANDS
#   --debug           the kernel with KASAN, lockdep, kmemleak, fault injection ...
#   --count           time is counted in instructions, as with --debug: figures that depend on no machine
#   --append WORDS    more for the kernel's command line, as transparent_hugepage=always
#   --add FILE[:PATH] a program for /bin, or a file for PATH; --add again for more
#   --limit S         seconds until the VM says where it hangs, and ends (300; five times that for --debug)
#   --no-modules      leave Balun's modules out
#   --dmesg           print the kernel's log too
#   --qemu "WORDS"    more for qemu, as "-device edu"
# In the VM: `modprobe balun` and the like, test_hmm; balun, matrix, hmm-tests, busybox; /tmp is a
# tmpfs; balun and test_hmm are given coherent memory (1G at 0x80000000). What does not exist is left out.
# BUILD=build-asan takes balun from there; VM_MEM=6G sets the VM's memory (4G).
# stock is Debian's own linux-image for the installed linux-headers.
# Fails too when the kernel logged a warning or worse, and prints it.
cd "$(dirname "$0")/../.." || exit 1
. tests/kernel/lib.sh
usage() {
	sed -n '4,23s/^# \{0,1\}//p' "$0"
	exit 2
}

kernel=${1:-}
[ $# -ge 1 ] && shift
config=plain count=0 append='' limit=300 dmesg=0 own=1 qemu=() files=()
while [ $# -gt 0 ]; do
	case $1 in
	--debug) config=debug ;;
	--count) count=1 ;;
	--append) append=$2 && shift ;;
	--add) files+=("$2") && shift ;;
	--limit) limit=$2 && shift ;;
	--dmesg) dmesg=1 ;;
	--no-modules) own=0 ;;
	--qemu) read -ra qemu <<<"$2" && shift ;;
	--) shift && break ;;
	*) usage ;;
	esac
	shift
done
[ -n "$kernel" ] && [ $# -gt 0 ] || usage
[ $config = debug ] && limit=$((limit * 5))

BUILD=${BUILD:-build}
find_kernel "$kernel" $config
[ $count -eq 0 ] || count_time "$kernel"
work=$PWD/build-vm
mkdir -p "$work"
run=$(mktemp -d "$work/run-XXXXXX")
trap 'rm -rf "$run"' EXIT
for f in "$BUILD/balun" "$BUILD/tests/matrix/matrix" "$BUILD"/tests/kernel/{busy,churn,huge,ioctl_fuzz}; do
	[ -x "$f" ] && files+=("$f")
done
given=$(kernel_files) || exit 1
[ -z "$given" ] || mapfile -t -O ${#files[@]} files <<<"$given"
if [ $own -eq 1 ]; then
	modules=$(own_modules) || exit 1
	[ -z "$modules" ] || mapfile -t -O ${#files[@]} files <<<"$modules"
fi

echo "$*" >"$run/job"
"$here/initramfs.sh" "$run/init.gz" "$run/job" "$limit" "$release" "${files[@]}" || exit 1
boot "$image" "$run/init.gz" "$limit" "$append" "${qemu[@]}" | tee "$run/log" |
	awk '/^@@start/ { on = 1; next } /^@@rc/ { on = 0 } on { print; fflush() }'

rc=$(sed -n 's/^@@rc //p' "$run/log")
sed '1,/^@@dmesg/d' "$run/log" >"$run/dmesg"
[ $dmesg -eq 1 ] && cat "$run/dmesg"
if grep -q '^@@hang' "$run/log"; then
	echo "vm: not done after $limit s; the kernel's log, with blocked tasks:" >&2
	cat "$run/dmesg" >&2
elif [ -z "$rc" ]; then
	echo "vm: the VM ended early: $(tail -n 1 "$run/log" | cut -c1-200)" >&2
elif klog_bad <"$run/dmesg" >"$run/bad"; then
	echo "vm: the kernel's log has warnings:" >&2
	head -n 200 "$run/bad" >&2
	[ "$rc" -ne 0 ] || rc=1
fi
exit "${rc:-1}"
