#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# Shared by tests that kill: what is left in memory of processes that have gone. Files that have no name
# and memory that others hold are seen by what they use: in a file system, and in a memory cgroup.

# left_begin FOLDER NAME: mounts a tmpfs there, and makes the cgroup; what cannot be is a skip of NAME
left_begin() {
	local parent=
	left_fs= left_cgroup=
	if mount -t tmpfs none "$1" 2>/dev/null; then
		left_fs=$1
	else
		skip "$2/files without a name" 'no file system can be mounted here'
	fi
	if [ -e /sys/fs/cgroup/memory/cgroup.procs ]; then
		parent=/sys/fs/cgroup/memory
	elif grep -qw memory /sys/fs/cgroup/cgroup.subtree_control 2>/dev/null; then
		parent=/sys/fs/cgroup
	fi
	if [ -n "$parent" ] && mkdir "$parent/balun-test-$$" 2>/dev/null; then
		left_cgroup=$parent/balun-test-$$
	else
		skip "$2/shared memory" 'no memory cgroup can be made here'
	fi
}

# left_run COMMAND...: what it and its children have is seen; does not return
left_run() {
	[ -z "$left_cgroup" ] || echo $BASHPID >"$left_cgroup/cgroup.procs" || exit 1
	exec "$@"
}

# left_memory: what is left, when all processes have gone; nothing, if all is well. The kernel counts a cgroup's
# memory in a while: every two seconds, where it is little
left_memory() {
	local used shared end=$((SECONDS + 10))
	while :; do
		used=0 shared=0
		[ -z "$left_fs" ] || used=$(df --output=used "$left_fs" | tail -n 1)
		[ -z "$left_cgroup" ] || shared=$(awk '$1 == "shmem" { print $2 }' "$left_cgroup/memory.stat")
		[ "$used" -eq 0 ] && [ "$shared" -eq 0 ] && return
		[ $SECONDS -ge $end ] && break
		sleep 0.01
	done
	echo "$((used)) kB in files, $shared bytes of shared memory"
}

left_end() {
	[ -z "$left_fs" ] || umount "$left_fs"
	[ -z "$left_cgroup" ] || rmdir "$left_cgroup"
}
