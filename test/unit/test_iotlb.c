/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Memory behind a translation table that changes while chains are in flight. What is unmapped
 * is freed at once, so that any use of it is seen by a sanitizer.
 */

#include <errno.h>

#include "harness.h"

#define A_AT (FREE_AT)
#define B_AT (FREE_AT + 0x100000)
#define PAGE 0x1000u

/* Memory of the guest that the table does not know yet. */
static void
hidden(struct queue *q, uint64_t iova, uint64_t len, uint32_t perm)
{
	assert_non_null(mock_mem_add(&q->mem, iova, len, perm));
}

static void
map(struct queue *q, uint64_t iova)
{
	struct vringh_region r = mock_mem_region(&q->mem, iova);

	assert_int_equal(vringh_iotlb_map(&q->mem.view, &r), 0);
}

static uint32_t
unmap(struct queue *q, uint64_t iova, uint64_t len)
{
	uint32_t n = vringh_iotlb_unmap(&q->mem.view, iova, len);

	assert_int_equal(vringh_set_mem(&q->next.vr, NULL), VRINGH_OK);
	return n;
}

/* A fetch finds nothing but a miss there, and takes nothing. */
static void
expect_miss(struct queue *q, uint64_t iova, uint32_t perm)
{
	struct vringh_state before = vringh_get_state(&q->vr);
	uint32_t chains = q->batch.nb_chains, segs = q->batch.nb_segs;
	int e, i;

	for (i = 0; i < 2; i++) {
		assert_int_equal(vringh_fetch(&q->vr, &q->batch, 3), -VRINGH_E_MISS);
		assert_int_equal(vringh_get_miss(&q->vr).iova, iova);
		assert_int_equal(vringh_get_miss(&q->vr).perm, perm);
		assert_int_equal(vringh_broken(&q->vr), VRINGH_OK);
		assert_int_equal(q->batch.nb_chains, chains);
		assert_int_equal(q->batch.nb_segs, segs);
		assert_int_equal(vringh_get_state(&q->vr).avail, before.avail);
		assert_int_equal(vringh_get_state(&q->vr).used, before.used);
	}
	for (e = 0; e < VRINGH_E_MAX; e++)
		assert_int_equal(vringh_error_count(&q->vr, e), 0);
}

static void
empty(struct queue *q)
{
	q->batch.nb_chains = q->batch.nb_segs = 0;
}

/* Any part of a chain may be missed; mapped, the same chain comes. */
static void
miss(struct queue *q)
{
	const struct mock_buf buf[4] = {{.len = 5},
		{.len = 20, .fixed = true, .iova = A_AT + 0xff8}, {.len = 8, .write = true},
		{.len = 20, .write = true, .fixed = true, .iova = B_AT + 0xff8}};
	uint32_t start, f;

	for (f = 0; f <= q->v.indirect; f++)
		for (start = 0; start < 5; start++) {
			int id;

			queue_rewind(q, near_end(&q->v, start));
			empty(q);
			hidden(q, A_AT, 0x1000, VRINGH_PERM_READ);
			hidden(q, A_AT + 0x1000, 0x1000, VRINGH_PERM_READ);
			hidden(q, B_AT, 0x1000, VRINGH_PERM_WRITE);
			hidden(q, B_AT + 0x1000, 0x1000, VRINGH_PERM_WRITE);
			id = post(q, buf, 4, f, 1);
			expect_miss(q, A_AT + 0xff8, VRINGH_PERM_READ);
			map(q, A_AT);
			expect_miss(q, A_AT + 0x1000, VRINGH_PERM_READ); /* its second half */
			map(q, A_AT + 0x1000);
			expect_miss(q, B_AT + 0xff8, VRINGH_PERM_WRITE);
			map(q, B_AT);
			expect_miss(q, B_AT + 0x1000, VRINGH_PERM_WRITE);
			map(q, B_AT + 0x1000);
			assert_int_equal(fetch(q, 3), 1);
			expect_chain(q, &q->batch.chain[0], id, buf, 4);
			fill(q, &q->batch.chain[0], 28, 0x77);
			complete(q, 0, 1);
			expect_used(q, 1, 28);
			assert_int_equal(unmap(q, A_AT, B_AT + 0x2000 - A_AT), 4);
			mock_mem_remove(&q->mem, A_AT);
			mock_mem_remove(&q->mem, A_AT + 0x1000);
			mock_mem_remove(&q->mem, B_AT);
			mock_mem_remove(&q->mem, B_AT + 0x1000);
			assert_int_equal(vringh_set_mem(&q->vr, NULL), VRINGH_OK);
		}
}

