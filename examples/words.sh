#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# words.py alone, and with all but 64 MiB of its memory compressed: the same output, less RAM.
# Usage: examples/words.sh [MIB]     MIB of text; BUILD names the build folder
cd "$(dirname "$0")/.." || exit 1
balun=${BUILD:-build}/balun
python=$(python3 -c 'import sys; print(sys.executable)') || {
	echo "examples/words.sh: there is no python3 here (package python3)" >&2
	exit 3
}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# measure NAME COMMAND...: output to $tmp/NAME; seconds and the peak of its largest process, in MiB,
# to $tmp/NAME.peak
measure() {
	"$python" - "$tmp/$1" "${@:2}" <<-'END'
	import resource, subprocess, sys, time
	start = time.monotonic()
	with open(sys.argv[1], "wb") as out:
	    status = subprocess.run(sys.argv[2:], stdin=subprocess.DEVNULL, stdout=out).returncode
	peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
	with open(sys.argv[1] + ".peak", "w") as out:
	    print(f"{time.monotonic() - start:.1f} {peak / 1024:.0f}", file=out)
	sys.exit(status if status >= 0 else 128 - status)
	END
}

echo "examples/words.py, a program that knows nothing of Balun:"
measure plain "$python" examples/words.py "$@" || exit 1
sed 's/^/    /' "$tmp/plain"
read -r plain_s plain_mib <"$tmp/plain.peak"

echo
echo "and again: balun run --resident 64M --device lz4 -- python3 examples/words.py"
measure run "$balun" run --resident 64M --device lz4 --stats "$tmp/stats" -- "$python" examples/words.py "$@"
rc=$?
if [ $rc -eq 3 ]; then # it has said why
	echo "not possible on this machine"
	exit 0
fi
[ $rc -eq 0 ] || exit 1
read -r run_s run_mib <"$tmp/run.peak"
own_mib=$("$python" -c '
import json, sys
processes = json.load(open(sys.argv[1]))["processes"]
print("%.0f" % (max(p["peak"] for p in processes) / 2**20))' "$tmp/stats")
if ! cmp -s "$tmp/plain" "$tmp/run"; then
	diff "$tmp/plain" "$tmp/run" | head -n 10
	echo "the output DIFFERS"
	exit 1
fi
printf '\n    %-24s %8s %26s\n' '' alone 'with balun run'
printf '    %-24s %6d MiB %22d MiB\n' 'its memory, peak in RAM' "$plain_mib" "$own_mib"
printf '    %-24s %6d MiB %22d MiB\n' 'the process, all of it' "$plain_mib" "$run_mib"
printf '    %-24s %8s s %24s s\n' 'time' "$plain_s" "$run_s"
echo "the output is the same"
