# SPDX-License-Identifier: GPL-2.0-only OR MIT
# results are the same to the digit everywhere; times, sizes and counts of movement vary
results() {
	sed -e '/^balun: trace/d' -e '/^where pages went/,/^time in/d' | vary
}
t demo --engine sim data/status | results
t demo --engine sim --device 'trace(soft:mem=4M,workers=3)' --hammer 3 data/status | results |
	sed -E '/^hammer:/s/[0-9]+ (times|reads)/# \1/g'
t demo --engine sim data/status | sed -nE '/^where/,/^time/s/[0-9.]+( [KMGT]?i?B)?/#/gp' | tr -s ' ' |
	grep -vE '^ (eviction|prefetch|user|thrash|invalidate)'
