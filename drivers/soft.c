/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: soft.c - a software accelerator that takes itself seriously
 *
 * Private memory, page tables and TLBs of its own (soft_mmu.c), a replayable fault queue
 * (soft_access.c), a command queue with fences, and worker threads that reach memory only through
 * their MMU. Its public functions are in soft_call.c. What it cannot do: stop a function that
 * computes for ever without touching memory; its device then cannot be closed.
 */
#include "drivers/soft_dev.h"

/* ---- commands and workers ---- */

static void cmd_retire(struct soft *s, struct soft_cmd *cmd)
{
	if (cmd->err)
		s->failure[s->nfailures++ % SOFT_MAX_FAILURES] = (struct soft_failure){
			.fence = cmd->fence,
			.va = cmd->err_va,
			.err = cmd->err,
		};
	s->done_fence = cmd->fence;
	env_list_del(&cmd->link);
	env_free(cmd);
	env_cond_wake(&s->done);
	env_cond_wake(&s->work);
}

/* no new work of @ss begins, what runs ends at its next slow access; lock held */
static void cmd_cancel(struct soft *s, struct soft_space *ss)
{
	struct env_list *l;

	env_list_for_each (l, &s->cmds) {
		struct soft_cmd *cmd = env_container_of(l, struct soft_cmd, link);

		if (ss && cmd->ss != ss)
			continue;
		env_store_relaxed(&cmd->cancelled, true);
		if (!cmd->err)
			cmd->err = -ENODEV;
	}
}

static bool cmd_pending(struct soft *s, struct soft_space *ss)
{
	struct env_list *l;

	env_list_for_each (l, &s->cmds) {
		if (env_container_of(l, struct soft_cmd, link)->ss == ss)
			return true;
	}
	return false;
}

/* the command at the head, if this worker has a share in it that it has not done; lock held */
static struct soft_cmd *cmd_next(struct soft_thread *t)
{
	struct soft *s = t->s;
	struct soft_cmd *cmd;

	if (env_list_empty(&s->cmds))
		return NULL;
	cmd = env_container_of(s->cmds.next, struct soft_cmd, link);
	return t->unit.w.index < cmd->nworkers && t->last != cmd->fence ? cmd : NULL;
}

/*
 * A function of its own: a trap comes back here, and must not find variables in registers. The call
 * is not the last thing it does, lest the compiler make a jump of it and the frame be gone.
 */
static void __attribute__((__noinline__)) worker_call(struct soft_thread *t)
{
	if (!__builtin_setjmp(t->trap)) {
		t->cmd->fn(&t->unit.w, t->cmd->arg);
		__asm__ volatile("" ::: "memory");
	}
}
ENV_JUMPS(worker_call);

static void worker_main(void *arg)
{
	struct soft_thread *t = arg;
	struct soft *s = t->s;
	struct soft_cmd *cmd;

	env_mutex_lock(&s->lock);
	for (;;) {
		cmd = cmd_next(t);
		if (!cmd) {
			if (!s->running)
				break;
			env_cond_wait(&s->work, &s->lock, ENV_FOREVER);
			continue;
		}
		t->cmd = cmd;
		t->last = cmd->fence;
		t->unit.w.nworkers = cmd->nworkers;
		env_mutex_unlock(&s->lock);

		if (!env_load_relaxed(&cmd->cancelled))
			worker_call(t);
		/* the next one may be of another space, and an idle worker must not cost flushes */
		balun_soft_mmu_forget(&s->mmu, &t->unit);

		env_mutex_lock(&s->lock);
		t->cmd = NULL;
		if (!--cmd->left)
			cmd_retire(s, cmd);
	}
	env_mutex_unlock(&s->lock);
}

