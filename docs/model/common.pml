/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Shared by the models: a mutex, and who waits for it.
 *
 * Safety is checked with the plain mutex: any order. Progress (-DFAIR) assumes of a mutex what
 * weak fairness of processes does not give: a thread that lets go of it and asks for it again does
 * not overtake for ever those who wait. `late` is who let go last to let others through.
 */
#define NOBODY 255
#define BIT(p) (1 << (p))

#ifdef FAIR
#define LOCKVAR(l) byte l = NOBODY, l##_late = NOBODY, l##_wait
#define MAY_TAKE(l, p) (l == NOBODY && !(l##_late == p && (l##_wait & ~BIT(p))))
#define LOCK(l, p)                                                                                 \
	atomic {                                                                                   \
		if                                                                                 \
		:: MAY_TAKE(l, p) -> skip                                                          \
		:: else ->                                                                         \
			l##_wait = l##_wait | BIT(p);                                              \
			MAY_TAKE(l, p);                                                            \
			l##_wait = l##_wait & ~BIT(p)                                              \
		fi;                                                                                \
		l = p;                                                                             \
		if                                                                                 \
		:: l##_late == p -> l##_late = NOBODY                                              \
		:: else -> skip                                                                    \
		fi                                                                                 \
	}
#define UNLOCK(l) l = NOBODY
#define YIELD(l, p)                                                                                \
	atomic {                                                                                   \
		l = NOBODY;                                                                        \
		l##_late = p                                                                       \
	}                                                                                          \
	LOCK(l, p)
#else
#define LOCKVAR(l) byte l = NOBODY
#define LOCK(l, p)                                                                                 \
	atomic {                                                                                   \
		l == NOBODY;                                                                       \
		l = p                                                                              \
	}
#define UNLOCK(l) l = NOBODY
#define YIELD(l, p)                                                                                \
	l = NOBODY;                                                                                \
	LOCK(l, p)
#endif
