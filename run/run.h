/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: run.h - what `balun run` and the library that it preloads know of each other
 *
 *   preload.c  the library: begins in each process, goes on in forked children, says what happened
 *   keep.c     keeps what is in RAM below the limit
 *   press.c    a program that is faster than what is moved out waits
 *   fresh.c    memory that the program gets between two looks
 *   room.c     the waiting room: pages on their way out, a touch away from coming back
 *   policy.c   what comes home with a touched page
 *   areas.c    the program's memory: which, and how much of it is in RAM
 *   own.c      Balun's threads and descriptors, apart from the program's
 *   chaos.c    moves pages for no reason, for tests
 *
 * tools/cmd_run.c makes a file of shared memory without a name, puts the options into it, and tells
 * the program where it is by an environment variable. Each process that Balun works in takes a slot
 * of it and writes down how it is doing. Nobody waits for anybody: a process that is killed leaves
 * its last word, and the memory goes with the last who has it.
 *
 * Balun's descriptors are in a table of its own threads (own.c): a program may close, count and
 * number what it has as it likes. What Balun has to say therefore goes to a file of memory as well,
 * which the launcher prints at the end.
 */
#ifndef BALUN_RUN_H
#define BALUN_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RUN_ENV	    "BALUN_RUN" /* the file: /proc/PID/fd/N of the launcher */
#define RUN_MAGIC   0x6e7572206e6c6162ULL
#define RUN_SLOTS   1024
#define RUN_DEVICES 8
#define RUN_SPEC    256

/**
 * struct run_slot - a process
 * @pid: 0: free
 * @on: Balun works in it; else @why says why not
 * @resident: bytes of the program's memory in RAM when it was looked at last, those in the waiting
 *            room too; @peak: most of it
 * @away: bytes on devices
 * @out, @home: bytes moved, ever
 * @faults: touches of memory that was away; @fault_ns: how long they took
 * @full_ns: how long the devices were full, and the limit was not kept
 */
struct run_slot {
	uint32_t pid, on;
	char comm[16], why[160];
	uint64_t resident, peak, away, out, home, faults, fault_ns, lost, full_ns;
};

struct run_shared {
	/* options: written before the program begins */
	uint64_t magic;
	uint64_t resident; /* bytes; 0: no limit */
	uint64_t chaos;	   /* pages a second */
	uint64_t chaos_seed;
	uint32_t ndevices, follow;
	uint32_t launcher, log_fd; /* what Balun has to say goes to /proc/@launcher/fd/@log_fd */
	char device[RUN_DEVICES][RUN_SPEC];
	/* what happened */
	uint32_t nslots; /* taken so far, also beyond what there is room for */
	struct run_slot slot[RUN_SLOTS];
};

#ifdef BALUN_RUN_PRELOAD

#include "balun/balun.h"
#include "balun/policy.h"

#define RUN_PAGE  BALUN_PAGE_SIZE
#define RUN_BLOCK BALUN_BLOCK_SIZE

/* ---- preload.c: this process; set before a thread of ours begins ---- */
struct run {
	struct run_shared *shared;
	struct run_slot *slot; /* NULL: no room, or nothing to say yet */
	struct balun_space *space;
	struct balun_device *room, *device[RUN_DEVICES];
	unsigned int ndevices;
};
extern struct run run;
/* the space, when it is needed first: 0, or -errno and the reason is written down */
int run_begin(void);
/* writes down how it goes; @resident: bytes */
void run_note(uint64_t resident);
uint64_t run_now_ns(void);

/* What follows is all done by one thread, but for room_is() and what says "any thread". At the end
 * the program's asks for press_is_full() and press_may(): a word each, whatever it is. */

/* ---- policy.c ---- */
extern const struct balun_policy run_policy;

/* ---- areas.c ---- */
struct area {
	uint64_t start, end;
	uint64_t present; /* bytes in RAM: areas_count() */
	bool watched;	  /* press_partly() has: touches of what is not are seen */
};
int areas_open(void); /* the worker, first: 0 or -errno */
/* the mappings that may move, in order; the array stays the same. @ret: NULL if it cannot be read
 */
