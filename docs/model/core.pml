/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Core above any engine: the mirror with its sequence, device faults, places in device memory that
 * is full, eviction, two devices, failed copies, and a device that uses its translations without a
 * lock. README.md says which function each part is, the switches and the bugs (-DBUG_*).
 *
 * The engine is a table here; engine.pml is about the one that is not. Each page is a block of its
 * own with a stripe of its own; each device has room for one page.
 */
#include "common.pml"

#ifndef NDEV
#define NDEV 1
#endif
#define NPAGE 2
#ifndef WORK
#define WORK 2 /* accesses of each device, of the CPU; discards by the program */
#endif
#ifndef TOUCHES
#define TOUCHES 1
#endif
#ifndef DROPS
#define DROPS 1
#endif
#ifndef WRITES
#define WRITES 1
#endif
#ifndef FAILS
#define FAILS 0
#endif

#define SYS  0 /* devices are 1 .. NDEV */
#define NONE 255
#define E(d, p) entry[((d) - 1) * NPAGE + (p)]

/* what became of a page */
#define MOVED	1
#define ALREADY 2
#define BUSY	3
#define FAILED	4
#define WAS_GONE 5
#define NOMEM	6

/* the engine's table, and contents */
byte where[NPAGE];
byte taken_by[NPAGE] = NOBODY; /* in transit in this process's batch */
byte sys[NPAGE], dev[NDEV + 1], truth[NPAGE], version;
byte owner[NDEV + 1] = NONE; /* who has the place in device memory, also while in transit */

/* the mirror */
byte stripe[NPAGE] = NOBODY, seq[NPAGE], ongoing[NPAGE];
byte entry[NDEV * NPAGE] = NONE; /* where the device believes the page is */

/* a worker of the device: what it said of itself, as others see it */
bool in_use[NDEV + 1], store_buffer[NDEV + 1];

byte fails, done, fetched[NPAGE];

#ifdef BUG_EVICT_NO_UNMAP
#define SKIP_UNMAP evicting
#else
#define SKIP_UNMAP false
#endif

#ifdef BUG_NO_THRASHING
#define SEQ(p) seq[p] = (seq[p] + 1) % 8 /* runs for ever */
#else
#define SEQ(p) seq[p]++
#endif

/* core/thrash.c: after so many moves a block stays where it is. Its time is not modelled */
#ifndef FETCHES
#define FETCHES 2
#endif
#ifdef BUG_NO_THRASHING
#define MAY_FETCH(p) true
#else
#define MAY_FETCH(p) (fetched[p] < FETCHES)
#endif

#ifdef BUG_SEQUENCE_ONCE
#define LOST 0
#else
#define LOST 1
#endif

/* unmap() of one device, stripe held: clear, barrier for all, wait for who is at it */
inline unmap(d, p)
{
	E(d, p) = NONE;
#ifndef BUG_NO_BARRIER
	atomic {
		in_use[d] = in_use[d] || store_buffer[d];
		store_buffer[d] = false
	}
#endif
#ifndef BUG_NO_WAIT
	!in_use[d]
#endif
}

inline invalidate_begin(p)
{
	atomic { stripe[p] == NOBODY -> stripe[p] = me; ongoing[p]++; SEQ(p) }
	if
	:: SKIP_UNMAP -> skip
	:: else ->
		unmap(1, p);
#if NDEV > 1
		unmap(2, p)
#endif
	fi;
	stripe[p] = NOBODY
}

inline invalidate_end(p)
{
	atomic { stripe[p] == NOBODY -> ongoing[p]--; }
}


/* one page: collect, copy, commit; to a device only with a place. only: 0 or the device it must
 * be on. Sets result */
