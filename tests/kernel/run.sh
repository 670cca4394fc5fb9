#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# The VM tier, behind `make check-kernel`: Balun's modules on kernels under qemu's emulation.
# Usage: tests/kernel/run.sh [--kernel 6.1|6.12|newest|stock|all] [--config plain|debug|all] [TEST...]
#   a TEST is a name or the beginning of one, as conform/soft
#
# For every kernel: suites of user space, on the engine uffd; the kernel's own HMM selftest on the
# kernel's own test driver (the bar, kept in the cache) and on Balun's dmirror module, huge pages on
# demand and always; the conformance kit on every driver; tests/kernel/cases. The kernel's log is read
# after every test, a warning fails it. One line a test; a table of the selftest; "N passed, N failed,
# N skipped". The stock kernel is Debian's own, for the installed headers: no page can go to a device
# but a coherent one, the rest is mirrored.
#
# A debug kernel is some five times slower, and its time is its own: a second takes two or three
# (tests/kernel/lib.sh). So on it, unless a TEST asks for more: the selftest on Balun's module only,
# without the benchmark of 7.3; the kit on ram, soft and coherent dmirror; the cases but bench.
cd "$(dirname "$0")/../.." || exit 1
. tests/kernel/lib.sh
. tests/kernel/results.sh
kernels=all configs=plain wanted=()
while [ $# -gt 0 ]; do
	case $1 in
	--kernel) kernels=$2 && shift ;;
	--config) configs=$2 && shift ;;
	-*) sed -n '4,17s/^# \{0,1\}//p' "$0" && exit 2 ;;
	*) wanted+=("$1") ;;
	esac
	shift
done
[ "$kernels" = all ] && kernels='6.1 6.12 newest stock'
[ "$configs" = all ] && configs='plain debug'
BUILD=${BUILD:-build}
total_p=0 total_f=0 total_s=0
work=$PWD/build-vm
mkdir -p "$work/log"
: >"$work/skips"