/* Chains in front of a miss come first, those behind it after it. */
static void
miss_mid_batch(struct queue *q)
{
	static const struct mock_buf lost = {.len = 9, .write = true, .fixed = true, .iova = A_AT};
	uint32_t place, i;

	hidden(q, A_AT, 0x1000, VRINGH_PERM_RW);
	for (place = 0; place < 4; place++) {
		empty(q);
		for (i = 0; i < 4; i++)
			if (i == place)
				mock_post(&q->drv, &lost, 1, 0, i);
			else
				mock_post(&q->drv, &(struct mock_buf){.len = 4}, 1, 0, i);
		mock_publish(&q->drv);
		if (place > 0)
			assert_int_equal(vringh_fetch(&q->vr, &q->batch, 8), place);
		expect_miss(q, A_AT, VRINGH_PERM_WRITE);
		/* Handed back and fetched again it is the same. */
		vringh_discard(&q->vr, q->batch.chain, place);
		empty(q);
		if (place > 0)
			assert_int_equal(vringh_fetch(&q->vr, &q->batch, 8), place);
		expect_miss(q, A_AT, VRINGH_PERM_WRITE);
		map(q, A_AT);
		assert_int_equal(vringh_fetch(&q->vr, &q->batch, 8), 4 - place);
		for (i = 0; i < 4; i++) {
			assert_int_equal(q->batch.chain[i].error, VRINGH_OK);
			assert_int_equal(q->drv.record[q->batch.chain[i].id].token, i);
		}
		complete(q, 0, 4);
		for (i = 0; i < 4; i++)
			expect_used(q, i, 0);
		assert_int_equal(unmap(q, A_AT, 1), 1);
		assert_int_equal(vringh_set_mem(&q->vr, NULL), VRINGH_OK);
	}
}

/* An indirect table, at its start, in an entry, in the middle of one. */
static void
miss_in_table(struct queue *q)
{
	static const struct mock_buf buf[] = {{.len = 3}, {.len = 5}, {.len = 7, .write = true}};
	uint32_t first;

	/* So much of the table's 48 bytes lies in the first region. */
	for (first = 0; first <= 48; first += 8) {
		int id = mock_post(&q->drv, buf, 3, MOCK_INDIRECT, first);
		struct mock_desc m = mock_get_desc(&q->drv, id, 0);
		uint8_t copy[48];

		empty(q);
		hidden(q, A_AT, 0x1000, VRINGH_PERM_READ);
		hidden(q, A_AT + 0x1000, 0x1000, VRINGH_PERM_READ);
		assert_true(mock_mem_read(&q->mem, m.addr, copy, sizeof(copy)));
		m.addr = A_AT + 0x1000 - first;
		assert_true(mock_mem_write(&q->mem, m.addr, copy, sizeof(copy)));
		mock_set_desc(&q->drv, id, 0, &m);
		mock_publish(&q->drv);
		if (first > 0) {
			expect_miss(q, m.addr, VRINGH_PERM_READ);
			map(q, A_AT);
		}
		if (first < 48) {
			expect_miss(q, A_AT + 0x1000, VRINGH_PERM_READ);
			map(q, A_AT + 0x1000);
		}
		assert_int_equal(fetch(q, 2), 1);
		expect_chain(q, &q->batch.chain[0], id, buf, 3);
		complete(q, 0, 1);
		expect_used(q, first, 0);
		unmap(q, A_AT, 0x2000);
		mock_mem_remove(&q->mem, A_AT);
		mock_mem_remove(&q->mem, A_AT + 0x1000);
		assert_int_equal(vringh_set_mem(&q->vr, NULL), VRINGH_OK);
	}
}

