/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: uffd.h - the userfaultfd engine: one context per space, and what it knows
 *
 * uffd.c     the ops table; attach and detach
 * probe.c    may we, and what can this kernel do
 * maps.c     what the kernel says of a mapping
 * watch.c    which ranges are watched
 * frames.c   host pages handed round
 * transit.c  pages between collect and commit; the kernel's calls
 * describe.c where pages are
 * calibrate.c what is cheaper here, MOVE or COPY
 * collect.c  pages leave the program's memory; collect_home.c: or begin to come back
 * commit.c   and are committed; commit_home.c: come back
 * coherent.c pages on a device that stay mapped
 * events.c   the thread that reads the context
 * inside.c   threads inside Balun keep their stack
 * allow.c    how much RAM touches may take
 * ending.c   what the kernel needs of threads stays: at their end, or all the time
 * hooks.c    memory calls seen before they happen
 * fork.c     a child gets every byte
 * files.c    descriptors that the program does not have
 *
 * u->lock is the engine's lock. It is held
 * - across every look at @pt, the watch table and the transits,
 * - across each UFFDIO_MOVE/COPY together with the look that justified it (design, trap 2),
 * - by the reader before read() and until the tables follow the event (trap 3): whoever returns
 *   from munmap finds the tables changed.
 * It is not held across madvise() of what is watched, a wait, or a call into core except
 * core_release(), core_moved() and, to fill a child, core_device_is_lost() and core_read_device().
 *
 * A page of a watched range is in one of four states:
 *   present or hole   !away !busy   the kernel's page table has it (or nothing has)
 *   away               away !busy   on device: softpt has the place
 *   in transit        !away  busy   a struct transit owns it; a CPU fault waits for its commit
 *   dying              away  busy   an event dropped it; being released by the reader
 */
#ifndef BALUN_UFFD_H
#define BALUN_UFFD_H

#include <sys/uio.h>

#include "core/engine.h"
#include "core/softpt.h"
#include "engine/uffd/compat.h"
#include "env/env.h"

#define PAGE	     BALUN_PAGE_SIZE
#define BLOCK	     BALUN_BLOCK_SIZE
#define BLOCK_OF(va) ((va) & ~(BLOCK - 1))

/* ---- probe.c ---- */
struct uffd_caps {
	int fd;		   /* a new context, or -1 */
	uint64_t features; /* enabled */
	bool move;	   /* UFFDIO_MOVE may be used */
	bool fork_event;
	bool poison;
	bool user_mode_only;
	char how[96], reason[160], remedy[240];
};
int uffd_open(struct uffd_caps *ret_caps);
void uffd_probe(struct balun_engine_info *ret_info);

/* ---- maps.c ---- */
struct vma {
	uint64_t start, end;
	bool read, write, shared, file, special; /* special: [stack], [vdso], ... */
};
int maps_open(void); /* before the others, by the one space of the process; 0 or -errno */
void maps_close(void);
/* the mapping that covers @va, or the next one above it: 0; -ENOENT none */
int maps_query(uint64_t va, struct vma *ret);
/* the end of the mapping that covers @va, or @end if that is nearer (or nothing covers it) */
uint64_t maps_end(uint64_t va, uint64_t end);
/* one line of /proc/PID/maps: "start-end perms offset dev inode  name"; false: it is none */
bool maps_parse_line(const char *s, struct vma *v);
/* the first mapping that ends above @va in text that comes piece by piece: 0; -ENOENT none */
#define MAPS_TEXT_BUF 4096
int maps_find_text(ssize_t (*more)(void *arg, void *buf, size_t len), void *arg, uint64_t va,
		   struct vma *ret);
/* writable segments of loaded objects: not on the reader, and without any lock */
void maps_refresh_objects(void);
bool maps_is_object(uint64_t start, uint64_t end, uint64_t *ret_until);
/* bit i: page i of [va, va + n pages) is present or swapped out. n <= 512 */
int maps_present(uint64_t va, unsigned int n, uint64_t *ret_bits);
/* the first of n pages that is a guard; n: none, or the kernel does not say */
unsigned int maps_guard(uint64_t va, unsigned int n);
/* the same; and which of them are guards (MADV_GUARD_INSTALL), where the kernel says it (6.15):
 * they count as present */
