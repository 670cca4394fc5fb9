#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# Tests of the HMM test device that need no download: smoke.c, with the shim preloaded.
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
"$BUILD/balun" doctor >/dev/null 2>&1
if [ $? -eq 3 ]; then
	echo 'SKIP hmm-smoke: userfaultfd may not be used here (balun doctor has the remedy)'
	exit 77
fi
LD_PRELOAD="$PWD/$BUILD/tests/hmm-selftest/hmm_shim.so $PWD/$BUILD/libbalun.so.0" \
	exec "$BUILD/tests/hmm-selftest/smoke"
