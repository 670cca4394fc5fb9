#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# The conformance kit over the driver nbd. Its cases open a device several times, so the server
# (nbdkit) has fresh memory for each connection.
# Usage: tests/nbd.sh ENGINE [--case PATTERN]
cd "$(dirname "$0")/.." || exit 1
. tests/lib/lib.sh

has_nbd nbd || summary
engine=$1
shift
dir=$(mktemp -d)
server=
trap '[ -n "$server" ] && kill $server 2>/dev/null; rm -rf "$dir"' EXIT
nbd_serve "$dir/sock" tmpdisk 64M command='truncate -s $size "$disk"'
"$BUILD/balun" conform --engine "$engine" --driver "nbd:uri=nbd+unix:///?socket=$dir/sock" "$@"
