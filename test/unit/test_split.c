/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Hostile drivers on split rings. */

#include "harness.h"

static const struct mock_buf rrw[] = {{.len = 10}, {.len = 20}, {.len = 30, .write = true}};

static void
avail_idx_at(struct queue *q, uint16_t at, uint16_t distance)
{
	uint32_t n = distance < q->v.size ? distance : q->v.size;

	queue_rewind(q, (struct vringh_state){.used = at});
	mock_set_avail_idx(&q->drv, at + distance);
	if (distance <= q->v.size) {
		assert_int_equal(fetch(q, 3), n < 3 ? n : 3);
	} else {
		assert_int_equal(fetch(q, 3), -VRINGH_E_AVAIL_IDX);
		assert_int_equal(q->batch.nb_chains, 0);
		assert_int_equal(vringh_get_state(&q->vr).avail, at);
	}
}

/* Up to the queue size it is a full ring, beyond (or behind) it breaks. */
static void
avail_idx(struct queue *q)
{
	static const uint16_t at[] = {0, 5, 0xfffe};
	uint32_t i, k, n = q->v.size;
	uint32_t d[] = {0, 1, n - 1, n, n + 1, n + 2, 2 * n, 0x7fff, 0x8000, 0x8001, UINT16_MAX - n,
		UINT16_MAX - 1, UINT16_MAX};

	for (i = 0; i < DIM(at); i++)
		for (k = 0; k < DIM(d); k++)
			avail_idx_at(q, at[i], d[k]);
	queue_rewind(q, (struct vringh_state){.used = 9});
	mock_set_avail_idx(&q->drv, 8);
	expect_broken(q, VRINGH_E_AVAIL_IDX);
	mock_set_avail_idx(&q->drv, q->drv.avail + q->v.size + 1);
	expect_broken(q, VRINGH_E_AVAIL_IDX);
}

/* Every distance. */
static void
avail_idx_all(struct queue *q)
{
	uint32_t d;

	for (d = 0; d <= UINT16_MAX; d += q->v.size > 256 ? 257 : 1)
		avail_idx_at(q, 0xfffe, d);
}

/* The index jumps after some chains: what was read before is served, nothing else. */
static void
avail_idx_later(struct queue *q)
{
	uint32_t i;

	for (i = 0; i < 4; i++)
		mock_post(&q->drv, rrw, 1, 0, i);
	mock_publish(&q->drv);
	assert_int_equal(fetch(q, 2), 2);
	complete(q, 0, 2);
	mock_set_avail_idx(&q->drv, q->drv.avail + q->v.size + 1);
	/* Two are known to be there; a third would need a new look at the index. */
	assert_int_equal(fetch(q, 2), 2);
	complete(q, 0, 2);
	for (i = 0; i < 4; i++)
		expect_used(q, i, 0);
	expect_broken(q, VRINGH_E_AVAIL_IDX);
}

/* The index moves back while chains are out: their entries are not served once more. */
static void
avail_idx_back_to_what_is_out(struct queue *q)
{
	uint32_t i;

	for (i = 0; i < 4; i++)
		mock_post(&q->drv, rrw, 1, 0, i);
	mock_publish(&q->drv);
	assert_int_equal(fetch(q, 4), 4);
	mock_set_avail_idx(&q->drv, q->drv.avail - 2);
	assert_int_equal(fetch(q, 4), -VRINGH_E_AVAIL_IDX);
	assert_int_equal(vringh_get_state(&q->vr).avail, q->drv.avail);
}

static void
head(struct queue *q)
{
	static const uint16_t above[] = {0, 1, 0x7fff - 8, 0xffff - 8};
	unsigned int i;

	for (i = 0; i < DIM(above); i++) {
		uint32_t bad = q->v.size + above[i];

		if (bad > UINT16_MAX)
			continue;
		mock_post(&q->drv, rrw, 1, 0, 1);
		mock_set_head(&q->drv, q->drv.avail - 1, bad);
		mock_publish(&q->drv);
		expect_broken(q, VRINGH_E_HEAD);
	}
}

