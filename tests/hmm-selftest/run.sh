#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# The kernel's own HMM selftest, unmodified, on Balun: make check-hmm-selftest
#   SOURCE="PATH..."  kernel trees or tarballs instead of Debian's linux-source-6.1 and -6.12
#   REPEAT=N          the whole selftest N times instead of the table; ends at the first failure
#
# Its source comes from outside and stays in the build folder: only the files that are needed, and
# the machine's apt configuration is not changed. Every test runs in both variants (private and
# coherent device memory), with UFFDIO_MOVE and on the copying path.
cd "$(dirname "$0")/../.." || exit 1
set -u
export LC_ALL=C
BUILD=${BUILD:-build}
REPEAT=${REPEAT:-0}
work=$BUILD/hmm-selftest
selftests=tools/testing/selftests
mkdir -p "$work"

skip_all() {
	echo "SKIP hmm-selftest: $*"
	exit 77
}

# ---- the source ----

# apt with sources, lists and cache of its own: those of the machine, and the suites of the same
# mirror in which newer kernels are
private_apt() {
	local dir=$work/apt uri codename
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/sources"
	codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
		grep -E '/debian/?$' | head -n 1)
	if [ -n "$uri" ] && [ -n "$codename" ]; then
		printf 'deb %s %s main\n' "$uri" "$codename" "$uri" "$codename-backports" \
			"${uri%/}-security" "$codename-security" >"$dir/sources/hmm-selftest.list"
	fi
	apt_opts=(-o "Dir::State::lists=$PWD/$dir/lists" -o "Dir::Cache=$PWD/$dir/cache"
		-o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$PWD/$dir/sources")
	apt-get "${apt_opts[@]}" update >"$work/apt.log" 2>&1
}

# download PACKAGE: into $work
download() {
	command -v apt-get >/dev/null || return 1
	(cd "$work" && apt-get download "$1") >"$work/apt.log" 2>&1 && return 0
	private_apt
	(cd "$work" && apt-get "${apt_opts[@]}" download "$1") >"$work/apt.log" 2>&1
}

wanted=("*/$selftests/mm/hmm-tests.c" "*/$selftests/vm/hmm-tests.c" "*/$selftests/mm/*.h"
	"*/$selftests/kselftest*.h" '*/lib/test_hmm_uapi.h' '*/mm/gup_test.h')

# unpack TARBALL DIR
unpack() {
	mkdir -p "$2"
	tar -xf "$1" -C "$2" --strip-components=1 --wildcards "${wanted[@]}" 2>/dev/null
	test_source "$2" >/dev/null
}

copy_tree() { # TREE DIR
	local f
	for f in "${wanted[@]}"; do
		(cd "$1" && compgen -G "${f#\*/}") | while read -r f; do
			mkdir -p "$2/$(dirname "$f")" && cp -u "$1/$f" "$2/$f"
		done
	done
	test_source "$2" >/dev/null
}

test_source() { # DIR: prints the file
	compgen -G "$1/$selftests/[mv]m/hmm-tests.c"
}

# debian VERSION: unpacked into $work/VERSION, once
debian() {
	local dir=$work/$1 deb
	test_source "$dir" >/dev/null && return 0
	echo "linux-source-$1: fetching and unpacking"
	compgen -G "$work/linux-source-$1_*.deb" >/dev/null || download "linux-source-$1" || return 1
	deb=$(compgen -G "$work/linux-source-$1_*.deb" | tail -n 1)
	dpkg-deb -x "$deb" "$work/deb-$1" &&
		unpack "$work/deb-$1/usr/src/linux-source-$1.tar.xz" "$dir"
	local rc=$?
	rm -rf "$work/deb-$1" "$work/linux-source-$1"_*.deb
	return $rc
}

# ---- building and running ----

build() { # NAME: the test and a shim that uses this tree's header
	local dir=$work/$1 skip=255
	# how this harness is told that a test was skipped
	grep -q 'WEXITSTATUS(status) == KSFT_SKIP' "$dir/$selftests/kselftest_harness.h" && skip=4
	# the kernel's header needs nothing but its own source tree; the test is not ours to warn about
	gcc -O2 -w -I"$dir" -I"$dir/$selftests" -o "$dir/hmm-tests" "$(test_source "$dir")" -pthread &&
		gcc -O2 -g -Wall -Werror -shared -fPIC -D_GNU_SOURCE -fvisibility=hidden \
			-DSKIP_EXIT=$skip -DHMM_UAPI='"lib/test_hmm_uapi.h"' -I. -Iinclude -I"$dir" -Wl,-z,now \
			-o "$dir/hmm_shim.so" tests/hmm-selftest/shim.c -L"$BUILD" -lbalun -pthread
}