int balun_soft_queue(struct soft *s, struct balun_space *space, const struct soft_work *work,
		     uint64_t *ret_fence)
{
	struct soft_cmd *cmd;
	int err;

	if (!work->fn || work->nworkers > s->nworkers)
		return -EINVAL;
	err = balun_fence(space);
	if (err)
		return err;
	cmd = env_alloc(sizeof(*cmd));
	if (!cmd)
		return -ENOMEM;
	cmd->fn = work->fn;
	cmd->arg = work->arg;
	cmd->nworkers = work->nworkers ? work->nworkers : s->nworkers;
	cmd->left = cmd->nworkers;

	env_mutex_lock(&s->lock);
	cmd->ss = s->running ? balun_space_data(space, s->dev) : NULL;
	if (!cmd->ss) {
		env_mutex_unlock(&s->lock);
		env_free(cmd);
		return -ENODEV;
	}
	cmd->fence = ++s->fence;
	*ret_fence = cmd->fence;
	env_list_add_tail(&s->cmds, &cmd->link);
	env_cond_wake(&s->work);
	env_mutex_unlock(&s->lock);
	return 0;
}

/* what became of a fence that has passed; lock held */
static int fence_result(struct soft *s, uint64_t fence, uint64_t *ret_addr)
{
	unsigned int i;
	int err = 0;

	for (i = 0; i < ENV_MIN(s->nfailures, SOFT_MAX_FAILURES); i++) {
		if (s->failure[i].fence != fence)
			continue;
		err = s->failure[i].err;
		if (ret_addr)
			*ret_addr = s->failure[i].va;
	}
	return err;
}

int balun_soft_await(struct soft *s, uint64_t fence, uint64_t timeout_ns, uint64_t *ret_addr)
{
	int err;

	if (s->fork_gen != env_fork_gen())
		return -ECHILD;
	env_mutex_lock(&s->lock);
	if (!fence || fence > s->fence) {
		env_mutex_unlock(&s->lock);
		return -EINVAL;
	}
	s->waiters++;
	while (s->done_fence < fence) {
		env_cond_wait(&s->done, &s->lock, timeout_ns);
		if (timeout_ns != ENV_FOREVER)
			break;
	}
	err = s->done_fence < fence ? -EAGAIN : fence_result(s, fence, ret_addr);
	if (!--s->waiters)
		env_cond_wake(&s->done); /* close waits for us */
	env_mutex_unlock(&s->lock);
	return err;
}

/* ---- ops ---- */

static int soft_options(const struct balun_options *opt, uint64_t *ret_mem, uint64_t *ret_workers)
{
	int err = balun_opt_size(opt, "mem", 256ULL << 20, ret_mem);

	if (!err)
		err = balun_opt_size(opt, "workers", 2, ret_workers);
	if (err)
		return err;
	if (!*ret_mem || *ret_mem % BALUN_BLOCK_SIZE)
		return balun_opt_fail(opt, "mem", "must be a multiple of 2M");
	if (!*ret_workers || *ret_workers > SOFT_MAX_WORKERS)
		return balun_opt_fail(opt, "workers", "must be 1 to 256");
	return 0;
}

static size_t soft_worker_bytes(const struct soft *s)
{
	size_t bytes = s->nworkers * sizeof(*s->worker);

	return (bytes + BALUN_PAGE_SIZE - 1) & ~(BALUN_PAGE_SIZE - 1);
}

static void soft_init(struct soft *s)
{
	unsigned int i;

	for (i = 0; i < s->nworkers; i++) {
		s->worker[i].s = s;
		s->worker[i].unit.w.index = i;
		s->unit[i] = &s->worker[i].unit;
	}
	balun_soft_mmu_init(&s->mmu, s->mem, s->unit);
	for (i = 0; i < SOFT_RMW_LOCKS; i++)
		env_mutex_init(&s->rmw[i]);
	env_mutex_init(&s->lock);
	env_cond_init(&s->work);
	env_cond_init(&s->done);
	env_cond_init(&s->faulted);
	env_cond_init(&s->replay);
	env_list_init(&s->cmds);
}

