/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Queues that cost as much as a queue can: for the test that bounds what a turn does, and for
 * devtools/bench_fair.py, which measures what is left for others. The rings are written by hand and
 * always full: what comes back is made available again, whatever it is.
 */

#ifndef HOSTILE_H
#define HOSTILE_H

#include <inttypes.h>

#include "fn_harness.h"

struct hostile {
	const char *name;
	struct guest_conf conf;
	void (*lay)(struct guest *g);
	bool stands; /* its receive queue gets no buffers */
	/* At most so much is counted in one turn of its poller, 0: not known. */
	uint64_t per_turn;
	unsigned int stat;
	unsigned int queue; /* that counts it */
};

extern const struct hostile hostiles[];
extern const unsigned int nb_hostiles;

/* cpu: of its poller, NULL: none. */
struct guest *hostile_open(const struct hostile *h, const unsigned int *cpu);
/* The other side's turn. */
void hostile_pump(struct guest *g, const struct hostile *h);

/* One that is not: frames of len bytes go round. */
struct guest *honest_open(const char *name, uint32_t len, const unsigned int *cpu);
void honest_pump(struct guest *g);

#endif /* HOSTILE_H */