# of a debug kernel only if they are asked for by their whole name. (case/bench loads the kernel's own
# test driver, which leaks a name for each of its devices: kmemleak would find it.)
by_name='conform/dmirror conform/trace conform/inject case/bench'
is_wanted() { # test
	local w whole=0
	[ "$config" != debug ] || [[ " $by_name " != *" $1 "* ]] || whole=1
	[ ${#wanted[@]} -gt 0 ] || return $whole
	for w in "${wanted[@]}"; do
		[ "$1" = "$w" ] || { [ $whole -eq 0 ] && [[ $1 == "$w"* ]]; } && return 0
	done
	return 1
}

# add LINE-NAME P F S SECONDS: one line, and into the sums
add() {
	total_p=$((total_p + $2)) total_f=$((total_f + $3)) total_s=$((total_s + $4))
	printf '%-44s %4d passed %3d failed %3d skipped %5s s\n' "$1" "$2" "$3" "$4" "$5"
}

skipped() { # name, reason
	add "$1" 0 0 1 0
	printf '%s\t%s\n' "$1" "$2" >>"$work/skips"
}

# ---- a VM with a list of tests ----

# job FILE SETUP; then test_in FILE NAME LIMIT_S COMMAND...: kept if wanted
job() {
	printf '. /lib.sh\n%s\n' "$2" >"$1"
}
test_in() {
	local file=$1 name=$2 limit=$3
	shift 3
	is_wanted "$name" || return 0
	printf 't %q %d %q\n' "$name" $((limit * slow)) "$*" >>"$file"
}

# run_job FILE APPEND DIR [QEMU-OPTION...]: the results are in DIR then (split); fails if the job has no test
run_job() {
	local limit job=$1 append=$2 dir=$3
	shift 3
	limit=$(awk '/^t / { n += $3 } END { print n + 0 }' "$job")
	[ "$limit" -gt 0 ] || return 1
	"$here/initramfs.sh" "$dir.gz" "$job" $((limit + 60)) "$release" "${files[@]}" || exit 1
	boot "$image" "$dir.gz" $((limit + 60)) "$append" "$@" >"$dir.serial"
	split "$dir.serial" "$dir"
	rm -f "$dir.gz"
}

# ---- what is said of a test ----

# explain NAME OUT KLOG: lines that say what failed
explain() {
	[ "$f" -ne 0 ] || return 0
	{
		grep -aE '^ *FAIL|error:' "$2" || tail -n 15 "$2"
		$klog <"$3"
		echo "all of it: ${2#"$PWD/"} ${3#"$PWD/"}"
	} | tail -n 40 | cut -c1-300 | sed 's/^/  | /'
}

# judge LABEL DIR NAME RC SECONDS
judge() {
	local base=$2/${3//\//_}
	counts "$base.out" "$4"
	klog=klog_bad
	grep -qs '^# log: severe' "tests/kernel/cases/${3#case/}.sh" && klog=klog_severe
	if $klog <"$base.klog" >/dev/null; then f=$((f + 1)); fi
	add "$1 $3" $p $f $s "$5"
	explain "$3" "$base.out" "$base.klog"
	grep -aE '^ *(SKIP|skip)' "$base.out" | sed -E "s#^ *(SKIP|skip) *#$1 $3	#" >>"$work/skips"
}

# report LABEL JOB DIR: every test of the job, also those that the VM did not come to
report() {
	local name rc seconds
	while read -r name rc seconds <&3; do
		judge "$1" "$3" "$name" "$rc" "$seconds"
	done 3<"$3/list"
	awk '/^t / { print $2 }' "$2" | while read -r name; do
		grep -q "^$name " "$3/list" || echo "$name"
	done >"$3/missing"
	while read -r name <&3; do
		add "$1 $name" 0 1 0 0
		echo "  | not run: the VM ended before it; ${3#"$PWD/"}.serial"
	done 3<"$3/missing"
}

# ---- the kernel's own selftest ----

hmm_limit=900 # that of 7.3 measures too
hmm_tests() {
	case $label in
	'newest debug') echo 'hmm-tests -T benchmark_thp_migration 2>&1 | uniq' ;;
	*) echo 'hmm-tests 2>&1 | uniq' ;;
	esac
}

# baseline THP: on the kernel's own driver. The result belongs to the kernel, so it is kept with it:
# when the test came to its end, or the kernel did.
baseline() {
	local out=$kdir/baseline-$1
	if [ ! -e "$out.done" ]; then
		say "$label: measuring the kernel's own test driver, transparent_hugepage=$1"
		job "$out.job" 'modprobe test_hmm'
		printf 't hmm %d %q\n' $((hmm_limit * slow)) "$(hmm_tests)" >>"$out.job"
		run_job "$out.job" "transparent_hugepage=$1" "$out"
		if grep -q '^hmm [01] ' "$out/list" ||
			{ grep -q '^hmm died' "$out/list" && grep -aq 'Kernel panic' "$out.serial"; }; then
			touch "$out.done"
		fi
	fi
	hmm_results "$out/hmm.out" >"$out.txt"
}

# row TEXT RESULTS
row() {
	# shellcheck disable=SC2046
	printf '  %-36s %12d %4d %4d %16d %4d %4d\n' "$1" $(tally "$2")
}

# of a kernel: both drivers beside each other, and what the kernel's own one does not pass
table() {
	local thp
	[ "$config" = plain ] || return 0
	is_wanted hmm/madvise || is_wanted hmm/always || return 0
	printf '  %-36s %12s %4s %4s %16s %4s %4s\n' "hmm-tests, $label" 'private pass' fail skip 'coherent pass' fail skip
	for thp in madvise always; do
		baseline $thp
		row "huge pages $thp: kernel's driver" "$kdir/baseline-$thp.txt"
		[ ! -e "$logs-hmm-$thp.txt" ] || row "huge pages $thp: balun's" "$logs-hmm-$thp.txt"
	done
	for thp in madvise always; do
		sed "s/^/kernel's driver, $thp: /" "$kdir/baseline-$thp.txt"
	done | awk -F'\t' '$2 != "pass" { print "  " toupper($2) " " $1 ": " $3 }'
}

# hmm THP: the selftest on Balun's module; its tests are counted one by one
hmm() {
	local dir=$logs-hmm-$1 results=$logs-hmm-$1.txt
	job "$dir.job" 'modprobe balun-dmirror; modprobe balun-hmm-dmirror'
	test_in "$dir.job" "hmm/$1" $hmm_limit "$(hmm_tests)"
	run_job "$dir.job" "transparent_hugepage=$1" "$dir" || return 0
	hmm_results "$dir/hmm_$1.out" >"$results"
	awk -F'\t' -v thp="$1" '
		$2 == "pass" { p++ } $2 == "fail" { f++ } $2 == "skip" { s++ }
		$2 == "skip" { print "SKIP " $1 ": " $3 }
		$2 == "fail" { print "FAIL " $1 ": " $3 }
		END { printf "%d passed, %d failed, %d skipped\n", p, f, s }' "$results" >>"$dir/hmm_$1.out"
	report "$label" "$dir.job" "$dir"
}

# ---- Balun's modules ----

has() { # module
	grep -qx "$1" "$logs.modules"
}

# in a VM of their own, with all modules loaded; then they are unloaded, and a debug kernel is asked
# what has leaked. vm NAME: the tests are in $logs-NAME.job already
vm() {
	local name=$1 dir=$logs-${1//\//-}
	grep -q '^t ' "$dir.job" || return 0
	test_in "$dir.job" "$name/rmmod" 60 '. /lib.sh; unload'
	[ "$config" != debug ] || test_in "$dir.job" "$name/leaks" 120 '. /lib.sh; leaks'
	run_job "$dir.job" '' "$dir" && report "$label" "$dir.job" "$dir"
}

# conform NAME SPEC
conform() {
	local name=conform/$1 spec=$2 job=$logs-conform-$1.job
	has "balun-${spec%%[(:]*}" || return 0
	job "$job" '. /lib.sh; load'
	test_in "$job" "$name" 1800 "balun conform --engine kernel --timeout $((180 * slow)) --driver '$spec'"
	vm "$name"
}

cases() {
	local f
	job "$logs-case.job" '. /lib.sh; load'
	for f in tests/kernel/cases/*.sh; do
		files+=("$f:/cases/${f##*/}")
		test_in "$logs-case.job" "case/$(basename "$f" .sh)" "$(sed -n 's/^# limit: //p' "$f")" \
			"sh /cases/${f##*/}"
	done
	vm case
}

# edu_vm NAME SPEC ROUNDS APPEND DEVICES QEMU-WORDS PROPERTIES: the driver edu on so many devices
edu_vm() {
	local dir=$logs-edu-$1 qemu i
	read -ra qemu <<<"$6"
	for ((i = 0; i < $5; i++)); do qemu+=(-device "edu$7"); done
	job "$dir.job" 'modprobe balun-edu; modprobe balun-inject; modprobe balun-ram'
	test_in "$dir.job" "edu/$1" 600 "edu_test $2 $3 && rmmod balun-edu"
	run_job "$dir.job" "$4" "$dir" "${qemu[@]}" && report "$label" "$dir.job" "$dir"
}

# The three ways in which system memory is mapped for a device: behind an IOMMU, where an access
# outside of a mapping fails and 28 bits of address are enough; through bounce buffers, where what
# is not unmapped does not arrive; as it is. (On the machine q35: what pc says of interrupts takes a
# debug kernel longer than ACPI allows.) A transfer takes a tenth of a second, so the many
# rounds are on many devices.
edu() {
	has balun-edu || return 0
	files+=("$BUILD/tests/kernel/edu_test")
	edu_vm iommu edu 1000 'intel_iommu=on iommu.strict=1' 8 '-M q35 -device intel-iommu' ''
	edu_vm bounce edu:dma_bits=32 20 swiotlb=force 2 '-M q35' ,dma_mask=0xffffffff
	edu_vm direct edu:dma_bits=64 20 '' 1 '-M q35' ,dma_mask=0xffffffffffffffff
}

# peer_vm NAME SPEC reached|WHY APPEND QEMU-WORD...: the DMA of an edu device and ivshmem's memory, or
# the log says why it does not reach that
peer_vm() {
	local name=$1 spec=$2 why=$3 append=$4 dir=$logs-peer-$1 test said='go through system memory: '
	shift 4
	if [ "$why" = reached ]; then
		test="peer_test $spec reached && ! dmesg | grep '$said'"
	else
		test="peer_test $spec refused && dmesg | grep -q '$said$why'"
	fi
	job "$dir.job" 'modprobe balun-edu; modprobe balun-ivshmem; modprobe balun-inject'
	test_in "$dir.job" "peer/$name" 300 "$test && rmmod balun-ivshmem balun-edu"
	run_job "$dir.job" "$append" "$dir" -object memory-backend-ram,id=bar,size=4M,share=on "$@" &&
		report "$label" "$dir.job" "$dir"
}

# The ways to a peer: by the bridge that both are behind, where nobody checks what addresses edu has;
# through the host's, which the kernel allows on processors of AMD from family 23 on, and qemu64
# says that it is one; through that and an IOMMU. And where bounce buffers take every mapping. Behind
# a bridge and an IOMMU nobody knows: qemu leads all accesses through the IOMMU, and a bus does not.
peer() {
	local wide='edu,dma_mask=0xffffffffffffffff' bar=(-device 'ivshmem-plain,memdev=bar')
	local bridge=(-M q35 -device 'pcie-pci-bridge,id=b' "${bar[@]},bus=b,addr=1")
	has balun-ivshmem || return 0
	files+=("$BUILD/tests/kernel/peer_test")
	peer_vm bridge edu:dma_bits=64 reached '' "${bridge[@]}" -device "$wide,bus=b,addr=2"
	VM_MEM=1G peer_vm bridge-short edu:dma_bits=31 'its addresses are too short' '' \
		"${bridge[@]}" -device edu,dma_mask=0x7fffffff,bus=b,addr=2
	bridge=(-M q35 -device intel-iommu "${bridge[@]:2}")
	peer_vm bridge-iommu edu:dma_bits=64 'a bridge would lead it past its IOMMU' \
		'intel_iommu=on iommu.strict=1' "${bridge[@]}" -device "$wide,bus=b,addr=2"
	peer_vm bridge-pt edu:dma_bits=64 reached 'intel_iommu=on iommu=pt' \
		"${bridge[@]}" -device "$wide,bus=b,addr=2"
	bar=(-M q35 "${bar[@]}")
	peer_vm apart edu:dma_bits=64 'no bridge between them' '' "${bar[@]}" -device "$wide"
	bar=(-cpu 'qemu64,family=23' "${bar[@]}")
	peer_vm host edu:dma_bits=64 reached '' "${bar[@]}" -device "$wide"
	VM_MEM=1G peer_vm host-short edu:dma_bits=31 'its addresses are too short' '' \
		"${bar[@]}" -device edu,dma_mask=0x7fffffff
	peer_vm iommu edu reached 'intel_iommu=on iommu.strict=1' -device intel-iommu "${bar[@]}" -device edu
	peer_vm bounce edu:dma_bits=64 'it cannot be mapped' swiotlb=force "${bar[@]}" -device "$wide"
}

modules() {
	files+=("$logs.modules:/modules")
	hmm madvise
	hmm always
	# a space may have many devices, and in the kernel a device has its memory at once
	conform ram ram:mem=32M
	conform soft soft:mem=32M
	conform dmirror dmirror:mem=32M
	conform dmirror-coherent dmirror:mem=32M,coherent=1
	conform trace 'trace(soft:mem=32M)'
	conform inject 'inject(soft:mem=32M)'
	cases
	edu
	peer
}

# the reasons are said; what needs no moved page passes; coherent memory does
stock() {
	local kit='balun conform --engine kernel --timeout 120' group
	files+=("$logs.modules:/modules")
	job "$logs-stock.job" '. /lib.sh; load'
	test_in "$logs-stock.job" stock/doctor 60 \
		"balun doctor | grep 'no page can leave system memory' && balun doctor | grep CONFIG_DEVICE_PRIVATE"
	for group in api perm map threads munmap mremap mprotect dontneed stale device evict; do
		test_in "$logs-stock.job" "stock/$group" 600 "$kit --driver soft:mem=32M --case '$group-*'"
	done
	test_in "$logs-stock.job" stock/coherent 900 "$kit --driver dmirror:mem=32M,coherent=1 --case 'coherent-*'"
	vm stock
}

# ---- user space ----

# The engine uffd as this kernel has it: Debian 12's own one moves no pages (UFFDIO_MOVE) and poisons
# none, and answers differently here and there. None of Balun's modules is loaded.
user() {
	local dir=$logs-user lib=/lib/x86_64-linux-gnu
	[ "$config" = plain ] || return 0
	files+=("$BUILD"/tests/{barrier/barrier,matrix/matrix,stress/grow} "$BUILD/run/libbalun-run.so:/usr/lib/balun/libbalun-run.so")
	# opened by libc and by a test
	files+=("$lib/libgcc_s.so.1:/usr/lib/libgcc_s.so.1" "$lib/libanl.so.1:/usr/lib/libanl.so.1")
	job "$dir.job" 'chmod 1777 /tmp; mount -t tmpfs tmpfs /var/tmp'
	test_in "$dir.job" user/conform 1800 'balun conform --engine uffd --timeout 180 --driver soft'
	test_in "$dir.job" user/matrix 1200 'matrix --driver soft'
	test_in "$dir.job" user/barrier 1200 barrier
	test_in "$dir.job" user/run 600 \
		'balun run --resident 64M --device lz4 -- grow small 200 2 && balun run --chaos 5000 --device lz4 -- grow mmap 100 2'
	run_job "$dir.job" '' "$dir" && report "$label" "$dir.job" "$dir"
}

# ---- all of it ----

one_kernel() { # KERNEL CONFIG
	local found
	config=$2
	label="$1 $2"
	logs=$work/log/$1-$2
	slow=1
	[ "$config" = debug ] && slow=3
	found=$(find_kernel "$1" "$config")
	case $? in
	0) ;;
	77) skipped "$label" "${found#SKIP }" && return ;;
	*) add "$label kernel" 0 1 0 0 && return ;;
	esac
	find_kernel "$1" "$config"
	echo "== $label: Linux $release, package $kversion"
	[ -x "$BUILD/balun" ] || die "no $BUILD/balun; make first"
	mapfile -t files < <(kernel_files)
	files+=("$BUILD/balun" "$BUILD"/tests/kernel/{busy,churn,huge,ioctl_fuzz})
	user
	if ! own_modules >"$logs.files"; then
		add "$label modules" 0 1 0 0
	elif [ -s "$logs.files" ]; then
		mapfile -t -O ${#files[@]} files <"$logs.files"
		sed 's|.*/||; s|\.ko$||' "$logs.files" >"$logs.modules"
		[ "$1" = stock ] && stock && return
		modules
	fi
	table
}

started=$SECONDS
for k in $kernels; do
	for c in $configs; do
		[ "$k-$c" = stock-debug ] && continue
		one_kernel "$k" "$c"
	done
done
sort -u "$work/skips" | sed 's/^/SKIP /'
echo
echo "$((SECONDS - started)) s"
echo "$total_p passed, $total_f failed, $total_s skipped"
[ $total_f -eq 0 ]
