// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * `balun trace --plot`: moves by time and address. The picture is a grid of cells, however long the
 * trace is: time goes to the right, addresses go up by blocks of 2 MiB, and only those in which
 * something moved have a row. The colour of a cell is the way that most bytes in it went, its
 * darkness how many.
 */
#include "trace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS 900
#define ROWS	500 /* at most */
#define LEFT	150
#define TOP	60
#define BELOW	60
#define RIGHT	30
#define NR_WAYS 4

/* a move, as it stands in the file */
struct move {
	uint64_t ns, block; /* since the first event; number of the block, and of the process */
	uint32_t pid, bytes;
	uint8_t way;
};

static const struct {
	const char *name, *colour, *what;
} ways[NR_WAYS] = {
	{ "migrate out", "#1f6fb4", "to a device" },
	{ "migrate home", "#d1495b", "home, because a CPU touched it" },
	{ NULL, "#edae49", "home, ahead of use or for another reason" },
	{ "migrate on", "#3a7d44", "from one device to another" },
};

struct plot {
	struct move *move;
	size_t n, room;
	uint64_t last_ns;
	/* rows: (pid, block), sorted */
	struct row {
		uint32_t pid;
		uint64_t block;
	} * row;
	size_t rows;
	unsigned int height; /* of the grid */
	uint64_t cell[NR_WAYS][COLUMNS][ROWS];
};

/* ---- the file ---- */

/* the text behind "KEY": in a line, or NULL */
static const char *find(const char *line, const char *key)
{
	const char *at = strstr(line, key);

	return at ? at + strlen(key) : NULL;
}

static bool parse_move(const char *line, struct move *m)
{
	const char *pid = find(line, "\"pid\":"), *ts = find(line, "\"ts\":");
	const char *name = find(line, "\"name\":\""), *addr = find(line, "\"addr\":\"");
	const char *bytes = find(line, "\"bytes\":"), *cause = find(line, "\"cause\":\"");
	unsigned long long us, ns;

	if (!pid || !ts || !name || !addr || !bytes || !cause ||
	    sscanf(ts, "%llu.%3llu", &us, &ns) != 2)
		return false;
	m->ns = us * 1000 + ns;
	m->pid = strtoul(pid, NULL, 10);
	m->block = strtoull(addr, NULL, 16) >> BALUN_BLOCK_SHIFT;
	m->bytes = strtoul(bytes, NULL, 10);
	for (m->way = 0; m->way < NR_WAYS; m->way++)
		if (ways[m->way].name &&
		    !strncmp(name, ways[m->way].name, strlen(ways[m->way].name)))
			break;
	if (m->way == 1 && strncmp(cause, "cpu-fault", 9))
		m->way = 2;
	return m->way < NR_WAYS;
}

static int add(struct plot *p, const struct move *m)
{
	if (p->n == p->room) {
		size_t room = p->room ? 2 * p->room : 4096;
		struct move *more = realloc(p->move, room * sizeof(*more));

		if (!more)
			return -ENOMEM;
		p->move = more;
		p->room = room;
	}
	p->move[p->n++] = *m;
	p->last_ns = m->ns > p->last_ns ? m->ns : p->last_ns;
	return 0;
}

/* 0; -EINVAL not one of ours; -errno */
static int load(struct plot *p, const char *path)
{
	FILE *f = fopen(path, "re");
	char *line = NULL;
	size_t room = 0;
	int err = 0;
	bool ours;

	if (!f)
		return -errno;
	ours = getline(&line, &room, f) > 0 && strstr(line, "\"traceEvents\":[");
	while (ours && !err && getline(&line, &room, f) > 0) {
		struct move m;

		if (!strstr(line, "\"cat\":\"migrate\""))
			continue;
		err = parse_move(line, &m) ? add(p, &m) : -EINVAL;
	}
	free(line);
	fclose(f);
	return ours ? err : -EINVAL;
}

/* ---- the grid ---- */

static int by_row(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	if (x->pid != y->pid)
		return x->pid < y->pid ? -1 : 1;
	return x->block < y->block ? -1 : x->block > y->block;
}

static int make_rows(struct plot *p)
{
	size_t i, n = 0;

	p->row = calloc(p->n + 1, sizeof(*p->row));
	if (!p->row)
		return -ENOMEM;
	for (i = 0; i < p->n; i++)
		p->row[i] = (struct row){ p->move[i].pid, p->move[i].block };
	qsort(p->row, p->n, sizeof(*p->row), by_row);
	for (i = 0; i < p->n; i++)
		if (!n || by_row(&p->row[n - 1], &p->row[i]))
			p->row[n++] = p->row[i];
	p->rows = n;
	/* few blocks are drawn thick */
	p->height = n > ROWS ? ROWS : n ? ROWS / n * n : ROWS;
	return 0;
}

/* the row of the grid that is the lower end of block number @i */
static unsigned int row_y(const struct plot *p, size_t i)
{
	return i * p->height / p->rows;
}

static void fill(struct plot *p)
{
	size_t i;

	for (i = 0; i < p->n; i++) {
		const struct move *m = &p->move[i];
		const struct row key = { m->pid, m->block };
		const struct row *r = bsearch(&key, p->row, p->rows, sizeof(key), by_row);
		unsigned int x = p->last_ns ? (double)m->ns * (COLUMNS - 1) / p->last_ns : 0;

		p->cell[m->way][x][row_y(p, r - p->row)] += m->bytes;
	}
}

/* ---- the picture ---- */

