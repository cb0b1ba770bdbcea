/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Rate limit of a function: a token bucket that the pollers of its transmit queues share.
 *
 * What is in the bucket is kept as time, the moment when it was empty last: it fills by itself.
 * No thread waits for another one here. Times are TSC; the caller passes them.
 */

#ifndef VFN_RATE_H
#define VFN_RATE_H

#include <stdint.h>

#include <vringh.h>

struct vfn_rate {
	uint64_t full;	   /* time in which the empty bucket fills */
	uint64_t second;   /* these two and empty_at in 2^-8 of a TSC tick */
	uint64_t cost;	   /* of a byte, in 2^-20 of a tick */
	uint64_t empty_at; /* atomic */
	uint64_t waiting;  /* atomic: a bit per pair that has frames and was refused */
	uint32_t last;	   /* atomic: pair that has sent last */
};

/* Control, like vfn_rate_reset(): nobody waits any more. */
void vfn_rate_init(struct vfn_rate *r, uint32_t mbps, uint64_t hz);
void vfn_rate_reset(struct vfn_rate *r);
/* How many of a pair's n chains may be sent now? They are paid for. Any poller. */
unsigned int vfn_rate_take(struct vfn_rate *r, unsigned int pair, uint64_t now,
	const struct vringh_chain *chain, unsigned int n);
/* Chains that were paid for and not sent after all. Any poller. */
void vfn_rate_give_back(struct vfn_rate *r, const struct vringh_chain *chain, unsigned int n);

#endif /* VFN_RATE_H */
