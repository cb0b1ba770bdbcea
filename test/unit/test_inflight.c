/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The in-flight region: its bytes, and what a successor makes of them. Deaths between two stores
 * are in test_inflight_crash.c. Runs on the test's only thread.
 */

#include "inflight.h"

#define A_AT (FREE_AT)

static const struct mock_buf r[] = {{.len = 8}};
static const struct mock_buf rrw[] = {{.len = 8}, {.len = 9}, {.len = 10, .write = true}};

static void
sizes(void **state)
{
	(void)state;
	assert_int_equal(vringh_inflight_size(false, 1), 32);
	assert_int_equal(vringh_inflight_size(false, 256), 16 + 256 * 16);
	assert_int_equal(vringh_inflight_size(true, 1), 64);
	assert_int_equal(vringh_inflight_size(true, 32768), 32 + 32768 * 32);
}

static void
bytes_split(struct queue *q)
{
	struct track *t = anew(q, 1);
	uint16_t used = q->drv.used;
	int id[3], i;

	for (i = 0; i < 3; i++)
		id[i] = post(q, r, 1, 0, i);
	assert_int_equal(fetch(q, 2), 2);
	assert_int_equal(peek(t, WORD, 4), 0x316e6676);
	assert_int_equal(peek(t, WORD_SIZE, 2), q->v.size);
	assert_int_equal(peek(t, VERSION, 4), 0);
	assert_int_equal(peek(t, SPLIT_USED_IDX, 2), used);
	for (i = 0; i < 3; i++) {
		assert_int_equal(peek(t, entry(q, id[i]) + MARK, 1), i < 2);
		assert_int_equal(peek(t, entry(q, id[i]) + COUNTER, 8), i == 1);
	}
	complete(q, 0, 2);
	for (i = 0; i < 3; i++)
		assert_int_equal(peek(t, entry(q, id[i]) + MARK, 1), 0);
	assert_int_equal(peek(t, LAST_BATCH_HEAD, 2), id[1]);
	assert_int_equal(peek(t, entry(q, id[1]) + SPLIT_NEXT, 2), id[0]);
	assert_int_equal(peek(t, SPLIT_USED_IDX, 2), (uint16_t)(used + 2));
	untrack(t);
}

static void
bytes_packed(struct queue *q)
{
	struct track *t = anew(q, 5);
	uint16_t used = q->drv.used;
	int id[2], i;

	id[0] = post(q, rrw, 3, 0, 0);
	id[1] = post(q, rrw, 3, 0, 1);
	assert_int_equal(fetch(q, 2), 2);
	assert_int_equal(peek(t, WORD, 4), 0x316e6677);
	assert_int_equal(peek(t, WORD_SIZE, 2), q->v.size);
	assert_int_equal(peek(t, VERSION, 8), 0);
	assert_int_equal(peek(t, VERSION + 8, 8), 0);
	assert_int_equal(peek(t, FREE_HEAD, 2), 6);
	assert_int_equal(peek(t, OLD_FREE_HEAD, 2), 6);
	assert_int_equal(peek(t, USED, 2), used | 0x8000);
	assert_int_equal(peek(t, OLD_USED, 2), used | 0x8000);
	for (i = 0; i < 6; i++) {
		struct mock_desc m = mock_get_desc(&q->drv, id[i / 3], i % 3);

		assert_int_equal(peek(t, entry(q, i) + MARK, 1), i % 3 == 0);
		assert_int_equal(peek(t, entry(q, i) + NEXT, 2), i + 1);
		assert_int_equal(peek(t, entry(q, i) + ID, 2), id[i / 3]);
		assert_int_equal(peek(t, entry(q, i) + FLAGS, 2) & 7, m.flags);
		assert_int_equal(peek(t, entry(q, i) + LEN, 4), m.len);
		assert_int_equal(peek(t, entry(q, i) + ADDR, 8), m.addr);
	}
	assert_int_equal(peek(t, entry(q, 3) + LAST, 2), 5);
	assert_int_equal(peek(t, entry(q, 3) + NUM, 2), 3);
	assert_int_equal(peek(t, entry(q, 3) + COUNTER, 8), 1);
	complete(q, 0, 2);
	assert_int_equal(peek(t, FREE_HEAD, 2), 3);
	assert_int_equal(peek(t, OLD_FREE_HEAD, 2), 3);
	assert_int_equal(peek(t, entry(q, 5) + NEXT, 2), 0);
	assert_int_equal(peek(t, entry(q, 2) + NEXT, 2), 6);
	assert_int_equal(peek(t, entry(q, 0) + MARK, 1), 0);
	assert_int_equal(peek(t, entry(q, 3) + MARK, 1), 0);
	assert_int_equal(peek(t, USED, 2), 1);
	assert_int_equal(peek(t, OLD_USED, 2), 1);
	untrack(t);
}