inline move(p, dst, only)
{
	invalidate_begin(p);
	atomic { /* collect */
		if
		:: taken_by[p] != NOBODY -> result = BUSY
		:: taken_by[p] == NOBODY && (where[p] == dst || (only && where[p] != only)) ->
			result = ALREADY
		:: else ->
			result = MOVED;
			from = where[p];
			taken_by[p] = me
#ifdef BUG_FREE_EARLY
			;
			if
			:: from -> owner[from] = NONE
			:: else
			fi
#endif
		fi
	}
	if
	:: result == MOVED ->
		atomic { /* copy */
			if
			:: fails < FAILS -> fails++;
#ifndef BUG_FAILED_COUNTS
				result = FAILED
#endif
			:: true ->
				held = (from -> dev[from] : sys[p])
			fi
		}
		atomic { /* commit */
			if
			:: taken_by[p] != me -> result = WAS_GONE
			:: taken_by[p] == me ->
				taken_by[p] = NOBODY;
				if
				:: result == MOVED ->
					where[p] = dst;
					if
					:: dst -> assert(owner[dst] == p); dev[dst] = held
					:: else -> sys[p] = held
					fi
				:: else
				fi
			fi;
			held = 0
		}
	:: else
	fi;
	invalidate_end(p);
	atomic { /* settle */
		if
		:: dst && result != MOVED -> assert(owner[dst] == p); owner[dst] = NONE
		:: else
		fi;
		if
		:: from && (result == MOVED || result == WAS_GONE) ->
#ifndef BUG_FREE_EARLY
			assert(owner[from] == p); owner[from] = NONE
#endif
		:: else
		fi;
		from = 0
	}
}

/* core_alloc_places(): the place, evicting the other page for it. No lock is held */
inline place(p, d)
{
	atomic {
		result = NOMEM;
		if
		:: owner[d] == NONE -> owner[d] = p; result = MOVED
		:: else
		fi
	}
	if
	:: result == NOMEM && owner[d] == 1 - p -> /* core_evict(): never for itself */
		atomic { evicting = true; victim = 1 - p }
		move(victim, SYS, d);
		atomic {
			evicting = false;
			victim = 0;
			if
			:: owner[d] == NONE -> owner[d] = p; result = MOVED
			:: else -> result = NOMEM
			fi
		}
	:: else
	fi
}

/* map_locked(), stripe held */
#define MAP(d, p) E(d, p) = (taken_by[p] == NOBODY && (where[p] == SYS || where[p] == d) -> where[p] : NONE)

/* core_device_fault(): until the device has an entry */
inline device_fault(d, p)
{
	tried = false;
	lost = 0;
#ifdef BUG_SEQUENCE_ONCE
	atomic { stripe[p] == NOBODY && ongoing[p] == 0 -> s = seq[p] }
#endif
	do
	:: lost >= 2 -> /* map_stubborn() */
		atomic { stripe[p] == NOBODY && ongoing[p] == 0 -> stripe[p] = me }
		atomic {
			if
			:: taken_by[p] == NOBODY && (where[p] == SYS || where[p] == d) ->
				MAP(d, p);
				stripe[p] = NOBODY;
				break
			:: else -> stripe[p] = NOBODY; lost = 0
			fi
		}
	:: lost < 2 ->
#ifndef BUG_SEQUENCE_ONCE
		atomic { stripe[p] == NOBODY && ongoing[p] == 0 -> s = seq[p] }
#endif
		atomic { seen = where[p]; seen_busy = taken_by[p] != NOBODY } /* describe() */
		if
		:: seen_busy -> taken_by[p] == NOBODY /* wait_idle() */
		:: !seen_busy && seen != d && !tried ->
			tried = true;
			if
			:: atomic { MAY_FETCH(p) -> fetched[p]++ }
				place(p, d);
				if
				:: result == MOVED -> move(p, d, 0)
				:: else
				fi
			:: true /* policy: use it where it is; what thrashes must be */
			fi
		:: !seen_busy && seen != d && seen != SYS && tried -> move(p, SYS, 0) /* fetch_home() */
		:: !seen_busy && (seen == d || (seen == SYS && tried)) ->
			atomic { stripe[p] == NOBODY -> stripe[p] = me }
			atomic { /* map_runs(): what was seen is mapped if the sequence still is */
				if
#ifndef BUG_NO_RETRY
				:: ongoing[p] || seq[p] != s -> lost = lost + LOST;
					stripe[p] = NOBODY
				:: else ->
#else
				:: true ->
#endif
					E(d, p) = seen;
					stripe[p] = NOBODY;
					break
				fi
			}
		fi
	od;
	lost = 0; s = 0; seen = 0; tried = false; result = 0
}