int maps_holes(uint64_t va, unsigned int n, uint64_t *ret_bits, uint64_t *ret_guards);
bool maps_is_huge(uint64_t va);
/* MAPS_* of each of n <= 512 pages: 0 or -errno */
int maps_look(uint64_t va, unsigned int n, uint8_t *ret_page);
#define MAPS_HERE   1
#define MAPS_ZERO   2  /* the zero page (6.7; before, it looks like a shared one) */
#define MAPS_HUGE   4  /* a part of a huge page that is mapped whole (6.7) */
#define MAPS_SHARED 8  /* anonymous, and another process may map it too */
#define MAPS_CACHE  16 /* a file's or of shared memory */
#define MAPS_GUARD  32 /* nothing is, and it may not be touched (MADV_GUARD_INSTALL) */

/* ---- watch.c: sorted disjoint ranges; engine lock held ---- */
struct watch_range {
	uint64_t start, end;
};
struct watch {
	struct watch_range *r;
	unsigned int n, room;
};
bool watch_covers(const struct watch *w, uint64_t va, uint64_t *ret_until);
int watch_add(struct watch *w, uint64_t start, uint64_t end);
int watch_remove(struct watch *w, uint64_t start, uint64_t end);
/* what is covered of [from, from + len) moves to @to, where nothing is: 0 or -ENOMEM, then again */
int watch_move(struct watch *w, uint64_t from, uint64_t to, uint64_t len);

/* ---- frames.c ---- */
struct frame_slot {
	struct frame_slot *next;
	uint64_t base;
	unsigned int top; /* pages [0, top) are populated */
	bool virgin;	  /* has no page table of small pages: takes a huge page whole */
	bool spoiled;	  /* pages are missing below top: empty it before use */
};
struct frames {
	struct env_mutex lock; /* leaf */
	struct frame_slot *empty, *partial, *full;
	unsigned int nfull, keep_full;
	uint64_t bytes; /* address space */
};

/* what the program did to pages while they were in transit, in order */
struct transit_event {
	uint64_t start, end, to;
	bool remap;
};

struct transit {
	struct env_list link;
	struct engine_batch *b;
	struct frame_slot *slot; /* host pages in use, or NULL */
	unsigned int base;	 /* first page of the slot that is ours */
	void *bounce;		 /* 2 MiB host buffer, if no frames were to be had */
	bool waiters;		 /* a CPU fault met a page in transit: wake at commit */
	bool copied;		 /* taken by copying: pages are write-protected, not moved */
	unsigned int nevents, room;
	struct transit_event *event, first[4];
	uint32_t since[BALUN_BLOCK_PAGES]; /* taken pages: the first event that is about them */
	struct transit *next;
};

/* a range whose pages may not be taken: a memory call of the program is under way in it */
struct changing {
	struct env_list link;
	uint64_t start, end;
	bool hooked; /* ends with the hook; otherwise when no thread can be inside the call */
	int cleared[64], ncleared;
};

