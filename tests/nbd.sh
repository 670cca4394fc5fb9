#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# The conformance kit over the driver nbd. Its cases open a device several times, so the server
# (nbdkit) has fresh memory for each connection.
# Usage: tests/nbd.sh ENGINE [--case PATTERN]
cd "$(dirname "$0")/.." || exit 1
. tests/lib/lib.sh

for need in nbdkit "$BUILD/balun-nbd"; do
	command -v "$need" >/dev/null && continue
	skip nbd "there is no ${need##*/} (packages nbdkit, libnbd-dev)"
	summary
done
engine=$1
shift
dir=$(mktemp -d)
nbdkit -f --exit-with-parent -U "$dir/sock" -P "$dir/pid" \
	tmpdisk 64M command='truncate -s $size "$disk"' 2>"$dir/log" &
server=$!
trap 'kill $server 2>/dev/null; rm -rf "$dir"' EXIT
# it writes the file when it is ready
until [ -s "$dir/pid" ]; do
	kill -0 $server 2>/dev/null || { fail "nbdkit: $(cat "$dir/log")"; summary; }
	sleep 0.1
done
"$BUILD/balun" conform --engine "$engine" --driver "nbd:uri=nbd+unix:///?socket=$dir/sock" "$@"
