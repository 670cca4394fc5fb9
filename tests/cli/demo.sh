#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# The main job on this machine's package database, alone and with four CPU threads touching the graph.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh

file=/var/lib/dpkg/status
if [ ! -s $file ]; then
	skip demo "$file does not exist here"
	summary
fi
out=$("$BUILD/balun" demo $file 2>&1)
report $? "balun demo: $(tail -n 20 <<<"$out")"
out=$("$BUILD/balun" demo --hammer 4 $file 2>&1)
report $? "balun demo --hammer 4: $(tail -n 20 <<<"$out")"
summary