struct uffd {
	struct balun_space *space;
	unsigned int fork_gen; /* of the process that it serves */
	struct uffd_caps caps;
	bool move;
	unsigned int move_min; /* from so many pages on MOVE beats COPY (calibrated) */
	struct env_mutex lock;
	struct env_cond idle; /* a transit ended, or events were handled */
	struct softpt *pt;
	struct watch watch;
	struct watch lost; /* poisoned pages: what describe() says of them */
	struct env_list transits, changing;
	/* hooked calls under way that take addresses away; an mremap is alone among them */
	unsigned int unmapping;
	bool remapping;
	struct transit *free_transits;
	struct frames frames;
	struct balun_desc device[BALUN_MAX_DEVICES + 1];
	/* own MADV_DONTNEED calls under way, and which of their pages an event has named */
	struct {
		uint64_t start, end;
		env_bits seen;
	} own_remove[8];
	struct env_thread *reader;
	struct uffd_files *files; /* NULL: our descriptors are the program's too */
	int stop_fd;
	/* allow.c: RAM that touches have taken, and up to where they may; when more was allowed or
	 * left; a touch waits for it, since when; who allows it, and what tells him; he is about to
	 * take the loader's lock; what tells the reader that there is more */
	int64_t taken, allowed;
	uint64_t more_ns, starved_ns;
	bool starved, opened;
	uint32_t allower, *starving;
	int more_fd;
	unsigned int handling; /* events read, not yet finished */
	/* the reader's own */
	struct uffd_msg *pending;		    /* faults that wait to be served */
	unsigned int npending, pending_room, nheld; /* nheld: those at the front were looked at */
	unsigned int spins, spins_in_vain;
	uint64_t installed_va, installed_len; /* by the last commit on the reader */
	void *reader_tp;
	uint64_t watch_high; /* no watched range ends above; grows only */
	/* odd while pages are taken on the strength of a look at who is inside (inside.c) */
	uint32_t looks, look_waiters;
};

/* a space of this process, or of one that it was forked from, has been for user mode only */
extern bool uffd_user_mode_only;
/* the context of this process, or, in a child of it, still the parent's; NULL: none */
extern struct uffd *uffd_current;
/*
 * The word lock of attaching and detaching, held across a fork too; outermost. Nothing may be
 * registered while there is no reader: a fork would wait for its event to be read, and hold
 * malloc()'s locks meanwhile, which starting and joining the reader needs.
 */
extern uint32_t uffd_life;
/* NULL in a child, also of a bare clone(). Who holds neither uffd_life nor a slot
 * (uffd_enter_here()) may only ask whether there is one: another thread can end it any time. */
static inline struct uffd *uffd_here(void)
{
	struct uffd *u = __atomic_load_n(&uffd_current, __ATOMIC_SEQ_CST);

	return u && u->fork_gen == env_fork_gen() ? u : NULL;
}

/* watch.c: make [va, va + len) watched as far as it can migrate; no lock held */
void uffd_watch_range(struct uffd *u, uint64_t va, uint64_t len);
void watch_raise(struct uffd *u, uint64_t end);
int uffd_register(struct uffd *u, uint64_t start, uint64_t end);
/* a watched range can be write-protected from now on, as the copying way needs it */
int uffd_register_protect(struct uffd *u, uint64_t start, uint64_t end);
int uffd_unregister(struct uffd *u, uint64_t start, uint64_t end);

/* frames.c */
void frames_init(struct frames *f);
void frames_shrink(struct uffd *u);
void frames_fini(struct uffd *u);
/* room for @n pages to be moved in (huge: the block is one huge page) / @n populated ones; or NULL
 */
struct frame_slot *frames_get_room(struct uffd *u, unsigned int n, bool huge);
struct frame_slot *frames_get_full(struct uffd *u, unsigned int n);
void frames_put(struct uffd *u, struct frame_slot *s);
/* the pages of a range go, also those that are locked into memory; false: some may be left */
bool uffd_discard_pages(uint64_t va, uint64_t len);
/* make a registered range of the engine's own memory empty again, without events; false: it may not
 * be, and that was said */
bool frames_empty(struct uffd *u, uint64_t addr, uint64_t len);
/*
 * The same for many pages of a device's memory: noted, then all at one go. u->lock held: all that
 * is between them is not watched for a moment, and nothing may be moved there meanwhile.
 */
#define FRAME_RUNS 64
struct frame_runs {
	uint64_t start, end;
	unsigned int n;
	struct iovec run[FRAME_RUNS];
};
void frames_empty_later(struct uffd *u, struct frame_runs *r, uint64_t addr);
void frames_empty_runs(struct uffd *u, struct frame_runs *r);

/* moving a page into or out of the memory of this device is all that a migration takes */
static inline bool uffd_is_host(const struct uffd *u, unsigned int dev)
{
	return u->device[dev].host_base && !(u->device[dev].caps & BALUN_CAP_COHERENT);
}
static inline bool uffd_is_coherent(const struct uffd *u, unsigned int dev)
{
	return u->device[dev].caps & BALUN_CAP_COHERENT;
}

