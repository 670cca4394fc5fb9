// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Prefetch requests: a short queue and one service thread, made with the first request. */
#include "core/core.h"

#define PREFETCH_QUEUE 64
#define PREFETCH_STEP  (64 * BALUN_BLOCK_SIZE) /* so much is done before it looks whether to end */

struct core_prefetch {
	struct env_mutex lock;
	struct env_cond work, done;
	struct env_thread *thread;
	bool stop;
	uint64_t head, tail, finished; /* counted; slot is modulo */
	struct {
		uint64_t va, len;
		unsigned int dst;
	} req[PREFETCH_QUEUE];
};

static void prefetch_main(void *arg)
{
	struct balun_space *sp = arg;
	struct core_prefetch *p = sp->prefetch;

	env_mutex_lock(&p->lock);
	for (;;) {
		struct balun_counts c = { 0 };
		uint64_t va, len, part;
		unsigned int dst;

		while (!p->stop && p->head == p->tail)
			env_cond_wait(&p->work, &p->lock, ENV_FOREVER);
		/* what waits would only come home again */
		if (p->stop)
			break;
		va = p->req[p->head % PREFETCH_QUEUE].va;
		len = p->req[p->head % PREFETCH_QUEUE].len;
		dst = p->req[p->head % PREFETCH_QUEUE].dst;
		p->head++;
		env_mutex_unlock(&p->lock);
		for (; len && !env_load_relaxed(&p->stop); va += part, len -= part) {
			part = core_next_mapped(sp, va, va + len) - va;
			if (part)
				continue;
			part = ENV_MIN(len, PREFETCH_STEP);
			if (core_migrate_range(sp, va, part, dst, false, BALUN_CAUSE_PREFETCH, &c))
				break;
		}
		env_mutex_lock(&p->lock);
		p->finished++;
		env_cond_wake(&p->done);
	}
	env_mutex_unlock(&p->lock);
}

int core_prefetch_create(struct balun_space *sp)
{
	struct core_prefetch *p = env_alloc(sizeof(*p));

	if (!p)
		return -ENOMEM;
	env_mutex_init(&p->lock);
	env_cond_init(&p->work);
	env_cond_init(&p->done);
	sp->prefetch = p;
	return 0;
}

void core_prefetch_destroy(struct balun_space *sp)
{
	struct core_prefetch *p = sp->prefetch;

	env_mutex_lock(&p->lock);
	env_store_relaxed(&p->stop, true);
	env_cond_wake(&p->work);
	env_mutex_unlock(&p->lock);
	if (p->thread)
		env_thread_join(p->thread);
	env_cond_destroy(&p->done);
	env_cond_destroy(&p->work);
	env_mutex_destroy(&p->lock);
	env_free(p);
}

int core_prefetch_push(struct balun_space *sp, uint64_t va, uint64_t len, unsigned int dst)
{
	struct core_prefetch *p = sp->prefetch;
	unsigned int slot;
	int err = 0;

	env_mutex_lock(&p->lock);
	if (p->tail - p->head == PREFETCH_QUEUE) {
		env_reason("%d prefetches are waiting", PREFETCH_QUEUE);
		err = -EAGAIN;
		goto unlock;
	}
	if (!p->thread) {
		err = env_thread_create(&p->thread, "balun-prefetch", prefetch_main, sp);
		if (err)
			goto unlock;
	}
	slot = p->tail++ % PREFETCH_QUEUE;
	p->req[slot].va = va;
	p->req[slot].len = len;
	p->req[slot].dst = dst;
	env_cond_wake(&p->work);
unlock:
	env_mutex_unlock(&p->lock);
	return err;
}

int core_prefetch_sync(struct balun_space *sp)
{
	struct core_prefetch *p = sp->prefetch;
	uint64_t upto;
	int err = 0;

	env_mutex_lock(&p->lock);
	upto = p->tail;
	while (p->finished < upto && !err) {
		env_cond_wait(&p->done, &p->lock, ENV_KILLED_NS);
		err = env_killed() ? -EINTR : 0;
	}
	env_mutex_unlock(&p->lock);
	return err;
}
