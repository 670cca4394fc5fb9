# SPDX-License-Identifier: GPL-2.0-only OR MIT
# what a command line that makes no sense is told
t frobnicate
t --frobnicate
t doctor extra
t doctor --frobnicate
t devices a b
t devices --so
t devices --so data/status
t devices --so data/none.so
t demo --hammer
t demo --hammer many
t demo --hammer 65
t demo --hammer -1
t demo a b
t demo --engine none data/status
t demo --engine kernel data/status
t top --frobnicate
t top -d
t top -d 0
t top -d soon
t top everything
t top -1
t top 2147483647
t trace
t trace --buffer 0 1
t trace --seconds soon 1
t trace --seconds 1 true
t trace --plot data/none.json
t trace --plot data/status
t trace --plot x 1
t trace -o /nowhere/x true
"$BUILD/balun" --version 2>&1 >/dev/full | grep -o "balun: standard output: .*"
