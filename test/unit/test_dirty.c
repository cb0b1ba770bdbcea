/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The dirty log: exactly the pages of what the device wrote. The reference is made of pictures
 * of the memory before and after; all that the device may write is changed before, so that
 * each of its writes is seen there. Runs on the test's only thread, but for the last test.
 */

#include <pthread.h>

#include "harness.h"

#define PAGE	 4096
#define LAND	 (8 * PAGE) /* where buffers lie, at FREE_AT */
#define MAX_PART 8
#define BITMAP	 ((WINDOW_END + 0x10000000) / PAGE / 8)

/* A range that the device may write, and what the log calls it. */
struct part {
	uint8_t *host;
	uint64_t len, dirty;
	uint8_t *before;
};

struct marked {
	struct queue *q;
	struct vringh_dirty_log dirty;
	struct part part[MAX_PART];
	unsigned int nb_parts;
	uint64_t seed;
};

static void
part_add(struct marked *l, uint8_t *host, uint64_t len, uint64_t dirty)
{
	assert_true(l->nb_parts < MAX_PART);
	l->part[l->nb_parts++] = (struct part){host, len, dirty, malloc(len)};
}

static uint64_t
shift(const struct queue *q)
{
	return buffer_kind(q) == VRINGH_MEM_IOTLB ? q->mem.dirty_shift : 0;
}

/* Where the ring is in the log has nothing to do with where it is on the bus. */
static struct marked *
dirty_open(struct queue *q, uint64_t desc, uint64_t device)
{
	struct marked *l = calloc(1, sizeof(*l));
	uint64_t at;

	l->q = q;
	l->seed = desc + device;
	l->dirty = (struct vringh_dirty_log){
		.bitmap = calloc(1, BITMAP), .len = BITMAP, .desc = desc, .device = device};
	if (q->mem.window.len == 0)
		for (at = FREE_AT; at < FREE_AT + LAND; at += LAND / 2)
			mock_mem_add(&q->mem, at, LAND / 2, VRINGH_PERM_RW);
	else
		mock_mem_add(&q->mem, FREE_AT, LAND, VRINGH_PERM_RW);
	assert_int_equal(queue_remap(q), VRINGH_OK);
	if (q->mem.window.len == 0)
		for (at = FREE_AT; at < FREE_AT + LAND; at += LAND / 2)
			part_add(l, mock_mem_at(&q->mem, at, 1), LAND / 2, at + shift(q));
	else
		part_add(l, mock_mem_at(&q->mem, FREE_AT, 1), LAND, FREE_AT);
	part_add(l, mock_mem_at(q->area[2], DEVICE_AT, 1), mock_area_len(&q->drv.cfg, 2), device);
	if (q->v.packed)
		part_add(l, mock_mem_at(q->area[0], DESC_AT, 1), mock_area_len(&q->drv.cfg, 0),
			desc);
	return l;
}

static void
dirty_close(struct marked *l)
{
	unsigned int i;

	vringh_set_dirty_log(&l->q->vr, NULL);
	for (i = 0; i < l->nb_parts; i++)
		free(l->part[i].before);
	free(l->dirty.bitmap);
	free(l);
}

static bool
is_dirty(const struct vringh_dirty_log *dirty, uint64_t page)
{
	return dirty->bitmap[page / 8] & 1 << page % 8;
}

/* Change all that the device may write and the driver does not need, and take a picture. */
static void
before(struct marked *l)
{
	struct mock_driver *d = &l->q->drv;
	uint8_t fill[PAGE];
	uint64_t at;
	unsigned int i;

	memset(fill, 0xee, sizeof(fill));
	for (at = FREE_AT; at < FREE_AT + LAND; at += PAGE)
		assert_true(mock_mem_write(&l->q->mem, at, fill, PAGE));
	if (d->cfg.packed) {
		memset(d->device_event, 0xa5, 4);
	} else {
		uint16_t idx = d->used_ring->idx;

		memset(d->used_ring, 0xa5, mock_area_len(&d->cfg, 2));
		d->used_ring->idx = idx;
	}
	for (i = 0; i < l->nb_parts; i++)
		memcpy(l->part[i].before, l->part[i].host, l->part[i].len);
	memset(l->dirty.bitmap, 0, l->dirty.len);
}