/* All of the ring is in flight; what is left comes again, oldest first, before anything new. */
static void
full_ring(struct queue *q)
{
	uint64_t seed = q->v.size;
	struct track *t = anew(q, 3);
	uint32_t n = q->v.size, done = n / 3, i;

	mock_shuffle(&q->drv, &seed);
	for (i = 0; i < n; i++)
		post_one(q, 8, i & 1, i);
	assert_int_equal(fetch(q, n - n / 8), n - n / 8);
	complete(q, 0, done);
	assert_int_equal(successor(q, t), n - n / 8 - done);
	for (i = 0; i < done; i++) {
		struct mock_used used;

		assert_int_equal(mock_collect(&q->drv, &used, 1), 1);
		assert_int_equal(used.token, i);
	}
	expect_none(q);
	assert_int_equal(vringh_fetch(&q->vr, &q->batch, n), n - done);
	for (i = 0; i < n - done; i++) {
		const struct vringh_chain *chain = &q->batch.chain[i];

		assert_int_equal(q->drv.record[chain->id].token, done + i);
		assert_int_equal(chain->again, i < n - n / 8 - done);
		assert_int_equal(chain->slots, 1);
	}
	/* Handed back, they come once more. */
	vringh_discard(&q->vr, q->batch.chain, n - done);
	q->batch.nb_chains = q->batch.nb_segs = 0;
	for (i = 0; i < n - done; i++) {
		assert_int_equal(vringh_fetch(&q->vr, &q->batch, 1), 1);
		assert_int_equal(q->drv.record[q->batch.chain[i].id].token, done + i);
	}
	complete(q, 0, n - done);
	assert_int_equal(successor(q, t), 0);
	assert_int_equal(vringh_get_state(&q->vr).avail, mock_used_position(&q->drv, n - done));
	assert_int_equal(fetch(q, 1), 0);
	untrack(t);
}

/* Nobody has used it for such a queue, whatever it holds. */
static void
new_region(struct queue *q)
{
	static const struct {
		size_t at, len;
		uint64_t v;
	} word[] = {{WORD, 8, 0}, {WORD, 4, 0}, {WORD + 3, 1, 0x30}, {WORD_SIZE, 2, 1},
		{WORD_SIZE, 2, 32768}};
	unsigned int i, other;

	for (i = 0; i <= DIM(word); i++) {
		struct track *t = anew(q, 2);

		other = peek(t, WORD, 4) ^ 1; /* format */
		memset(t->region + 8, 0xff, t->len - 8);
		if (i < DIM(word))
			poke(t, word[i].at, word[i].len, word[i].v);
		else
			poke(t, WORD, 4, other);
		assert_int_equal(set(q, t), 0);
		post(q, r, 1, 0, 0);
		post(q, r, 1, 0, 1);
		assert_int_equal(fetch(q, 2), 2);
		assert_int_equal(successor(q, t), 2);
		assert_int_equal(fetch(q, 2), 2);
		complete(q, 0, 2);
		expect_used(q, 0, 0);
		expect_used(q, 1, 0);
		expect_none(q);
		untrack(t);
	}
}

/* Used descriptors of such rings are neither read nor restored. */
static bool
in_window(const struct queue *q)
{
	return q->v.packed && q->area[0]->view.kind == VRINGH_MEM_IOMEM;
}

