# SPDX-License-Identifier: GPL-2.0-only OR MIT
t --help
t
t help
t help doctor
t doctor --help
t devices --help
t demo --help
t run --help
t top --help
t trace --help
