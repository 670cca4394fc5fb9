# SPDX-License-Identifier: GPL-2.0-only OR MIT
# input that is no package database: file, line and reason, nothing else
t demo data/truncated
t demo data/foreign
t demo data/none
t demo data
t demo run.sh
t demo /dev/null
head -c 5000 "$BUILD/balun" >"${TMPDIR:-/tmp}/balun-cli.$$"
t demo "${TMPDIR:-/tmp}/balun-cli.$$" | sed 's|/[^ ]*/balun-cli\.[0-9]*|BINARY|'
rm -f "${TMPDIR:-/tmp}/balun-cli.$$"
