/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Rings in order (2.7.9, 2.8.9): one used entry may stand for a run of chains, at the place of
 * the first and with the id of the last; all before the last count as used completely. Most of
 * what the device may do here is for mock_collect() to judge, so it is tried, too.
 */

#include "harness.h"

#define SCRIBBLE 0x5b

static const struct mock_buf r[] = {{.len = 10}};
static const struct mock_buf w[] = {{.len = 10, .write = true}};
static const struct mock_buf rw[] = {{.len = 10}, {.len = 10, .write = true}};
static const struct mock_buf rr[] = {{.len = 10}, {.len = 10}};

/* How many used entries there are: places that are not as they were. */
static uint32_t
entries(struct queue *q, uint32_t n)
{
	uint32_t i, count = 0;

	for (i = 0; i < n; i++) {
		uint16_t at = (q->drv.used + i) % q->v.size;

		if (q->v.packed)
			count += mock_get_slot(&q->drv, at).ref != 0xbeef;
		else
			count += q->drv.used_ring->ring[at].len != SCRIBBLE;
	}
	return count;
}

/* Places where the device may write are marked; a packed chain's id is told before. */
static void
mark(struct queue *q)
{
	uint32_t i;

	for (i = 0; i < q->v.size; i++)
		if (q->v.packed) {
			struct mock_desc m = mock_get_slot(&q->drv, i);

			m.ref = 0xbeef;
			mock_set_slot(&q->drv, i, &m);
		} else {
			q->drv.used_ring->ring[i].len = SCRIBBLE;
		}
}

/* Chains that are only read are one run, however long, wherever it starts. */
static void
one_entry(struct queue *q)
{
	uint32_t start, n, i;

	for (start = 0; start < 9; start++)
		for (n = 1; n <= q->v.size && n <= 40; n += 1 + n / 4) {
			queue_rewind(q, near_end(&q->v, start));
			for (i = 0; i < n; i++)
				mock_post(&q->drv, r, 1, 0, i);
			mock_publish(&q->drv);
			assert_int_equal(fetch(q, q->v.size), n);
			mark(q);
			complete(q, 0, n);
			assert_int_equal(entries(q, n), 1);
			for (i = 0; i + 1 < n; i++) {
				struct mock_used used;

				assert_int_equal(mock_collect(&q->drv, &used, 1), 1);
				assert_int_equal(used.token, i);
				assert_true(used.skipped);
			}
			expect_used_short(q, i, 0);
			expect_none(q);
			assert_int_equal(
				vringh_get_state(&q->vr).used, mock_used_position(&q->drv, 0));
			turn(q, 3);
		}
}

/*
 * Every mix of four chains out of six kinds in one batch: which of them have entries of their
 * own is the device's choice, but one that was not used completely has.
 */
static void
mixes(struct queue *q)
{
	static const struct {
		const struct mock_buf *buf;
		unsigned int nb;
		uint32_t written;
		bool bad;
	} kind[] = {{r, 1, 0, false}, {rr, 2, 0, false}, {w, 1, 10, false}, {w, 1, 9, false},
		{rw, 2, 0, false}, {NULL, 1, 0, true}};
	static const struct mock_buf lost = {.len = 1, .fixed = true, .iova = NOWHERE};
	uint32_t mix, i, n = 4;

	for (mix = 0; mix < 6 * 6 * 6 * 6; mix++) {
		uint32_t k[4] = {mix % 6, mix / 6 % 6, mix / 36 % 6, mix / 216};

		if (mix % 17 == 0)
			queue_rewind(q, near_end(&q->v, mix / 17 % 9));
		for (i = 0; i < n; i++)
			assert_true(mock_post(&q->drv, kind[k[i]].bad ? &lost : kind[k[i]].buf,
					    kind[k[i]].nb, 0, i) >= 0);
		mock_publish(&q->drv);
		assert_int_equal(fetch_refusing(q, n), n);
		for (i = 0; i < n; i++)
			fill(q, &q->batch.chain[i], kind[k[i]].written, mix);
		/* In one call or in two. */
		complete(q, 0, mix % 4);
		complete(q, mix % 4, n - mix % 4);
		for (i = 0; i < n; i++)
			if (kind[k[i]].bad || k[i] == 3 || k[i] == 4)
				expect_used_short(q, i, kind[k[i]].written);
			else
				expect_used(q, i, kind[k[i]].written);
		expect_none(q);
	}
}

/* A run counts as many entries as it has: for the event index, too. */
static void
event_in_run(struct queue *q)
{
	uint32_t event, n = 6, i;

	for (event = 0; event < 9; event++) {
		queue_rewind(q, near_end(&q->v, 3));
		mock_set_event(
			&q->drv, mock_used_position(&q->drv, event), VRING_PACKED_EVENT_FLAG_DESC);
		for (i = 0; i < n; i++)
			mock_post(&q->drv, r, 1, 0, i);
		mock_publish(&q->drv);
		assert_int_equal(fetch(q, n), n);
		complete(q, 0, n);
		assert_int_equal(vringh_need_notify(&q->vr), event < n);
	}
}

/* What the mock driver says of a device that does it wrong. */
static void
wrong(struct queue *q, uint32_t id, uint16_t index)
{
	struct mock_used used[8];
	uint16_t at = q->drv.used;

	if (q->v.packed) {
		struct mock_desc m = {.ref = id,
			.flags = q->drv.used_wrap ?
				1 << VRING_PACKED_DESC_F_AVAIL | 1 << VRING_PACKED_DESC_F_USED :
				0};

		mock_set_slot(&q->drv, at, &m);
	} else {
		q->drv.used_ring->ring[at & (q->v.size - 1)].id = id;
		q->drv.used_ring->ring[at & (q->v.size - 1)].len = 0;
		q->drv.used_ring->idx = at + index;
	}
	assert_int_equal(mock_collect(&q->drv, used, 8), -1);
	queue_rewind(q, near_end(&q->v, 4));
}

static void
mock_judges(struct queue *q)
{
	uint32_t i;
	int id[3];

	for (i = 0; i < 3; i++)
		id[i] = post(q, r, 1, 0, i);
	wrong(q, id[2] + 1, 1); /* not out */
	for (i = 0; i < 3; i++)
		id[i] = post(q, r, 1, 0, i);
	if (!q->v.packed) {
		wrong(q, id[2], 2); /* the index has not passed all of the run */
		for (i = 0; i < 3; i++)
			id[i] = post(q, r, 1, 0, i);
		wrong(q, id[2], 4); /* more than is out */
	} else {
		wrong(q, 0xffff, 1);
	}
	turn(q, 4);
}

int
main(void)
{
	static const struct ring_test tests[] = {
		{"chains only read take more than one entry", one_entry,
			T_ALL | T_IN_ORDER | T_TOGETHER, 8, 256},
		{"run over a chain that was not used completely", mixes,
			T_ALL | T_IN_ORDER | T_DIRECT, 8, 8},
		{"event inside a run", event_in_run, T_ALL | T_IN_ORDER | T_EVENT, 8, 256},
		{"mock driver believes a wrong run", mock_judges, T_IN_ORDER | T_TOGETHER, 8, 256},
	};

	return RUN("in-order", tests);
}
