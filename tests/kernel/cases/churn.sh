# SPDX-License-Identifier: GPL-2.0-only OR MIT
# limit: 300
#
# In the VM: memory that changes in every way while pages travel, every byte checked; and all that
# the devices had is back, so that the modules can be unloaded.
. /lib.sh
churn 30 "${1:-1}" || exit 1
unload && load
