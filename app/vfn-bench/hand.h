/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What lib/vring is measured against: the device side of a split ring in one mapping of memory,
 * written for that case alone. Runs on the thread that owns the ring.
 *
 * It owes what the library owes there: each guest word is read once and judged before it is used,
 * heads, next fields, tables and addresses are checked, lengths are added up, chains are bounded
 * and in order, a bad one is handed out without segments; a burst is visible to the driver at
 * once.
 */

#ifndef HAND_H
#define HAND_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <linux/virtio_ring.h>

#include "variant.h"

struct hand_seg {
	uint8_t *addr;
	uint32_t len;
};

struct hand_chain {
	struct hand_seg *seg; /* nb_read to read, then nb_write to write */
	uint32_t read_len;
	uint32_t write_len;
	uint16_t nb_read;
	uint16_t nb_write;
	uint16_t id;
	bool bad;	  /* to be completed with length 0 */
	uint32_t written; /* set by the caller before hand_complete() */
};

struct hand_ring {
	const struct vring_desc *desc;
	const struct vring_avail *avail_ring;
	struct vring_used *used_ring;
	uint8_t *host; /* the mapping */
	uint64_t iova;
	uint64_t len;
	uint32_t size;
	uint16_t avail;	     /* next to fetch */
	uint16_t avail_seen; /* the driver's index as last read */
	uint16_t used;	     /* next to complete */
	bool broken;
};

#define hand_fetch    VARIANT_NAME(hand_fetch)
#define hand_complete VARIANT_NAME(hand_complete)

/*
 * Fetch up to max chains; seg has room for max_segs, at least the ring's size. How many came; -1
 * when the ring can't be trusted any more.
 */
int hand_fetch(struct hand_ring *r, struct hand_chain *chain, unsigned int max,
	struct hand_seg *seg, uint32_t max_segs);

void hand_complete(struct hand_ring *r, const struct hand_chain *chain, unsigned int n);

/* Copy the first bytes to read; how many there were. */
static inline uint32_t
hand_pull(const struct hand_chain *chain, uint8_t *dst, uint32_t len)
{
	uint32_t done = 0, i;

	if (chain->nb_read > 0 && chain->seg[0].len >= len) {
		memcpy(dst, chain->seg[0].addr, len);
		return len;
	}
	for (i = 0; i < chain->nb_read && done < len; i++) {
		uint32_t n = chain->seg[i].len;

		if (n > len - done)
			n = len - done;
		memcpy(dst + done, chain->seg[i].addr, n);
		done += n;
	}
	return done;
}

#endif /* HAND_H */
