/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Device specs: any text parses to options that can be read, or is refused with a reason. */
#include "core/spec.h"
#include "env/env.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_level(const struct balun_options *opt)
{
	static const char *const key[] = { "mem", "delay", "workers", "nth" };
	uint64_t v;
	size_t i;

	env_assert(spec_name(opt)[0]);
	for (i = 0; i < sizeof(key) / sizeof(key[0]); i++) {
		if (balun_opt_size(opt, key[i], 7, &v))
			env_assert(balun_reason()[0]);
		if (balun_opt_time(opt, key[i], 7, &v))
			env_assert(balun_reason()[0]);
		balun_opt_str(opt, key[i], "");
	}
	spec_check_used(opt, "mem=1M  memory\n");
	for (opt = spec_inner(opt); opt; opt = spec_next(opt))
		read_level(opt);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct balun_options *opt;
	char text[1024];
	int rc;

	if (size >= sizeof(text))
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	rc = spec_parse(text, &opt);
	if (rc) {
		env_assert(balun_reason()[0]);
		return 0;
	}
	env_assert(!spec_next(opt));
	read_level(opt);
	spec_free(opt);
	return 0;
}
