/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Inputs to start from: traffic of the mock driver in every format and kind of memory, recorded
 * when it is asked for, so that it is right whatever the format of inputs is. One thread.
 */

#ifndef FUZZ_SEEDS_H
#define FUZZ_SEEDS_H

#include "fuzz_input.h"

typedef void (*seed_fn)(void *arg, const char *name, const uint8_t *data, size_t size);

/* The targets: heads with records for one ring format, or with guest memory of both. */
enum fuzz_target { FUZZ_SPLIT, FUZZ_PACKED_RING, FUZZ_RAW };

void fuzz_seeds(enum fuzz_target target, seed_fn fn, void *arg);

#endif /* FUZZ_SEEDS_H */
