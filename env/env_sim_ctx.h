/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Inside env_sim: coroutines (a stack and a switch), and the life of a run's memory. */
#ifndef BALUN_ENV_SIM_CTX_H
#define BALUN_ENV_SIM_CTX_H

#include "env/env_priv.h"

#ifndef __x86_64__
#include <ucontext.h>
#endif

#define SIM_STACK_BYTES (256UL << 10)

struct sim_ctx {
	char *stack; /* NULL: the real thread's */
#ifdef __x86_64__
	void *sp;
#else
	ucontext_t uc;
#endif
	/* for ASan: the stack that runs in this context, and its fake stack while away */
	const void *bottom;
	size_t size;
	void *fake;
};

/* gets a stack (once; it is kept for the next use) and starts @entry, which never returns, at the
 * next switch to it. 0 or -ENOMEM */
int sim_ctx_prepare(struct sim_ctx *ctx, void (*entry)(void));
/* @last: @from will not be switched to again before it is prepared again */
void sim_ctx_switch(struct sim_ctx *from, struct sim_ctx *to, bool last);
/* the first thing that an entry does; @real: the real thread's context if it came from there (its
 * stack is learnt), else NULL */
void sim_ctx_entered(struct sim_ctx *self, struct sim_ctx *real);

/* env_sim_mem.c: a run begins; it ends, and leaves nothing if it is to be wiped */
void env_sim_mem_begin(void);
void env_sim_mem_end(bool wipe);

#endif