/* A ring that was cleared, while the region says that it was half-way round. */
static void
cleared_ring(struct queue *q)
{
	struct track *t = anew(q, 1);
	uint32_t n, i;

	for (n = 1; n < 2 * q->v.size && !in_window(q); n++) {
		queue_rewind(q, VRINGH_PACKED_START);
		q->batch.nb_chains = q->batch.nb_segs = 0;
		memset(t->region, 0, t->len);
		assert_int_equal(set(q, t), 0);
		turn(q, n);
		post(q, r, 1, 0, 0);
		assert_int_equal(fetch(q, 1), 1);
		/* The same place, and all of it available. */
		memset(q->drv.packed, 0, q->v.size * sizeof(q->drv.packed[0]));
		queue_rewind(q, VRINGH_PACKED_START);
		q->batch.nb_chains = q->batch.nb_segs = 0;
		for (i = 0; i < q->v.size; i++)
			post(q, r, 1, 0, 7);
		/* The driver is about to make the last one available. */
		q->drv.packed[i - 1].flags = 0;
		assert_int_equal(set(q, t), 0);
		assert_int_equal(vringh_get_state(&q->vr).used, 0x8000);
		assert_int_equal(fetch(q, q->v.size), q->v.size - 1);
	}
	untrack(t);
}

/* The library says its own queue size, and the region was empty while the ring went on. */
static void
other_region(struct queue *q)
{
	struct track *t = anew(q, 2);

	poke(t, DESC_NUM, 2, 32768);
	if (!q->v.packed)
		poke(t, SPLIT_USED_IDX, 2, q->drv.used - q->v.size - 1);
	assert_int_equal(successor(q, t), 0);
	post(q, r, 1, 0, 0);
	assert_int_equal(fetch(q, 2), 1);
	assert_int_equal(successor(q, t), 1);
	untrack(t);
}

/* Beyond every address that the memories have in the log. */
#define LOG_LEN ((WINDOW_END + 0x10000000) / 4096 / 8)

static struct vringh_dirty_log
dirty_new(void)
{
	struct vringh_dirty_log dirty = {
		.bitmap = calloc(1, LOG_LEN), .len = LOG_LEN, .desc = DESC_AT, .device = DEVICE_AT};

	assert_non_null(dirty.bitmap);
	return dirty;
}

static bool
marked(const struct vringh_dirty_log *dirty, uint64_t addr)
{
	return dirty->bitmap[addr / 4096 / 8] & 1 << addr / 4096 % 8;
}

/* What the driver offers is not what was in flight: nothing is put back, nothing is changed. */
static void
not_in_ring(struct queue *q)
{
	struct track *t = anew(q, 1);
	struct mock_desc m;
	uint16_t at;

	assert_int_equal(vringh_rewind(&q->vr), 0);
	if (in_window(q)) {
		untrack(t);
		return;
	}
	post(q, r, 1, 0, 0);
	post(q, r, 1, 0, 1);
	assert_int_equal(fetch(q, 2), 2);
	assert_int_equal(successor(q, t), 2);
	if (q->v.packed) {
		at = (q->drv.used + 1) % q->v.size;
		m = mock_get_slot(&q->drv, at);
		m.addr ^= 1;
		mock_set_slot(&q->drv, at, &m);
		assert_int_equal(vringh_rewind(&q->vr), -VRINGH_E_INFLIGHT);
		m.addr ^= 1;
		mock_set_slot(&q->drv, at, &m);
	} else {
		at = (uint16_t)(q->drv.used + 1) % q->v.size;
		q->drv.avail_ring->ring[at] ^= 1;
		assert_int_equal(vringh_rewind(&q->vr), -VRINGH_E_INFLIGHT);
		q->drv.avail_ring->ring[at] ^= 1;
		q->drv.avail_ring->idx--;
		assert_int_equal(vringh_rewind(&q->vr), -VRINGH_E_INFLIGHT);
		q->drv.avail_ring->idx++;
	}
	assert_int_equal(fetch(q, 3), 2);
	assert_true(q->batch.chain[0].again && q->batch.chain[1].again);
	assert_int_equal(successor(q, t), 2);
	assert_int_equal(vringh_rewind(&q->vr), 0);
	assert_int_equal(vringh_get_state(&q->vr).avail, vringh_get_state(&q->vr).used);
	assert_int_equal(successor(q, t), 0);
	assert_int_equal(fetch(q, 3), 2);
	assert_false(q->batch.chain[0].again || q->batch.chain[1].again);
	complete(q, 0, 2);
	expect_used(q, 0, 0);
	expect_used(q, 1, 0);
	expect_none(q);
	untrack(t);
}