/* There will be no map: the chain is bad, and only that one. */
static void
refused(struct queue *q)
{
	struct mock_buf lost[2] = {{.len = 9, .fixed = true, .iova = A_AT}, {.len = 3}};
	struct mock_buf other = {.len = 9, .fixed = true, .iova = B_AT};
	uint32_t i;
	int id;

	for (i = 1; i <= 3; i++) {
		empty(q);
		post(q, lost, 2, 0, 1);
		assert_int_equal(vringh_fetch(&q->vr, &q->batch, 4), -VRINGH_E_MISS);
		post(q, lost, 2, 0, 2);
		vringh_refuse_miss(&q->vr);
		assert_int_equal(vringh_fetch(&q->vr, &q->batch, 4), 1);
		assert_int_equal(q->batch.chain[0].error, VRINGH_E_ADDR);
		assert_int_equal(q->batch.chain[0].slots, q->v.packed ? 2 : 1);
		assert_int_equal(q->batch.nb_segs, 0);
		/* The next one is asked for anew. */
		assert_int_equal(vringh_fetch(&q->vr, &q->batch, 4), -VRINGH_E_MISS);
		vringh_refuse_miss(&q->vr);
		assert_int_equal(vringh_fetch(&q->vr, &q->batch, 4), 1);
		complete(q, 0, 2);
		assert_int_equal(vringh_error_count(&q->vr, VRINGH_E_ADDR), 2 * i);
		assert_int_equal(vringh_error_count(&q->vr, VRINGH_E_MISS), 0);
		expect_used_short(q, 1, 0);
		expect_used_short(q, 2, 0);
	}
	/* Refused, and mapped all the same: that chain is good, and the next miss is one. */
	hidden(q, A_AT, 0x1000, VRINGH_PERM_READ);
	empty(q);
	id = post(q, lost, 2, 0, 3);
	assert_int_equal(vringh_fetch(&q->vr, &q->batch, 4), -VRINGH_E_MISS);
	vringh_refuse_miss(&q->vr);
	map(q, A_AT);
	assert_int_equal(vringh_fetch(&q->vr, &q->batch, 4), 1);
	expect_chain(q, &q->batch.chain[0], id, lost, 2);
	post(q, &other, 1, 0, 4);
	assert_int_equal(vringh_fetch(&q->vr, &q->batch, 4), -VRINGH_E_MISS);
	assert_int_equal(vringh_get_miss(&q->vr).iova, B_AT);
}

/* What a range may not be used for is no miss: no map will mend it. */
static void
rights(struct queue *q)
{
	struct mock_buf read = {.len = 8, .fixed = true, .iova = B_AT};
	struct mock_buf write = {.len = 8, .write = true, .fixed = true, .iova = A_AT};
	struct mock_buf both[2] = {{.len = 8, .fixed = true, .iova = B_AT + 0x2000}, read};

	queue_map(q, A_AT, 0x1000, VRINGH_PERM_READ);
	queue_map(q, B_AT, 0x1000, VRINGH_PERM_WRITE);
	expect_bad(q, post(q, &read, 1, 0, 1), VRINGH_E_PERM);
	expect_bad(q, post(q, &write, 1, 0, 2), VRINGH_E_PERM);
	/* The first of a chain's faults counts. */
	empty(q);
	post(q, both, 2, 0, 3);
	assert_int_equal(vringh_fetch(&q->vr, &q->batch, 4), -VRINGH_E_MISS);
	hidden(q, B_AT + 0x2000, 0x10, VRINGH_PERM_READ);
	map(q, B_AT + 0x2000);
	assert_int_equal(vringh_fetch(&q->vr, &q->batch, 4), 1);
	assert_int_equal(q->batch.chain[0].error, VRINGH_E_PERM);
}