/* Whether the log has the pages that changed, and no others. */
static bool
right(struct marked *l)
{
	uint64_t k, n, pages = 0, marked = 0, seen[64];
	unsigned int i, p;

	for (i = 0; i < l->nb_parts; i++)
		for (k = 0; k < l->part[i].len; k += n) {
			uint64_t at = l->part[i].dirty + k;

			n = PAGE - at % PAGE;
			if (n > l->part[i].len - k)
				n = l->part[i].len - k;
			if (memcmp(l->part[i].host + k, l->part[i].before + k, n) == 0)
				continue;
			if (!is_dirty(&l->dirty, at / PAGE))
				return false;
			/* Two areas may share a page. */
			for (p = 0; p < pages && seen[p] != at / PAGE; p++)
				;
			assert_true(p < DIM(seen));
			seen[p] = at / PAGE;
			pages += p == pages;
		}
	for (k = 0; k < l->dirty.len; k += sizeof(n)) {
		memcpy(&n, l->dirty.bitmap + k, sizeof(n));
		for (; n != 0; n &= n - 1)
			marked++;
	}
	return pages == marked && pages > 0;
}

/* Near the borders of pages, as long as a page, or anything. */
static struct mock_buf
some_buf(struct marked *l, bool write)
{
	static const uint32_t lens[] = {1, 2, PAGE - 1, PAGE, PAGE + 1};
	uint32_t page = mock_random(&l->seed) % (LAND / PAGE - 2) + 1;
	uint32_t off = mock_random(&l->seed) % 2 ? mock_random(&l->seed) % 5 :
						   mock_random(&l->seed) % PAGE;

	return (struct mock_buf){.len = mock_random(&l->seed) % 2 ?
			lens[mock_random(&l->seed) % DIM(lens)] :
			mock_random(&l->seed) % 100,
		.write = write,
		.fixed = true,
		.iova = FREE_AT + page * PAGE + off - 2};
}

/* Chains go round, some are written in part; whether the log is right. */
static bool
go_round(struct marked *l)
{
	struct queue *q = l->q;
	uint32_t n = 0, i, most = q->v.size < 6 ? q->v.size : 6;

	for (i = 0; i < most; i++) {
		struct mock_buf buf[3];
		uint32_t k, nb = 1 + mock_random(&l->seed) % 3, reads = mock_random(&l->seed) % 4;

		for (k = 0; k < nb; k++)
			buf[k] = some_buf(l, k >= reads);
		if (mock_post(&q->drv, buf, nb, 0, i) < 0)
			break;
	}
	mock_publish(&q->drv);
	before(l);
	n = fetch(q, most);
	assert_int_equal(n, i);
	for (i = 0; i < n; i++) {
		struct vringh_chain *chain = &q->batch.chain[i];
		uint32_t written = mock_random(&l->seed) % (chain->write_len + 1);

		assert_int_equal(chain->error, VRINGH_OK);
		fill(q, chain, mock_random(&l->seed) % 2 ? chain->write_len : written, 0x11);
	}
	switch (mock_random(&l->seed) % 4) {
	case 0:
		vringh_notify_enable(&q->vr);
		break;
	case 1:
		vringh_notify_disable(&q->vr);
		break;
	}
	i = mock_random(&l->seed) % (n + 1);
	complete(q, 0, i);
	complete(q, i, n - i);
	return right(l);
}

static void
collect(struct queue *q, uint32_t left)
{
	struct mock_used used;

	while (mock_collect(&q->drv, &used, 1) > 0)
		;
	assert_int_equal(q->drv.nb_busy, left);
}

/* Addresses in the log of the descriptor and device area; the borders of pages are inside. */
static const uint64_t places[][2] = {
	{0x10000, 0x20000}, {0x10000 - 16, 0x20000 - 2}, {0x10ff0, 0x20ffc}, {0x20000, 0x10fe8},
	{0x10000, 0x10004}, /* both in one page */
};

static void
exact(struct queue *q)
{
	uint32_t p, i;

	for (p = 0; p < DIM(places); p++) {
		struct marked *l;

		if (q->v.size > 256 && p == 4)
			continue;
		l = dirty_open(q, places[p][0], places[p][1]);
		assert_int_equal(vringh_set_dirty_log(&q->vr, &l->dirty), 0);
		for (i = 0; i < (q->v.size > 256 ? 6 : 20); i++) {
			if (!go_round(l))
				fail_msg("round %u at place %u: wrong pages", i, p);
			collect(q, 0);
			if (i % 8 == 7) /* the log stays when the memory is looked at anew */
				assert_int_equal(queue_remap(q), VRINGH_OK);
		}
		dirty_close(l);
		mock_mem_remove(&q->mem, FREE_AT);
		mock_mem_remove(&q->mem, FREE_AT + LAND / 2);
		assert_int_equal(queue_remap(q), VRINGH_OK);
	}
}