/* What used entries that nobody saw were written over is restored, and that is in the log. */
static void
restored(struct queue *q)
{
	struct vringh_dirty_log dirty = dirty_new();
	struct mock_desc before[3], first;
	struct track *t = anew(q, 1);
	uint8_t *region = malloc(t->len);
	uint16_t slot = q->drv.used;
	int i;

	assert_non_null(region);
	for (i = 0; i < 3; i++)
		post_one(q, 8, true, i);
	assert_int_equal(fetch(q, 3), 3);
	memcpy(region, t->region, t->len);
	for (i = 0; i < 3; i++)
		before[i] = mock_get_slot(&q->drv, (slot + i) % q->v.size);
	complete(q, 0, 3);
	first = mock_get_slot(&q->drv, slot);
	first.flags = before[0].flags;
	first.len = 0;
	mock_set_slot(&q->drv, slot, &first);
	memcpy(t->region, region, t->len);
	poke(t, USED, 2, (slot + 3) % q->v.size);
	restart(q);
	assert_int_equal(set(q, t), 3);
	assert_int_equal(vringh_set_dirty_log(&q->vr, &dirty), 0);
	assert_int_equal(vringh_rewind(&q->vr), in_window(q) ? -VRINGH_E_INFLIGHT : 0);
	assert_int_equal(marked(&dirty, DESC_AT), !in_window(q));
	for (i = 0; i < 3 && !in_window(q); i++) {
		struct mock_desc m = mock_get_slot(&q->drv, (slot + i) % q->v.size);

		assert_memory_equal(&m, &before[i], sizeof(m));
	}
	free(dirty.bitmap);
	free(region);
	untrack(t);
}

static void
no_more(struct queue *q)
{
	struct track *t = anew(q, 2);
	uint8_t *copy = malloc(t->len);

	assert_non_null(copy);
	turn(q, 3);
	assert_int_equal(vringh_set_inflight(&q->vr, NULL, NULL, 0, NULL), 0);
	memcpy(copy, t->region, t->len);
	turn(q, 3);
	assert_memory_equal(copy, t->region, t->len);
	free(copy);
	untrack(t);
}

/* What is to come again is work that waits, though the driver makes nothing available. */
static void
sleeper_is_told(struct queue *q)
{
	struct track *t = anew(q, 1);

	post_one(q, 8, false, 0);
	assert_int_equal(fetch(q, 1), 1);
	assert_false(pending(q));
	assert_int_equal(successor(q, t), 1);
	assert_true(pending(q));
	assert_true(vringh_notify_enable(&q->vr));
	assert_int_equal(fetch(q, 1), 1);
	assert_false(pending(q));
	vringh_discard(&q->vr, q->batch.chain, 1);
	assert_true(vringh_notify_enable(&q->vr));
	assert_int_equal(fetch(q, 1), 1);
	complete(q, 0, 1);
	expect_used(q, 0, 0);
	assert_false(vringh_notify_enable(&q->vr));
	untrack(t);
}

/* What comes again may be missed by the translation table, for a while or for good. */
static void
missed(struct queue *q)
{
	const struct mock_buf far[2] = {
		{.len = 8}, {.len = 9, .write = true, .fixed = true, .iova = A_AT}};
	struct track *t = anew(q, 1);
	struct vringh_region region;
	bool refuse;

	queue_map(q, A_AT, 0x1000, VRINGH_PERM_RW);
	region = mock_mem_region(&q->mem, A_AT);
	post(q, far, 2, 0, 0);
	assert_int_equal(fetch(q, 1), 1);
	for (refuse = false;; refuse = true) {
		assert_int_equal(vringh_iotlb_unmap(&q->mem.view, A_AT, 0x1000), 1);
		assert_int_equal(successor(q, t), 1);
		post(q, r, 1, 0, 1 + refuse);
		assert_int_equal(fetch(q, 2), -VRINGH_E_MISS);
		assert_int_equal(vringh_get_miss(&q->vr).iova, A_AT);
		assert_int_equal(q->batch.nb_chains, 0);
		if (refuse)
			break;
		assert_int_equal(vringh_iotlb_map(&q->mem.view, &region), 0);
		assert_int_equal(fetch(q, 2), 2);
		assert_true(q->batch.chain[0].again && !q->batch.chain[1].again);
		assert_int_equal(q->batch.chain[0].nb_write, 1);
		/* The new one goes back, the other one stays for the next device. */
		vringh_discard(&q->vr, &q->batch.chain[1], 1);
	}
	vringh_refuse_miss(&q->vr);
	assert_int_equal(fetch(q, 3), 1);
	assert_int_equal(q->batch.chain[0].error, VRINGH_E_ADDR);
	assert_true(q->batch.chain[0].again);
	assert_int_equal(vringh_fetch(&q->vr, &q->batch, 3), 2);
	complete(q, 0, 3);
	expect_used_short(q, 0, 0);
	expect_used(q, 1, 0);
	expect_used(q, 2, 0);
	untrack(t);
}

