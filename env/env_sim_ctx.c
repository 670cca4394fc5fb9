// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Coroutines of env_sim. swapcontext() makes a system call for the signal mask at each switch; on
 * x86-64 a few instructions do what is needed here: callee-saved registers and the stack pointer.
 * (The floating-point control words never differ between virtual threads.)
 */
#include <sys/mman.h>

#include "env/env_sim_ctx.h"

#if ENV_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define GUARD 4096UL

static int stack_get(struct sim_ctx *ctx)
{
	char *p;

	if (ctx->stack)
		return 0;
	p = mmap(NULL, SIM_STACK_BYTES, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -ENOMEM;
	if (mprotect(p, GUARD, PROT_NONE)) {
		munmap(p, SIM_STACK_BYTES);
		return -ENOMEM;
	}
	ctx->stack = p;
	ctx->bottom = p + GUARD;
	ctx->size = SIM_STACK_BYTES - GUARD;
	return 0;
}

#ifdef __x86_64__

#define SAVED_REGISTERS 6

void env_sim_switch_stacks(void **ret_from, void *to);

/* clang-format off */
asm(".text\n"
    ".p2align 4\n"
    ".globl env_sim_switch_stacks\n"
    ".hidden env_sim_switch_stacks\n"
    ".type env_sim_switch_stacks, @function\n"
    "env_sim_switch_stacks:\n"
    "	pushq %rbp\n"
    "	pushq %rbx\n"
    "	pushq %r12\n"
    "	pushq %r13\n"
    "	pushq %r14\n"
    "	pushq %r15\n"
    "	movq %rsp, (%rdi)\n"
    "	movq %rsi, %rsp\n"
    "	popq %r15\n"
    "	popq %r14\n"
    "	popq %r13\n"
    "	popq %r12\n"
    "	popq %rbx\n"
    "	popq %rbp\n"
    "	ret\n"
    ".size env_sim_switch_stacks, . - env_sim_switch_stacks\n");
/* clang-format on */

static void ctx_start(struct sim_ctx *ctx, void (*entry)(void))
{
	void **sp = (void **)(ctx->stack + SIM_STACK_BYTES);

	/* as if the entry had been called: a return address (none) at 8 modulo 16 */
	*--sp = NULL;
	*--sp = (void *)entry;
	sp -= SAVED_REGISTERS;
	memset(sp, 0, SAVED_REGISTERS * sizeof(*sp));
	ctx->sp = sp;
}

static void ctx_jump(struct sim_ctx *from, struct sim_ctx *to)
{
	env_sim_switch_stacks(&from->sp, to->sp);
}

#else

static void ctx_start(struct sim_ctx *ctx, void (*entry)(void))
{
	getcontext(&ctx->uc);
	ctx->uc.uc_stack.ss_sp = ctx->stack + GUARD;
	ctx->uc.uc_stack.ss_size = SIM_STACK_BYTES - GUARD;
	ctx->uc.uc_link = NULL;
	makecontext(&ctx->uc, entry, 0);
}

static void ctx_jump(struct sim_ctx *from, struct sim_ctx *to)
{
	swapcontext(&from->uc, &to->uc);
}

#endif

int sim_ctx_prepare(struct sim_ctx *ctx, void (*entry)(void))
{
	int err = stack_get(ctx);

	if (err)
		return err;
#if ENV_ASAN
	/* an abandoned run leaves the marks of its frames */
	ASAN_UNPOISON_MEMORY_REGION(ctx->stack + GUARD, SIM_STACK_BYTES - GUARD);
#endif
	ctx->fake = NULL;
	ctx_start(ctx, entry);
	return 0;
}

void sim_ctx_switch(struct sim_ctx *from, struct sim_ctx *to, bool last)
{
#if ENV_ASAN
	__sanitizer_start_switch_fiber(last ? NULL : &from->fake, to->bottom, to->size);
#else
	(void)last;
#endif
	ctx_jump(from, to);
#if ENV_ASAN
	__sanitizer_finish_switch_fiber(from->fake, NULL, NULL);
#endif
}

void sim_ctx_entered(struct sim_ctx *self, struct sim_ctx *real)
{
#if ENV_ASAN
	const void *bottom;
	size_t size;

	__sanitizer_finish_switch_fiber(self->fake, &bottom, &size);
	if (real) {
		real->bottom = bottom;
		real->size = size;
	}
#else
	(void)self;
	(void)real;
#endif
}