/* The ring itself is not mapped yet, or in part. */
static void
ring_missed_at_init(struct queue *q)
{
	static const uint64_t at[3] = {DESC_AT, DRIVER_AT, DEVICE_AT};
	const uint32_t perm[3] = {q->v.packed ? VRINGH_PERM_RW : VRINGH_PERM_READ, VRINGH_PERM_READ,
		VRINGH_PERM_WRITE};
	uint32_t i, first;

	for (i = 0; i < 3; i++)
		for (first = 0; first < 4; first += 2) {
			uint32_t len = mock_area_len(&q->drv.cfg, i);
			struct vringh_region r = mock_mem_region(&q->mem, at[i]), part = r;
			struct vringh_chain chain = {.slots = 1};

			assert_int_equal(unmap(q, at[i], len), 1);
			if (first > 0) {
				part.len = first;
				assert_int_equal(vringh_iotlb_map(&q->mem.view, &part), 0);
			}
			q->cfg.state.avail = q->cfg.state.used = mock_used_position(&q->drv, 0);
			assert_int_equal(vringh_init(&q->vr, &q->cfg), -VRINGH_E_MISS);
			assert_int_equal(vringh_broken(&q->vr), VRINGH_E_MISS);
			assert_int_equal(vringh_get_miss(&q->vr).iova, at[i] + first);
			assert_int_equal(vringh_get_miss(&q->vr).perm, perm[i]);
			/* Until then it is a broken queue. */
			assert_int_equal(fetch(q, 1), -VRINGH_E_MISS);
			vringh_complete(&q->vr, &chain, 1);
			assert_false(vringh_pending(&q->vr));
			assert_false(vringh_notify_enable(&q->vr));
			assert_false(vringh_need_notify(&q->vr));
			vringh_notify_disable(&q->vr);
			assert_int_equal(vringh_set_mem(&q->vr, NULL), -VRINGH_E_MISS);
			part = r;
			part.iova += first;
			part.host += first;
			part.dirty += first;
			part.len -= first;
			assert_int_equal(vringh_iotlb_map(&q->mem.view, &part), 0);
			assert_int_equal(vringh_broken(&q->vr), VRINGH_E_MISS);
			assert_int_equal(vringh_set_mem(&q->vr, NULL), VRINGH_OK);
			turn(q, q->v.size + 2);
			unmap(q, at[i], len);
			assert_int_equal(vringh_iotlb_map(&q->mem.view, &r), 0);
			assert_int_equal(vringh_set_mem(&q->vr, NULL), VRINGH_OK);
		}
}

/* An area goes away and comes back elsewhere, with chains in flight. */
static void
ring_unmapped(struct queue *q)
{
	static const uint64_t at[3] = {DESC_AT, DRIVER_AT, DEVICE_AT};
	uint32_t i;

	for (i = 0; i < 3; i++) {
		struct mock_buf buf[2] = {{.len = 4}, {.len = 4, .write = true}};
		struct vringh_region r;

		post(q, buf, 2, 0, i);
		empty(q);
		assert_int_equal(fetch(q, 1), 1);
		assert_int_equal(unmap(q, at[i], 1), 1);
		mock_mem_move(&q->mem); /* the old memory is gone */
		assert_int_equal(vringh_set_mem(&q->vr, NULL), -VRINGH_E_MISS);
		assert_int_equal(vringh_get_miss(&q->vr).iova, at[i]);
		assert_int_equal(vringh_fetch(&q->vr, &q->batch, 1), -VRINGH_E_MISS);
		/* Nothing of it is touched meanwhile. */
		complete(q, 0, 1);
		assert_false(vringh_notify_enable(&q->vr));
		r = mock_mem_region(&q->mem, at[i]);
		assert_int_equal(vringh_iotlb_map(&q->mem.view, &r), 0);
		assert_int_equal(queue_remap(q), VRINGH_OK);
		fill(q, &q->batch.chain[0], 4, i);
		complete(q, 0, 1);
		expect_used(q, i, 4);
		turn(q, 3);
		/* Mapped for something else: that is no miss. */
		assert_int_equal(unmap(q, at[i], 1), 1);
		r.perm = i == 2 ? VRINGH_PERM_READ : VRINGH_PERM_WRITE;
		assert_int_equal(vringh_iotlb_map(&q->mem.view, &r), 0);
		assert_int_equal(vringh_set_mem(&q->vr, NULL), -VRINGH_E_AREA);
		mock_mem_view(&q->mem);
		assert_int_equal(vringh_set_mem(&q->next.vr, NULL), VRINGH_OK);
		expect_broken(q, VRINGH_E_AREA);
	}
}

