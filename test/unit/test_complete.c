/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Completing chains, and the ring's position over many laps, saved and restored. */

#include "harness.h"

static const struct mock_buf two[] = {{.len = 10}, {.len = 20, .write = true}};

/* Lengths, and that used chains come in the order of completion, not of fetching. */
static void
order(struct queue *q)
{
	static const uint32_t turned[] = {2, 0, 1};
	struct vringh_chain chain[3];
	uint32_t i, start;

	for (start = 0; start < 6; start++) {
		queue_rewind(q, near_end(&q->v, start));
		for (i = 0; i < 3; i++)
			mock_post(&q->drv, two + i % 2, 2 - i % 2, 0, i);
		mock_publish(&q->drv);
		assert_int_equal(fetch(q, 4), 3);
		for (i = 0; i < 3; i++) {
			chain[i] = q->batch.chain[turned[i]];
			chain[i].written = turned[i] * 10;
		}
		expect_none(q);
		/* Two batches: two and one. */
		vringh_complete(&q->vr, chain, 2);
		expect_used(q, 2, 20);
		expect_used(q, 0, 0);
		expect_none(q);
		vringh_complete(&q->vr, chain + 2, 1);
		expect_used(q, 1, 10);
		expect_none(q);
		turn(q, 3);
	}
}

static void
none(struct queue *q)
{
	struct vringh_state before = vringh_get_state(&q->vr);

	vringh_complete(&q->vr, q->batch.chain, 0);
	assert_int_equal(vringh_get_state(&q->vr).used, before.used);
	assert_false(vringh_need_notify(&q->vr));
	expect_none(q);
}

/* Over several laps (or over 65535), with chains of one, two and three slots in turn. */
static void
laps(struct queue *q)
{
	struct mock_buf buf[3] = {{.len = 4}, {.len = 4, .write = true}, {.len = 4, .write = true}};
	uint32_t i, done = 0, laps = q->v.size < 1000 ? 9 * q->v.size : 3 * q->v.size;
	uint32_t batch = q->v.size < 64 ? q->v.size : 64;

	queue_rewind(q, near_end(&q->v, q->v.packed ? 0 : 9));
	while (done < laps) {
		uint32_t n = 0, first = done;

		for (i = done % 3 + 1;
			n < batch && mock_post(&q->drv, buf + 3 - i, i, 0, done + n) >= 0;
			i = i % 3 + 1)
			n++;
		if (n == 0) { /* smaller than the next chain */
			done++;
			continue;
		}
		mock_publish(&q->drv);
		assert_int_equal(fetch(q, batch), n);
		for (i = 0; i < n; i++)
			q->batch.chain[i].written = (done + i) % (q->batch.chain[i].write_len + 1);
		/* In two parts, one of them may be empty. */
		complete(q, 0, n / 3);
		complete(q, n / 3, n - n / 3);
		for (; done < first + n; done++)
			expect_used(q, done, q->batch.chain[done - first].written);
		expect_none(q);
		assert_int_equal(vringh_get_state(&q->vr).used, mock_used_position(&q->drv, 0));
		assert_int_equal(vringh_get_state(&q->vr).avail, mock_used_position(&q->drv, 0));
	}
}

/* Split: the index runs through all its values and a full ring at each end. */
static void
index_wrap(struct queue *q)
{
	uint32_t total, i, n = q->v.size < 512 ? q->v.size : 512;

	for (total = 0; total < 0x10000 + 2 * n; total += n) {
		for (i = 0; i < n; i++)
			mock_post(&q->drv, two + 1, 1, 0, i);
		mock_publish(&q->drv);
		assert_int_equal(fetch(q, n), n);
		complete(q, 0, n);
		for (i = 0; i < n; i++)
			expect_used(q, i, 0);
	}
}

/* Stop at any position with chains out, restore, complete the old and go on. */
static void
state_round_trip(struct queue *q)
{
	uint32_t at, out, n = q->v.size < 10 ? q->v.size : 10;

	for (at = 0; at < 2 * n; at++)
		for (out = 0; out <= n; out++) {
			struct vringh_chain chain[10];
			struct vringh_state s;
			uint32_t i;

			queue_rewind(q, near_end(&q->v, at));
			for (i = 0; i < out; i++)
				mock_post(&q->drv, two + 1, 1, 0, i);
			mock_publish(&q->drv);
			assert_int_equal(fetch(q, n), out);
			memcpy(chain, q->batch.chain, out * sizeof(chain[0]));
			s = vringh_get_state(&q->vr);
			assert_int_equal(s.avail, mock_used_position(&q->drv, out));
			assert_int_equal(s.used, mock_used_position(&q->drv, 0));
			q->cfg.state = s;
			assert_int_equal(vringh_init(&q->vr, &q->cfg), VRINGH_OK);
			assert_int_equal(vringh_get_state(&q->vr).avail, s.avail);
			assert_int_equal(vringh_get_state(&q->vr).used, s.used);
			if (out < n) {
				assert_int_equal(fetch(q, n), 0);
				post(q, two + 1, 1, 0, out);
				assert_int_equal(fetch(q, n), 1);
			} else if (!q->v.packed || q->v.size > 1) {
				assert_int_equal(fetch(q, n), 0);
			}
			vringh_complete(&q->vr, chain, out);
			for (i = 0; i < out; i++)
				expect_used(q, i, 0);
			if (out < n) {
				complete(q, 0, 1);
				expect_used(q, out, 0);
			}
			expect_none(q);
			assert_false(pending(q));
			turn(q, n + 1);
		}
}

