// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Entry points for who keeps a program below a limit: the engine does it, where it sees touches. */
#include "core/core.h"

static int check(const struct balun_space *sp, bool can)
{
	if (!sp)
		return -EINVAL;
	if (!can) {
		env_reason("not with the engine %s", sp->engine->name);
		return -EOPNOTSUPP;
	}
	return sp->fork_gen == env_fork_gen() ? 0 : -ECHILD;
}

int balun_taken(struct balun_space *space, int64_t *ret_bytes)
{
	int err = check(space, space && space->engine->taken);
	uint64_t cookie[8];

	if (err)
		return err;
	space->engine->enter(space->e, cookie);
	*ret_bytes = space->engine->taken(space->e);
	space->engine->leave(space->e, cookie);
	return 0;
}

int balun_allow(struct balun_space *space, int64_t since, int64_t bytes)
{
	int err = check(space, space && space->engine->allow);
	uint64_t cookie[8];

	if (err)
		return err;
	space->engine->enter(space->e, cookie);
	space->engine->allow(space->e, since, bytes);
	space->engine->leave(space->e, cookie);
	return 0;
}

int balun_allow_word(struct balun_space *space, uint32_t *word)
{
	int err = check(space, space && space->engine->allow_word);
	uint64_t cookie[8];

	if (err)
		return err;
	space->engine->enter(space->e, cookie);
	space->engine->allow_word(space->e, word);
	space->engine->leave(space->e, cookie);
	return 0;
}

int balun_watch(struct balun_space *space, const void *addr, size_t len)
{
	uint64_t va = (uintptr_t)addr, cookie[8];
	int ret = check(space, space && space->engine->watch);

	if (!ret && (!len || va + len < va || va + len > 1ULL << 47))
		ret = -EINVAL;
	if (ret)
		return ret;
	space->engine->enter(space->e, cookie);
	ret = space->engine->watch(space->e, va, len);
	space->engine->leave(space->e, cookie);
	return ret;
}
