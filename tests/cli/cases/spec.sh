# SPDX-License-Identifier: GPL-2.0-only OR MIT
# device specs that are wrong: the place and the reason
for spec in '' nothing 'soft:' 'soft:mem' 'soft:mem=' 'soft:mem=x' 'soft:mem=1T9' 'soft:nokey=1' \
	'trace' 'trace(' 'trace(soft' 'trace(nothing)' 'soft:mem=1M,mem=2M' 'SOFT'; do
	t devices "$spec" | grep -v '^balun: trace'
done
t demo --engine sim --device ram:mem=8M data/status
t demo --engine sim --device 'soft:mem=8M,x=1' data/status
