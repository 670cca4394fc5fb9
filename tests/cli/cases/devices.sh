# SPDX-License-Identifier: GPL-2.0-only OR MIT
t devices
t devices --json
t devices soft:mem=16M,workers=2
t devices --json ram:mem=8M