/* What was translated before is not believed after an unmap. */
static void
no_stale_hit(struct queue *q)
{
	static const struct mock_buf buf[] = {{.len = 8, .fixed = true, .iova = A_AT},
		{.len = 8, .write = true, .fixed = true, .iova = A_AT + 8}};
	uint32_t f;

	for (f = 0; f <= q->v.indirect; f++) {
		uint64_t lost = f ? (uint64_t)TABLES_AT : A_AT;
		struct vringh_region table = mock_mem_region(&q->mem, TABLES_AT);

		hidden(q, A_AT, 0x100, VRINGH_PERM_RW);
		map(q, A_AT);
		post(q, buf, 2, f, 1);
		assert_int_equal(fetch(q, 1), 1);
		vringh_discard(&q->vr, q->batch.chain, 1);
		unmap(q, f ? (uint64_t)TABLES_AT : A_AT, 1);
		if (f)
			table.host = memcpy(malloc(table.len), table.host, table.len);
		else
			mock_mem_remove(&q->mem, A_AT);
		assert_int_equal(vringh_set_mem(&q->vr, NULL), VRINGH_OK);
		empty(q);
		assert_int_equal(vringh_fetch(&q->vr, &q->batch, 1), -VRINGH_E_MISS);
		assert_true(vringh_get_miss(&q->vr).iova - lost < table.len);
		if (f) {
			assert_int_equal(vringh_iotlb_map(&q->mem.view, &table), 0);
		} else {
			hidden(q, A_AT, 0x100, VRINGH_PERM_RW);
			map(q, A_AT);
		}
		assert_int_equal(vringh_fetch(&q->vr, &q->batch, 1), 1);
		fill(q, &q->batch.chain[0], 8, 0x11);
		complete(q, 0, 1);
		expect_used(q, 1, 8);
		mock_mem_remove(&q->mem, A_AT);
		assert_int_equal(queue_remap(q), VRINGH_OK);
		if (f)
			free(table.host);
	}
}

static void
map_page(struct queue *q, const struct vringh_region *of, uint32_t page, uint64_t host,
	uint64_t dirty, uint32_t perm)
{
	struct vringh_region r = {.iova = of->iova + page * PAGE,
		.len = PAGE,
		.host = of->host + host,
		.dirty = of->dirty + dirty,
		.perm = perm};

	assert_int_equal(vringh_iotlb_map(&q->mem.view, &r), 0);
}

