/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Buffers and indirect tables anywhere in memory made of many regions. */

#include "harness.h"

/* Lengths of adjacent regions from FREE_AT on; a hole follows. */
static const uint32_t lens[] = {1, 1, 15, 1, 16, 3, 64, 1, 1, 1, 100};
#define TOTAL 204

static void
adjacent(struct queue *q)
{
	uint64_t at = FREE_AT;
	unsigned int i;

	for (i = 0; i < DIM(lens); i++) {
		assert_non_null(mock_mem_add(&q->mem, at, lens[i], VRINGH_PERM_RW));
		at += lens[i];
	}
	assert_int_equal(at, FREE_AT + TOTAL);
	assert_int_equal(queue_remap(q), VRINGH_OK);
}

/* Regions that a range touches. */
static unsigned int
touched(uint32_t off, uint32_t len)
{
	uint32_t i, at = 0, n = 0;

	for (i = 0; i < DIM(lens); i++) {
		n += off < at + lens[i] && off + len > at;
		at += lens[i];
	}
	return n;
}

/* Every buffer in the eleven regions, against the model; one byte too long is bad. */
static void
everywhere(struct queue *q)
{
	uint32_t off, len;

	adjacent(q);
	for (off = 0; off < TOTAL; off++)
		for (len = 1; off + len <= TOTAL + 1; len += 1 + len / 16) {
			struct mock_buf buf = {
				.len = len, .write = len % 2, .fixed = true, .iova = FREE_AT + off};
			int id = post(q, &buf, 1, 0, off);

			q->batch.max_segs = DIM(lens);
			if (off + len > TOTAL) {
				expect_bad(q, id, VRINGH_E_ADDR);
				continue;
			}
			assert_int_equal(fetch(q, 1), 1);
			expect_chain(q, &q->batch.chain[0], id, &buf, 1);
			assert_int_equal(q->batch.nb_segs, touched(off, len));
			complete(q, 0, 1);
			expect_used(q, off, 0);
		}
}

/* A table over regions' borders, at every offset, so aligned to nothing. */
static void
table_anywhere(struct queue *q)
{
	static const struct mock_buf buf[] = {{.len = 3}, {.len = 5}, {.len = 7, .write = true}};
	uint32_t off;

	adjacent(q);
	for (off = 0; off + 48 <= TOTAL; off++) {
		int id = mock_post(&q->drv, buf, 3, MOCK_INDIRECT, off);
		struct mock_desc m = mock_get_desc(&q->drv, id, 0);
		uint8_t copy[48];

		assert_true(mock_mem_read(&q->mem, m.addr, copy, sizeof(copy)));
		m.addr = FREE_AT + off;
		assert_true(mock_mem_write(&q->mem, m.addr, copy, sizeof(copy)));
		mock_set_desc(&q->drv, id, 0, &m);
		mock_publish(&q->drv);
		assert_int_equal(fetch(q, 1), 1);
		expect_chain(q, &q->batch.chain[0], id, buf, 3);
		complete(q, 0, 1);
		expect_used(q, off, 0);
	}
}

/* The segments of one split buffer do not fit: the chain comes with the next batch. */
static void
split_buffer_room(struct queue *q)
{
	struct mock_buf two = {.len = 2, .fixed = true, .iova = FREE_AT};
	uint32_t i;

	adjacent(q);
	for (i = 0; i < 3; i++)
		mock_post(&q->drv, &two, 1, 0, i);
	mock_publish(&q->drv);
	q->batch.max_segs = 3;
	for (i = 0; i < 3; i++) {
		assert_int_equal(fetch(q, 3), 1);
		assert_int_equal(q->batch.nb_segs, 2);
		complete(q, 0, 1);
		expect_used(q, i, 0);
	}
	q->batch.max_segs = 1;
	mock_post(&q->drv, &two, 1, 0, 3);
	mock_publish(&q->drv);
	assert_int_equal(fetch(q, 1), 1);
	assert_int_equal(q->batch.chain[0].error, VRINGH_E_SEGS);
}

/* A table across a page's border, in any memory. */
static void
table_across_page(struct queue *q)
{
	static const struct mock_buf buf[] = {{.len = 3}, {.len = 5}, {.len = 7, .write = true}};
	uint32_t before;

	queue_map(q, FREE_AT, 0x2000, VRINGH_PERM_READ);
	for (before = 0; before <= 48; before++) {
		int id = mock_post(&q->drv, buf, 3, MOCK_INDIRECT, before);
		struct mock_desc m = mock_get_desc(&q->drv, id, 0);
		uint8_t copy[48];

		assert_true(mock_mem_read(&q->mem, m.addr, copy, sizeof(copy)));
		m.addr = FREE_AT + 0x1000 - before;
		assert_true(mock_mem_write(&q->mem, m.addr, copy, sizeof(copy)));
		mock_set_desc(&q->drv, id, 0, &m);
		mock_publish(&q->drv);
		assert_int_equal(fetch(q, 1), 1);
		expect_chain(q, &q->batch.chain[0], id, buf, 3);
		complete(q, 0, 1);
		expect_used(q, before, 0);
	}
}

