/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Hostile drivers on packed rings. */

#include "harness.h"

#define AVAIL (1 << VRING_PACKED_DESC_F_AVAIL)
#define USED  (1 << VRING_PACKED_DESC_F_USED)

static const struct mock_buf rrw[] = {{.len = 10}, {.len = 20}, {.len = 30, .write = true}};

/* All four values of AVAIL and USED in both laps: only one means available. */
static void
wrap_bits(struct queue *q)
{
	static const uint16_t bits[] = {0, AVAIL, USED, AVAIL | USED};
	uint32_t lap, i;

	for (lap = 0; lap < 2; lap++)
		for (i = 0; i < 4; i++) {
			bool want = bits[i] == (lap == 0 ? AVAIL : USED);

			queue_rewind(q, (struct vringh_state){.used = lap == 0 ? 0x8000 : 0});
			mock_set_slot(&q->drv, 0,
				&(struct mock_desc){.addr = BUFS_AT, .len = 1, .flags = bits[i]});
			assert_int_equal(pending(q), want);
			assert_int_equal(fetch(q, 1), want);
		}
}

/* A ring full of what was available a lap ago. */
static void
stale(struct queue *q)
{
	uint32_t i;

	for (i = 0; i < q->v.size; i++)
		mock_post(&q->drv, rrw + 2, 1, 0, i);
	mock_publish(&q->drv);
	assert_int_equal(fetch(q, q->v.size), q->v.size);
	/* Nothing completed: every slot still has last lap's flags. */
	assert_false(pending(q));
	assert_int_equal(vringh_fetch(&q->vr, &q->batch, 1), 0);
	assert_int_equal(fetch(q, q->v.size), 0);
}

/* A head is there, the rest is not yet: nothing, no spin; later all of it. */
static void
partial(struct queue *q)
{
	uint32_t k, start, before;

	for (before = 0; before < 2; before++)
		for (start = 0; start <= 4; start++)
			for (k = 1; k < 3; k++) {
				uint16_t slot;
				int id;

				queue_rewind(q, near_end(&q->v, start));
				if (before)
					mock_post(&q->drv, rrw + 2, 1, 0, 1);
				slot = (q->drv.avail + k) % q->v.size;
				id = post(q, rrw, 3, 0, 2);
				mock_toggle_slot(&q->drv, slot);
				assert_int_equal(fetch(q, 4), before);
				assert_int_equal(q->batch.nb_segs, before);
				assert_int_equal(vringh_fetch(&q->vr, &q->batch, 4), 0);
				assert_int_equal(vringh_broken(&q->vr), VRINGH_OK);
				complete(q, 0, before);
				mock_toggle_slot(&q->drv, slot);
				assert_int_equal(fetch(q, 4), 1);
				expect_chain(q, &q->batch.chain[0], id, rrw, 3);
				complete(q, 0, 1);
				if (before)
					expect_used(q, 1, 0);
				expect_used(q, 2, 0);
			}
}

/* The whole ring is one chain without end: good or bad addresses, no bytes, indirect. */
static void
runaway(struct queue *q)
{
	uint32_t bad, start, i;

	for (bad = 0; bad < 4; bad++)
		for (start = 0; start < 5; start++) {
			queue_rewind(q, near_end(&q->v, start));
			for (i = 0; i < q->v.size; i++) {
				struct mock_buf buf = {.len = bad == 2 ? 0 : 1,
					.write = true,
					.fixed = true,
					.iova = bad == 1 ? NOWHERE : BUFS_AT};
				int id = mock_post(&q->drv, &buf, 1, 0, i);
				struct mock_desc m = mock_get_desc(&q->drv, id, 0);

				m.flags |= VRING_DESC_F_NEXT;
				m.flags |= bad == 3 ? VRING_DESC_F_INDIRECT : 0;
				mock_set_desc(&q->drv, id, 0, &m);
			}
			mock_publish(&q->drv);
			assert_int_equal(fetch_refusing(q, 1), -VRINGH_E_RUNAWAY);
			assert_int_equal(vringh_error_count(&q->vr, VRINGH_E_RUNAWAY), 1);
			/* What was gathered of it is not left in the batch. */
			assert_int_equal(q->batch.nb_segs, 0);
			expect_broken(q, VRINGH_E_RUNAWAY);
		}
}

