# SPDX-License-Identifier: GPL-2.0-only OR MIT
# limit: 300
#
# In the VM: the calls of /dev/balun with wrong inputs, then at random, then by processes that are
# killed meanwhile; and all that they had is gone with them, so that the modules can be unloaded.
. /lib.sh
ioctl_fuzz "${1:-1}" 8000 10 || exit 1
unload && load
