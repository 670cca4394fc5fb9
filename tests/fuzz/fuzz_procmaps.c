/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The text of /proc/PID/maps, as it is read piece by piece into a small buffer, against a plain
 * loop over all of it. The input: a byte that chooses the sizes of pieces, an address, the text.
 */
#include "engine/uffd/uffd.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct source {
	const char *text;
	size_t left;
	unsigned int step;
};

static ssize_t more(void *arg, void *buf, size_t len)
{
	struct source *s = arg;
	size_t n = ENV_MIN(ENV_MIN((size_t)s->step, len), s->left);

	memcpy(buf, s->text, n);
	s->text += n;
	s->left -= n;
	return n;
}

/* each line that ends, or as much of it as fits into the buffer */
static bool find(const char *text, size_t size, uint64_t va, struct vma *ret)
{
	char line[MAPS_TEXT_BUF];
	size_t n;

	for (; size; text += n + 1, size -= n + 1) {
		const char *nl = memchr(text, '\n', size);

		n = nl ? (size_t)(nl - text) : size;
		if (!nl && n < sizeof(line) - 1)
			return false;
		memcpy(line, text, ENV_MIN(n, sizeof(line) - 1));
		line[ENV_MIN(n, sizeof(line) - 1)] = 0;
		if (maps_parse_line(line, ret) && ret->end > va)
			return true;
		if (!nl)
			return false;
	}
	return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct source s = { .text = (const char *)data + 9 };
	struct vma got, want;
	uint64_t va;
	bool found;

	if (size < 9)
		return 0;
	s.left = size - 9;
	s.step = data[0] ? data[0] : MAPS_TEXT_BUF;
	memcpy(&va, data + 1, sizeof(va));
	memset(&got, 0, sizeof(got));
	memset(&want, 0, sizeof(want));
	found = find(s.text, s.left, va, &want);
	env_assert((maps_find_text(more, &s, va, &got) == 0) == found);
	if (found)
		env_assert(got.start == want.start && got.end == want.end &&
			   got.read == want.read && got.write == want.write &&
			   got.shared == want.shared && got.file == want.file &&
			   got.special == want.special);
	return 0;
}