/* Part of an endless chain a lap ahead, and back. */
static void
turn_over(struct queue *q, uint32_t slot)
{
	struct mock_desc m = mock_get_slot(&q->drv, slot);

	m.flags ^= AVAIL | USED | VRING_DESC_F_NEXT;
	mock_set_slot(&q->drv, slot, &m);
}

/*
 * A chain without end behind good ones, which are served first. The driver makes the good
 * one's slot part of the endless chain, a lap ahead.
 */
static void
runaway_mid_batch(struct queue *q)
{
	uint32_t i, at, start;

	for (start = 0; start < 5; start++) {
		queue_rewind(q, near_end(&q->v, start));
		for (i = 0; i < q->v.size; i++) {
			int id = mock_post(&q->drv, rrw + 2, 1, 0, i);
			struct mock_desc m = mock_get_desc(&q->drv, id, 0);

			if (i > 0)
				m.flags |= VRING_DESC_F_NEXT;
			mock_set_desc(&q->drv, id, 0, &m);
		}
		at = q->drv.used;
		mock_publish(&q->drv);
		assert_int_equal(fetch(q, 1), 1);
		turn_over(q, at);
		/* Handed back, available again as it was: now both in one batch. */
		vringh_discard(&q->vr, q->batch.chain, 1);
		assert_int_equal(fetch(q, 4), 0);
		turn_over(q, at);
		assert_int_equal(fetch(q, 4), 1);
		assert_int_equal(q->batch.nb_segs, 1);
		turn_over(q, at);
		expect_broken(q, VRINGH_E_RUNAWAY);
	}
}

/* Any id, the same twice, another inside the chain: the device gives back what it was told. */
static void
opaque_id(struct queue *q)
{
	static const uint16_t ids[] = {0xffff, 0x8000, 0, 0};
	uint32_t i;

	for (i = 0; i < 4; i++) {
		int id = mock_post(&q->drv, rrw + 1, 2, 0, i);
		struct mock_desc m = mock_get_desc(&q->drv, id, 0);

		m.ref = 0x1234;
		mock_set_desc(&q->drv, id, 0, &m);
		m = mock_get_desc(&q->drv, id, 1);
		m.ref = ids[i];
		mock_set_desc(&q->drv, id, 1, &m);
	}
	mock_publish(&q->drv);
	assert_int_equal(fetch(q, 5), 4);
	for (i = 0; i < 4; i++) {
		assert_int_equal(q->batch.chain[i].id, ids[i]);
		fill(q, &q->batch.chain[i], i, i);
	}
	complete(q, 0, 4);
	for (i = 0; i < 4; i++) { /* none is used completely: no runs */
		struct mock_desc m = mock_get_slot(&q->drv, 2 * i);

		assert_int_equal(m.ref, ids[i]);
		assert_int_equal(m.len, i);
		assert_int_equal(m.flags, AVAIL | USED | (i > 0 ? VRING_DESC_F_WRITE : 0));
	}
	expect_neighbour(q);
}

/* Flags that mean nothing here. */
static void
reserved_flags(struct queue *q)
{
	int id = mock_post(&q->drv, rrw, 1, 0, 1);
	struct mock_desc m = mock_get_desc(&q->drv, id, 0);

	m.flags |= 0x7f78 & ~(AVAIL | USED);
	mock_set_desc(&q->drv, id, 0, &m);
	mock_publish(&q->drv);
	assert_int_equal(fetch(q, 1), 1);
	expect_chain(q, &q->batch.chain[0], id, rrw, 1);
	complete(q, 0, 1);
	expect_used(q, 1, 0);
}

/* In a packed indirect table NEXT and the id mean nothing. */
static void
table_flags(struct queue *q)
{
	int id = mock_post(&q->drv, rrw, 3, MOCK_INDIRECT, 1);
	int i;

	for (i = 0; i < 3; i++) {
		struct mock_desc m = mock_get_entry(&q->drv, id, i);

		m.flags |= VRING_DESC_F_NEXT | (i % 2 ? AVAIL : USED);
		m.ref = 0xffff;
		mock_set_entry(&q->drv, id, i, &m);
	}
	mock_publish(&q->drv);
	assert_int_equal(fetch(q, 1), 1);
	expect_chain(q, &q->batch.chain[0], id, rrw, 3);
}