/* Controls: without a log, or with one that has the ring elsewhere, the check has to fail. */
static void
control(struct queue *q)
{
	struct marked *l = dirty_open(q, places[0][0], places[0][1]);
	struct vringh_dirty_log other = l->dirty;
	uint32_t i, wrong = 0;

	for (i = 0; i < 8; i++) {
		assert_false(go_round(l));
		collect(q, 0);
	}
	other.device += 0x100000;
	other.desc += 0x100000;
	assert_int_equal(vringh_set_dirty_log(&q->vr, &other), 0);
	for (i = 0; i < 8; i++) {
		assert_false(go_round(l));
		collect(q, 0);
	}
	/* One byte more than is told is not logged. */
	assert_int_equal(vringh_set_dirty_log(&q->vr, &l->dirty), 0);
	for (i = 0; i < 4; i++) {
		struct mock_buf buf = {.len = 2,
			.write = true,
			.fixed = true,
			.iova = FREE_AT + (i + 1) * PAGE - 1};

		post(q, &buf, 1, 0, 1);
		before(l);
		assert_int_equal(fetch(q, 1), 1);
		fill(q, &q->batch.chain[0], 2, 0x11);
		q->batch.chain[0].written = 1;
		complete(q, 0, 1);
		wrong += !right(l);
		collect(q, 0);
	}
	assert_int_equal(wrong, 4);
	dirty_close(l);
}

/* Nothing written, nothing logged but the used entry; handed back, nothing at all. */
static void
nothing_written(struct queue *q)
{
	struct marked *l = dirty_open(q, places[0][0], places[0][1]);
	struct mock_buf buf[2] = {some_buf(l, false), some_buf(l, true)};
	uint8_t *none = calloc(1, BITMAP);

	assert_int_equal(vringh_set_dirty_log(&q->vr, &l->dirty), 0);
	post(q, buf, 2, 0, 1);
	before(l);
	assert_int_equal(fetch(q, 1), 1);
	vringh_discard(&q->vr, q->batch.chain, 1);
	vringh_complete(&q->vr, q->batch.chain, 0);
	vringh_need_notify(&q->vr);
	assert_memory_equal(none, l->dirty.bitmap, BITMAP);
	assert_int_equal(fetch(q, 1), 1);
	complete(q, 0, 1);
	assert_true(right(l));
	collect(q, 0);
	dirty_close(l);
	free(none);
}

/* Logging starts, ends and starts again while chains are out. */
static void
on_off_on(struct queue *q)
{
	struct marked *l = dirty_open(q, places[0][0], places[0][1]);
	uint8_t *none = calloc(1, BITMAP);
	uint32_t i, k, lap;

	for (lap = 0; lap < 3; lap++) {
		for (i = 0; i < 6; i++) {
			struct mock_buf buf = {.len = 2 * PAGE + 9,
				.write = true,
				.fixed = true,
				.iova = FREE_AT + i * (PAGE + 1)};

			mock_post(&q->drv, &buf, 1, 0, i);
		}
		mock_publish(&q->drv);
		assert_int_equal(fetch(q, 6), 6);
		for (i = 0; i < 3; i++) {
			assert_int_equal(
				vringh_set_dirty_log(&q->vr, i % 2 == 0 ? &l->dirty : NULL), 0);
			before(l);
			for (k = 2 * i; k < 2 * i + 2; k++)
				fill(q, &q->batch.chain[k], PAGE + k, 0x11);
			complete(q, 2 * i, 2);
			vringh_notify_enable(&q->vr);
			if (i % 2 == 0)
				assert_true(right(l));
			else
				assert_memory_equal(none, l->dirty.bitmap, BITMAP);
			collect(q, 4 - 2 * i);
		}
		assert_int_equal(vringh_set_dirty_log(&q->vr, NULL), 0);
	}
	dirty_close(l);
	free(none);
}

static int
set_len(struct queue *q, struct vringh_dirty_log dirty, uint64_t bytes)
{
	int ret;

	dirty.len = bytes;
	dirty.bitmap = calloc(1, bytes); /* of exactly what it says */
	ret = vringh_set_dirty_log(&q->vr, &dirty);
	assert_true(ret == 0 || ret == -VRINGH_E_DIRTY);
	assert_int_equal(vringh_set_dirty_log(&q->vr, NULL), 0);
	free(dirty.bitmap);
	return ret;
}