/* coherent.c; lock held. The first pages of a run at @place: bytes done in *ret_done, > 0 if 0 is
 * returned; -EAGAIN an event is pending; other errors: the first page cannot be (un)mapped */
int uffd_unmap_coherent(struct uffd *u, uint64_t va, uint32_t place, uint64_t len,
			uint64_t *ret_done);
int uffd_map_coherent(struct uffd *u, uint64_t va, uint32_t place, uint64_t len,
		      uint64_t *ret_done);

/* allow.c */
void allow_init(struct uffd *u);
/* nobody has said how much; any thread, no lock */
bool allow_is_any(const struct uffd *u);
/* lock held: RAM was taken; n pages of a piece have come home, or left */
void allow_took(struct uffd *u, uint64_t bytes);
void allow_home(struct uffd *u, const struct engine_piece *p, unsigned int n);
void allow_out(struct uffd *u, const struct engine_piece *p, unsigned int n);
/* lock held: has a touch by @tid to wait until there is more? */
bool allow_must_wait(struct uffd *u, uint32_t tid);
bool allow_is_out(const struct uffd *u); /* any lock */
int64_t uffd_taken(void *e);
void uffd_allow(void *e, int64_t since, int64_t bytes);
void uffd_allow_word(void *e, uint32_t *word);
int uffd_watch(void *e, uint64_t va, uint64_t len);

/* calibrate.c */
void uffd_calibrate(struct uffd *u);
/* describe.c */
uint64_t uffd_next_mapped(void *e, uint64_t va);
int uffd_describe(void *e, uint64_t va, uint64_t len, enum engine_detail detail,
		  struct engine_run *run, int n);
bool uffd_away(void *e, uint64_t block, unsigned int page, uint64_t *ret_bits,
	       unsigned int *ret_dev);

/* collect.c, collect_home.c; lock held */
void uffd_piece_add(struct engine_batch *b, const struct engine_piece *p);
void uffd_mark_taken(struct uffd *u, struct engine_batch *b, unsigned int i, unsigned int n);
int uffd_collect_home(struct uffd *u, struct transit *t, struct engine_batch *b);
/* collect.c, commit.c */
int uffd_collect(void *e, struct engine_batch *b);
void uffd_commit(void *e, struct engine_batch *b);
/* commit.c for commit_home.c; lock held */
void uffd_commit_home(struct uffd *u, struct transit *t, struct engine_batch *b);
/* pages [i, i + n) are at consecutive addresses now; returns how many, their place in *va */
unsigned int uffd_locate_run(const struct transit *t, const struct engine_batch *b, unsigned int i,
			     unsigned int n, uint64_t *va, bool *gone);
/* content that the program dropped leaves a device's host memory, so that it is empty there */
void uffd_drop_content(struct uffd *u, const struct engine_piece *p, unsigned int i,
		       unsigned int n);
/* What does not move (other protection by now, locked) is copied, and does not stay behind: a frame
 * that is populated above its slot's top refuses the next page. */
int uffd_copy_frame(struct uffd *u, uint64_t va, uint64_t src, uint64_t *ret_done);
/* coherent memory: a page in its slot is mapped again where the program has it now */
void uffd_map_back(struct uffd *u, const struct transit *t, const struct engine_batch *b,
		   unsigned int i);
/* lock held: is an own discard under way in the range? u->idle wakes when it ends */
bool uffd_discarding(const struct uffd *u, uint64_t start, uint64_t end);
/* lock held: where the first of them begins, in [start, end]; @end if there is none */
uint64_t uffd_discard_next(const struct uffd *u, uint64_t start, uint64_t end);
/* moves [src, src + len) to dst; bytes moved in *ret_done. 0 all; -EAGAIN an event is pending;
 * -ENOENT, -EBUSY, -EEXIST, -EINVAL at page src + *ret_done */
int uffd_move(struct uffd *u, uint64_t dst, uint64_t src, uint64_t len, uint64_t *ret_done);
int uffd_copy(struct uffd *u, uint64_t dst, const void *src, uint64_t len, uint64_t *ret_done);
/* lock held: page @va could not be installed or poisoned, alone: @err. -EAGAIN an event is pending;
 * -ENOENT the program has given the page up; else @err */
