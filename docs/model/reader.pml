/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Part of engine.pml: transits, events, the way home, the reader. */

/* ---- the engine's bookkeeping; lock held ---- */

inline log_event(a, b)
{
	for (x : 0 .. (3 * NADDR - 1)) {
		if
		:: transit[x / NADDR] && loc[x] == a -> loc[x] = b
		:: else
		fi
	}
	for (x : 0 .. 2) {
		if
		:: transit[x] -> nevents[x]++
		:: else
		fi
	}
	x = 0
}

inline transit_begin(m)
{
	transit[m] = true;
	waiters[m] = false;
	nevents[m] = 0;
	for (i : 0 .. (NADDR - 1)) { LOC(m, i) = i }
	i = 0
}

/* wakes who met a page in transit, wherever it is now */
inline transit_end(m)
{
	transit[m] = false;
#ifndef BUG_NO_WAKE
	if
	:: waiters[m] || nevents[m] -> for (x : 0 .. (NADDR - 1)) { wake(x) } x = 0
	:: else
	fi;
#endif
	for (i : 0 .. (NADDR - 1)) { LOC(m, i) = 0 }
	i = 0;
	waiters[m] = false
}

/* uffd_is_changing(): a quarantine ends when every thread has been seen outside the call */
inline look_changing(a)
{
	if
	:: hooked[a] -> is_changing = true
	:: !hooked[a] && quarantine[a] ->
		for (x : 0 .. (NTHREADS - 1)) {
			if
			:: !in_madvise[x] -> cleared[a] = cleared[a] | BIT(x)
			:: else
			fi
		}
		x = 0;
		if
		:: cleared[a] == 3 -> quarantine[a] = false; cleared[a] = 0; is_changing = false
		:: else -> is_changing = true
		fi
	:: else -> is_changing = false
	fi
}

/* on_unmap(), on_remove() up to where the lock is let go of */
inline drop_begin(a)
{
	busy[a] = away[a]; /* dying; what is in transit there is nobody's any more */
	log_event(a, GONE);
	handling++
}

inline drop_end(a)
{
	if
	:: away[a] && busy[a] ->
		assert(used[place[a]]);
		used[place[a]] = false;
		dev[place[a]] = 0;
		away[a] = false;
		busy[a] = false;
		place[a] = 0
	:: else
	fi;
	wake(a);
	handling--
}

inline on_event()
{
	if
	:: what == UNMAP -> watched[ea] = false; drop_begin(ea)
	:: what == REMOVE && own_zap[ea] && !own_seen[ea] -> own_seen[ea] = true; what = 0
	:: what == REMOVE && !(own_zap[ea] && !own_seen[ea]) ->
#ifndef BUG_TRAP5
		if
		:: !hooked[ea] -> quarantine[ea] = true; cleared[ea] = 0
		:: else
		fi;
#endif
		drop_begin(ea)
	:: what == REMAP ->
		watched[ea] = false; watched[eb] = true;
		away[eb] = away[ea]; away[ea] = false;
		busy[eb] = busy[ea]; busy[ea] = false;
		place[eb] = place[ea]; place[ea] = 0;
		log_event(ea, eb);
		handling++
	fi
}

inline drain()
{
	LOCK(lock, L_READER);
	do
	:: atomic {
		fault[0] == 1 || fault[1] == 1 ->
		if
		:: fault[0] == 1 -> x = 0
		:: fault[1] == 1 -> x = 1
		fi;
		fault[x] = 2;
		if
		:: fault_wp[x] -> pending_wp[fault_at[x]]++
		:: else -> pending[fault_at[x]]++
		fi;
		x = 0
	   }
	:: atomic {
		fault[0] != 1 && fault[1] != 1 && len(events) > 0 ->
#ifdef BUG_TRAP3
		UNLOCK(lock);
#endif
		events ? what, ea, eb, et;
		let_go[et] = true;
		et = 0
#ifdef BUG_TRAP3
	   }
	   atomic {
		lock == NOBODY ->
#else
		;
#endif
		on_event();
		UNLOCK(lock)
	   }
	   if
	   :: what -> /* here the devices are made to forget the range, without the lock */
		LOCK(lock, L_READER);
		atomic {
			if
			:: what == REMAP -> handling--; wake(ea)
			:: else -> drop_end(ea)
			fi;
			what = 0; ea = 0; eb = 0
		}
	   :: else -> LOCK(lock, L_READER); atomic { ea = 0; eb = 0 }
	   fi
	:: atomic { else -> UNLOCK(lock); break }
	od
}