/* A window up to its first and last byte, and not one more. */
static void
window_edges(struct queue *q)
{
	static const uint64_t at[] = {WINDOW_AT, WINDOW_END};
	uint32_t i, len, over;

	queue_map(q, WINDOW_END - 0x1000, 0x1000, VRINGH_PERM_RW);
	for (i = 0; i < 2; i++)
		for (len = 1; len < 70; len += 3)
			for (over = 0; over <= len; over += 1 + len / 4) {
				struct mock_buf buf = {.len = len, .write = len % 2, .fixed = true};
				int id;

				buf.iova = i == 0 ? at[i] - over : at[i] - len + over;
				id = post(q, &buf, 1, 0, 1);
				if (over > 0) {
					expect_bad(q, id, VRINGH_E_ADDR);
					continue;
				}
				assert_int_equal(fetch(q, 1), 1);
				expect_chain(q, &q->batch.chain[0], id, &buf, 1);
				assert_int_equal(q->batch.nb_segs, 1);
				complete(q, 0, 1);
				expect_used(q, 1, 0);
			}
}

/* Jumping between many regions: the last one hit is no trap. */
static void
many_regions(struct queue *q)
{
	uint64_t seed = 1;
	uint32_t i, k;

	for (i = 0; i < 50; i++)
		assert_non_null(
			mock_mem_add(&q->mem, FREE_AT + i * 0x10000ull, 0x100 + i, i % 3 + 1));
	assert_int_equal(queue_remap(q), VRINGH_OK);
	for (k = 0; k < 3000; k++) {
		uint32_t r = mock_random(&seed) % 50, off = mock_random(&seed) % 0x180;
		struct mock_buf buf = {.len = 1 + mock_random(&seed) % 0x40,
			.write = mock_random(&seed) % 2,
			.fixed = true,
			.iova = FREE_AT + r * 0x10000ull + off};
		bool in = off + buf.len <= 0x100 + r, start = off < 0x100 + r;
		bool may = (r % 3 + 1) & (buf.write ? VRINGH_PERM_WRITE : VRINGH_PERM_READ);
		int id = post(q, &buf, 1, 0, k);

		if (in && may) {
			assert_int_equal(fetch(q, 1), 1);
			expect_chain(q, &q->batch.chain[0], id, &buf, 1);
			complete(q, 0, 1);
			expect_used(q, k, 0);
		} else {
			expect_bad(q, id, start && !may ? VRINGH_E_PERM : VRINGH_E_ADDR);
		}
	}
}

/* A disk's requests: what is around the data is in one region, the data in another. */
static void
turn_by_turn(struct queue *q)
{
	struct mock_buf buf[] = {
		{.len = 16, .fixed = true, .iova = FREE_AT},
		{.len = 64, .fixed = true, .iova = FREE_AT + 0x10000},
		{.len = 1, .write = true, .fixed = true, .iova = FREE_AT + 16},
	};
	uint32_t k, walked = 0;
	uint64_t seed = 1;

	mock_mem_add(&q->mem, FREE_AT, 0x1000, VRINGH_PERM_RW);
	mock_mem_add(&q->mem, FREE_AT + 0x10000, 0x1000, VRINGH_PERM_RW);
	assert_int_equal(queue_remap(q), VRINGH_OK);
	for (k = 0; k < 200; k++) {
		int id;

		buf[1].write = mock_random(&seed) % 2;
		id = post(q, buf, 3, 0, k);
		assert_int_equal(fetch(q, 1), 1);
		expect_chain(q, &q->batch.chain[0], id, buf, 3);
		/* The first ones find the regions; one over a ring's end is odd. */
		if (k > 4)
			walked += vringh_walked(&q->vr);
		complete(q, 0, 1);
		expect_used(q, k, 0);
	}
	if (q->v.size == 256 && (q->v.mem == VRINGH_MEM_REGION || q->v.mem == VRINGH_MEM_IOTLB))
		assert_in_range(walked, 0, 2 * 6);
	/* It is at hand, but not for that. */
	mock_mem_permit(&q->mem, FREE_AT + 0x10000, VRINGH_PERM_READ);
	assert_int_equal(queue_remap(q), VRINGH_OK);
	for (k = 0; k < 8; k++) {
		int id;

		buf[1].write = false;
		id = post(q, buf, 3, 0, k);
		assert_int_equal(fetch(q, 1), 1);
		expect_chain(q, &q->batch.chain[0], id, buf, 3);
		complete(q, 0, 1);
		expect_used(q, k, 0);
		buf[1].write = true;
		expect_bad(q, post(q, buf, 3, 0, k), VRINGH_E_PERM);
	}
}

