/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Runs a fuzz target once on each file named on the command line, so that every input which ever
 * found something is a test of every build, whatever the compiler.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path)
{
	size_t n, cap = 1 << 20;
	uint8_t *buf;
	FILE *f = fopen(path, "rb");

	if (!f) {
		perror(path);
		return -1;
	}
	buf = malloc(cap);
	if (!buf) {
		fclose(f);
		return -1;
	}
	n = fread(buf, 1, cap, f);
	fclose(f);
	/* a copy of exactly n bytes: the address sanitizer sees a read past the end */
	buf = realloc(buf, n ? n : 1);
	LLVMFuzzerTestOneInput(buf, n);
	free(buf);
	return 0;
}

int main(int argc, char **argv)
{
	int i, failed = 0;

	for (i = 1; i < argc; i++)
		failed += replay(argv[i]) != 0;
	return failed != 0;
}