struct area *areas_read(unsigned int *ret_n);
uint64_t areas_balun(void); /* how much was mapped of Balun's, when they were read */
/* how much of all of them is in RAM, and of each */
uint64_t areas_count(struct area *a, unsigned int n);
/* how much of [start, end) is in RAM, bytes */
uint64_t areas_present(uint64_t start, uint64_t end);
/* the first page of it that is; @end: none */
uint64_t areas_first(uint64_t start, uint64_t end);
/* Anonymous memory of the process, Balun's own too: what is in RAM, and what is mapped and may be
 * written to. Cheap. */
struct usage {
	uint64_t rss, mapped;
};
void areas_usage(struct usage *ret);
uint64_t areas_rss(void); /* the first of it: any thread */
/* Makes the pages of a block its own again that the program has shared with a child which is
 * gone; false: there is none that nobody else has */
bool areas_own(uint64_t block);

/* ---- press.c ---- */
#define RUN_SLACK(limit) ((limit) / 16)
void press_forget(void); /* in a forked child */
extern bool press_on;
/* any thread; asked with every allocation */
static inline bool press_is_on(void)
{
	return __atomic_load_n(&press_on, __ATOMIC_RELAXED);
}
/* so many bytes were counted in these areas, after balun_taken() said @since */
void press_note(int64_t since, uint64_t resident, const struct area *a, unsigned int n);
/* Is it enough to watch what of them is not in RAM? So much may be mapped until the next look then;
 * 0: no. They are counted. */
uint64_t press_partly(struct area *a, unsigned int n);
uint64_t press_may(void); /* what it said last, if that is still so */
void press_off(void);
/* so much is in RAM, and nothing of it goes out (@stuck), or as much as should (@well) */
/* true: they were full, and are not any more */
bool press_stuck(bool stuck, bool well, bool starved, uint64_t resident);
bool press_is_full(void);

/* ---- fresh.c ---- */
void fresh_forget(void);    /* in a forked child */
void fresh_is_worker(void); /* this thread; before nobody asks it */
void fresh_begin(void);	    /* waits for the first look */
/* it sleeps until then, or until one of these is set in the word; they are cleared */
#define FRESH_STARVED 1u /* a touch waits for RAM */
#define FRESH_ASKED   2u /* a thread waits for a look */
extern uint32_t fresh_word;
uint32_t fresh_rest(uint64_t until);
/* A look begins. What a thread has got that waits for it; false: none does */
bool fresh_asked(const void **ret_p, size_t *ret_len);
/* It has looked, for the thread that had asked. So much more than there was when it began may be
 * mapped until it must again, at most FRESH_ANY */
#define FRESH_ANY (INT64_MAX / 2)
void fresh_looked(bool asked, int64_t may);

/* ---- own.c ---- */
/* begins it on a thread, and goes on when that has called own_files(): 0 or -errno */
int own_start(void *(*worker)(void *));
int own_files(void); /* the worker, first: 0 or -errno */
void own_look(void); /* ends the process if only Balun's threads are left of it */

/* ---- room.c ---- */
int room_open(uint64_t bytes); /* 0: no room, the devices alone */
void room_forget(void);	       /* in a forked child */
uint64_t room_bytes(void);     /* in it now */
bool room_is(uint32_t device); /* is it the one with this id? Any thread */
/* what is in RAM of the block: bytes that went in; *busy is set if some would not just now */
uint64_t room_push(uint64_t va, bool *busy);
uint64_t room_empty(uint64_t bytes); /* so much goes on to the devices; how much did */

/* a look, and what follows from it: ns until the next one */
uint64_t keep_look(uint32_t why); /* FRESH_* */
uint64_t keep_resident(void);	  /* the program's bytes in RAM, counted */
uint64_t keep_about(void);	  /* the same from what was counted last: any thread */
uint64_t chaos_look(void);

#endif
#endif