#define CONTENT(w, p) (w -> dev[w] : sys[p])

/* a device and its driver: says that it is at it, then looks at the entry, then uses it */
proctype Device(byte d)
{
	byte me = d, p, n = WORK, result, from, held, s, seen, lost, at, victim;
	bool evicting, tried, seen_busy;

	do
	:: n > 0 ->
		atomic {
			n--;
			if
			:: p = 0
			:: p = 1
			fi
		}
		do
		:: store_buffer[d] = true; /* "busy": others see it when the buffer is written out */
			at = E(d, p);
			if
			:: at == NONE ->
				atomic { store_buffer[d] = false; in_use[d] = false }
				device_fault(d, p)
			:: at != NONE ->
				atomic { /* the access, at any moment after the look */
					/* no stale translation: the page is where the entry says */
					assert(where[p] == at && taken_by[p] == NOBODY);
					assert(at == SYS || owner[at] == p);
					assert(CONTENT(at, p) == truth[p]);
					if
					:: version < WRITES ->
						version++;
						truth[p] = version;
						if
						:: at -> dev[at] = version
						:: else -> sys[p] = version
						fi
					:: true
					fi
				}
				atomic { at = 0; store_buffer[d] = false; in_use[d] = false; break }
			fi
		od
	:: else -> break
	od;
	done++
}

/* a thread of the program, and what serves its faults */
proctype Cpu()
{
	byte me = 3, p, n = TOUCHES, result, from, held;
	bool evicting;

	do
	:: n > 0 ->
		atomic {
			n--;
			if
			:: p = 0
			:: p = 1
			fi
		}
		do
		:: atomic {
			where[p] == SYS && taken_by[p] == NOBODY ->
			assert(sys[p] == truth[p]);
			if
			:: version < WRITES -> version++; truth[p] = version; sys[p] = version
			:: true
			fi;
			break
		   }
		:: taken_by[p] != NOBODY -> taken_by[p] == NOBODY /* its commit wakes */
		:: where[p] != SYS && taken_by[p] == NOBODY -> move(p, SYS, 0); result = 0
		od
	:: else -> break
	od;
	done++
}

/* the program drops a page (munmap and mmap, or MADV_DONTNEED), seen coming or by its event */
proctype Drop()
{
	byte me = 4, p, n = DROPS;
	bool evicting;

	do
	:: n > 0 ->
		atomic {
			n--;
			if
			:: p = 0
			:: p = 1
			fi
		}
#ifdef BUG_DROP_BEFORE_UNMAP
		ongoing[p]++;
#else
		invalidate_begin(p);
#endif
		atomic {
			if
			:: taken_by[p] != NOBODY -> taken_by[p] = NOBODY /* commit finds it gone */
			:: taken_by[p] == NOBODY && where[p] != SYS ->
				assert(owner[where[p]] == p);
				owner[where[p]] = NONE
			:: else
			fi;
			where[p] = SYS;
			sys[p] = 0;
			truth[p] = 0
		}
#ifdef BUG_DROP_BEFORE_UNMAP
		ongoing[p]--;
		invalidate_begin(p);
#endif
		invalidate_end(p)
	:: else -> break
	od;
	done++
}

init
{
	byte p, d;

	atomic {
		run Device(1);
#if NDEV > 1
		run Device(2);
#endif
		run Cpu();
		run Drop()
	}
	atomic {
		done == NDEV + 2 ->
		for (p : 0 .. (NPAGE - 1)) {
			assert(taken_by[p] == NOBODY && ongoing[p] == 0);
			assert(CONTENT(where[p], p) == truth[p]);
			assert(where[p] == SYS || owner[where[p]] == p)
		}
		for (d : 1 .. NDEV) {
			assert(owner[d] == NONE || where[owner[d]] == d) /* no place is leaked */
		}
	}
}
