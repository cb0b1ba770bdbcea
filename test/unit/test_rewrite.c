/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Rings rewritten while they are read, between one access and the next: what was read once
 * counts, and the work stays bounded. Needs the checking accessors. Runs on the test's only
 * thread.
 */

#include "harness.h"

#define AVAIL (1 << VRING_PACKED_DESC_F_AVAIL)
#define USED  (1 << VRING_PACKED_DESC_F_USED)

struct rewriter {
	struct queue *q;
	struct {
		uint8_t *device; /* where the device reads it */
		uint8_t *driver;
		uint64_t len;
	} range[3];
	uint64_t seen;
};

static struct rewriter
rewriter_make(struct queue *q)
{
	struct rewriter w = {.q = q};
	const struct {
		struct mock_mem *mem;
		uint64_t iova, len;
	} at[3] = {{q->area[0], DESC_AT, mock_area_len(&q->drv.cfg, 0)},
		{q->area[1], DRIVER_AT, mock_area_len(&q->drv.cfg, 1)},
		{&q->mem, TABLES_AT, 16ull * q->drv.cfg.table_entries * q->v.size}};
	int i;

	for (i = 0; i < 3; i++) {
		w.range[i].device = mock_mem_device_at(at[i].mem, at[i].iova, at[i].len);
		w.range[i].driver = mock_mem_at(at[i].mem, at[i].iova, at[i].len);
		w.range[i].len = at[i].len;
	}
	return w;
}

/* Which range was read, and where; -1: none of them. */
static int
where(const struct rewriter *w, const void *p, uint64_t *off)
{
	int i;

	for (i = 0; i < 3; i++) {
		*off = (uintptr_t)p - (uintptr_t)w->range[i].device;
		if (*off < w->range[i].len)
			return i;
	}
	return -1;
}

/* All that was read becomes something else at once. */
static void
scribble(void *arg, const void *p, size_t len)
{
	struct rewriter *w = arg;
	uint64_t off;
	int i = where(w, p, &off);

	if (i < 0)
		return;
	memset(w->range[i].device + off, 0xff, len);
	memset(w->range[i].driver + off, 0xff, len);
	w->seen++;
}

/* Memory that was hit last is read by a shorter way. */
static void
warm_up(struct queue *q, uint32_t start)
{
	static const struct mock_buf buf[] = {{.len = 1}, {.len = 1, .write = true}};
	uint32_t flags;

	queue_rewind(q, near_end(&q->v, start));
	for (flags = 0; flags <= q->v.indirect; flags++) {
		post(q, buf, 2, flags, 0);
		assert_int_equal(fetch(q, 1), 1);
		complete(q, 0, 1);
		expect_used(q, 0, 0);
	}
}

/*
 * A chain is what was posted, or what it became; never the half of each, which nobody judged.
 * What it became is not available, or bad, or has no end.
 */
static void
one_reading(struct queue *q, const struct mock_buf *buf, unsigned int nb, uint32_t flags,
	enum vringh_error error)
{
	struct rewriter w = rewriter_make(q);
	struct vringh_chain *chain = &q->batch.chain[0];
	int id = post(q, buf, nb, flags, 1), n;

	checked_tell(scribble, &w);
	n = fetch(q, 1);
	checked_tell(NULL, NULL);
	assert_true(w.seen > 0);
	if (n == 1 && chain->error == VRINGH_OK && error == VRINGH_OK)
		expect_chain(q, chain, id, buf, nb);
	else if (n == 1)
		assert_true(chain->error != VRINGH_OK && chain->nb_read + chain->nb_write == 0);
	else if (n < 0)
		assert_true(n == -VRINGH_E_RUNAWAY || n == -VRINGH_E_MISS);
	if (n == 1 && chain->id == id) { /* its last descriptor was read once */
		complete(q, 0, 1);
		expect_used(q, 1, 0);
	}
	expect_neighbour(q);
}

static void
two_readings(struct queue *q)
{
	static const struct mock_buf buf[] = {{.len = 10}, {.len = 20}, {.len = 0},
		{.len = 1, .write = true}, {.len = 300, .write = true}};
	uint32_t start, first, flags;

	for (start = 0; start < 6; start++)
		for (first = 0; first < 5; first++)
			for (flags = 0; flags <= q->v.indirect; flags++) {
				warm_up(q, start);
				one_reading(q, buf + first, 5 - first, flags, VRINGH_OK);
			}
}

static void
bad_two_readings(struct queue *q)
{
	static const struct mock_buf order[] = {{.len = 1}, {.len = 1, .write = true}, {.len = 1}};
	static const struct mock_buf lost[] = {
		{.len = 1}, {.len = 1, .fixed = true, .iova = NOWHERE}};
	uint32_t start, flags;

	for (start = 0; start < 6; start++)
		for (flags = 0; flags <= q->v.indirect; flags++) {
			warm_up(q, start);
			one_reading(q, order, 3, flags, VRINGH_E_ORDER);
			warm_up(q, start);
			one_reading(q, lost, 2, flags, VRINGH_E_ADDR);
		}
}

/* The driver is always one descriptor ahead: the chain gets longer while it is walked. */
static void
run_ahead(void *arg, const void *p, size_t len)
{
	struct rewriter *w = arg;
	struct queue *q = w->q;
	uint64_t off;
	uint32_t at;

	if (where(w, p, &off) != 0)
		return;
	at = (off / 16 + 1) % q->v.size;
	w->seen++;
	if (q->v.packed && len == 2) {
		bool wrap = q->drv.used_wrap == (at >= q->drv.used);

		mock_set_slot(&q->drv, at,
			&(struct mock_desc){.addr = BUFS_AT,
				.flags = (wrap ? AVAIL : USED) | VRING_DESC_F_NEXT});
	} else if (!q->v.packed) {
		q->drv.desc[at] = (struct vring_desc){
			.addr = BUFS_AT, .flags = VRING_DESC_F_NEXT, .next = (at + 1) % q->v.size};
	}
}

static void
endless(struct queue *q)
{
	struct rewriter w = rewriter_make(q);
	struct mock_buf buf = {.len = 0};
	uint32_t start;

	for (start = 0; start < 5; start++) {
		struct mock_desc m;
		int id;

		queue_rewind(q, near_end(&q->v, start));
		id = mock_post(&q->drv, &buf, 1, 0, 1);
		m = mock_get_desc(&q->drv, id, 0);
		m.flags |= VRING_DESC_F_NEXT;
		m.ref = (id + 1) % q->v.size;
		mock_set_desc(&q->drv, id, 0, &m);
		mock_publish(&q->drv);
		w.seen = 0;
		checked_tell(run_ahead, &w);
		if (q->v.packed) {
			assert_int_equal(fetch(q, 1), -VRINGH_E_RUNAWAY);
			checked_tell(NULL, NULL);
			expect_broken(q, VRINGH_E_RUNAWAY);
		} else {
			assert_int_equal(fetch(q, 1), 1);
			checked_tell(NULL, NULL);
			assert_int_equal(q->batch.chain[0].error, VRINGH_E_LOOP);
			complete(q, 0, 1);
			expect_used_short(q, 1, 0);
		}
		/* Each once, and not much more. */
		assert_true(w.seen >= q->v.size && w.seen <= 3 * q->v.size + 3);
	}
}

int
main(void)
{
	static const struct ring_test tests[] = {
		{"chain of two readings", two_readings, T_ALL, 5, 256},
		{"bad chain of two readings", bad_two_readings, T_ALL, 3, 256},
		{"chain that grows while it is walked", endless, T_ALL, 1, 256},
	};

	return RUN("rewrite", tests);
}