/* Bus address 0 and the last pages are addresses like others. */
static void
extremes(struct queue *q)
{
	static const struct mock_buf buf[] = {
		{.len = 0x1000, .fixed = true, .iova = 0},
		{.len = 1, .fixed = true, .iova = 0},
		{.len = 0x1000, .fixed = true, .iova = UINT64_MAX - 0x1fff},
		{.len = 1, .write = true, .fixed = true, .iova = UINT64_MAX - 0x1000},
	};
	struct mock_buf wrap = {.len = 0x1001, .fixed = true, .iova = UINT64_MAX - 0x1fff};
	int id;

	mock_mem_add(&q->mem, 0, 0x1000, VRINGH_PERM_RW);
	mock_mem_add(&q->mem, UINT64_MAX - 0x1fff, 0x1000, VRINGH_PERM_RW);
	assert_int_equal(queue_remap(q), VRINGH_OK);
	id = post(q, buf, 4, 0, 1);
	assert_int_equal(fetch(q, 1), 1);
	expect_chain(q, &q->batch.chain[0], id, buf, 4);
	complete(q, 0, 1);
	expect_used(q, 1, 0);
	expect_bad(q, post(q, &wrap, 1, 0, 2), VRINGH_E_ADDR);
	wrap.len = 0x2000;
	expect_bad(q, post(q, &wrap, 1, 0, 2), VRINGH_E_ADDR);
	/* The very last byte; behind it is none, not the first one. */
	queue_map(q, UINT64_MAX - 0xfff, 0x1000, VRINGH_PERM_RW);
	wrap = (struct mock_buf){.len = 0x10, .fixed = true, .iova = UINT64_MAX - 0xf};
	id = post(q, &wrap, 1, 0, 1);
	assert_int_equal(fetch(q, 1), 1);
	expect_chain(q, &q->batch.chain[0], id, &wrap, 1);
	complete(q, 0, 1);
	expect_used(q, 1, 0);
	for (wrap.len = 0x11; wrap.len < 0x20; wrap.len++)
		expect_bad(q, post(q, &wrap, 1, 0, 2), VRINGH_E_ADDR);
}

/* Ring areas as buffers: the guest's own affair, no crash. */
static void
aliases(struct queue *q)
{
	struct mock_buf buf = {.len = 16, .fixed = true, .iova = DESC_AT};
	int id = post(q, &buf, 1, 0, 1);

	assert_int_equal(fetch(q, 1), 1);
	expect_chain(q, &q->batch.chain[0], id, &buf, 1);
	complete(q, 0, 1);
	expect_used(q, 1, 0);
	/* Used ring as a buffer that the device writes, then completes into. */
	buf = (struct mock_buf){.len = 4, .write = true, .fixed = true, .iova = DEVICE_AT};
	post(q, &buf, 1, 0, 2);
	assert_int_equal(fetch(q, 1), 1);
	fill(q, &q->batch.chain[0], 4, 0xff);
	complete(q, 0, 1);
	expect_used(q, 2, 4);
}

/* Rights that went away since the last hit count. */
static void
rights_change(struct queue *q)
{
	turn(q, 2);
	mock_mem_permit(&q->mem, BUFS_AT, VRINGH_PERM_READ);
	assert_int_equal(queue_remap(q), VRINGH_OK);
	expect_bad(q, post_one(q, 5, true, 1), VRINGH_E_PERM);
	mock_mem_permit(&q->mem, BUFS_AT, VRINGH_PERM_RW);
	assert_int_equal(queue_remap(q), VRINGH_OK);
	turn(q, 2);
}

int
main(void)
{
	static const struct ring_test tests[] = {
		{"buffer across adjacent regions", everywhere, T_ALL | T_DIRECT | T_REGIONS, 8, 8},
		{"indirect table across regions, unaligned", table_anywhere,
			T_ALL | T_INDIRECT | T_REGIONS, 5, 8},
		{"no room for a split buffer's segments", split_buffer_room, T_REGIONS, 3, 256},
		{"indirect table across pages", table_across_page, T_ALL | T_INDIRECT, 3, 8},
		{"window's edges", window_edges, T_ALL | T_WINDOW | T_ONE_MEM, 8, 8},
		{"wrong region of many", many_regions, T_ALL | T_DIRECT | T_REGIONS, 8, 8},
		{"data in another region", turn_by_turn, T_ALL | T_REGIONS, 8, 256},
		{"first and last bus addresses", extremes, T_ALL | T_REGIONS, 8, 256},
		{"buffers that alias the ring", aliases, T_ALL | T_ONE_MEM, 2, 8},
		{"rights of yesterday", rights_change, T_ALL | T_REGIONS, 1, 8},
	};

	return RUN("memory", tests);
}