static int soft_open(struct balun_device *dev, const struct balun_options *opt,
		     struct balun_desc *ret_desc, void **ret_priv)
{
	uint64_t mem, workers;
	struct soft *s;
	int err = soft_options(opt, &mem, &workers);

	if (err)
		return err;
	s = balun_mem_alloc(sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->dev = dev;
	s->fork_gen = env_fork_gen();
	s->nworkers = workers;
	s->mem_bytes = mem;
	/* page-aligned: a worker has cache lines of its own */
	s->worker = env_pages_alloc(soft_worker_bytes(s));
	if (!s->worker)
		goto err_free_soft;
	s->mem = env_pages_alloc(mem);
	if (!s->mem)
		goto err_free_workers;
	/* the host's own TLB misses would be the price of every page that a worker reads */
	env_pages_huge(s->mem, mem);
	soft_init(s);
	*ret_desc = (struct balun_desc){ .mem_bytes = mem, .caps = balun_soft_driver.caps };
	*ret_priv = s;
	return 0;

err_free_workers:
	env_pages_free(s->worker, soft_worker_bytes(s));
err_free_soft:
	balun_mem_free(s, sizeof(*s));
	return -ENOMEM;
}

static void soft_close(void *priv)
{
	struct soft *s = priv;
	unsigned int i;

	env_mutex_lock(&s->lock);
	while (s->waiters)
		env_cond_wait(&s->done, &s->lock, ENV_FOREVER);
	env_mutex_unlock(&s->lock);
	for (i = 0; i < SOFT_RMW_LOCKS; i++)
		env_mutex_destroy(&s->rmw[i]);
	env_cond_destroy(&s->work);
	env_cond_destroy(&s->done);
	env_cond_destroy(&s->faulted);
	env_cond_destroy(&s->replay);
	env_mutex_destroy(&s->lock);
	balun_soft_mmu_fini(&s->mmu);
	env_pages_free(s->mem, s->mem_bytes);
	env_pages_free(s->worker, soft_worker_bytes(s));
	balun_mem_free(s, sizeof(*s));
}

static int soft_map(void *priv, struct balun_space *space, const struct balun_seg *seg, size_t n)
{
	struct soft *s = priv;
	struct soft_space *ss = balun_space_data(space, s->dev);

	return balun_soft_mmu_map(&s->mmu, &ss->pt, seg, n);
}

static void soft_unmap_begin(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
			     enum balun_cause cause)
{
	struct soft *s = priv;
	struct soft_space *ss = balun_space_data(space, s->dev);

