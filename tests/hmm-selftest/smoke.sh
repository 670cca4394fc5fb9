#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# Tests of the HMM test device that need no download: smoke.c, with the shim preloaded.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh
needs_uffd hmm-smoke
LD_PRELOAD="$PWD/$BUILD/tests/hmm-selftest/hmm_shim.so $PWD/$BUILD/libbalun.so.0" \
	exec "$BUILD/tests/hmm-selftest/smoke"
