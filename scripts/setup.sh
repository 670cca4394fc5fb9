#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# Install what a build needs and this machine lacks, by Debian package name, saying so.
# Usage: scripts/setup.sh build|check|check-all|check-hmm-selftest|check-kernel|check-programs|model|module   (silent when nothing is missing)
set -u
cd "$(dirname "$0")/.." || exit 1
goal=${1:-build}
missing=()
wanted=()

need_cmd() { # command package
	command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}
need_file() { # file package
	[ -e "$1" ] || missing+=("$2")
}
# a driver or a part of a tool is left out without it: no reason to stop
want_file() { # file package
	[ -e "$1" ] || wanted+=("$2")
}

need_cmd gcc gcc
[ "$goal" = model ] && need_cmd spin spin
if [ "$goal" != module ]; then
	need_cmd meson meson
	need_cmd ninja ninja-build
	need_cmd pkg-config pkg-config
	need_cmd python3 python3
	need_file /usr/include/stdio.h libc6-dev
	need_file /usr/include/linux/userfaultfd.h linux-libc-dev
	# drivers that are left out without them
	want_file /usr/include/sodium.h libsodium-dev
	want_file /usr/include/libnbd.h libnbd-dev
	want_file /usr/include/lz4.h liblz4-dev
	want_file /usr/include/liburing.h liburing-dev
	want_file /usr/include/xxhash.h libxxhash-dev
	# probes for bpftrace, perf and gdb
	want_file "/usr/include/$(gcc -print-multiarch 2>/dev/null)/sys/sdt.h" systemtap-sdt-dev
	# the screen of balun top
	want_file /usr/include/ncurses.h libncurses-dev
fi
if [ "$goal" != build ] && [ "$goal" != model ] && [ "$goal" != module ]; then
	need_file /usr/include/cmocka.h libcmocka-dev
	need_cmd g++ g++
	need_cmd clang-format clang-format
	need_cmd mandoc mandoc
	need_cmd nbdkit nbdkit
	need_cmd nm binutils
fi
if [ "$goal" = check-hmm-selftest ] || [ "$goal" = check-all ]; then
	need_cmd xz xz-utils
fi
if [ "$goal" = check ] || [ "$goal" = check-all ] || [ "$goal" = check-programs ]; then
	python=$(realpath /usr/bin/python3 2>/dev/null) # of the version that is here
	python=${python##*/}
	need_file "/usr/lib/${python:=python3.11}/test/test_fork1.py" "lib$python-testsuite"
	need_cmd sqlite3 sqlite3
	need_cmd redis-check-rdb redis-tools # it is the server too
	need_cmd git git
fi
if [ "$goal" = check-programs ]; then
	compgen -G '/usr/share/perl/5*/Test/More.pm' >/dev/null || missing+=(perl)
	need_cmd xz xz-utils
	need_cmd make make
fi
if [ "$goal" = check-kernel ]; then
	for p in flex bison bc cpio; do need_cmd $p $p; done
	need_cmd xz xz-utils
	need_cmd depmod kmod
	need_cmd busybox busybox-static
	need_cmd qemu-system-x86_64 qemu-system-x86
	need_file /usr/share/seabios/bios-256k.bin seabios
	need_file /usr/include/libelf.h libelf-dev
	need_file /usr/include/openssl/ssl.h libssl-dev
	need_file /usr/src/linux-source-6.1.tar.xz linux-source-6.1
	need_file /usr/src/linux-source-6.12.tar.xz linux-source-6.12
fi
if [ "$goal" = check-all ] || [ "$goal" = module ]; then
	compgen -G '/usr/src/linux-headers-*-amd64' >/dev/null || missing+=(linux-headers-amd64)
fi
if [ "$goal" = check-all ]; then
	need_cmd dkms dkms
	need_cmd clang clang
	compgen -G '/usr/lib/gcc/*/*/libasan.so' >/dev/null || missing+=(libgcc-12-dev)
	compgen -G '/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-x86_64.a' >/dev/null ||
		missing+=(libclang-rt-dev)
fi
[ ${#missing[@]} -eq 0 ] && [ ${#wanted[@]} -eq 0 ] && exit 0
needed=${#missing[@]}
missing+=("${wanted[@]}")

echo "setup: missing here: ${missing[*]}"
run=()
if [ "$(id -u)" -ne 0 ]; then
	if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
		run=(sudo -n)
	elif [ "$needed" -eq 0 ]; then
		echo "setup: drivers, probes and the screen of balun top are left out without them; to have all: sudo apt-get install ${missing[*]}"
		exit 0
	else
		echo "setup: cannot install without root; run: sudo apt-get install ${missing[*]}"
		exit 1
	fi
fi
if ! command -v apt-get >/dev/null 2>&1; then
	echo "setup: no apt-get here; install the packages above (Debian names) and run this again"
	exit 1
fi
echo "setup: apt-get install ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
if ! "${run[@]}" apt-get install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
	# package lists may be absent or old on a fresh machine
	if ! { "${run[@]}" apt-get update &&
		"${run[@]}" apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
		tail -20 "$log"
		echo "setup: apt-get failed; install by hand: apt-get install ${missing[*]}"
		[ "$needed" -eq 0 ] && exit 0
		exit 1
	fi
fi
# what a build folder has probed for may be there now: configure again
rm -f build*/build.ninja
echo "setup: done"
