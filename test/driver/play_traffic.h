/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Numbered frames from a played guest to another, or itself, and what is asked of them: every one
 * comes, once, whole and in order, and where it is waited for there is a call. The test's thread.
 */

#ifndef PLAY_TRAFFIC_H
#define PLAY_TRAFFIC_H

#include "vhost_play.h"

struct traffic {
	struct play *p;
	unsigned int txq, rxq;
	struct play *to;
	uint32_t sent, received;
	uint32_t window; /* most that are out */
	uint32_t rx_len; /* of a receive buffer */
	unsigned int rx_pieces;
};

uint64_t features_of(const struct shape *shape, bool in_order);

struct traffic traffic_start(struct play *p, unsigned int txq, struct play *to, unsigned int rxq);
void traffic_send(struct traffic *t);	 /* as many as may be out */
bool traffic_receive(struct traffic *t); /* what is there; false: nothing */
void traffic_collect(struct traffic *t); /* sent chains that came back */
void traffic_round(struct traffic *t);	 /* all that; waits for a call if nothing came */
void traffic_finish(struct traffic *t);	 /* until nothing is out */

/* One frame of 200 bytes there and back, on queues 1 and 0. */
void passes(struct play *p, uint32_t number);

/*
 * What librte_vhost was told of stopped queues is where their driver has seen the device arrive.
 */
void positions_exact(struct play *p);

#endif /* PLAY_TRAFFIC_H */
