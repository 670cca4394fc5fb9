/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: top.h - what the two faces of `balun top` share: lines of text, and a screen
 */
#ifndef BALUN_TOOLS_TOP_H
#define BALUN_TOOLS_TOP_H

#include "live.h"
#include "tool.h"

#define TOP_MAX 256 /* spaces */

/* one look at all, and the one before it */
struct top {
	const pid_t *pid; /* whom to look at; NULL: all of this user */
	unsigned int npids;
	uint64_t interval_ms;
	unsigned int n, nbefore;
	pid_t failed;			 /* whom an error is about */
	struct live_space *now, *before; /* TOP_MAX each */
};

/* looks: 0 or -errno. What was now becomes before */
int top_look(struct top *t);
/* says what -errno of top_look() means; returns the exit code */
int top_failed(const struct top *t, int err);
/* the same space in the look before; NULL: it is new */
const struct live_space *top_before(const struct top *t, const struct live_space *s);
/* seconds between the two looks, or since the space began */
double top_seconds(const struct live_space *s, const struct live_space *before);

/* bytes moved by cause; since @before, if that is not NULL */
enum top_way {
	TOP_OUT,
	TOP_HOME,
	TOP_BETWEEN,
	TOP_NR_WAYS
};
extern const char *const top_way_name[TOP_NR_WAYS];
uint64_t top_moved(const struct live_space *s, const struct live_space *before, enum top_way way,
		   unsigned int cause);
uint64_t top_moved_all(const struct live_space *s, const struct live_space *before,
		       enum top_way way);
/* of CPU faults since @before, or ever: what is in *ret is counts */
void top_faults(const struct live_space *s, const struct live_space *before,
		struct balun_hist *ret);

/* "12.3 us", or "-" */
struct top_time {
	char s[16];
};
struct top_time top_time(uint64_t ns);
/* "12.3M": a column is narrow */
struct top_size {
	char s[16];
};
struct top_size top_size(double bytes);

/* lines of text, the n-th; the screen has the same */
#define TOP_LINE 256
void top_head(char *line);
void top_row(const struct top *t, const struct live_space *s, char *line);
/* what there is to say of one space, line after line: false: no more */
bool top_detail(const struct top *t, const struct live_space *s, unsigned int n, char *line);

/* ncurses; EXIT_IMPOSSIBLE if this build has none */
bool top_has_screen(void);
int top_screen(struct top *t);

#endif