/* uffd_yield_to_events() */
inline yield(m, l)
{
	if
	:: m == READER -> UNLOCK(lock); drain(); LOCK(lock, l)
	:: else -> YIELD(lock, l)
	fi
}

/* ---- the deliberate bugs that are expressions ---- */

#ifdef BUG_NO_REPLAY
#define WHERE(m, i) i
#else
#define WHERE(m, i) LOC(m, i)
#endif
#if defined(BUG_NO_REPLAY) || defined(BUG_TRAP2) || defined(BUG_LOOK_UNLOCKED) || defined(BUG_TRAP3)
#define BUGGY 1 /* what must be found is its effect on the program */
#else
#define BUGGY 0
#endif
#define IGNORE_EAGAIN 0
#ifdef BUG_ZAP_FAULT
#define HELD(a) false
#else
#define HELD(a) own_zap[a] /* what is written now our own discard would drop */
#endif
#ifdef BUG_STALE_LOG
#define STALE_LOG 1
#else
#define STALE_LOG 0
#endif
#ifdef BUG_TRAP2
#define MOVE_REFUSED 0 /* frames watched by another context, or none: no EAGAIN */
#else
#define MOVE_REFUSED (changing > 0)
#endif


/* ---- home: collect_home(), copy, commit_home() of the pages in want ---- */

#define S_IDLE	   0
#define S_TAKEN	   1
#define S_ZERO	   2 /* taken: a hole */
#define S_BUSY	   3
#define S_ALREADY  4
#define S_FAILED   5
#define S_MOVED	   6
#define S_GONE	   7
#define S_UNREAD   8 /* taken, but not read (the copying way) */
#define S_NOWHERE  9 /* no place, not watched */

inline home(m, l)
{
	LOCK(lock, l);
	atomic {
		transit_begin(m);
		for (i : 0 .. (NADDR - 1)) {
			if
			:: want[i] && away[i] && !busy[i] ->
				origin[i] = place[i];
				away[i] = false;
				place[i] = 0;
				busy[i] = true;
				st[i] = S_TAKEN
			:: want[i] && busy[i] -> st[i] = S_BUSY
			:: want[i] && !busy[i] && !away[i] -> st[i] = S_ALREADY
			:: else
			fi
		}
		i = 0;
		UNLOCK(lock)
	}
	atomic {
		if
		:: fails < FAILS -> fails++; failed = true
		:: failed = false
		fi;
		for (i : 0 .. (NADDR - 1)) {
			if
			:: st[i] == S_TAKEN && failed -> st[i] = S_FAILED
			:: st[i] == S_TAKEN && !failed ->
				assert(used[origin[i]] && dev[origin[i]]);
				frame[i] = dev[origin[i]]
			:: else
			fi
		}
		i = 0
	}
	LOCK(lock, l);
	do
	:: atomic { i < NADDR && st[i] != S_TAKEN && st[i] != S_FAILED -> i++ }
	:: atomic { i < NADDR && (st[i] == S_TAKEN || st[i] == S_FAILED) && WHERE(m, i) == GONE -> st[i] = S_GONE; i++ }
	:: atomic {
		i < NADDR && st[i] == S_FAILED && WHERE(m, i) != GONE ->
		/* restore_home() */
		busy[WHERE(m, i)] = false;
		away[WHERE(m, i)] = true;
		place[WHERE(m, i)] = origin[i];
		i++
	   }
	:: i < NADDR && st[i] == S_TAKEN && WHERE(m, i) != GONE ->
		if
		:: atomic {
			changing == 0 || IGNORE_EAGAIN ->
			a = WHERE(m, i);
			if
			:: vma[a] && reg[a] && !pte[a] ->
				pte[a] = frame[i];
				wake(a);
				busy[a] = false;
				st[i] = S_MOVED
			:: else ->
				assert(BUGGY); /* nothing else can be there */
				busy[a] = false; away[a] = true; place[a] = origin[i];
				st[i] = S_BUSY
			fi;
			a = 0;
			i++
		   }
		:: changing > 0 && !IGNORE_EAGAIN -> yield(m, l)
		fi
	:: else -> break
	od;
	atomic {
		i = 0;
		transit_end(m);
		UNLOCK(lock)
	}
	/* settle(): places that nobody needs */
	atomic {
		for (i : 0 .. (NADDR - 1)) {
			if
			:: st[i] == S_MOVED || st[i] == S_GONE ->
				assert(used[origin[i]]);
				used[origin[i]] = false;
				dev[origin[i]] = 0
			:: else
			fi;
			frame[i] = 0;
			origin[i] = 0
		}
		i = 0
	}
}

