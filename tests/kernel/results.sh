# SPDX-License-Identifier: GPL-2.0-only OR MIT
# shellcheck shell=bash disable=SC2034
#
# What tests/kernel/run.sh reads from the serial line; sourced.

# split LOG DIR: "NAME RC SECONDS" of every test into DIR/list; its output into DIR/NAME.out and
# the kernel's log during it into DIR/NAME.klog, "/" in names being "_". A test that began and did
# not end has RC "died", and all that the VM said afterwards.
split() {
	rm -rf "$2"
	mkdir -p "$2"
	awk -v dir="$2" '
	function file(name) { gsub("/", "_", name); return dir "/" name }
	/^@@begin / { name = last = $2; printf "" >file(name) ".out"; printf "" >file(name) ".klog"; next }
	/^@@end / { print $2, $3, $4 >(dir "/list"); name = ""; next }
	/^@@log / { if (last) print substr($0, 7) >file(last) ".klog"; next }
	/^@@dmesg/ { rest = 1; next }
	rest || /^<[0-7]>\[|^\[ *[0-9]+\.[0-9]+\]/ { print >file(name ? name : "after") ".klog"; next }
	name { print >file(name) ".out" }
	END { if (name) print name, "died", 0 >(dir "/list") }' "$1"
	touch "$2/list"
}

# hmm_results OUTPUT: a line "TEST<tab>pass|fail|skip<tab>REASON" a test of hmm-tests. The harness of
# 6.1 counts a skip in the fixture as ok; the SKIP line before it tells. What a test that is over
# still says in its teardown is not the next one's reason.
hmm_results() {
	awk '
	/^#  RUN / { name = $3; test = $3; sub(/.*\./, "", test); why = skip = "" }
	/^# +SKIP / { skip = $0; sub(/^# +SKIP +/, "", skip) }
	/Expected/ && !index($0, ":" test ":") { next }
	/Expected|terminated|timeout|no return/ && !why { why = $0; sub(/^.*hmm-tests.c:/, "", why); sub(/^# */, "", why) }
	/^(not )?ok [0-9]/ {
		r = /^not/ ? "fail" : "pass"
		if (/# SKIP/) { r = "skip"; why = $0; sub(/.*# SKIP */, "", why) }
		if (r == "pass" && skip) { r = "skip"; why = skip }
		print name "\t" r "\t" (r == "pass" ? "" : why)
		name = ""
	}
	END { if (name) print name "\tfail\tthe program or the VM ended in it" }' "$1"
}

# tally RESULTS: "PASS FAIL SKIP" of each variant, private then coherent
tally() {
	awk -F'\t' '{ n[($1 ~ /coherent/) " " $2]++ }
	END { printf "%d %d %d  %d %d %d\n", n["0 pass"], n["0 fail"], n["0 skip"], n["1 pass"], n["1 fail"], n["1 skip"] }' "$1"
}

# counts OUTPUT RC: sets p, f, s from what a test says of itself, or its exit status
counts() {
	local line
	p=0 f=0 s=0
	line=$(grep -aE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$1" | tail -n 1)
	if [ -n "$line" ]; then
		read -r p _ f _ s _ <<<"$line"
	elif [ "$2" = 77 ]; then
		s=1
	elif [ "$2" = 0 ]; then
		p=1
	fi
	[ "$2" != 0 ] && [ "$2" != 77 ] && [ "$f" -eq 0 ] && f=1
}