/* INDIRECT with NEXT and nothing behind it: how many slots it takes is not known. */
static void
indirect_next_alone(struct queue *q)
{
	int id = mock_post(&q->drv, rrw, 3, MOCK_INDIRECT, 1);
	struct mock_desc m = mock_get_desc(&q->drv, id, 0);

	m.flags |= VRING_DESC_F_NEXT;
	mock_set_desc(&q->drv, id, 0, &m);
	mock_publish(&q->drv);
	assert_int_equal(fetch(q, 1), 0);
	assert_int_equal(q->batch.nb_segs, 0);
	assert_int_equal(vringh_broken(&q->vr), VRINGH_OK);
}

/* Bad chains of several slots: exactly their slots are given back. */
static void
bad_slots(struct queue *q)
{
	uint32_t start, k, n;

	for (start = 0; start <= 5; start++)
		for (n = 1; n <= 4; n++)
			for (k = 0; k < n; k++) {
				struct mock_buf buf[4];
				uint32_t i;
				int id;

				for (i = 0; i < n; i++)
					buf[i] = (struct mock_buf){.len = 1,
						.fixed = true,
						.iova = i == k ? NOWHERE : BUFS_AT};
				queue_rewind(q, near_end(&q->v, start));
				id = post(q, buf, n, 0, 1);
				expect_bad(q, id, VRINGH_E_ADDR);
				assert_int_equal(vringh_get_state(&q->vr).used,
					mock_used_position(&q->drv, 0));
				turn(q, 7);
			}
}

/*
 * The driver makes slots available again that the device still holds, so that more slots are
 * out than the ring has. Handing them back must not lead out of the ring.
 */
static void
more_than_the_ring(struct queue *q)
{
	struct vringh_chain *chain = calloc(5 * q->v.size, sizeof(*chain));
	uint32_t lap, laps, start, i, got;

	for (laps = 2; laps <= 5; laps++)
		for (start = 0; start < 3; start++) {
			struct vringh_state before;
			uint32_t back;

			queue_rewind(q, near_end(&q->v, start));
			before = vringh_get_state(&q->vr);
			got = 0;
			for (lap = 0; lap < laps; lap++) {
				int n;

				for (i = 0; i < q->v.size; i++) {
					bool wrap =
						(lap % 2 == 0) == (i >= (before.used & 0x7fffu));

					mock_set_slot(&q->drv, i,
						&(struct mock_desc){.addr = BUFS_AT,
							.len = 1,
							.flags = wrap ? AVAIL : USED});
				}
				n = fetch(q, q->v.size);
				if (n <= 0) /* refusing is right, too */
					break;
				memcpy(chain + got, q->batch.chain, n * sizeof(*chain));
				got += n;
			}
			assert_true(got >= q->v.size);
			if (vringh_broken(&q->vr) != VRINGH_OK)
				continue;
			/* All at once, or half a lap and then the rest. */
			back = start == 1 ? got : q->v.size / 2;
			vringh_discard(&q->vr, chain + got - back, back);
			assert_true((vringh_get_state(&q->vr).avail & 0x7fff) < q->v.size);
			vringh_discard(&q->vr, chain, got - back);
			assert_int_equal(vringh_get_state(&q->vr).avail, before.avail);
		}
	free(chain);
}

int
main(void)
{
	static const struct ring_test tests[] = {
		{"available by the wrong bits", wrap_bits, T_ALL | T_PACKED, 1, 256},
		{"last lap's chains fetched again", stale, T_ALL | T_PACKED, 1, 256},
		{"last lap's chains in a big ring", stale, T_PACKED, 32768, 0},
		{"chain walked before all of it is there", partial, T_ALL | T_PACKED, 5, 256},
		{"chain without end", runaway, T_ALL | T_PACKED, 1, 256},
		{"chain without end loses what came before", runaway_mid_batch, T_ALL | T_PACKED, 3,
			256},
		{"more slots handed back than the ring has", more_than_the_ring, T_ALL | T_PACKED,
			1, 256},
		{"buffer id believed", opaque_id, T_ALL | T_PACKED | T_TOGETHER, 8, 256},
		{"reserved flags", reserved_flags, T_ALL | T_PACKED, 1, 256},
		{"flags in an indirect table", table_flags, T_ALL | T_PACKED | T_INDIRECT, 3, 256},
		{"indirect with next and no end", indirect_next_alone,
			T_ALL | T_PACKED | T_INDIRECT, 3, 256},
		{"bad chain gives back other slots than its own", bad_slots, T_ALL | T_PACKED, 5,
			256},
	};

	return RUN("packed", tests);
}
