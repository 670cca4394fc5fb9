/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The userfaultfd engine against the kernel and a program with threads: who has a page when.
 * README.md says which function each part is, the switches and the bugs (-DBUG_*).
 */
#include "kernel.pml"
#include "reader.pml"

/* ---- towards the device: collect_out(), copy, commit_out() ---- */

/* core_alloc_places(), then uffd_watch_range() */
inline prepare_out()
{
	atomic {
		for (i : 0 .. (NADDR - 1)) {
			st[i] = S_NOWHERE;
			for (x : 0 .. (NSLOT - 1)) {
				if
				:: !used[x] && st[i] == S_NOWHERE ->
					used[x] = true;
					to[i] = x;
					has[i] = true;
					st[i] = S_IDLE
				:: else
				fi
			}
			x = 0
		}
		i = 0
	}
	do
	:: i < NADDR ->
		atomic {
			lock == NOBODY ->
			if
			:: vma[i] && st[i] == S_IDLE -> reg[i] = true; watched[i] = true
			:: else
			fi;
			i++
		}
	:: else -> break
	od;
	i = 0
}

/* the look of collect_some() and present_run(); go: the page may be taken */
inline look_at(i)
{
	atomic {
		go = false;
		if
		:: st[i] != S_IDLE -> skip
		:: st[i] == S_IDLE ->
			if
			:: busy[i] -> st[i] = S_BUSY
			:: !busy[i] && away[i] -> st[i] = S_ALREADY
			:: !busy[i] && !away[i] && !watched[i] -> st[i] = S_NOWHERE
			:: else ->
				look_changing(i);
				if
				:: is_changing -> st[i] = S_BUSY
				:: else -> go = true
				fi;
				is_changing = false
			fi
		fi
	}
}
/* UFFDIO_MOVE into a frame */
inline take(i)
{
#ifdef BUG_LOOK_UNLOCKED
	YIELD(lock, L_OUT);
#endif
	if
	:: MOVE_REFUSED -> YIELD(lock, L_OUT)
	:: atomic {
		!MOVE_REFUSED ->
		st[i] = (pte[i] -> S_TAKEN : S_ZERO);
		frame[i] = (pte[i] -> pte[i] : ZEROS);
		pte[i] = 0;
		busy[i] = true;
		LOC(OUT, i) = (STALE_LOG -> LOC(OUT, i) : i) /* transit_take() */
	   }
	fi
}

/* the copying way: protect, read without the lock, protect again */
inline take_copy(i)
{
	if
	:: MOVE_REFUSED -> YIELD(lock, L_OUT)
	:: atomic {
		!MOVE_REFUSED ->
		wp[i] = pte[i] > 0;
		busy[i] = true;
		LOC(OUT, i) = (STALE_LOG -> LOC(OUT, i) : i); /* transit_take() */
		n = nevents[OUT];
		UNLOCK(lock)
	   }
		here = pte[i] > 0;
		if
		:: here -> frame[i] = (pte[i] -> pte[i] : ZEROS)
		:: else -> frame[i] = ZEROS
		fi;
		LOCK(lock, L_OUT);
		do
		:: MOVE_REFUSED -> YIELD(lock, L_OUT)
		:: atomic {
			!MOVE_REFUSED ->
			wp[i] = vma[i] && reg[i] && pte[i];
			if
			:: nevents[OUT] != n -> st[i] = S_UNREAD
			:: nevents[OUT] == n ->
				st[i] = (here -> S_TAKEN : S_ZERO)
			fi;
			n = 0;
			here = false;
			break
		   }
		od
	fi
}

inline copy_out()
{
	atomic {
		if
		:: fails < FAILS -> fails++; failed = true
		:: failed = false
		fi;
		for (i : 0 .. (NADDR - 1)) {
			if
			:: st[i] == S_TAKEN || st[i] == S_ZERO ->
				if
				:: failed -> st[i] = (st[i] == S_ZERO -> S_UNREAD : S_FAILED)
				:: else -> dev[to[i]] = frame[i]
				fi
			:: else
			fi
		}
		i = 0
	}
}

/* zap_run(): own MADV_DONTNEED of a page that was copied, where it is now */
inline zap_own(i)
{
	do
	:: WHERE(OUT, i) == GONE -> break
	:: WHERE(OUT, i) != GONE && hooked[WHERE(OUT, i)] ->
		UNLOCK(lock);
		atomic { lock == NOBODY && !hooked[0] -> lock = L_OUT } /* cond_wait */
	:: WHERE(OUT, i) != GONE && !hooked[WHERE(OUT, i)] ->
		atomic {
			a = WHERE(OUT, i);
			own_zap[a] = true;
			own_seen[a] = false;
			UNLOCK(lock)
		}
		atomic {
			if
			:: vma[a] && reg[a] -> changing++; sent = true
			:: else -> sent = false; pte[a] = 0
			fi
		}
		if
		:: sent -> post(2, REMOVE, a, 0); atomic { pte[a] = 0; wp[a] = false }
		:: else
		fi;
		LOCK(lock, L_OUT);
		atomic {
			own_zap[a] = false;
			own_seen[a] = false;
			sent = false;
			if
			:: WHERE(OUT, i) == GONE || WHERE(OUT, i) == a -> a = 0; break
			:: else -> a = 0
			fi
		}
	od
}