/* What was fetched and never completed is fetched again when avail is set back to used. */
static void
state_rewound(struct queue *q)
{
	uint32_t i, start;

	for (start = 0; start < 5; start++) {
		queue_rewind(q, near_end(&q->v, start));
		for (i = 0; i < 2; i++)
			mock_post(&q->drv, two + 1, 1, 0, i);
		mock_publish(&q->drv);
		assert_int_equal(fetch(q, 2), 2);
		q->cfg.state.avail = q->cfg.state.used = vringh_get_state(&q->vr).used;
		assert_int_equal(vringh_init(&q->vr, &q->cfg), VRINGH_OK);
		assert_int_equal(fetch(q, 3), 2);
		complete(q, 0, 2);
		expect_used(q, 0, 0);
		expect_used(q, 1, 0);
		expect_none(q);
	}
}

/* The ring moves in this process, with chains out. */
static void
moved(struct queue *q)
{
	uint32_t i, k;

	for (i = 0; i < 3; i++) {
		struct vringh_chain out;

		post(q, two + 1, 1, 0, 7);
		assert_int_equal(fetch(q, 1), 1);
		out = q->batch.chain[0];
		mock_mem_move(&q->mem);
		for (k = 0; k < 3; k++)
			if (q->area[k] != &q->mem)
				mock_mem_move(q->area[k]);
		assert_int_equal(queue_remap(q), VRINGH_OK);
		out.written = i;
		vringh_complete(&q->vr, &out, 1);
		expect_used(q, 7, i);
		turn(q, q->v.size > 256 ? 9 : q->v.size + 1);
	}
}

/* The same to another table: the old one may go. */
static void
moved_to_another(struct queue *q)
{
	struct vringh_region table[8];
	struct vringh_mem old = q->mem.view;

	old.table = table;
	memcpy(table, q->mem.view.table, old.nb_regions * sizeof(table[0]));
	assert_int_equal(vringh_set_mem(&q->vr, &old), VRINGH_OK);
	turn(q, 2);
	assert_int_equal(vringh_set_mem(&q->vr, &q->mem.view), VRINGH_OK);
	memset(table, 0, sizeof(table));
	memset(&old, 0, sizeof(old));
	turn(q, 3);
}

static void
unmapped(struct queue *q)
{
	static const uint64_t areas[] = {DESC_AT, DRIVER_AT, DEVICE_AT};
	unsigned int i;

	for (i = 0; i < 3; i++) {
		struct vringh_region table[8];
		struct vringh_mem view = q->mem.view;
		/* The region that was hit last is the one to go: not to be believed any more. */
		struct mock_buf alias = {.len = 16, .fixed = true, .iova = DESC_AT};
		uint32_t k;

		post(q, &alias, 1, 0, 1);
		assert_int_equal(fetch(q, 1), 1);
		view.table = table;
		view.nb_regions = 0;
		for (k = 0; k < q->mem.view.nb_regions; k++)
			if (q->mem.view.table[k].iova != areas[i])
				table[view.nb_regions++] = q->mem.view.table[k];
		assert_int_equal(vringh_set_mem(&q->vr, &view), -VRINGH_E_AREA);
		expect_broken(q, VRINGH_E_AREA);
	}
	/* A buffer's memory may go: then the chain is bad. */
	mock_mem_remove(&q->mem, BUFS_AT);
	assert_int_equal(queue_remap(q), VRINGH_OK);
	expect_bad(q, post_one(q, 5, true, 2), VRINGH_E_ADDR);
}

/* Right to the ring's end: a device writes where it should and nowhere else. */
static void
only_device_area(struct queue *q)
{
	uint8_t *desc = mock_mem_at(q->area[0], DESC_AT, 1), *driver;
	uint32_t len = 16 * q->v.size, i, n = q->v.size;
	uint8_t *before = malloc(len);

	driver = mock_mem_at(q->area[1], DRIVER_AT, 4);
	for (i = 0; i < n; i++)
		mock_post(&q->drv, two + 1, 1, 0, i);
	mock_publish(&q->drv);
	memcpy(before, desc, len);
	assert_int_equal(fetch(q, n), n);
	vringh_notify_enable(&q->vr);
	vringh_notify_disable(&q->vr);
	assert_memory_equal(before, desc, len);
	complete(q, 0, n);
	if (!q->v.packed)
		assert_memory_equal(before, desc, len);
	memcpy(before, driver, 4);
	vringh_need_notify(&q->vr);
	assert_memory_equal(before, driver, 4);
	for (i = 0; i < n; i++)
		expect_used(q, i, 0);
	free(before);
}

int
main(void)
{
	static const struct ring_test tests[] = {
		{"used chains out of order or with wrong lengths", order, T_ANY_ORDER, 5, 0},
		{"nothing completed is something", none, 0, 1, 0},
		{"position or wrap wrong after laps", laps, 0, 1, 0},
		{"split index at 65535", index_wrap, T_SPLIT, 1, 0},
		{"saved state does not continue", state_round_trip, 0, 1, 0},
		{"uncompleted chains lost at restart", state_rewound, 0, 2, 0},
		{"ring moved in host memory", moved, 0, 1, 0},
		{"ring in another table", moved_to_another, T_ONE_MEM, 1, 256},
		{"ring or buffers unmapped", unmapped, T_ALL | T_REGIONS | T_ONE_MEM | T_NO_MISS, 1,
			256},
		{"device writes into the driver's part", only_device_area, 0, 1, 0},
	};

	return RUN("complete", tests);
}
