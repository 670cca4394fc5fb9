/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: soft_call.c - the soft accelerator's public functions
 *
 * A device that is served here is called; one that is served elsewhere (by the kernel) gets
 * commands. A function of the program cannot go there, only the number of one that comes with the
 * device.
 */
#include "drivers/soft_dev.h"

/* a wait is many commands: whoever serves them may not be kept, and the caller may be killed */
#define WAIT_NS 10000000ULL

static const soft_fn functions[] = {
	balun_soft_fill,      balun_soft_copy,	 balun_soft_reduce,
	balun_soft_histogram, balun_soft_search,
};
#define NR_FUNCTIONS (sizeof(functions) / sizeof(functions[0]))

enum soft_code {
	SOFT_LAUNCH,  /* in: fn, arg, nworkers; out: fence */
	SOFT_WAIT,    /* in: fence; out: addr, if the answer says so. -EAGAIN: not yet */
	SOFT_WORKERS, /* out: nworkers */
};

struct soft_call {
	uint64_t arg, fence, addr;
	uint32_t fn, nworkers;
};

static int ask(struct balun_device *dev, enum soft_code code, struct soft_call *call)
{
	const struct balun_command c = {
		.driver = balun_soft_driver.name,
		.code = code,
		.arg = call,
		.arg_len = sizeof(*call),
	};

	return balun_device_command(dev, &c);
}

int balun_soft_command(void *priv, struct balun_space *space, const struct balun_command *c)
{
	struct soft_call *call = c->arg;
	struct soft_work work = { 0 };
	struct soft *s = priv;

	if (c->arg_len != sizeof(*call))
		return -EINVAL;
	switch (c->code) {
	case SOFT_LAUNCH:
		if (call->fn >= NR_FUNCTIONS)
			return -EINVAL;
		work.fn = functions[call->fn];
		work.arg = call->arg;
		work.nworkers = call->nworkers;
		return balun_soft_queue(s, space, &work, &call->fence);
	case SOFT_WAIT:
		return balun_soft_await(s, call->fence, WAIT_NS, &call->addr);
	case SOFT_WORKERS:
		call->nworkers = s->nworkers;
		return 0;
	default:
		return -EINVAL;
	}
}

static struct soft *soft_of(struct balun_device *dev)
{
	return balun_device_priv(dev, &balun_soft_driver);
}

static int launch_elsewhere(struct balun_device *dev, const struct soft_work *work,
			    uint64_t *ret_fence)
{
	struct soft_call call = { .arg = work->arg, .nworkers = work->nworkers };
	int err;

	err = work->fn ? balun_soft_workers(dev) : -EINVAL;
	if (err < 0)
		return err;
	while (call.fn < NR_FUNCTIONS && functions[call.fn] != work->fn)
		call.fn++;
	if (call.fn == NR_FUNCTIONS) {
		env_reason("a soft device of the kernel runs no functions of the program, only "
			   "those that come with it (balun/soft.h)");
		return -EOPNOTSUPP;
	}
	err = ask(dev, SOFT_LAUNCH, &call);
	if (!err)
		*ret_fence = call.fence;
	return err;
}

int balun_soft_launch(struct balun_device *dev, soft_fn fn, uint64_t arg, unsigned int nworkers,
		      uint64_t *ret_fence)
{
	const struct soft_work work = { .fn = fn, .arg = arg, .nworkers = nworkers };
	struct soft *s = soft_of(dev);

	return s ? balun_soft_queue(s, balun_device_space(dev), &work, ret_fence)
		 : launch_elsewhere(dev, &work, ret_fence);
}

int balun_soft_wait(struct balun_device *dev, uint64_t fence, uint64_t *ret_addr)
{
	struct soft_call call = { .fence = fence, .addr = UINT64_MAX };
	struct soft *s = soft_of(dev);
	int err;

	if (s)
		return balun_soft_await(s, fence, ENV_FOREVER, ret_addr);
	do {
		err = ask(dev, SOFT_WAIT, &call);
	} while (err == -EAGAIN);
	if (ret_addr && call.addr != UINT64_MAX)
		*ret_addr = call.addr;
	return err;
}

int balun_soft_workers(struct balun_device *dev)
{
	struct soft_call call = { 0 };
	struct soft *s = soft_of(dev);
	int err;

	if (s)
		return s->nworkers;
	err = ask(dev, SOFT_WORKERS, &call);
	return err ? err : (int)call.nworkers;
}
