/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Notifications in both directions. The decisions are compared with a model that counts
 * positions one by one and knows nothing of modular arithmetic.
 */

#include "harness.h"

static const struct mock_buf two[] = {{.len = 10}, {.len = 20, .write = true}};

static void
set_event(struct queue *q, uint16_t value)
{
	mock_set_event(&q->drv, value, VRING_PACKED_EVENT_FLAG_DESC);
}

/* Complete chains of one slot, n entries in all. */
static void
use(struct queue *q, uint32_t n)
{
	uint32_t i;

	while (n > 0) {
		uint32_t part = n < q->v.size ? n : q->v.size;

		for (i = 0; i < part; i++)
			mock_post(&q->drv, two + 1, 1, 0, i);
		mock_publish(&q->drv);
		assert_int_equal(fetch(q, part), part);
		complete(q, 0, part);
		for (i = 0; i < part; i++)
			expect_used(q, i, 0);
		n -= part;
	}
}

/*
 * Packed: every event position in both laps x every number of entries x every start. The
 * decision is: did the ring's position pass the event's, counting from the last decision?
 * Of a full lap and more the device may say yes always.
 */
static void
packed_event(struct queue *q)
{
	uint32_t n = q->v.size, start, count, event, i;

	for (start = 0; start < 2 * n; start++)
		for (count = 0; count <= n + 1; count++)
			for (event = 0; event < 2 * n; event++) {
				uint16_t at = start % n | (start < n ? 0x8000 : 0);
				bool want = false, got;

				queue_rewind(q, (struct vringh_state){.used = at});
				set_event(q, event % n | (event < n ? 0x8000 : 0));
				use(q, count);
				for (i = 0; i < count; i++)
					want |= (start + i) % (2 * n) == event;
				got = vringh_need_notify(&q->vr);
				if (got != want && !(got && count >= n))
					fail_msg("start %u, %u used, event %u: %d", start, count,
						event, got);
				/* Decided: no more until something else is used. */
				assert_false(vringh_need_notify(&q->vr));
			}
}

/* One chain of several slots: the event may be any of them. */
static void
packed_event_slots(struct queue *q)
{
	uint32_t n = q->v.size, start, event, i;

	for (start = 0; start < 2 * n; start++)
		for (event = 0; event < 2 * n; event++) {
			bool want = false;

			queue_rewind(q,
				(struct vringh_state){
					.used = start % n | (start < n ? 0x8000 : 0)});
			set_event(q, event % n | (event < n ? 0x8000 : 0));
			mock_post(&q->drv, two, 2, 0, 0);
			mock_post(&q->drv, two, 2, 0, 1);
			mock_publish(&q->drv);
			assert_int_equal(fetch(q, 2), 2);
			complete(q, 0, 2);
			for (i = 0; i < 4; i++)
				want |= (start + i) % (2 * n) == event;
			assert_int_equal(vringh_need_notify(&q->vr), want);
		}
}

/* Split: every distance of the event from where the last decision was. */
static void
split_event(struct queue *q)
{
	static const uint16_t starts[] = {0, 1, 0x7fff, 0xfffe, 0xffff};
	static const uint32_t counts[] = {1, 2, 3, 7, 8, 9, 300};
	uint32_t s, c, d;

	for (s = 0; s < DIM(starts); s++)
		for (c = 0; c < DIM(counts); c++) {
			queue_rewind(q, (struct vringh_state){.used = starts[s]});
			/* unnotified and used are left as they are: only the event moves. */
			use(q, counts[c]);
			for (d = 0; d <= UINT16_MAX; d++) {
				struct vringh copy = q->vr;

				set_event(q, starts[s] + d);
				if (vringh_need_notify(&copy) != (d < counts[c]))
					fail_msg("start %u, %u used, event %u behind", starts[s],
						counts[c], d);
				assert_false(vringh_need_notify(&copy));
			}
		}
}