	(void)cause;
	balun_soft_mmu_clear(&s->mmu, &ss->pt, va, len);
}

static void soft_unmap_wait(void *priv, struct balun_space *space)
{
	struct soft *s = priv;

	(void)space;
	balun_soft_mmu_sync(&s->mmu);
}

static void soft_unmap(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
		       enum balun_cause cause)
{
	soft_unmap_begin(priv, space, va, len, cause);
	soft_unmap_wait(priv, space);
}

/* host address of an operand; NULL: outside the device's memory */
static void *copy_ptr(struct soft *s, uint32_t kind, uint64_t addr, uint64_t len)
{
	if (kind == BALUN_KIND_SYSTEM)
		return balun_bus_ptr(addr, len);
	if (kind == BALUN_KIND_PEER)
		return (void *)(uintptr_t)addr;
	if (addr > s->mem_bytes || len > s->mem_bytes - addr)
		return NULL;
	return (char *)s->mem + addr;
}

/* Done at once, by the caller: it cannot wait for a worker that waits for it. */
static int soft_copy(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie)
{
	struct soft *s = priv;
	void *dst, *src;
	size_t i;

	for (i = 0; i < n; i++) {
		dst = copy_ptr(s, op[i].dst_kind, op[i].dst, op[i].len);
		if (!dst)
			return -EINVAL;
		if (op[i].src_kind == BALUN_KIND_ZERO) {
			env_pages_zero(dst, op[i].len);
			continue;
		}
		src = copy_ptr(s, op[i].src_kind, op[i].src, op[i].len);
		if (!src)
			return -EINVAL;
		env_pages_copy(dst, src, op[i].len);
	}
	*ret_cookie = 0;
	return 0;
}

static int soft_copy_wait(void *priv, uint64_t cookie)
{
	(void)priv, (void)cookie;
	return 0;
}

static int soft_attach(void *priv, struct balun_space *space)
{
	struct soft *s = priv;
	struct soft_space *ss = env_alloc(sizeof(*ss));
	int err;

	if (!ss)
		return -ENOMEM;
	err = balun_soft_pt_init(&s->mmu, &ss->pt);
	if (err) {
		env_free(ss);
		return err;
	}
	ss->space = space;
	balun_space_set_data(space, s->dev, ss);
	return 0;
}

static void soft_gone(void *priv, struct balun_space *space)
{
	struct soft *s = priv;
	struct soft_space *ss = balun_space_data(space, s->dev);

	env_mutex_lock(&s->lock);
	balun_space_set_data(space, s->dev, NULL);
	cmd_cancel(s, ss);
	while (cmd_pending(s, ss))
		env_cond_wait(&s->done, &s->lock, ENV_FOREVER);
	env_mutex_unlock(&s->lock);
	balun_soft_pt_fini(&s->mmu, &ss->pt);
	env_free(ss);
}

/* The opaque address is a host address: the copy engines of both are memcpy. */
static int soft_peer_addr(void *priv, struct balun_device *client, uint64_t off, uint64_t len,
			  uint64_t *ret_addr)
{
	struct soft *s = priv;
	void *p = copy_ptr(s, BALUN_KIND_LOCAL, off, len);

	if (!balun_device_priv(client, &balun_soft_driver))
		return -EOPNOTSUPP;
	if (!p)
		return -EINVAL;
	*ret_addr = (uintptr_t)p;
	return 0;
}

/* Workers go first: the fault thread answers those that wait. */
static void soft_stop(struct soft *s)
{
	unsigned int i;

	env_mutex_lock(&s->lock);
	s->running = false;
	cmd_cancel(s, NULL);
	env_cond_wake(&s->work);
	env_mutex_unlock(&s->lock);
	for (i = 0; i < s->nstarted; i++)
		env_thread_join(s->worker[i].thread);
	s->nstarted = 0;

	env_mutex_lock(&s->lock);
	s->fault_stop = true;
	env_cond_wake(&s->faulted);
	env_mutex_unlock(&s->lock);
	env_thread_join(s->fault_thread);
}

static int soft_active(void *priv, bool on)
{
	struct soft *s = priv;
	int err;

	if (!on) {
		soft_stop(s);
		return 0;
	}
	s->fault_stop = false;
	err = env_thread_create(&s->fault_thread, "soft-fault", balun_soft_fault_main, s);
	if (err)
		return err;
	s->running = true;
	for (; s->nstarted < s->nworkers; s->nstarted++) {
		err = env_thread_create(&s->worker[s->nstarted].thread, "soft-worker", worker_main,
					&s->worker[s->nstarted]);
		if (err) {
			soft_stop(s);
			return err;
		}
	}
	return 0;
}

const struct balun_driver balun_soft_driver = {
	.size = sizeof(struct balun_driver),
	.caps = BALUN_CAP_MMU | BALUN_CAP_PEER | BALUN_CAP_TWO_PHASE,
	.name = "soft",
	.help = "mem=256M   device memory, a multiple of 2M\n"
		"workers=2  worker threads, 1 to 256\n",
	.open = soft_open,
	.close = soft_close,
	.map = soft_map,
	.unmap = soft_unmap,
	.copy = soft_copy,
	.copy_wait = soft_copy_wait,
	.attach = soft_attach,
	.gone = soft_gone,
	.unmap_begin = soft_unmap_begin,
	.unmap_wait = soft_unmap_wait,
	.peer_addr = soft_peer_addr,
	.active = soft_active,
	.command = balun_soft_command,
};