/* What came before a bad head is served; the bad head breaks the queue with the next call. */
static void
head_mid_batch(struct queue *q)
{
	uint32_t i;

	for (i = 0; i < 4; i++)
		mock_post(&q->drv, rrw + 1, 2, 0, i);
	mock_set_head(&q->drv, q->drv.avail - 2, q->v.size);
	mock_publish(&q->drv);
	assert_int_equal(fetch(q, 8), 2);
	assert_int_equal(q->batch.nb_segs, 4);
	assert_int_equal(vringh_broken(&q->vr), VRINGH_OK);
	complete(q, 0, 2);
	expect_used(q, 0, 0);
	expect_used(q, 1, 0);
	assert_int_equal(vringh_fetch(&q->vr, &q->batch, 8), -VRINGH_E_HEAD);
	assert_int_equal(q->batch.nb_chains, 2);
	expect_broken(q, VRINGH_E_HEAD);
}

/* A reason is counted once, however often the broken queue is polled. */
static void
broken_counted_once(struct queue *q)
{
	mock_set_avail_idx(&q->drv, q->v.size + 1);
	assert_int_equal(fetch(q, 1), -VRINGH_E_AVAIL_IDX);
	assert_int_equal(vringh_error_count(&q->vr, VRINGH_E_AVAIL_IDX), 1);
	assert_int_equal(fetch(q, 1), -VRINGH_E_AVAIL_IDX);
	assert_int_equal(vringh_error_count(&q->vr, VRINGH_E_AVAIL_IDX), 1);
}

static void
next_outside(struct queue *q)
{
	uint32_t next[] = {q->v.size, q->v.size + 1, 0x8000, 0xffff};
	unsigned int i, k;

	for (i = 0; i < DIM(next); i++)
		for (k = 0; k < 2; k++) {
			int id = mock_post(&q->drv, rrw, 3, 0, 1);
			struct mock_desc m = mock_get_desc(&q->drv, id, k);

			m.ref = next[i];
			mock_set_desc(&q->drv, id, k, &m);
			mock_publish(&q->drv);
			expect_bad(q, id, VRINGH_E_NEXT);
		}
}

/* Chain whose last descriptor leads back to the k th: a loop of one, two, three, all. */
static void
loop(struct queue *q)
{
	uint32_t n, k;

	q->batch.max_segs = q->v.size;
	for (n = 1; n <= q->v.size && n <= 8; n++)
		for (k = 0; k < n; k++) {
			struct mock_buf buf[8];
			struct mock_desc m, first;
			uint32_t i;
			int id;

			for (i = 0; i < n; i++)
				buf[i] = (struct mock_buf){.len = 1};
			id = mock_post(&q->drv, buf, n, 0, 1);
			m = mock_get_desc(&q->drv, id, n - 1);
			first = k == 0 ? (struct mock_desc){.ref = id} :
					 mock_get_desc(&q->drv, id, k - 1);
			m.flags |= VRING_DESC_F_NEXT;
			m.ref = first.ref;
			mock_set_desc(&q->drv, id, n - 1, &m);
			mock_publish(&q->drv);
			expect_bad(q, id, VRINGH_E_LOOP);
		}
}

/* The same with buffers of length 0: they use no segments, so only the count ends the walk. */
static void
loop_of_nothing(struct queue *q)
{
	struct mock_buf buf = {.len = 0};
	int id = mock_post(&q->drv, &buf, 1, 0, 1);
	struct mock_desc m = mock_get_desc(&q->drv, id, 0);

	m.flags |= VRING_DESC_F_NEXT;
	m.ref = id;
	mock_set_desc(&q->drv, id, 0, &m);
	mock_publish(&q->drv);
	expect_bad(q, id, VRINGH_E_LOOP);
}