proctype Home()
{
	byte i, w, x, a, rounds = NHOME;
	byte st[NADDR], frame[NADDR], origin[NADDR];
	bool want[NADDR], failed;
	mtype what; byte ea, eb, et; /* never used here */

	do
	:: rounds > 0 ->
		atomic { rounds--; for (i : 0 .. (NADDR - 1)) { want[i] = true } i = 0 }
		home(HOME, L_HOME);
		atomic { for (i : 0 .. (NADDR - 1)) { st[i] = 0 } i = 0 }
	:: else -> break
	od;
	done++
}

/* ---- the reader ---- */

/* core_cpu_fault(): the page that was touched alone */
inline cpu_fault(pa)
{
	atomic { want[pa] = true }
	home(READER, L_READER);
	atomic {
		result = st[pa];
		want[pa] = false;
		for (i : 0 .. (NADDR - 1)) { st[i] = 0 }
		i = 0
	}
}

/* serve_fault(); sets again when an event was in the way */
inline serve(pa, protect)
{
	LOCK(lock, L_READER);
	if
	:: atomic {
		busy[pa] || HELD(pa) -> /* its commit wakes */
		for (x : 0 .. 2) { waiters[x] = transit[x] }
		x = 0;
		UNLOCK(lock)
	   }
	:: !busy[pa] && !HELD(pa) && protect ->
		do
		:: atomic { changing == 0 -> wp[pa] = false; wake(pa); UNLOCK(lock); break }
		:: changing > 0 -> yield(READER, L_READER)
		od
	:: atomic {
		!busy[pa] && !HELD(pa) && !protect && !away[pa] ->
		if
		:: changing > 0 ->
#ifndef BUG_FAULT_DROPPED
			again = true
#endif
		:: changing == 0 ->
			if
			:: vma[pa] && reg[pa] && !pte[pa] -> pte[pa] = ZEROS
			:: else
			fi;
			wake(pa)
		fi;
		UNLOCK(lock)
	   }
	:: atomic { !busy[pa] && !protect && away[pa] -> UNLOCK(lock) }
		cpu_fault(pa);
		atomic {
			if
			:: result == S_BUSY || result == S_FAILED -> again = true
			:: else ->
				if
				:: nevents[READER] -> wake(pa) /* came home by another way */
				:: else
				fi
			fi;
			nevents[READER] = 0;
			result = 0
		}
	fi
}

proctype Reader()
{
	byte i, w, x, a, p, result;
	byte st[NADDR], frame[NADDR], origin[NADDR];
	bool want[NADDR], failed, again, wp_fault;
	mtype what; byte ea, eb, et;

end:	do
	:: atomic { MESSAGES -> reader_works = true }
		drain();
		do
		:: atomic {
			if
			:: pending[0] -> p = 0; wp_fault = false
			:: pending_wp[0] -> p = 0; wp_fault = true
#if NADDR > 1
			:: pending[1] -> p = 1; wp_fault = false
			:: pending_wp[1] -> p = 1; wp_fault = true
#endif
			:: else -> break
			fi
		   }
			again = true;
			do
			:: again ->
				again = false;
				serve(p, wp_fault);
				if
				:: again -> drain()
				:: else
				fi
			:: else -> break
			od;
			atomic {
				if
				:: wp_fault -> pending_wp[p]--
				:: else -> pending[p]--
				fi;
				p = 0;
				wp_fault = false
			}
		od;
		reader_works = false
	od
}