/* The bitmap has a bit for the last byte of all that can be written, or it is refused. */
static void
too_short(struct queue *q)
{
	uint64_t end = q->mem.window.len > 0 ? WINDOW_END : NEXT_AT + 0x2000 + shift(q);
	uint64_t need = (end - 1) / PAGE / 8 + 1;
	uint64_t device = mock_area_len(&q->drv.cfg, 2), desc = mock_area_len(&q->drv.cfg, 0);
	struct vringh_dirty_log dirty = {.desc = 0x10000, .device = 0x20000};

	assert_int_equal(set_len(q, dirty, need), 0);
	assert_int_equal(set_len(q, dirty, need - 1), -VRINGH_E_DIRTY);
	assert_int_equal(set_len(q, dirty, 1), -VRINGH_E_DIRTY);
	assert_int_equal(vringh_set_dirty_log(&q->vr, &dirty), -VRINGH_E_DIRTY); /* of no bytes */
	/* The device area at the very end, and a byte beyond. */
	dirty.device = (need + 8) * 8 * PAGE - device;
	dirty.device -= dirty.device % 4;
	assert_int_equal(set_len(q, dirty, need + 8), 0);
	assert_int_equal(set_len(q, dirty, need + 7), -VRINGH_E_DIRTY);
	dirty.device += (device + 3) / 4 * 4;
	assert_int_equal(set_len(q, dirty, need + 8), -VRINGH_E_DIRTY);
	dirty.device = UINT64_MAX - 3;
	assert_int_equal(set_len(q, dirty, need + 8), -VRINGH_E_DIRTY);
	dirty.device = 0x20000;
	/* Descriptors are only written if packed. */
	dirty.desc = (need + 8) * 8 * PAGE - desc;
	assert_int_equal(set_len(q, dirty, need + 8), 0);
	dirty.desc += 16;
	assert_int_equal(set_len(q, dirty, need + 8), q->v.packed ? -VRINGH_E_DIRTY : 0);
	dirty.desc = UINT64_MAX - 15;
	assert_int_equal(set_len(q, dirty, need + 8), q->v.packed ? -VRINGH_E_DIRTY : 0);
	dirty.desc = 0x10000;
	if (q->mem.window.len == 0) {
		/* What the device may only read need not be there. */
		queue_map(q, FREE_AT + 0x10000000, 0x1000, VRINGH_PERM_READ);
		assert_int_equal(set_len(q, dirty, need), 0);
		mock_mem_permit(&q->mem, FREE_AT + 0x10000000, VRINGH_PERM_WRITE);
		assert_int_equal(queue_remap(q), VRINGH_OK);
		assert_int_equal(set_len(q, dirty, need), -VRINGH_E_DIRTY);
	}
	turn(q, 2);
}

/* Memory that comes later and lies behind the bitmap's end: not logged, nothing overwritten. */
static void
behind_the_end(struct queue *q)
{
	struct mock_buf buf = {
		.len = 3 * PAGE, .write = true, .fixed = true, .iova = FREE_AT + PAGE + 1};
	uint64_t first = (FREE_AT + shift(q)) / PAGE;
	struct vringh_dirty_log dirty = {.desc = 0x10000, .device = 0x20000, .len = first / 8 + 1};

	/* Of the buffer's pages the bitmap has those up to the next byte's border. */
	dirty.bitmap = calloc(2, dirty.len);
	assert_int_equal(vringh_set_dirty_log(&q->vr, &dirty), 0);
	queue_map(q, FREE_AT, 0x100000, VRINGH_PERM_RW);
	buf.iova += (dirty.len * 8 - first - 3) * PAGE;
	post(q, &buf, 1, 0, 1);
	assert_int_equal(fetch(q, 1), 1);
	fill(q, &q->batch.chain[0], buf.len, 0x11);
	complete(q, 0, 1);
	assert_int_equal(dirty.bitmap[dirty.len - 1], 0xc0);
	assert_int_equal(dirty.bitmap[dirty.len], 0);
	expect_used(q, 1, buf.len);
	assert_int_equal(vringh_set_dirty_log(&q->vr, NULL), 0);
	free(dirty.bitmap);
}

/*
 * A translation changes while a chain is out and half written: the first half is logged where
 * it went, the second where that went. Both may be logged in both places.
 */