/* The same at the edges, in every memory. */
static void
split_event_edges(struct queue *q)
{
	static const uint16_t starts[] = {0, 0x7fff, 0xfffe, 0xffff};
	static const uint32_t counts[] = {1, 2, 8, 9};
	static const uint32_t behind[] = {
		0, 1, 2, 3, 7, 8, 9, 10, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff};
	uint32_t s, c, d;

	for (s = 0; s < DIM(starts); s++)
		for (c = 0; c < DIM(counts); c++)
			for (d = 0; d < DIM(behind); d++) {
				queue_rewind(q, (struct vringh_state){.used = starts[s]});
				set_event(q, starts[s] + behind[d]);
				use(q, counts[c]);
				assert_int_equal(vringh_need_notify(&q->vr), behind[d] < counts[c]);
				assert_false(vringh_need_notify(&q->vr));
			}
}

/* 65536 entries and more since the last decision pass every event. */
static void
split_event_all(struct queue *q)
{
	static const uint32_t counts[] = {0xffff, 0x10000, 0x10001};
	uint32_t c, d;

	for (c = 0; c < DIM(counts); c++) {
		queue_rewind(q, (struct vringh_state){.used = 0});
		use(q, counts[c]);
		for (d = 0; d <= UINT16_MAX; d++) {
			struct vringh copy = q->vr;

			set_event(q, d);
			if (vringh_need_notify(&copy) != (d < counts[c]))
				fail_msg("%u used, event %u", counts[c], d);
		}
	}
}

/* Without the event index: flags only, whatever is in the event field. */
static void
by_flags(struct queue *q)
{
	mock_events_disable(&q->drv);
	use(q, 1);
	assert_false(vringh_need_notify(&q->vr));
	mock_events_enable(&q->drv, 0);
	/* What was completed before is not notified later. */
	assert_false(vringh_need_notify(&q->vr));
	use(q, 1);
	assert_true(vringh_need_notify(&q->vr));
	assert_false(vringh_need_notify(&q->vr));
	if (!q->v.packed) {
		mock_set_avail_flags(&q->drv, 0xfffe); /* other bits mean nothing */
		use(q, 1);
		assert_true(vringh_need_notify(&q->vr));
		mock_set_avail_flags(&q->drv, 0xffff);
		use(q, 1);
		assert_false(vringh_need_notify(&q->vr));
	}
}

/* With the split event index the flags mean nothing (2.7.7.2). */
static void
split_flags_ignored(struct queue *q)
{
	mock_set_avail_flags(&q->drv, VRING_AVAIL_F_NO_INTERRUPT);
	mock_events_enable(&q->drv, 0);
	use(q, 1);
	assert_true(vringh_need_notify(&q->vr));
	mock_set_avail_flags(&q->drv, 0);
	mock_events_enable(&q->drv, 1);
	use(q, 1);
	assert_false(vringh_need_notify(&q->vr));
}

/* Packed flags: disabled or not, or anything else, which means notify. */
static void
packed_flags(struct queue *q)
{
	uint32_t f;

	for (f = 0; f < 0x10000; f = f < 16 ? f + 1 : f * 2 + 1) {
		bool desc = f == VRING_PACKED_EVENT_FLAG_DESC && q->v.event_idx;

		use(q, 1);
		mock_set_event(&q->drv, mock_used_position(&q->drv, 2), f);
		if (q->v.size > 2)
			assert_int_equal(vringh_need_notify(&q->vr),
				f != VRING_PACKED_EVENT_FLAG_DISABLE && !desc);
	}
	/* An offset outside the ring. */
	for (f = q->v.size; f < 0x8000; f = f * 2 + 1) {
		set_event(q, f);
		use(q, 1);
		assert_true(vringh_need_notify(&q->vr));
		set_event(q, f | 0x8000);
		use(q, 1);
		assert_true(vringh_need_notify(&q->vr));
	}
}

