/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Part of engine.pml: all its state, the kernel's calls and the threads of the program.
 *
 * A content is a version number plus one; 0 is "nothing there"; ZEROS is a page of zeros.
 */
#include "common.pml"

#ifndef NADDR
#define NADDR 1 /* pages of the one block */
#endif
#ifndef NSLOT
#define NSLOT 2 /* pages of device memory */
#endif
#ifndef OPS0
#define OPS0 2 /* operations of program thread 0, and of 1 */
#endif
#ifndef OPS1
#define OPS1 1
#endif
#ifndef CALLS
#define CALLS 1 /* memory calls in all */
#endif
#ifndef WRITES
#define WRITES 2
#endif
#ifndef NOUT
#define NOUT 1 /* migrations to the device, and home by another thread than the reader */
#endif
#ifndef NHOME
#define NHOME 0
#endif
#ifndef FAILS
#define FAILS 0 /* copies that fail */
#endif

#define ZEROS	 1
#define GONE	 99
#define NTHREADS 2

/* ---- the kernel ---- */
bool vma[NADDR]; /* mapped */
bool reg[NADDR]; /* registered with our context */
byte pte[NADDR]; /* content, 0: nothing there */
bool wp[NADDR];	 /* write-protected by us (the copying way) */
byte changing;	 /* mmap_changing: COPY, MOVE, ZEROPAGE and WRITEPROTECT say EAGAIN */
mtype = { UNMAP, REMOVE, REMAP };
chan events = [4] of { mtype, byte, byte, byte }; /* what, page, to, who waits for its reading */
bool let_go[NTHREADS + 1];			  /* the event of this thread was read */
byte fault[NTHREADS];				  /* 0 none, 1 not read, 2 read */
byte fault_at[NTHREADS];
bool fault_wp[NTHREADS];
bool in_madvise[NTHREADS];

/* ---- the program: what a page must read as ---- */
byte version;
byte truth[NADDR];
byte discarding[NADDR]; /* calls under way that drop the page: either content will do */
bool rewritten[NADDR];	/* written since such a call began */
bool maybe_zeros[NADDR];
byte calls;

/* ---- the engine ---- */
LOCKVAR(lock);
bool watched[NADDR], away[NADDR], busy[NADDR];
byte place[NADDR];
byte handling;
byte pending[NADDR], pending_wp[NADDR]; /* faults the reader has read and not served */
byte hooked[NADDR];  /* struct changing with hooked */
byte unmaps, remaps; /* hooked munmap and mremap under way */
bool quarantine[NADDR];
byte cleared[NADDR]; /* threads seen outside madvise since */
bool own_zap[NADDR], own_seen[NADDR];

/* transits: 0 the mover towards the device, 1 the mover home, 2 the reader */
#define OUT	 0
#define HOME	 1
#define READER	 2
#define LOC(m, i) loc[(m) * NADDR + (i)]
bool transit[3], waiters[3];
byte nevents[3];
byte loc[3 * NADDR]; /* the log, replayed: where page i is now, or GONE */

/* ---- the device ---- */
byte dev[NSLOT];
bool used[NSLOT];

byte fails, done;
bool reader_works;

#define MESSAGES (fault[0] == 1 || fault[1] == 1 || len(events) > 0)

/* ids of lock holders: threads 0 and 1, movers 2 and 3, reader 4 */
#define L_OUT	 2
#define L_HOME	 3
#define L_READER 4

/* the kernel wakes who waits at page a, whether its fault has been read or not */
inline wake(a)
{
	for (w : 0 .. (NTHREADS - 1)) {
		if
		:: fault[w] && fault_at[w] == a -> fault[w] = 0
		:: else
		fi
	}
	w = 0
}

/* ---- ghosts ---- */

inline check_read(a)
{
	if
	:: discarding[a] -> assert(pte[a] == truth[a] || pte[a] == ZEROS)
	:: else ->
		assert(pte[a] == truth[a] || (maybe_zeros[a] && pte[a] == ZEROS));
		truth[a] = pte[a];
		maybe_zeros[a] = false
	fi
}

inline do_write(a)
{
	version++;
	truth[a] = version + ZEROS;
	pte[a] = truth[a];
	rewritten[a] = discarding[a] > 0;
	maybe_zeros[a] = maybe_zeros[a] && discarding[a]
}

/* ---- program threads ---- */

inline access(t, a, write)
{
	do
	:: atomic { !vma[a] -> break } /* unmapped under our feet: the program's own race */
	:: atomic {
		vma[a] && pte[a] && !(write && wp[a]) ->
		check_read(a);
		if
		:: write -> do_write(a)
		:: else
		fi;
		break
	   }
	:: atomic { vma[a] && !pte[a] && !reg[a] -> pte[a] = ZEROS; wp[a] = false }
	:: atomic {
		vma[a] && reg[a] && (!pte[a] || (write && wp[a])) ->
		fault[t] = 1;
		fault_at[t] = a;
		fault_wp[t] = pte[a] > 0
	   }
	   fault[t] == 0 /* must not wait for ever: an invalid end state */
	od
}