static void
mapped_elsewhere(struct queue *q)
{
	struct mock_buf buf = {.len = 2 * PAGE, .write = true, .fixed = true, .iova = FREE_AT};
	struct vringh_dirty_log dirty = {
		.bitmap = calloc(1, BITMAP), .len = BITMAP, .desc = 0x10000, .device = 0x20000};
	struct vringh_chain *chain = &q->batch.chain[0];
	uint8_t byte[PAGE] = {1};
	struct vringh_iter it;
	uint32_t i;

	for (i = 0; i < 2; i++)
		queue_map(q, FREE_AT + i * PAGE, PAGE, VRINGH_PERM_RW);
	assert_int_equal(vringh_set_dirty_log(&q->vr, &dirty), 0);
	post(q, &buf, 1, 0, 1);
	assert_int_equal(fetch(q, 1), 1);
	it = vringh_iter_write(&q->vr, chain);
	chain->written = vringh_push(&it, byte, PAGE);
	vringh_iotlb_unmap(&q->mem.view, FREE_AT, 2 * PAGE);
	for (i = 0; i < 2; i++) {
		struct vringh_region r = mock_mem_region(&q->mem, FREE_AT + i * PAGE);

		r.dirty = 0x800000 + i * 0x10000;
		assert_int_equal(vringh_iotlb_map(&q->mem.view, &r), 0);
	}
	assert_int_equal(vringh_set_mem(&q->vr, NULL), VRINGH_OK);
	chain->written += vringh_push(&it, byte, PAGE);
	complete(q, 0, 1);
	expect_used(q, 1, buf.len);
	assert_true(is_dirty(&dirty, (FREE_AT + q->mem.dirty_shift) / PAGE));
	assert_true(is_dirty(&dirty, 0x810000 / PAGE));
	assert_false(is_dirty(&dirty, 0x820000 / PAGE));
	assert_int_equal(vringh_set_dirty_log(&q->vr, NULL), 0);
	free(dirty.bitmap);
}

/* Where the ring is nowhere in the log, buffers are logged alone. */
static void
ring_nowhere(struct queue *q)
{
	struct mock_buf buf = {.len = PAGE, .write = true, .fixed = true, .iova = FREE_AT};
	struct marked *l = dirty_open(q, VRINGH_DIRTY_NOWHERE, VRINGH_DIRTY_NOWHERE);
	uint64_t page, first = (FREE_AT + shift(q)) / PAGE;

	assert_int_equal(vringh_set_dirty_log(&q->vr, &l->dirty), 0);
	post(q, &buf, 1, 0, 1);
	assert_int_equal(fetch(q, 1), 1);
	fill(q, &q->batch.chain[0], buf.len, 0x11);
	complete(q, 0, 1);
	expect_used(q, 1, buf.len);
	vringh_notify_disable(&q->vr);
	vringh_notify_enable(&q->vr);
	for (page = 0; page < BITMAP * 8; page++)
		assert_int_equal(is_dirty(&l->dirty, page), page == first);
	dirty_close(l);
}

/* A broken queue writes nothing, so it logs nothing. */
static void
broken(struct queue *q)
{
	struct marked *l = dirty_open(q, places[0][0], places[0][1]);
	uint8_t *none = calloc(1, BITMAP);
	struct vringh_chain chain = {.slots = 1, .written = 1};

	assert_int_equal(vringh_set_dirty_log(&q->vr, &l->dirty), 0);
	mock_set_avail_idx(&q->drv, q->drv.avail + q->v.size + 1);
	assert_int_equal(fetch(q, 1), -VRINGH_E_AVAIL_IDX);
	vringh_complete(&q->vr, &chain, 1);
	vringh_notify_enable(&q->vr);
	vringh_notify_disable(&q->vr);
	assert_memory_equal(none, l->dirty.bitmap, BITMAP);
	free(none);
	dirty_close(l);
}

int
main(void)
{
	static const struct ring_test tests[] = {
		{"pages missing or too many", exact, T_ALL, 3, 256},
		{"pages missing or too many in a big ring", exact, 0, 32768, 0},
		{"check sees no fault", control, T_ALL, 8, 8},
		{"page logged though nothing was written", nothing_written, T_ALL, 2, 256},
		{"logging changes with chains in flight", on_off_on, T_ALL, 8, 8},
		{"bitmap too short", too_short, T_ALL, 1, 256},
		{"ring logged though it is nowhere", ring_nowhere, T_ALL, 8, 8},
		{"bit beyond the bitmap", behind_the_end, T_REGIONS, 3, 256},
		{"buffer mapped elsewhere in flight", mapped_elsewhere, T_ALL | T_IOTLB, 8, 8},
		{"broken queue logs", broken, T_ALL | T_SPLIT, 8, 8},
	};

	/* That ring has none. */
	tests_only = T_TOGETHER;
	return RUN("dirty", tests);
}
