// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The list of engines: the first is used unless another is named. Nothing else goes here. */
#include "core/engine.h"

extern const struct engine_ops engine_uffd, engine_client, engine_sim;

const struct engine_ops *const engine_list[] = { &engine_uffd, &engine_client, &engine_sim, NULL };
