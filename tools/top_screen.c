// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * `balun top` on a terminal: a table of processes, and below it what there is to say of the one
 * that is chosen. Without ncurses in the build there is none, and lines are written instead.
 */
#include "top.h"

#ifndef BALUN_HAVE_NCURSES

bool top_has_screen(void)
{
	return false;
}

int top_screen(struct top *t)
{
	(void)t;
	tool_error("top", "this build has no screen: install the package libncurses-dev and build "
			  "again");
	return EXIT_IMPOSSIBLE;
}

#else

#include <ncurses.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* by process, for the table is made anew at each look */
static pid_t chosen_pid;
static uint32_t chosen_nth;

static unsigned int chosen(const struct top *t)
{
	unsigned int i;

	for (i = 0; i < t->n; i++)
		if (t->now[i].pid == chosen_pid && t->now[i].nth == chosen_nth)
			return i;
	return 0;
}

static void choose(const struct top *t, unsigned int i)
{
	if (i >= t->n)
		return;
	chosen_pid = t->now[i].pid;
	chosen_nth = t->now[i].nth;
}

static void put(int y, const char *line, int attr)
{
	if (y >= LINES)
		return;
	attron(attr);
	mvaddnstr(y, 0, line, COLS);
	if (attr & A_REVERSE)
		hline(' ', COLS);
	attroff(attr);
}

static void title(const struct top *t, char *line)
{
	uint64_t resident = 0, away = 0;
	char clock[16] = "";
	unsigned int i;
	time_t now = time(NULL);
	struct tm tm;

	for (i = 0; i < t->n; i++) {
		resident += t->now[i].nth ? 0 : t->now[i].resident;
		away += live_away(&t->now[i].look);
	}
	if (localtime_r(&now, &tm))
		strftime(clock, sizeof(clock), "%H:%M:%S", &tm);
	snprintf(line, TOP_LINE, "balun top %s   %u %s, %s in RAM, %s on devices", clock, t->n,
		 t->n == 1 ? "space" : "spaces", tool_size(resident).s, tool_size(away).s);
}

/* the table has the upper half, or less; it scrolls so that the chosen row is seen */
static void draw(const struct top *t)
{
	unsigned int rows = LINES > 6 ? (LINES - 2) / 2 : 1, pick = chosen(t), first, i;
	char line[TOP_LINE];
	int y = 2;

	erase();
	title(t, line);
	put(0, line, A_BOLD);
	top_head(line);
	put(1, line, A_UNDERLINE);
	rows = rows < t->n ? rows : t->n;
	first = pick < rows ? 0 : pick - rows + 1;
	for (i = first; i < first + rows; i++) {
		top_row(t, &t->now[i], line);
		put(y++, line, i == pick ? A_REVERSE : 0);
	}
	if (!t->n)
		put(3, "no process of this user has Balun", 0);
	for (i = 0, y++; t->n && y < LINES && top_detail(t, &t->now[pick], i, line); i++, y++)
		put(y, line, i ? 0 : A_BOLD);
	refresh();
}

static int64_t now_ms(void)
{
	return tool_now_ns() / 1000000;
}

/* until the next look is due; false: the end */
static bool keys(const struct top *t)
{
	int64_t end = now_ms() + t->interval_ms, left;

	while ((left = end - now_ms()) > 0) {
		unsigned int pick = chosen(t);

		timeout(left);
		switch (getch()) {
		case 'q':
		case 'Q':
		case 27:
			return false;
		case KEY_UP:
		case 'k':
			choose(t, pick ? pick - 1 : 0);
			break;
		case KEY_DOWN:
		case 'j':
			choose(t, pick + 1);
			break;
		case ' ':
			return true;
		}
		draw(t);
	}
	return true;
}

bool top_has_screen(void)
{
	const char *term = getenv("TERM");

	return term && *term && strcmp(term, "dumb");
}

int top_screen(struct top *t)
{
	int err = top_look(t);
	SCREEN *s;

	if (err)
		return top_failed(t, err);
	s = newterm(NULL, stdout, stdin);
	if (!s) {
		tool_error("top", "this terminal is not known: TERM is \"%s\"", getenv("TERM"));
		return EXIT_IMPOSSIBLE;
	}
	cbreak();
	noecho();
	curs_set(0);
	keypad(stdscr, TRUE);
	set_escdelay(25);
	choose(t, 0);
	do {
		draw(t);
		if (!keys(t))
			break;
		err = top_look(t);
	} while (!err);
	endwin();
	delscreen(s);
	return err ? top_failed(t, err) : EXIT_OK;
}
#endif