static void
table_next(struct queue *q)
{
	static const uint16_t next[] = {3, 4, 0xffff, 0, 1, 2};
	unsigned int i;

	for (i = 0; i < DIM(next); i++) {
		int id = mock_post(&q->drv, rrw, 3, MOCK_INDIRECT, 1);
		struct mock_desc m = mock_get_entry(&q->drv, id, 1);

		m.ref = next[i];
		mock_set_entry(&q->drv, id, 1, &m);
		m = mock_get_entry(&q->drv, id, 2);
		m.flags |= VRING_DESC_F_NEXT;
		m.ref = 2;
		mock_set_entry(&q->drv, id, 2, &m);
		mock_publish(&q->drv);
		/* Outside the table although inside the queue; loops; back to a readable one. */
		expect_bad(q, id, next[i] >= 3 ? VRINGH_E_NEXT : VRINGH_E_LOOP);
	}
}

/*
 * One head made available as often as the ring has room, again and again: bounded, legal. A
 * driver that does so in order can't tell the entries of a run apart; others get all of them.
 */
static void
same_head(struct queue *q)
{
	struct mock_buf buf = {.len = 7, .write = true};
	uint32_t i, lap, n = q->v.size;
	int id = mock_post(&q->drv, &buf, 1, 0, 0);

	for (i = 0; i < n; i++)
		mock_set_head(&q->drv, i, id);
	for (lap = 1; lap <= 3; lap++) {
		mock_set_avail_idx(&q->drv, lap * n);
		assert_int_equal(fetch(q, 2 * n), n);
		for (i = 0; i < n; i++) {
			assert_int_equal(q->batch.chain[i].id, id);
			assert_int_equal(q->batch.chain[i].error, VRINGH_OK);
			fill(q, &q->batch.chain[i], i % 7, i);
		}
		complete(q, 0, n);
		assert_int_equal(q->drv.used_ring->idx, (uint16_t)(lap * n));
		for (i = 0; i < n; i++) /* none is used completely: no runs */
			assert_int_equal(q->drv.used_ring->ring[i].len, i % 7);
	}
	expect_neighbour(q);
}

/* The device keeps its own copy of where it is. */
static void
used_scribbled(struct queue *q)
{
	uint32_t i;

	for (i = 0; i < 5; i++) {
		struct vringh_state s;

		post_one(q, 9, true, i);
		assert_int_equal(fetch(q, 1), 1);
		s = vringh_get_state(&q->vr);
		mock_scribble_device(&q->drv, 0xff);
		complete(q, 0, 1);
		assert_int_equal(vringh_get_state(&q->vr).avail, s.avail);
		assert_int_equal(q->drv.used_ring->idx, (uint16_t)(s.used + 1));
		expect_used(q, i, 0);
	}
}

int
main(void)
{
	static const struct ring_test tests[] = {
		{"available index out of range", avail_idx, T_ALL | T_SPLIT, 1, 256},
		{"available index at any distance", avail_idx_all, T_SPLIT | T_DIRECT, 1, 0},
		{"available index jumps later", avail_idx_later, T_ALL | T_SPLIT, 8, 256},
		{"available index goes back to what is out", avail_idx_back_to_what_is_out,
			T_ALL | T_SPLIT, 8, 256},
		{"head outside the table", head, T_ALL | T_SPLIT, 1, 256},
		{"head outside a big table", head, T_SPLIT, 32768, 0},
		{"bad head loses what came before", head_mid_batch, T_ALL | T_SPLIT, 8, 256},
		{"broken queue counts each poll", broken_counted_once, T_ALL | T_SPLIT, 8, 256},
		{"next outside the table", next_outside, T_ALL | T_SPLIT, 8, 256},
		{"loop of descriptors", loop, T_ALL | T_SPLIT, 1, 256},
		{"loop of empty descriptors", loop_of_nothing, T_ALL | T_SPLIT, 1, 256},
		{"loop of empty descriptors in a big ring", loop_of_nothing, T_SPLIT, 32768, 0},
		{"loop or bad next in an indirect table", table_next, T_ALL | T_SPLIT | T_INDIRECT,
			8, 256},
		{"same head again and again", same_head, T_ALL | T_SPLIT, 1, 256},
		{"same head in a big ring", same_head, T_SPLIT, 32768, 0},
		{"scribbled used ring misleads the device", used_scribbled, T_ALL | T_SPLIT, 1,
			256},
	};

	return RUN("split", tests);
}
