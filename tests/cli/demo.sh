#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
# The demo on real input with the engines of this machine, alone and with CPU threads beside it.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/lib.sh
data=/var/lib/dpkg/status
[ -r $data ] || data=tests/cli/data/status
real=1
"$BUILD/balun" doctor >/dev/null 2>&1
case $? in
0) ;;
3) real=0 ;;
*) fail "balun doctor: $("$BUILD/balun" doctor 2>&1 | grep '^NO')" ;;
esac

# run NAME ARGUMENT...: $out is what it printed
run() {
	local name=$1 rc
	shift
	out=$("$BUILD/balun" demo "$@" 2>&1)
	rc=$?
	[ $rc -eq 0 ] && [[ $out == *"device and CPU agree in everything" ]] &&
		[[ $out != *DIFFERS* ]]
	report $? "$name: exit $rc: $(tail -n 15 <<<"$out")"
}
# the default engine: a real one, or the simulator with the reason and the remedy
run "default" $data
if [ $real -eq 1 ]; then
	run "hammer" --hammer 4 $data
	run "small device" --device soft:mem=2M --hammer 2 $data
	run "traced" --device 'trace(soft:mem=16M)' $data
	BALUN_UFFD_COPY=1 run "copy fallback" --hammer 4 $data
else
	skip "demo on real memory" "$("$BUILD/balun" doctor | grep -A2 '^NO' | tr -s ' \n' ' ')"
fi
run "sim" --engine sim $data
run "sim, hammer" --engine sim --hammer 4 $data
# where the module works and userfaultfd does not: the module runs no functions of the program
if has_sanitizer; then
	skip "the engine kernel alone" 'this build has a sanitizer: nothing can be loaded before it'
else
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	cat >"$tmp/engines.c" <<-'END'
		#include "balun/balun.h"
		#include <errno.h>

		__attribute__((visibility("default")))
		int balun_engine_info(unsigned int i, struct balun_engine_info *info)
		{
			static const struct balun_engine_info engine[] = {
				{ .name = "uffd", .reason = "refused by the test" },
				{ .name = "kernel", .works = true },
				{ .name = "sim", .works = true },
			};

			if (i > 2)
				return -ENOENT;
			*info = engine[i];
			return 0;
		}
	END
	gcc -Wall -Werror -shared -fPIC -Iinclude -o "$tmp/engines.so" "$tmp/engines.c"
	report $? "engines.so is not built"
	LD_PRELOAD=$tmp/engines.so run "the engine kernel alone" tests/cli/data/status
	[[ $out == *"refused by the test"*"engine: sim"* ]]
	report $? "the engine kernel alone: $out"
fi
# what --engine asks for and this machine cannot do is not replaced
if [ $real -eq 0 ]; then
	"$BUILD/balun" demo --engine uffd $data >/dev/null 2>&1
	[ $? -eq 3 ]
	report $? "an engine that cannot be used: exit 3"
fi
summary
