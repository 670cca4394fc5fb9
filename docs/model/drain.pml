/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Everything comes home: before a fork (FORK) and when a device is closed (CLOSE), while other
 * threads migrate to and fro. README.md says which function each part is and the bugs (-DBUG_*).
 */
#ifndef ROUNDS
#define ROUNDS 2 /* migrations of each mover; forks */
#endif
#ifndef FORKS
#define FORKS 2
#endif
#ifndef NPAGE
#define NPAGE 1
#endif
#define NOBODY 255
#define HOME(p) (!away[p] && taken_by[p] == NOBODY)
#if NPAGE > 1
#define ALL_HOME (HOME(0) && HOME(1))
#define SECOND	 1
#else
#define ALL_HOME HOME(0)
#define SECOND	 0
#endif

bool away[NPAGE];
byte taken_by[NPAGE] = NOBODY;
byte sys[NPAGE], dev[NPAGE], truth[NPAGE], version;

/* struct balun_space: all of it changes under move_lock, which is a leaf */
byte epoch, moves[2], moves_out, paused;
/* struct balun_device */
bool published = true, alive = true, closing;
byte users;
byte done;

/* core_move_block() of one page; out: to the device */
inline move(p, out)
{
	atomic { /* move_begin(), core_device_get() */
		if
		:: out && paused -> begun = false
		:: !(out && paused) ->
			mine = epoch;
			moves[mine]++;
			moves_out = moves_out + out;
			begun = true
		fi
	}
	if
	:: begun ->
		atomic {
			got = out && published && !closing;
			if
			:: got -> users++
			:: else
			fi
		}
		if
		:: got || !out ->
			atomic { /* collect */
				if
				:: taken_by[p] == NOBODY && away[p] != out ->
					taken_by[p] = _pid;
					taken = true
				:: else -> taken = false
				fi
			}
			if
			:: taken ->
				assert(alive); /* copy: a driver's function */
				atomic { /* commit */
					assert(alive && taken_by[p] == _pid);
					if
					:: out -> dev[p] = sys[p]; sys[p] = 0
					:: else -> sys[p] = dev[p]; dev[p] = 0
					fi;
					away[p] = out;
					taken_by[p] = NOBODY;
					taken = false
				}
				assert(alive) /* settle(): places of the device */
			:: else
			fi
		:: else
		fi;
		atomic {
			if
			:: got -> users--; got = false
			:: else
			fi
		}
		atomic { moves[mine]--; moves_out = moves_out - out; mine = 0 } /* move_end() */
	:: else
	fi;
	begun = false
}

/* core_bring_home(): engine next_away(), which also tells of pages in transit */
inline bring_home()
{
	do
	:: away[0] && taken_by[0] == NOBODY -> move(0, false)
	:: taken_by[0] != NOBODY -> taken_by[0] == NOBODY /* wait_idle() */
#if NPAGE > 1
	:: away[1] && taken_by[1] == NOBODY -> move(1, false)
	:: taken_by[1] != NOBODY -> taken_by[1] == NOBODY
#endif
	:: ALL_HOME -> break
	od
}

/* migrates to the device and home again, as programs and CPU faults do */
proctype Mover(bool out)
{
	byte n = ROUNDS, p, mine;
	bool begun, got, taken;

	do
	:: n > 0 ->
		atomic {
			n--;
			if
			:: p = 0
			:: p = SECOND
			fi
		}
		move(p, out)
	:: else -> break
	od;
	done++
}

/* a thread of the program writes to what is at home */
proctype Writer()
{
	byte p;

	do
	:: version < 2 ->
		if
		:: p = 0
		:: p = SECOND
		fi;
		if
		:: atomic {
			!away[p] && taken_by[p] == NOBODY ->
			assert(sys[p] == truth[p]);
			version++;
			sys[p] = version;
			truth[p] = version
		   }
		:: away[p] || taken_by[p] != NOBODY -> break
		fi
	:: else -> break
	od;
	done++
}

#ifdef FORK
/* core_quiesce(), the kernel copies the address space, core_resume() */
proctype Forker()
{
	byte n = FORKS, mine;
	bool begun, got, taken;

	do
	:: n > 0 ->
		n--;
		paused++;
#ifndef BUG_FORK_NO_WAIT
		moves_out == 0;
#endif
		bring_home();
		atomic { /* the child has every byte, in ordinary memory of its own */
			assert(ALL_HOME);
			assert(sys[0] == truth[0] && sys[SECOND] == truth[SECOND])
		}
		paused--
	:: else -> break
	od;
	done++
}
#endif

#ifdef CLOSE
/* core_moves_synchronize() */
inline synchronize()
{
	atomic { moves[1 - epoch] == 0 -> mine = epoch; epoch = 1 - mine }
	moves[mine] == 0;
	mine = 0
}

/* core_device_end() */
proctype Closer()
{
	byte mine;
	bool begun, got, taken;

	closing = true;
#ifndef BUG_CLOSE_NO_USERS
	users == 0;
#endif
	bring_home();
#ifndef BUG_CLOSE_NO_SYNC
	synchronize();
#endif
	published = false;
	atomic { /* nothing is lost, nobody uses it any more */
		assert(!away[0] && !away[SECOND]);
		alive = false
	}
	done++
}
#endif

init
{
	atomic {
		run Mover(true);
		run Mover(true);
		run Mover(false);
		run Writer();
#ifdef FORK
		run Forker();
#endif
#ifdef CLOSE
		run Closer()
#endif
	}
	atomic {
		done == 5 ->
		assert(!moves[0] && !moves[1] && !moves_out && !paused && !users);
		assert((away[0] -> dev[0] : sys[0]) == truth[0]);
		assert((away[SECOND] -> dev[SECOND] : sys[SECOND]) == truth[SECOND])
	}
}
