# SPDX-License-Identifier: GPL-2.0-only OR MIT
for d in crypt file lz4 nbd; do
	"$BUILD/balun" devices | grep -qx $d && continue
	echo "driver $d is missing: its library is not installed"
	exit 77
done
t devices
t devices --json
t devices soft:mem=16M,workers=2
t devices --json ram:mem=8M
