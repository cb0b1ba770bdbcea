/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The in-flight region (vhost-user, "Inflight I/O tracking") in tests: where its numbers are, and
 * devices that follow each other on it. Runs on the test's only thread.
 */

#ifndef INFLIGHT_H
#define INFLIGHT_H

#include "harness.h"

/* Offsets in bytes. */
enum {
	WORD = 0, /* what says that it is ours, for which queue size; split: where the ring stands
		   */
	WORD_SIZE = 4,
	VERSION = 8,
	DESC_NUM = 10,
	/* split */
	SPLIT_USED_IDX = 6,
	LAST_BATCH_HEAD = 12,
	SPLIT_DESC = 16,
	SPLIT_STEP = 16,
	SPLIT_NEXT = 6,
	/* packed; positions with the wrap counter in bit 15 */
	FREE_HEAD = 24,
	OLD_FREE_HEAD = 26,
	USED = 28,
	OLD_USED = 30,
	PACKED_DESC = 32,
	PACKED_STEP = 32,
	NEXT = 2,
	LAST = 4,
	NUM = 6,
	ID = 16,
	FLAGS = 18,
	LEN = 20,
	ADDR = 24,
	/* both */
	MARK = 1,
	COUNTER = 8,
};

struct track {
	struct vringh_inflight in;
	uint8_t *region;
	size_t len;
	uint16_t *resubmit;
};

static inline int
set(struct queue *q, struct track *t)
{
	memset(&t->in, 0xa5, sizeof(t->in));
	memset(t->resubmit, 0xa5, q->v.size * sizeof(*t->resubmit));
	return vringh_set_inflight(&q->vr, &t->in, t->region, t->len, t->resubmit);
}

static inline struct track *
track(struct queue *q)
{
	struct track *t = malloc(sizeof(*t));

	assert_non_null(t);
	t->len = vringh_inflight_size(q->v.packed, q->v.size);
	t->region = calloc(1, t->len);
	t->resubmit = malloc(q->v.size * sizeof(*t->resubmit));
	assert_true(t->region != NULL && t->resubmit != NULL);
	assert_int_equal(set(q, t), 0);
	return t;
}

static inline void
untrack(struct track *t)
{
	free(t->region);
	free(t->resubmit);
	free(t);
}

/* Another device begins on the same ring, with what a front-end knows. */
static inline void
restart(struct queue *q)
{
	uint16_t at = q->v.packed ? q->drv.cfg.start.used : q->drv.used_ring->idx;

	q->cfg.state = (struct vringh_state){.avail = at, .used = at};
	assert_int_equal(vringh_init(&q->vr, &q->cfg), VRINGH_OK);
	q->batch.nb_chains = q->batch.nb_segs = 0;
}

static inline int
successor(struct queue *q, struct track *t)
{
	restart(q);
	return set(q, t);
}

static inline uint64_t
peek(const struct track *t, size_t at, size_t width)
{
	uint64_t v = 0;

	assert_true(at + width <= t->len);
	memcpy(&v, t->region + at, width);
	return v;
}

static inline void
poke(struct track *t, size_t at, size_t width, uint64_t v)
{
	assert_true(at + width <= t->len);
	memcpy(t->region + at, &v, width);
}

static inline size_t
entry(const struct queue *q, uint16_t i)
{
	return q->v.packed ? PACKED_DESC + i * (size_t)PACKED_STEP :
			     SPLIT_DESC + i * (size_t)SPLIT_STEP;
}

/* A new ring at a place near its end, and a new region. */
static inline struct track *
anew(struct queue *q, uint32_t start)
{
	queue_rewind(q, near_end(&q->v, start));
	q->batch.nb_chains = q->batch.nb_segs = 0;
	return track(q);
}

#endif /* INFLIGHT_H */