static unsigned int way_of(const struct plot *p, unsigned int x, unsigned int y, uint64_t *ret_sum)
{
	unsigned int i, most = 0;

	*ret_sum = 0;
	for (i = 0; i < NR_WAYS; i++) {
		*ret_sum += p->cell[i][x][y];
		if (p->cell[i][x][y] > p->cell[most][x][y])
			most = i;
	}
	return most;
}

/* four shades: up to 64 KiB, 512 KiB, 2 MiB, and more, in a cell */
static unsigned int shade(uint64_t bytes)
{
	return bytes <= 64 << 10 ? 0 : bytes <= 512 << 10 ? 1 : bytes <= 2 << 20 ? 2 : 3;
}

static void draw_cells(const struct plot *p, FILE *f)
{
	unsigned int x, y, end, thick = p->rows && p->rows < p->height ? p->height / p->rows : 1;
	uint64_t sum, next;

	for (y = 0; y < p->height; y++) {
		for (x = 0; x < COLUMNS; x = end) {
			unsigned int way = way_of(p, x, y, &sum);

			for (end = x + 1; end < COLUMNS; end++)
				if (way_of(p, end, y, &next) != way || !next != !sum ||
				    shade(next) != shade(sum))
					break;
			if (sum)
				fprintf(f,
					"<rect class=\"w%u s%u\" x=\"%u\" y=\"%u\" width=\"%u\" "
					"height=\"%u\"/>\n",
					way, shade(sum), LEFT + x, TOP + p->height - y - thick,
					end - x, thick);
		}
	}
}

/* an address where a gap comes before it, and where another process begins */
static void draw_rows(const struct plot *p, FILE *f)
{
	unsigned int last = 0, y;
	size_t i;

	for (i = 0; i < p->rows; i++) {
		const struct row *r = &p->row[i];
		bool process = !i || r->pid != r[-1].pid;

		y = TOP + p->height - row_y(p, i);
		if (!process && (r->block == r[-1].block + 1 || last - y < 14))
			continue;
		if (process && i)
			fprintf(f, "<path d=\"M%u %uh%u\" stroke=\"#888\"/>\n", LEFT, y, COLUMNS);
		if (!i || last - y >= 14 || process)
			fprintf(f,
				"<text x=\"%u\" y=\"%u\" text-anchor=\"end\">%s%.0u 0x%" PRIx64
				"</text>\n",
				LEFT - 6, y, process ? "process " : "", process ? r->pid : 0,
				r->block << BALUN_BLOCK_SHIFT);
		last = y;
	}
}

static void draw_times(const struct plot *p, FILE *f)
{
	unsigned int i, x;

	for (i = 0; i <= 5; i++) {
		x = LEFT + i * COLUMNS / 5;
		fprintf(f, "<path d=\"M%u %uv5\" stroke=\"#444\"/>\n", x, TOP + p->height);
		fprintf(f, "<text x=\"%u\" y=\"%u\" text-anchor=\"middle\">%.3f s</text>\n", x,
			TOP + p->height + 18, p->last_ns * (i / 5.0) / 1e9);
	}
}

static void draw(const struct plot *p, FILE *f)
{
	unsigned int i, x = LEFT;

	fprintf(f,
		"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" "
		"font-family=\"sans-serif\" font-size=\"11\">\n<style>",
		LEFT + COLUMNS + RIGHT, TOP + p->height + BELOW);
	for (i = 0; i < NR_WAYS; i++)
		fprintf(f, ".w%u{fill:%s}", i, ways[i].colour);
	fputs(".s0{opacity:.35}.s1{opacity:.55}.s2{opacity:.8}.s3{opacity:1}</style>\n"
	      "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
	      f);
	fprintf(f,
		"<text x=\"%u\" y=\"20\" font-size=\"14\">%zu moves by time and address, in "
		"blocks of 2 MiB</text>\n",
		LEFT, p->n);
	for (i = 0; i < NR_WAYS; x += 36 + 6 * strlen(ways[i].what), i++)
		fprintf(f,
			"<rect class=\"w%u\" x=\"%u\" y=\"32\" width=\"12\" height=\"12\"/>"
			"<text x=\"%u\" y=\"42\">%s</text>\n",
			i, x, x + 16, ways[i].what);
	fprintf(f,
		"<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" fill=\"none\" "
		"stroke=\"#ccc\"/>\n",
		LEFT, TOP, COLUMNS, p->height);
	draw_cells(p, f);
	draw_rows(p, f);
	draw_times(p, f);
	fputs("</svg>\n", f);
}

static int write_svg(const struct plot *p, const char *path)
{
	FILE *f = fopen(path, "we");
	int err;

	if (!f)
		return -errno;
	draw(p, f);
	err = ferror(f) ? -EIO : 0;
	return fclose(f) ? -errno : err;
}

int trace_plot(const char *in, const char *out)
{
	struct plot *p = calloc(1, sizeof(*p));
	int err = p ? load(p, in) : -ENOMEM;

	if (err) {
		tool_error("trace", "%s: %s", in,
			   err == -EINVAL ? "not a file that balun trace has written"
					  : strerror(-err));
	} else {
		err = make_rows(p);
		if (!err) {
			fill(p);
			err = write_svg(p, out);
		}
		if (err)
			tool_error("trace", "%s: %s", out, strerror(-err));
	}
	if (p) {
		free(p->move);
		free(p->row);
	}
	free(p);
	return !err ? EXIT_OK : err == -ENOMEM ? EXIT_DIFFERS : EXIT_USAGE;
}