/* put_back(): until the kernel takes it, or the program has dropped it */
inline put_back(i)
{
	do
	:: WHERE(OUT, i) == GONE -> break
	:: WHERE(OUT, i) != GONE && changing > 0 -> YIELD(lock, L_OUT)
	:: atomic {
		WHERE(OUT, i) != GONE && changing == 0 ->
		assert(BUGGY || (vma[WHERE(OUT, i)] && reg[WHERE(OUT, i)] && !pte[WHERE(OUT, i)]));
		pte[WHERE(OUT, i)] = frame[i];
		wake(WHERE(OUT, i));
		break
	   }
	od
}

inline commit_page(i)
{
	if
#ifdef COPYWAY
	:: st[i] == S_TAKEN -> zap_own(i)
#else
	:: st[i] == S_FAILED -> put_back(i)
#endif
	:: else
	fi;
	atomic {
		if
		:: st[i] == S_TAKEN || st[i] == S_ZERO || st[i] == S_FAILED || st[i] == S_UNREAD ->
			if
			:: WHERE(OUT, i) == GONE -> st[i] = S_GONE
			:: WHERE(OUT, i) != GONE && (st[i] == S_TAKEN || st[i] == S_ZERO) ->
				assert(!pte[WHERE(OUT, i)] || !reg[WHERE(OUT, i)] || BUGGY);
				busy[WHERE(OUT, i)] = false;
				away[WHERE(OUT, i)] = true;
				place[WHERE(OUT, i)] = to[i];
				st[i] = S_MOVED
			:: else ->
				busy[WHERE(OUT, i)] = false;
				unprotect = true
			fi
		:: else
		fi
	}
#ifdef COPYWAY
	do
	:: unprotect && changing > 0 -> YIELD(lock, L_OUT)
	:: atomic {
		unprotect && changing == 0 ->
		if
		:: WHERE(OUT, i) != GONE -> wp[WHERE(OUT, i)] = false; wake(WHERE(OUT, i))
		:: else
		fi;
		unprotect = false
	   }
	:: !unprotect -> break
	od
#endif
}

proctype Out()
{
	byte i, w, x, a, n, rounds = NOUT;
	byte st[NADDR], frame[NADDR], to[NADDR];
	bool has[NADDR], failed, go, is_changing, here, sent, unprotect;

	do
	:: rounds > 0 ->
		rounds--;
		prepare_out();
		LOCK(lock, L_OUT);
		atomic { transit_begin(OUT) }
		do
		:: i < NADDR ->
			look_at(i);
			if
#ifdef COPYWAY
			:: go -> take_copy(i)
#else
			:: go -> take(i)
#endif
			:: else -> i++
			fi
		:: else -> break
		od;
		atomic { i = 0; go = false; UNLOCK(lock) }
		copy_out();
		LOCK(lock, L_OUT);
		do
		:: i < NADDR -> commit_page(i); i++
		:: else -> break
		od;
		atomic { i = 0; transit_end(OUT); nevents[OUT] = 0; UNLOCK(lock) }
		atomic {
			for (i : 0 .. (NADDR - 1)) {
				if
				:: has[i] && st[i] != S_MOVED -> used[to[i]] = false; dev[to[i]] = 0
				:: else
				fi;
				has[i] = false; to[i] = 0; frame[i] = 0; st[i] = 0
			}
			i = 0
		}
	:: else -> break
	od;
	done++
}

/* ---- what must hold in the end; check_read() is about the meantime ---- */

init
{
	byte i, n;

	atomic {
		vma[0] = true;
		truth[0] = ZEROS;
#if NADDR > 1 && !defined(CALL_MREMAP)
		vma[1] = true;
		truth[1] = ZEROS;
#endif
		run Thread(0, OPS0);
		run Thread(1, OPS1);
		run Out();
#if NHOME > 0
		run Home();
#else
		done++;
#endif
		run Reader()
	}
	atomic {
		done == 4 && !reader_works && !MESSAGES && lock == NOBODY ->
		for (i : 0 .. (NADDR - 1)) {
			assert(!busy[i]);
			assert(!(away[i] && pte[i]));
			assert(!away[i] || (vma[i] && used[place[i]]));
			if
			:: vma[i] ->
				n = (away[i] -> dev[place[i]] : (pte[i] -> pte[i] : ZEROS));
				assert(n == truth[i] || (maybe_zeros[i] && n == ZEROS))
			:: else
			fi
		}
		n = 0;
		for (i : 0 .. (NADDR - 1)) {
			n = n + away[i]
		}
		for (i : 0 .. (NSLOT - 1)) { n = n - used[i] }
		assert(n == 0) /* no place is leaked */
	}
}