# run NAME LOG: all of the test
run() {
	# the harness of 6.1 repeats a failed assertion for ever: the log is bounded
	(
		ulimit -f 32768
		LD_PRELOAD="$PWD/$work/$1/hmm_shim.so $PWD/$BUILD/libbalun.so.0" \
			timeout -k 5 300 "$work/$1/hmm-tests" >"$2" 2>&1
	)
}

# results LOG: a line "NAME<tab>pass|fail|skip<tab>REASON" a test
results() {
	awk '
	/^#  RUN / { name = $3; why = "" }
	/Expected|terminated|timeout|no return/ && !why { why = $0; sub(/^.*hmm-tests.c:/, "", why); sub(/^# */, "", why) }
	/^# cannot be done here: / { cannot = $0; sub(/^.*: /, "", cannot) }
	/^(not )?ok [0-9]/ {
		r = /^not/ ? "fail" : "pass"
		if (/# SKIP/) { r = "skip"; why = $0; sub(/.*# SKIP */, "", why); if (cannot) why = cannot }
		cannot = ""
		print name "\t" r "\t" (r == "pass" ? "" : why)
		name = ""
	}
	END { if (name) print name "\tfail\tthe program ended in it" }' "$1"
}

# table RESULTS: one row a test, the variants beside each other
table() {
	awk -F'\t' '{
		split($1, part, ".")
		v = part[2] ~ /coherent/ ? 2 : 1
		if (!(part[3] in seen)) { seen[part[3]] = 1; order[++n] = part[3] }
		r[part[3], v] = $2
	}
	END {
		printf "  %-26s %-8s %s\n", "", "private", "coherent"
		for (i = 1; i <= n; i++)
			printf "  %-26s %-8s %s\n", order[i], r[order[i], 1], r[order[i], 2]
	}' "$1"
}

# ---- huge pages: as many as the tests need, given back at the end ----

huge=/proc/sys/vm/nr_hugepages
had=$(cat $huge 2>/dev/null)
restore_huge() {
	[ -n "${took:-}" ] && echo "$had" >$huge
}
trap restore_huge EXIT
if [ -w $huge ] && [ "$(awk '/^HugePages_Free/ { print $2 }' /proc/meminfo)" -lt 2 ]; then
	took=1
	echo $((had + 4)) >$huge
fi

# ---- all of it ----

"$BUILD/balun" doctor >/dev/null 2>&1
[ $? -ne 3 ] || skip_all 'userfaultfd may not be used here (balun doctor has the remedy)'
names=()
passed=0 failed=0 skipped=0
if [ -n "${SOURCE:-}" ]; then
	for s in $SOURCE; do
		name=source-$(basename "$s")
		if [ -d "$s" ]; then copy_tree "$s" "$work/$name"; else unpack "$s" "$work/$name"; fi ||
			{ echo "FAIL $s: no hmm-tests.c in it"; exit 1; }
		names+=("$name")
	done
else
	for v in 6.1 6.12; do
		if debian $v; then
			names+=($v)
		else
			echo "SKIP hmm-selftest: linux-source-$v cannot be had here: $(tail -n 1 "$work/apt.log")"
			skipped=$((skipped + 1))
		fi
	done
fi
[ ${#names[@]} -gt 0 ] || exit 77
for name in "${names[@]}"; do
	build "$name" || { echo "FAIL $name does not compile"; exit 1; }
done

if [ "$REPEAT" -gt 0 ]; then
	for ((i = 1; i <= REPEAT; i++)); do
		for name in "${names[@]}"; do
			run "$name" "$work/$name/repeat.log"
			bad=$(results "$work/$name/repeat.log" | awk -F'\t' '$2 == "fail"')
			if [ -n "$bad" ]; then
				printf 'FAIL repetition %d of %s: %s\n' $i "$name" "$bad"
				echo "$((i - 1)) passed, 1 failed, 0 skipped"
				exit 1
			fi
		done
		[ $((i % 10)) -eq 0 ] && echo "$i repetitions of ${names[*]}"
	done
	echo "$REPEAT passed, 0 failed, 0 skipped"
	exit 0
fi

for name in "${names[@]}"; do
	for way in move copy; do
		out=$work/$name/$way
		if [ $way = copy ]; then
			BALUN_UFFD_COPY=1 run "$name" "$out.log"
		else
			run "$name" "$out.log"
		fi
		results "$out.log" >"$out"
		echo "hmm-tests of $name, by $way:"
		table "$out"
		awk -F'\t' '$2 != "pass" { print toupper($2) " " $1 ": " $3 }' "$out"
		passed=$((passed + $(grep -c $'\tpass\t' "$out")))
		failed=$((failed + $(grep -c $'\tfail\t' "$out")))
		skipped=$((skipped + $(grep -c $'\tskip\t' "$out")))
		[ -s "$out" ] || { echo "FAIL $name by $way: no result" && failed=$((failed + 1)); }
		echo
	done
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
