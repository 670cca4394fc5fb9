#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# CPython's own regression tests under chaos, a module at a time.
# Usage: tests/programs/python.sh [MODULE...]
cd "$(dirname "$0")/../.." || exit 1
. tests/programs/lib.sh

few='test_fork1 test_mmap test_struct test_thread test_posix'
# those that begin processes and threads, handle signals, map memory, look at descriptors
system='asyncgen atexit cmd_line epoll faulthandler fcntl file fileio fork1 io json
largefile mmap multiprocessing_fork multiprocessing_forkserver multiprocessing_main_handling
multiprocessing_spawn openpty os pipes poll popen posix pty queue resource sched select selectors
shutil signal socket socketserver subprocess support tempfile thread threadedtempfile threading
threading_local threadsignals timeout tracemalloc wait3 wait4'
# and those that use memory in many ways
memory='array ast binascii bufio bytes bz2 capi codecs compile copy csv ctypes datetime dbm decimal
deque dict exceptions float gc generators gzip hashlib heapq import itertools list logging long lzma
marshal math memoryio memoryview ordered_dict pickle pickletools random re set shelve sort sqlite3
string struct sys tarfile traceback tuple unicode unpack weakref xml_etree zipfile zlib'

python=/usr/bin/python3
lib=$($python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
if [ ! -e "$lib/test/test_fork1.py" ]; then
	skip python "there is no $lib/test (package lib${lib##*/}-testsuite)"
	summary
fi
cd "$tmp" || exit 1
names=("$@")
if [ ${#names[@]} -eq 0 ]; then
	if [ -n "$share" ]; then
		names=($few)
	else
		names=($(for t in $system $memory; do echo "test_$t"; done))
	fi
fi
for t in "${names[@]}"; do
	if [ ! -e "$lib/test/$t.py" ] && [ ! -e "$lib/test/$t" ]; then
		skip "python/$t" "Python $($python -V | cut -d' ' -f2) has no such test"
		continue
	fi
	passes "python/$t" 600 $python -m test -w --timeout 500 "$t"
done
finish
