# SPDX-License-Identifier: GPL-2.0-only OR MIT
# limit: 300
#
# In the VM: huge pages that are cut, shared and touched while they travel, every byte checked; and
# all that the devices had is back, so that the modules can be unloaded.
. /lib.sh
huge 140 "${1:-1}" || exit 1
unload && load
