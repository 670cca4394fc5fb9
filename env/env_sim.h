/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: env_sim.h - the deterministic scheduler behind env.h, for tests
 *
 * Objects linked with env_sim.o (and env_sim_ctx.o, env_text.o) in the place of env_user.o run
 * under it: threads are coroutines of one real thread, and every lock, unlock, wait, wake, yield,
 * create and join is a scheduling point where a choice says who goes on. Equal choices, equal run.
 *
 * Time is virtual: a scheduling point takes ENV_SIM_TICK_NS, and when every thread waits, time
 * jumps to the first timeout. Memory is malloc()'s, so that ASan sees every object; env_owns() is
 * false.
 *
 * Choices: a number below n each. At a scheduling point 0 means "as little happens as can": the
 * running thread goes on (after env_yield(): the next one). A run without choices left takes 0, so
 * cutting and zeroing a failing list makes it simpler: env_sim_shrink().
 *
 * Outside a run (one real thread, nothing virtual) env.h works too, but nothing may block.
 */
#ifndef BALUN_ENV_SIM_H
#define BALUN_ENV_SIM_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define ENV_SIM_TICK_NS	    1000
#define ENV_SIM_MAX_THREADS 64
#define ENV_SIM_MAX_POINTS  4000000 /* a run with more has hung: -ETIMEDOUT */

typedef void (*env_sim_fn)(void *arg);

/**
 * env_sim_run() - run @fn as the first virtual thread, with choices from @seed
 *
 * Return: 0; -EDEADLK all threads wait for each other; -ETIMEDOUT too many scheduling points;
 * -EBUSY @fn returned before all its threads were joined; -ENOTRECOVERABLE an env_assert() failed;
 * what env_sim_stop() said. After an error everything of the run is gone (also what it allocated),
 * and env_sim_trace() says how it came about.
 */
int env_sim_run(uint64_t seed, env_sim_fn fn, void *arg);
/** env_sim_run_choices() - the same with given choices, each taken modulo what is possible */
int env_sim_run_choices(const uint32_t *list, size_t n, env_sim_fn fn, void *arg);
/** env_sim_choices() - the choices that the last run made; valid until the next run */
const uint32_t *env_sim_choices(size_t *ret_n);
/**
 * env_sim_shrink() - find a simpler list whose run still ends with @err
 * @list: choices of such a run, made shorter and smaller in place
 * @n: how many, in and out
 * @max_runs: stop after so many tries
 *
 * Return: how many choices of the result differ from 0. The last run made is one of the result.
 */
size_t env_sim_shrink(uint32_t *list, size_t *n, env_sim_fn fn, void *arg, int err,
		      unsigned int max_runs);

/** env_sim_choose() - for test code: a number below @n from the stream of choices (n <= 1: 0) */
uint32_t env_sim_choose(uint32_t n);
/** env_sim_stop() - for test code in a run: end it with this error; the text is for the trace */
void env_sim_stop(int err, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));
/** env_sim_note() - for test code: a line for the trace; @what is a constant string */
void env_sim_note(const char *what, uint64_t a, uint64_t b);
/** env_sim_trace() - print how the last run ended and its last scheduling decisions and notes */
void env_sim_trace(FILE *out);
/** env_sim_locks() - how many mutexes the calling virtual thread holds */
unsigned int env_sim_locks(void);
/** env_sim_points() - scheduling points of the current or last run */
uint64_t env_sim_points(void);
/** env_sim_running() - whether the caller is in a run */
int env_sim_running(void);

#endif
