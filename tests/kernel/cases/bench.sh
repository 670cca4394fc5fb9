# SPDX-License-Identifier: GPL-2.0-only OR MIT
# limit: 600
#
# In the VM: migrations beside the kernel's own HMM test driver. Both must move everything; how
# long they take is said and not judged.
. /lib.sh
modprobe -r balun-hmm-dmirror # its nodes have the same names
modprobe test_hmm spm_addr_dev0=0 spm_addr_dev1=0 || {
	echo 'SKIP this kernel has no module test_hmm to compare with (CONFIG_TEST_HMM)'
	modprobe balun-hmm-dmirror
	exit 77
}
balun bench --engine kernel kernel_there_4k kernel_home_4k kernel_there_2m kernel_home_2m
rc=$?
rmmod test_hmm
modprobe balun-hmm-dmirror || exit 1
exit $rc
