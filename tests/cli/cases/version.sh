# SPDX-License-Identifier: GPL-2.0-only OR MIT
[ "$("$BUILD/balun" --version)" = "balun $(cat ../../VERSION)" ] && echo "version is that of the file VERSION"
