#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# git looks at all of this repository's objects and packs them anew, in a copy, under chaos.
# Usage: tests/programs/git.sh
cd "$(dirname "$0")/../.." || exit 1
. tests/programs/lib.sh

if ! git rev-parse HEAD >/dev/null 2>&1; then
	skip git 'this tree is no repository'
	summary
fi
git clone -q --mirror "$repo" "$tmp/r" || { fail 'git: no copy of the repository'; finish; }
cd "$tmp/r" || exit 1
export GIT_CONFIG_GLOBAL=/dev/null GIT_PAGER=cat
git config pack.threads 2
git config gc.auto 0
commits=${share:+30}
commits=${commits:-3000}
# loose objects, as work leaves them
mv objects/pack "$tmp/pack"
mkdir objects/pack
for p in "$tmp"/pack/*.pack; do git unpack-objects -q <"$p"; done

# in a copy each time
cat >"$tmp/job.sh" <<END
rm -rf $tmp/w && cp -r . $tmp/w && cd $tmp/w || exit 1
"\$@" || exit
git fsck --full --strict --no-progress && git cat-file --batch-all-objects --batch-check
END
same 'git/fsck' 900 git fsck --full --strict --no-progress
same 'git/log' 900 git log --stat -p --all -n "$commits"
same 'git/gc' 900 sh "$tmp/job.sh" git gc --quiet --prune=now
if [ -z "$share" ]; then
	same 'git/gc, aggressive' 900 sh "$tmp/job.sh" git gc --quiet --aggressive --prune=now
	same 'git/repack' 900 sh "$tmp/job.sh" git repack -q -a -d -f --depth=50 --window=50
	same 'git/blame' 900 git blame -s HEAD -- README.md
	same 'git/clone' 900 sh -c "rm -rf $tmp/c && git clone -q --no-local . $tmp/c && git -C $tmp/c fsck --no-progress"
fi
finish