/* the event is queued when the change has been made and the kernel's lock is dropped; the caller
 * goes on after its reading, and only then ioctls work again */
inline post(t, what, a, b)
{
	events ! what, a, b, t;
	atomic { let_go[t] -> let_go[t] = false; changing-- }
}

/* the lock is held for that long only */
inline hook_begin(a)
{
#ifdef HOOKS
	atomic { lock == NOBODY && !own_zap[a] -> hooked[a]++ }
#else
	skip
#endif
}

inline hook_end(a)
{
#ifdef HOOKS
	atomic { lock == NOBODY -> hooked[a]-- }
#else
	skip
#endif
}

inline sys_munmap(t, a)
{
	atomic {
		if
		:: vma[a] ->
			vma[a] = false;
			pte[a] = 0;
			wp[a] = false;
			truth[a] = 0;
			maybe_zeros[a] = false;
			wake(a); /* who faults there finds nothing */
			if
			:: reg[a] -> reg[a] = false; changing++; sent = true
			:: else -> sent = false
			fi
		:: else -> sent = false
		fi
	}
	if
	:: sent -> post(t, UNMAP, a, 0)
	:: else
	fi
}

inline sys_mmap(a)
{
	atomic {
		if
		:: !vma[a] -> vma[a] = true; reg[a] = false; pte[a] = 0; truth[a] = ZEROS
		:: else /* taken */
		fi
	}
}

/* REMOVE comes before the kernel discards. Where nothing is registered the kernel keeps its lock
 * from the look to the end, and registering waits for it. */
inline sys_dontneed(t, a)
{
	atomic {
		discarding[a]++;
		rewritten[a] = false;
		in_madvise[t] = true;
		if
		:: vma[a] && reg[a] -> changing++; sent = true
		:: else -> sent = false; pte[a] = 0
		fi
	}
	if
	:: sent -> post(t, REMOVE, a, 0); atomic { pte[a] = 0; wp[a] = false }
	:: else
	fi;
	atomic {
		in_madvise[t] = false;
		discarding[a]--;
		if
		:: discarding[a] == 0 && vma[a] && !rewritten[a] ->
			truth[a] = ZEROS; maybe_zeros[a] = false
		:: discarding[a] == 0 && vma[a] && rewritten[a] -> maybe_zeros[a] = true
		:: else
		fi
	}
}

inline sys_mremap(t, a, b)
{
	atomic {
		if
		:: vma[a] && !vma[b] ->
			vma[b] = true; vma[a] = false;
			pte[b] = pte[a]; pte[a] = 0;
			wp[b] = wp[a]; wp[a] = false;
			truth[b] = truth[a]; truth[a] = 0;
			maybe_zeros[b] = maybe_zeros[a]; maybe_zeros[a] = false;
			reg[b] = reg[a]; reg[a] = false;
			wake(a);
			if
			:: reg[b] -> changing++; sent = true
			:: else -> sent = false
			fi
		:: else -> sent = false
		fi
	}
	if
	:: sent -> post(t, REMAP, a, b)
	:: else
	fi
}

/* the kernel queues the events of two threads in any order; hooks keep the calls apart */
#ifdef APART
#define MAY_UNMAP (remaps == 0)
#define MAY_REMAP (remaps == 0 && unmaps == 0)
#else
#define MAY_UNMAP true
#define MAY_REMAP true
#endif

proctype Thread(byte t; byte ops)
{
	byte w, a;
	bool sent;

	do
	:: atomic {
		ops > 0 ->
		ops--;
		if
		:: a = 0
#if NADDR > 1
		:: a = 1
#endif
		fi
	   }
		if
		:: access(t, a, false)
		:: version < WRITES -> access(t, a, true)
#ifdef CALL_DONTNEED
		:: atomic { calls < CALLS && !discarding[a] -> calls++ }
			hook_begin(a); sys_dontneed(t, a); hook_end(a)
#endif
#ifdef CALL_MUNMAP
		:: atomic { calls < CALLS && !discarding[a] && MAY_UNMAP -> calls++; unmaps++ }
			hook_begin(a); sys_munmap(t, a); unmaps--; hook_end(a)
		:: sys_mmap(a)
#endif
#ifdef CALL_MREMAP
		:: atomic { calls < CALLS && !discarding[a] && MAY_REMAP -> calls++; remaps++ }
			hook_begin(a); sys_mremap(t, a, 1 - a); remaps--; hook_end(a)
#endif
		fi
	:: else -> break
	od;
	done++
}