/* The driver is told what to kick for, and kicks exactly for that, at every position. */
static void
kick(struct queue *q)
{
	uint32_t start, n = q->v.size < 9 ? q->v.size : 9;

	for (start = 0; start <= 2 * n; start++) {
		queue_rewind(q, near_end(&q->v, start));
		vringh_notify_disable(&q->vr);
		if (!q->v.event_idx || q->v.packed) {
			post(q, two + 1, 1, 0, 0);
			assert_false(mock_should_kick(&q->drv));
		} else {
			post(q, two + 1, 1, 0, 0);
			mock_should_kick(&q->drv);
		}
		/* There is one: the driver may not kick for it again, so the device is told. */
		assert_true(vringh_notify_enable(&q->vr));
		assert_int_equal(fetch(q, 1), 1);
		complete(q, 0, 1);
		expect_used(q, 0, 0);
		/* Now there is none, and the next one is kicked for. */
		assert_false(vringh_notify_enable(&q->vr));
		post(q, two + 1, 1, 0, 0);
		assert_true(mock_should_kick(&q->drv));
		if (n > 1 && q->v.event_idx) {
			post(q, two + 1, 1, 0, 1); /* only for the next one */
			assert_false(mock_should_kick(&q->drv));
		}
		assert_int_equal(fetch(q, 2), n > 1 && q->v.event_idx ? 2 : 1);
		/* Handed back: pending again, and says so. */
		vringh_discard(&q->vr, q->batch.chain, q->batch.nb_chains);
		assert_true(vringh_notify_enable(&q->vr));
		assert_true(fetch(q, 2) > 0);
		vringh_notify_disable(&q->vr);
		complete(q, 0, q->batch.nb_chains);
	}
}

/* The whole ring filled at once after arming: kicked for once. */
static void
kick_full(struct queue *q)
{
	uint32_t lap, i;

	for (lap = 0; lap < 5; lap++) {
		assert_false(vringh_notify_enable(&q->vr));
		for (i = 0; i < q->v.size; i++)
			mock_post(&q->drv, two + 1, 1, 0, i);
		mock_publish(&q->drv);
		assert_true(mock_should_kick(&q->drv));
		assert_false(mock_should_kick(&q->drv));
		assert_int_equal(fetch(q, q->v.size), q->v.size);
		complete(q, 0, q->v.size);
		for (i = 0; i < q->v.size; i++)
			expect_used(q, i, 0);
		turn(q, q->v.size / 3);
		mock_should_kick(&q->drv);
	}
}

/* What is watched stays the same while nothing is fetched, whatever the driver does. */
static void
watched(struct queue *q)
{
	struct vringh_watch watch;
	uint32_t i, j;

	for (i = 0; i <= 2 * q->v.size; i++) {
		watch = vringh_watch(&q->vr);
		assert_false(vringh_watch_pending(&watch));
		for (j = 0; j <= i % q->v.size; j++) {
			mock_post(&q->drv, two + 1, 1, 0, j);
			assert_int_equal(pending(q), j > 0);
			assert_int_equal(vringh_watch_pending(&watch), j > 0);
			mock_publish(&q->drv);
			assert_true(pending(q)); /* which brings the word over a link */
			assert_true(vringh_watch_pending(&watch));
		}
		assert_int_equal(fetch(q, j), j);
		complete(q, 0, j);
		for (j = 0; j <= i % q->v.size; j++)
			expect_used(q, j, 0);
	}
}

int
main(void)
{
	static const struct ring_test tests[] = {
		{"packed event arithmetic", packed_event, T_PACKED | T_EVENT | T_DIRECT, 1, 8},
		{"packed event inside a chain", packed_event_slots,
			T_ALL | T_PACKED | T_EVENT | T_DIRECT, 5, 8},
		{"split event arithmetic", split_event, T_SPLIT | T_EVENT | T_DIRECT, 1, 8},
		{"split event at the edges", split_event_edges,
			T_ALL | T_SPLIT | T_EVENT | T_DIRECT, 1, 8},
		{"split event after 65536 chains", split_event_all, T_SPLIT | T_EVENT | T_DIRECT,
			256, 0},
		{"split flags with an event index", split_flags_ignored, T_ALL | T_SPLIT | T_EVENT,
			1, 256},
		{"packed event flags", packed_flags, T_ALL | T_PACKED, 1, 256},
		{"flags without an event index", by_flags, T_ALL | T_FLAGS, 1, 256},
		{"driver kicks when it need not, or not when it must", kick, T_ALL, 1, 8},
		{"driver kicks in a big ring", kick, 0, 32768, 0},
		{"watched from elsewhere", watched, T_DIRECT, 1, 16},
		{"driver fills the ring with one kick", kick_full, T_ALL, 1, 256},
	};

	return RUN("notify", tests);
}