int uffd_refused(struct uffd *u, uint64_t va, int err);
void uffd_wake(struct uffd *u, uint64_t va, uint64_t len);
/* lock held: has a memory call begun whose event is not read, so that nothing can be moved? */
bool uffd_event_pending(int fd);
/* false: not all of it is watched memory any more */
bool uffd_protect(struct uffd *u, uint64_t va, uint64_t len);
/* page @va may be written to again; false: an event is pending, look again */
bool uffd_unprotect(struct uffd *u, uint64_t va);
/* lock held on entry and exit; lets pending events be handled meanwhile */
void uffd_yield_to_events(struct uffd *u);
/* lock held: a transit for the batch, or NULL: no memory */
struct transit *transit_begin(struct uffd *u, struct engine_batch *b);
/* lock held: pages i.. of the block are in transit from now on */
void transit_take(struct transit *t, unsigned int i, unsigned int n);
/* follow an address through the log from an event on; false: dropped */
bool transit_follow(const struct transit *t, unsigned int from, uint64_t *va);
/* where page i of the block is now: false: dropped */
bool transit_locate(const struct transit *t, unsigned int i, uint64_t *ret_va);
void transit_log(struct uffd *u, uint64_t start, uint64_t end, uint64_t to, bool remap);
void transit_log_init(struct transit *t);
void transit_log_fini(struct transit *t);
void transit_log_one(struct transit *t, const struct transit_event *e);

/* events.c */
int uffd_reader_start(struct uffd *u);
void uffd_reader_stop(struct uffd *u);
void uffd_drain_events(struct uffd *u); /* on the reader; no lock held */
int uffd_serve(struct uffd *u,
	       uint64_t va);	      /* the same, as if a thread had read there; 0 or later */
void uffd_look_again(struct uffd *u); /* the reader, at what waits; any lock */
bool uffd_on_reader(const struct uffd *u);

/* inside.c */
void uffd_enter(void *e, void *cookie);
void uffd_leave(void *e, void *cookie);
/* enters the space of this process; NULL: there is none, or this is a thread of Balun */
struct uffd *uffd_enter_here(void *cookie);
/* uffd_current was cleared: until no thread is inside */
void uffd_inside_wait(void);
/* what threads ask for instead of touching it; false: one is held back */
bool uffd_serve_asked(struct uffd *u);
/* lock held, from before uffd_inside_bits() until what is taken on its word has been taken */
void uffd_look_begin(struct uffd *u);
void uffd_look_end(struct uffd *u);
/* lock held: bits of the block's pages that hold a stack or thread block in use, or of a thread
 * that ends */
void uffd_inside_bits(struct uffd *u, uint64_t block, uint64_t *ret_bits);
void uffd_add_bits(uint64_t block, uint64_t start, uint64_t end, uint64_t *bits);

/* ending.c; lock held */
void uffd_ending_bits(struct uffd *u, uint64_t block, uint64_t *ret_bits);
void uffd_first_thread(void); /* of a process is who calls this; no lock */

/* hooks.c; the space is published: until no call is under way that has not seen it */
void uffd_unseen_wait(void);
/* lock held: may no page of the range be taken now? Tries to end what is over */
bool uffd_is_changing(struct uffd *u, uint64_t start, uint64_t end);
/* lock held: is a hooked call under way in the range? u->idle wakes when it ends */
bool uffd_is_hooked(const struct uffd *u, uint64_t start, uint64_t end);
void uffd_quarantine(struct uffd *u, uint64_t start, uint64_t end);

/* files.c: after the reader has begun, before it ends */
int uffd_files_start(struct uffd *u);
void uffd_files_stop(struct uffd *u);
/* everything home and no frames, as core_quiesce(): on whatever thread can */
int uffd_files_quiesce(struct uffd *u);

/* fork.c */
void uffd_fork_register(void);
void uffd_fill_child(struct uffd *u, int child_fd);

#endif