/* What is written to a chain that comes again is logged as any other. */
static void
dirty_again(struct queue *q)
{
	static const struct mock_buf rw[] = {{.len = 8}, {.len = 8, .write = true}};
	struct vringh_dirty_log dirty = dirty_new();
	struct track *t = anew(q, 1);
	int id = post(q, rw, 2, 0, 0);
	uint64_t buf = mock_buf_addr(&q->drv, id, 8);

	if (buffer_kind(q) == VRINGH_MEM_IOTLB)
		buf += q->mem.dirty_shift;
	assert_int_equal(fetch(q, 1), 1);
	restart(q);
	assert_int_equal(vringh_set_dirty_log(&q->vr, &dirty), 0);
	assert_int_equal(set(q, t), 1);
	assert_int_equal(fetch(q, 1), 1);
	fill(q, &q->batch.chain[0], 8, 0x3c);
	assert_false(marked(&dirty, buf));
	complete(q, 0, 1);
	assert_true(marked(&dirty, buf));
	assert_true(marked(&dirty, q->v.packed ? DESC_AT : DEVICE_AT));
	expect_used(q, 0, 8);
	free(dirty.bitmap);
	untrack(t);
}

/*
 * Packed: a batch of three whose first slot was not written. The other slots are as if nothing
 * had been, and that is in the log.
 */
static void
taken_back(struct queue *q)
{
	struct vringh_dirty_log dirty = dirty_new();
	struct track *t = anew(q, 1);
	struct mock_desc first, m;
	uint8_t *before = malloc(t->len);
	uint16_t slot = q->drv.used;
	int i;

	assert_non_null(before);
	for (i = 0; i < 3; i++)
		post_one(q, 8, true, i);
	assert_int_equal(fetch(q, 3), 3);
	memcpy(before, t->region, t->len);
	first = mock_get_slot(&q->drv, slot);
	complete(q, 0, 3);
	mock_set_slot(&q->drv, slot, &first);
	memcpy(t->region, before, t->len);
	poke(t, USED, 2, (slot + 3) % q->v.size);
	restart(q);
	assert_int_equal(vringh_set_dirty_log(&q->vr, &dirty), 0);
	assert_int_equal(set(q, t), 3);
	assert_true(marked(&dirty, DESC_AT));
	for (i = 1; i < 3; i++) {
		m = mock_get_slot(&q->drv, (slot + i) % q->v.size);
		assert_int_equal(m.flags & 0x8080, 0x8000); /* available in this lap: USED only */
	}
	assert_int_equal(fetch(q, 3), 3);
	complete(q, 0, 1);
	expect_used(q, 0, 0);
	expect_none(q);
	complete(q, 1, 2);
	expect_used(q, 1, 0);
	expect_used(q, 2, 0);
	free(dirty.bitmap);
	free(before);
	untrack(t);
}

int
main(void)
{
	static const struct ring_test tests[] = {
		{"bytes of the region", bytes_split, T_SPLIT, 8, 256},
		{"bytes of the region", bytes_packed, T_PACKED, 8, 256},
		{"chains in flight are lost, or not in order", full_ring, 0, 0, 0},
		{"another ring's chains are put back", not_in_ring, 0, 4, 256},
		{"a slot stays overwritten", restored, T_IN_PLACE | T_PACKED, 5, 8},
		{"a sleeper is not told of chains that come again", sleeper_is_told, 0, 1, 256},
		{"a new region is believed", new_region, 0, 2, 256},
		{"a cleared ring is not begun anew", cleared_ring, T_PACKED, 3, 8},
		{"a larger or an unused region is refused", other_region, 0, 2, 256},
		{"tracking goes on after it ended", no_more, 0, 0, 256},
		{"what comes again is missed", missed, T_IOTLB, 8, 256},
		{"what comes again is not logged", dirty_again, T_ALL, 2, 8},
		{"a batch is half in sight", taken_back, T_ALL | T_PACKED, 5, 8},
	};
	static const struct CMUnitTest plain[] = {cmocka_unit_test(sizes)};

	/* That ring has none. */
	tests_only = T_TOGETHER;
	return run_group("inflight", tests, DIM(tests), plain, DIM(plain));
}
