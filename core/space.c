// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Spaces: making and ending one, and bringing everything home for a fork. */
#include "core/core.h"
#include "core/remote.h"

static const struct balun_policy default_policy = {
	.size = sizeof(struct balun_policy),
	.name = "default",
	.decide = balun_policy_default,
};

/* without a name the first is meant: the others are for tests, never a fallback */
static const struct engine_ops *engine_named(const char *name)
{
	unsigned int i;

	for (i = 0; engine_list[i]; i++)
		if (!name || !strcmp(name, engine_list[i]->name))
			return engine_list[i];
	return NULL;
}

static int engine_find(const char *name, const struct engine_ops **ret_eng)
{
	const struct engine_ops *eng = engine_named(name);
	struct balun_engine_info *info;
	int err = 0;

	if (!eng) {
		env_reason("no engine \"%s\" (balun doctor lists them)", name ? name : "");
		return -EINVAL;
	}
	info = env_alloc(sizeof(*info)); /* much for a stack in the kernel */
	if (!info)
		return -ENOMEM;
	info->size = sizeof(*info);
	eng->probe(info);
	if (!info->works) {
		env_reason("engine %s: %s%s%s", info->name, info->reason,
			   info->remedy[0] ? "; " : "", info->remedy);
		err = info->how[0] ? -EPERM : -EOPNOTSUPP;
	}
	env_free(info);
	if (!err)
		*ret_eng = eng;
	return err;
}

static int set_policy(struct balun_space *sp, const struct balun_policy *p)
{
	if (!p)
		p = &default_policy;
	if (p->size != sizeof(*p) || !p->decide) {
		env_reason("policy table has size %zu, this library knows %zu", p->size,
			   sizeof(*p));
		return -EINVAL;
	}
	sp->policy_copy = *p;
	sp->policy = &sp->policy_copy;
	return 0;
}

static void locks_init(struct balun_space *sp)
{
	unsigned int i;

	env_mutex_init(&sp->devices_lock);
	env_mutex_init(&sp->move_lock);
	env_mutex_init(&sp->batch_lock);
	env_cond_init(&sp->move_done);
	for (i = 0; i < CORE_STRIPES; i++) {
		env_mutex_init(&sp->stripe[i].lock);
		env_cond_init(&sp->stripe[i].idle);
		env_cond_init(&sp->stripe[i].turn);
	}
}

static void locks_destroy(struct balun_space *sp)
{
	unsigned int i;

	for (i = 0; i < CORE_STRIPES; i++) {
		env_cond_destroy(&sp->stripe[i].turn);
		env_cond_destroy(&sp->stripe[i].idle);
		env_mutex_destroy(&sp->stripe[i].lock);
	}
	env_cond_destroy(&sp->move_done);
	env_mutex_destroy(&sp->batch_lock);
	env_mutex_destroy(&sp->move_lock);
	env_mutex_destroy(&sp->devices_lock);
}

static int remote_create(const struct engine_ops *eng, const struct balun_space_opts *opts,
			 struct balun_space **ret_space)
{
	struct balun_space *sp;
	int err;

	if (opts && opts->policy) {
		env_reason("engine %s has the built-in policy: it cannot run one of the program's",
			   eng->name);
		return -EOPNOTSUPP;
	}
	err = eng->remote->space_create(&sp);
	if (err)
		return err;
	sp->engine = eng;
	sp->fork_gen = env_fork_gen();
	*ret_space = sp;
	return 0;
}

int balun_space_create(const struct balun_space_opts *opts, struct balun_space **ret_space)
{
	const struct engine_ops *eng;
	struct balun_space *sp;
	int err;

	if (!ret_space || (opts && opts->size != sizeof(*opts))) {
		env_reason("options have size %zu, this library knows %zu",
			   opts ? opts->size : (size_t)0, sizeof(*opts));
		return -EINVAL;
	}
	err = engine_find(opts ? opts->engine : NULL, &eng);
	if (err)
		return err;
	if (eng->remote)
		return remote_create(eng, opts, ret_space);
	sp = env_alloc(sizeof(*sp));
	if (!sp)
		return -ENOMEM;
	locks_init(sp);
	sp->engine = eng;
	sp->fork_gen = env_fork_gen();
	err = set_policy(sp, opts ? opts->policy : NULL);
	if (err)
		goto err_free;
	err = -ENOMEM;
	sp->hints = hint_create();
	if (!sp->hints)
		goto err_free;
	err = core_prefetch_create(sp);
	if (err)
		goto err_hints;
	err = eng->attach(sp, &sp->e);
	if (err)
		goto err_prefetch;
	env_live_begin(&sp->live, core_live_fill, sp);
	*ret_space = sp;
	return 0;
err_prefetch:
	core_prefetch_destroy(sp);
err_hints:
	hint_destroy(sp->hints);
err_free:
	locks_destroy(sp);
	env_free(sp);
	return err;
}

int core_space_end(struct balun_space *sp)
{
	uint64_t cookie[8];
	int err = 0, i;

	sp->engine->enter(sp->e, cookie);
	env_live_end(&sp->live);
	core_prefetch_destroy(sp);
	env_mutex_lock(&sp->devices_lock);
	for (i = 1; i < (int)CORE_DEVICE_SLOTS; i++)
		if (sp->device[i] && core_device_end(sp->device[i]))
			err = -EIO;
	env_mutex_unlock(&sp->devices_lock);
	core_moves_synchronize(sp);
	sp->engine->leave(sp->e, cookie); /* whose end waits for all who are inside */
	sp->engine->detach(sp->e);
	core_works_free(sp);
	hint_destroy(sp->hints);
	locks_destroy(sp);
	env_free(sp);
	return err;
}

int core_quiesce(struct balun_space *sp)
{
	env_mutex_lock(&sp->move_lock);
	sp->paused++;
	while (sp->moves_out) /* bounded by the devices' copies */
		env_cond_wait(&sp->move_done, &sp->move_lock, ENV_FOREVER);
	env_mutex_unlock(&sp->move_lock);
	return core_bring_home(sp, 0, BALUN_CAUSE_INVALIDATE) ? -EIO : 0;
}

void core_resume(struct balun_space *sp)
{
	env_mutex_lock(&sp->move_lock);
	env_assert(sp->paused > 0);
	sp->paused--;
	env_mutex_unlock(&sp->move_lock);
}