/* Translations of a page each that lead to pages beside each other are one; no others are. */
static void
pages_in_one_piece(struct queue *q)
{
	static const struct {
		uint64_t host, dirty;
		uint32_t perm, nb_segs;
	} second[] = {
		{PAGE, PAGE, VRINGH_PERM_RW, 1},
		{2 * PAGE, PAGE, VRINGH_PERM_RW, 2},
		{PAGE, 2 * PAGE, VRINGH_PERM_RW, 2},
		{PAGE, PAGE, VRINGH_PERM_WRITE, 2},
	};
	const struct mock_buf buf = {
		.len = 2 * PAGE, .write = true, .fixed = true, .iova = A_AT + PAGE / 2};
	const struct mock_buf alone = {.len = 8, .write = true, .fixed = true, .iova = A_AT + 8};
	struct vringh_region all;
	uint32_t i;

	hidden(q, A_AT, 4 * PAGE, VRINGH_PERM_RW);
	all = mock_mem_region(&q->mem, A_AT);
	for (i = 0; i < DIM(second); i++) {
		const struct vringh_seg *seg;

		map_page(q, &all, 0, 0, 0, VRINGH_PERM_RW);
		map_page(q, &all, 1, second[i].host, second[i].dirty, second[i].perm);
		post(q, &alone, 1, 0, 1);
		post(q, &buf, 1, 0, 2);
		empty(q);
		/* the first page is known by itself; the third one is missing */
		assert_int_equal(vringh_fetch(&q->vr, &q->batch, 2), 1);
		assert_int_equal(vringh_fetch(&q->vr, &q->batch, 1), -VRINGH_E_MISS);
		assert_int_equal(vringh_get_miss(&q->vr).iova, A_AT + 2 * PAGE);
		map_page(q, &all, 2, second[i].host + PAGE, second[i].dirty + PAGE, second[i].perm);
		assert_int_equal(vringh_fetch(&q->vr, &q->batch, 1), 1);
		assert_int_equal(q->batch.chain[1].nb_write, second[i].nb_segs);
		seg = q->batch.chain[1].seg;
		assert_ptr_equal(seg->addr, all.host + PAGE / 2);
		assert_int_equal(seg->dirty, all.dirty + PAGE / 2);
		assert_int_equal(seg->len, second[i].nb_segs == 1 ? 2 * PAGE : PAGE / 2);
		if (second[i].nb_segs > 1) {
			assert_ptr_equal(seg[1].addr, all.host + second[i].host);
			assert_int_equal(seg[1].dirty, all.dirty + second[i].dirty);
			assert_int_equal(seg[1].len, 2 * PAGE - PAGE / 2);
		}
		/* what was one is none when a page of it goes */
		vringh_discard(&q->vr, &q->batch.chain[1], 1);
		assert_int_equal(unmap(q, A_AT + PAGE, 1), 1);
		assert_int_equal(vringh_set_mem(&q->vr, NULL), VRINGH_OK);
		q->batch.nb_chains = 1;
		assert_int_equal(vringh_fetch(&q->vr, &q->batch, 1), -VRINGH_E_MISS);
		assert_int_equal(vringh_get_miss(&q->vr).iova, A_AT + PAGE);
		map_page(q, &all, 1, PAGE, PAGE, VRINGH_PERM_RW);
		assert_int_equal(vringh_fetch(&q->vr, &q->batch, 1), 1);
		complete(q, 0, 2);
		expect_used(q, 1, 0);
		expect_used(q, 2, 0);
		assert_int_equal(unmap(q, A_AT, 4 * PAGE), 3);
		assert_int_equal(vringh_set_mem(&q->vr, NULL), VRINGH_OK);
	}
}

int
main(void)
{
	static const struct ring_test tests[] = {
		{"miss takes a chain, or comes with another", miss, T_ALL | T_IOTLB, 5, 256},
		{"miss loses or reorders its batch", miss_mid_batch, T_ALL | T_IOTLB, 8, 256},
		{"miss in an indirect table", miss_in_table, T_ALL | T_IOTLB | T_INDIRECT, 3, 256},
		{"refused miss spoils another chain", refused, T_ALL | T_IOTLB, 8, 256},
		{"missing right taken for a miss", rights, T_ALL | T_IOTLB, 8, 256},
		{"ring area not mapped at init", ring_missed_at_init, T_ALL | T_IOTLB, 1, 256},
		{"ring area unmapped with chains in flight", ring_unmapped, T_ALL | T_IOTLB, 2,
			256},
		{"translation of yesterday", no_stale_hit, T_ALL | T_IOTLB, 8, 256},
		{"pages that are one piece", pages_in_one_piece, T_ALL | T_IOTLB, 8, 256},
	};

	return RUN("iotlb", tests);
}
