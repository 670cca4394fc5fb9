#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# Who may include whom (ARCHITECTURE.md).
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh

# check DIR REGEX...: every #include "..." below DIR matches REGEX, or names a file beside it
check() {
	local dir=$1 allowed=$2 bad=0 file inc
	while IFS=: read -r file inc; do
		inc=${inc#*\"}
		inc=${inc%%\"*}
		[[ $inc =~ ^($allowed)$ ]] && continue
		[[ $inc != */* && -e $(dirname "$file")/$inc ]] && continue
		echo "  $file includes \"$inc\""
		bad=1
	done < <(grep -rHE --include='*.[ch]' '^[ 	]*#[ 	]*include[ 	]*"' "$dir" 2>/dev/null)
	report $bad "$dir/ may include only $allowed"
}

public='balun/[a-z]+\.h'
check include "$public"
check env "$public|env/[a-z_]+\.h|env_kernel\.h"
check core "$public|env/env\.h|core/[a-z_]+\.h"
check engine "$public|env/env\.h|core/[a-z_]+\.h|engine/(uffd|sim|client|kernel)/[a-z_/]+\.h"
check drivers "$public|env/env\.h|drivers/[a-z_]+\.h"
check tools "$public|tools/[a-z_]+\.h|run/run\.h|bench/bench\.h|tests/conformance/conform\.h"
check run "$public|run/run\.h"
check bench "$public|bench/[a-z_]+\.h|tools/tool\.h"
check examples "$public"
check tests/conformance "$public|env/env\.h|tools/tool\.h|tests/conformance/[a-z_]+\.h"
check tests/matrix "$public"
check tests/barrier "$public|env/env\.h|tests/(conformance|barrier)/[a-z_]+\.h"

# an engine's own headers stay inside it
out=$(grep -rnE --include='*.[ch]' 'include "(drivers|engine)/' . --exclude-dir=build* |
	grep -vE '^\./(drivers/[^:]*:[0-9]+:#include "drivers/|engine/uffd/[^:]*:[0-9]+:#include "engine/uffd/|engine/sim/[^:]*:[0-9]+:#include "engine/sim/|engine/client/[^:]*:[0-9]+:#include "engine/client/|engine/kernel/[^:]*:[0-9]+:#include "engine/kernel/|tests/(unit|sim|fuzz)/)')
[ -z "$out" ]
report $? "drivers/ and engine/ are included from outside: $out"

out=$(grep -rnw --include='*.[ch]' '__KERNEL__' core engine drivers tools run bench examples 2>/dev/null |
	grep -v '^engine/kernel/compat/')
[ -z "$out" ]
report $? "__KERNEL__ outside env/ and include/: $out"

# core is portable: what it needs of a system comes through env. loader.c (dlopen) is the one file
# that only user space compiles; Kbuild leaves it out.
out=$(grep -rnE --include='*.[ch]' '^#[ 	]*include[ 	]*<' core | grep -v '^core/loader.c:')
[ -z "$out" ]
report $? "core includes a system header: $out"
out=$(grep -rnE --include='*.[ch]' '^[^/*]*"(soft|ram|trace|inject)[":(]' core)
[ -z "$out" ]
report $? "core knows a driver's name: $out"

# A driver is portable: it includes no system header. The ones that are not are here, with what each
# may include, and the kernel does not compile them; edu, ivshmem and pci_set are the kernel's alone.
declare -A headers=(
	[crypt]='sodium|sys/mman'
	[nbd_start]='dlfcn|fcntl|sched|signal|stdlib|sys/(mman|wait)'
	[nbd_shared]='limits|linux/futex|pthread|std(bool|int)|sys/syscall|time|unistd'
	[nbd_helper]='errno|libnbd|pthread|std(io|lib)|string|sys/mman'
	[file]='fcntl|liburing|stdlib|unistd|linux/(falloc|fs)|sys/(ioctl|resource|stat|syscall|types)'
	[file_io]='unistd|xxhash|sys/(resource|stat|syscall)'
	[lz4]='lz4|sys/(mman|syscall)|unistd'
	[edu]='linux/[a-z-]+'
	[ivshmem]='linux/(io|pci)'
	[pci_set]='linux/(list|mutex|pci|wait)'
)
out=$(grep -rnoE --include='*.[ch]' '^#[ 	]*include[ 	]*<[^>]*' drivers | while IFS=: read -r f _ inc; do
	name=${f#drivers/}
	[[ ${inc#*<} =~ ^(${headers[${name%.*}]:-none})\.h$ ]] || echo "$f: ${inc#*<}"
done)
[ -z "$out" ]
report $? "drivers include system headers: $out"
for name in "${!headers[@]}"; do
	[[ $name =~ ^(edu|ivshmem|pci_set)$ ]] || ! grep -E '^drivers :=|drivers/' Kbuild | grep -qw "$name"
	report $? "Kbuild compiles drivers/$name.c, which is user space's"
done

# of the conformance kit only the probe, a portable driver, sees env
out=$(grep -rnE --include='*.[ch]' 'include "(env/|probe_(priv|table))' tests/conformance |
	grep -vE '^tests/conformance/probe(_dev|_priv|_table)?\.[ch]:')
[ -z "$out" ]
report $? "env is included from outside the probe: $out"

# an engine never calls a driver, a driver never an engine
out=$(grep -rnE --include='*.c' '(->|\.)(copy|copy_wait|map|unmap)\(' engine)
[ -z "$out" ]
report $? "an engine calls an op of a driver: $out"
summary
