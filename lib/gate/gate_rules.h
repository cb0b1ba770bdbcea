/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Rules of the judge, by what they are about. Pure functions; each returns NULL or what is wrong,
 * and changes the state only if nothing is.
 */

#ifndef GATE_RULES_H
#define GATE_RULES_H

#include "gate_judge.h"

/** The message that is judged. */
struct gate_case {
	const struct gate_offer *offer;
	struct gate_state *state;
	const struct gate_message *msg;
	const struct gate_fd *fds;
	unsigned int nb_fds;
	struct gate_judgement *j;
};

static inline bool
gate_has(uint64_t bits, unsigned int bit)
{
	return bit >= 64 || (bits >> bit & 1) != 0;
}

/* gate_memory.c */
const char *gate_rule_mem_table(const struct gate_case *c);
const char *gate_rule_add_mem_reg(const struct gate_case *c);
const char *gate_rule_rem_mem_reg(const struct gate_case *c);
const char *gate_rule_log_base(const struct gate_case *c);
const char *gate_rule_inflight(const struct gate_case *c);
const char *gate_rule_iotlb(const struct gate_case *c);

/** Does a log of that many bytes cover a table? */
bool gate_log_covers(uint64_t log_size, const struct gate_region *regions, unsigned int n);

/* gate_rings.c */
const char *gate_rule_ring(const struct gate_case *c, uint32_t index);

/** All rings, as they would be with other features, memory or log; NULL or what is wrong. */
const char *gate_rings_fit(const struct gate_state *state, uint64_t features,
	const struct gate_region *regions, unsigned int nb_regions, uint64_t log_size);

#endif /* GATE_RULES_H */
