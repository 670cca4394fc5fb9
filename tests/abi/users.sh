#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# No interface without a user: every public function is called somewhere in the tree outside its
# definition and header; every op of a driver is called by core and given by a driver.
cd "$(dirname "$0")/../.." || exit 1
exec python3 tests/abi/api.py users
