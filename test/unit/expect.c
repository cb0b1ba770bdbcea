/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What the unit tests do to a queue with one call, and expect of it. Runs on the test's only
 * thread.
 */

#include "harness.h"

int
post(struct queue *q, const struct mock_buf *buf, unsigned int nb, uint32_t flags, uint64_t token)
{
	int id = mock_post(&q->drv, buf, nb, flags, token);

	assert_true(id >= 0);
	mock_publish(&q->drv);
	return id;
}

int
post_one(struct queue *q, uint32_t len, bool write, uint64_t token)
{
	struct mock_buf buf = {.len = len, .write = write};

	return post(q, &buf, 1, 0, token);
}

/*
 * A chain is at most a ring of descriptors, each a table of as many entries; an entry takes two
 * words, or sixteen bytes in an IO window. One chain is walked in vain at the end.
 */
static int
fetch_limited(struct queue *q, unsigned int max)
{
	uint64_t n = q->v.size, chains = (max < n ? max : n) + 1;
	int ret;

	checked_limit(16 + chains * (4 + (q->v.indirect ? 16 + 4 : 4) * n));
	ret = vringh_fetch(&q->vr, &q->batch, max);
	checked_limit(UINT64_MAX);
	return ret;
}

int
fetch(struct queue *q, unsigned int max)
{
	q->batch.nb_chains = 0;
	q->batch.nb_segs = 0;
	return fetch_limited(q, max);
}

int
fetch_refusing(struct queue *q, unsigned int max)
{
	int got = fetch(q, max), n = got;

	if (buffer_kind(q) != VRINGH_MEM_IOTLB)
		return got;
	got = got > 0 ? got : 0;
	while ((n > 0 || n == -VRINGH_E_MISS) && got < (int)max) {
		uint32_t segs = q->batch.nb_segs;

		if (n == -VRINGH_E_MISS) {
			assert_int_equal(q->batch.nb_chains, got);
			assert_int_equal(q->batch.nb_segs, segs);
			vringh_refuse_miss(&q->vr);
		}
		n = fetch_limited(q, max - got);
		got += n > 0 ? n : 0;
	}
	return got > 0 ? got : n;
}

bool
pending(struct queue *q)
{
	struct vringh_watch watch = vringh_watch(&q->vr);

	assert_int_equal(vringh_watch_pending(&watch), vringh_pending(&q->vr));
	return vringh_watch_pending(&watch);
}

void
complete(struct queue *q, unsigned int first, unsigned int n)
{
	vringh_complete(&q->vr, &q->batch.chain[first], n);
}

void
fill(struct queue *q, struct vringh_chain *chain, uint32_t n, uint8_t value)
{
	struct vringh_iter it = vringh_iter_write(&q->vr, chain);
	uint8_t byte[256];

	memset(byte, value, sizeof(byte));
	for (chain->written = 0; chain->written < n;) {
		uint32_t part = n - chain->written;

		if (part > sizeof(byte))
			part = sizeof(byte);
		assert_int_equal(vringh_push(&it, byte, part), part);
		chain->written += part;
	}
}

static struct mock_used
used_one(struct queue *q, uint64_t token, uint32_t len)
{
	struct mock_used used;
	int n = mock_collect(&q->drv, &used, 1);

	if (n < 0)
		fail_msg("the driver found: %s", q->drv.fault);
	assert_int_equal(n, 1);
	assert_int_equal(used.token, token);
	assert_int_equal(used.len, len);
	return used;
}

void
expect_used(struct queue *q, uint64_t token, uint32_t len)
{
	used_one(q, token, len);
}

void
expect_used_short(struct queue *q, uint64_t token, uint32_t len)
{
	assert_false(used_one(q, token, len).skipped);
}

void
expect_none(struct queue *q)
{
	struct mock_used used;
	int n = mock_collect(&q->drv, &used, 1);

	if (n < 0)
		fail_msg("the driver found: %s", q->drv.fault);
	assert_int_equal(n, 0);
}

/* Sum and place: the segments are these bytes of guest memory, in this order. */
static void
expect_bytes(struct queue *q, const struct vringh_seg *seg, unsigned int nb_seg, int id,
	const struct mock_buf *buf, unsigned int nb, bool write, uint32_t len)
{
	bool in_place = buffer_kind(q) != VRINGH_MEM_IOMEM;
	uint64_t own = 0;
	uint32_t k, n, total = 0, off = 0;
	unsigned int i, s = 0;

	for (i = 0; i < nb; i++) {
		uint64_t at = buf[i].fixed ? buf[i].iova : mock_buf_addr(&q->drv, id, own);

		own += buf[i].fixed ? 0 : buf[i].len;
		if (buf[i].write != write)
			continue;
		total += buf[i].len;
		for (k = 0; k < buf[i].len; k += n) {
			struct vringh_region r = mock_mem_region(&q->mem, at + k);
			uint64_t left = r.len - (at + k - r.iova);

			assert_true(s < nb_seg);
			assert_int_equal(seg[s].iova + off, at + k);
			if (in_place)
				assert_ptr_equal(
					seg[s].addr + off, mock_mem_device_at(&q->mem, at + k, 1));
			n = buf[i].len - k;
			n = n < left ? n : left;
			n = n < seg[s].len - off ? n : seg[s].len - off;
			off += n;
			if (off == seg[s].len) {
				s++;
				off = 0;
			}
		}
	}
	assert_int_equal(s, nb_seg);
	assert_int_equal(total, len);
}

void
expect_chain(struct queue *q, const struct vringh_chain *chain, int id, const struct mock_buf *buf,
	unsigned int nb)
{
	if (chain->error != VRINGH_OK)
		fail_msg("bad chain: '%s'", vringh_strerror(chain->error));
	assert_int_equal(chain->id, id);
	assert_int_equal(chain->written, 0);
	assert_int_equal(chain->slots, q->v.packed ? q->drv.record[id].slots : 1);
	expect_bytes(q, chain->seg, chain->nb_read, id, buf, nb, false, chain->read_len);
	expect_bytes(q, chain->seg + chain->nb_read, chain->nb_write, id, buf, nb, true,
		chain->write_len);
}

void
turn(struct queue *q, uint32_t n)
{
	while (n-- > 0) {
		int id = post_one(q, 8, true, n), i;
		uint8_t got[8];

		memset(got, 0xee, sizeof(got));
		mock_mem_write(&q->mem, mock_buf_addr(&q->drv, id, 0), got, sizeof(got));
		assert_int_equal(fetch(q, 1), 1);
		assert_int_equal(q->batch.chain[0].error, VRINGH_OK);
		fill(q, &q->batch.chain[0], n % 9, n);
		complete(q, 0, 1);
		expect_used(q, n, n % 9);
		expect_none(q);
		mock_mem_read(&q->mem, mock_buf_addr(&q->drv, id, 0), got, sizeof(got));
		for (i = 0; i < 8; i++)
			assert_int_equal(got[i], i < (int)(n % 9) ? n & 0xff : 0xee);
	}
}

uint64_t
errors_counted(const struct queue *q)
{
	uint64_t sum = 0;
	int e;

	for (e = 0; e < VRINGH_E_MAX; e++)
		sum += vringh_error_count(&q->vr, e);
	return sum;
}

void
expect_bad(struct queue *q, int id, enum vringh_error error)
{
	const struct vringh_chain *chain = &q->batch.chain[0];
	uint64_t count = vringh_error_count(&q->vr, error), all = errors_counted(q);
	uint64_t token = q->drv.record[id].token;

	assert_int_equal(fetch_refusing(q, 1), 1);
	if (chain->error != error)
		fail_msg("'%s' instead of '%s'", vringh_strerror(chain->error),
			vringh_strerror(error));
	assert_int_equal(chain->id, id);
	assert_int_equal(chain->nb_read + chain->nb_write, 0);
	assert_int_equal(chain->read_len | chain->write_len | chain->written, 0);
	assert_int_equal(q->batch.nb_segs, 0);
	/* Counted when it is completed, so that handing it back does not count it twice. */
	vringh_discard(&q->vr, chain, 1);
	assert_int_equal(fetch_refusing(q, 1), 1);
	assert_int_equal(chain->error, error);
	complete(q, 0, 1);
	assert_int_equal(vringh_error_count(&q->vr, error), count + 1);
	assert_int_equal(errors_counted(q), all + 1);
	assert_int_equal(vringh_broken(&q->vr), VRINGH_OK);
	expect_used_short(q, token, 0);
	expect_none(q);
	expect_neighbour(q);
}

/* The ring as each side has it. */
struct picture {
	uint8_t *bytes;
	uint32_t len;
};

static struct picture
picture_take(struct queue *q)
{
	struct picture p = {.bytes = NULL};
	uint32_t len[3], i, at = 0;

	for (i = 0; i < 3; i++)
		p.len += 2 * (len[i] = mock_area_len(&q->drv.cfg, i));
	p.bytes = malloc(p.len);
	assert_non_null(p.bytes);
	for (i = 0; i < 3; at += 2 * len[i++]) {
		uint64_t iova[3] = {DESC_AT, DRIVER_AT, DEVICE_AT};

		memcpy(p.bytes + at, mock_mem_at(q->area[i], iova[i], len[i]), len[i]);
		memcpy(p.bytes + at + len[i], mock_mem_device_at(q->area[i], iova[i], len[i]),
			len[i]);
	}
	return p;
}

void
expect_broken(struct queue *q, enum vringh_error error)
{
	struct vringh_chain chain = {.slots = 1};
	struct picture before, after;

	if (vringh_broken(&q->vr) == VRINGH_OK) {
		uint64_t count = vringh_error_count(&q->vr, error), all = errors_counted(q);

		assert_int_equal(fetch(q, 1), -(int)error);
		assert_int_equal(vringh_error_count(&q->vr, error), count + 1);
		assert_int_equal(errors_counted(q), all + 1);
	}
	assert_int_equal(vringh_broken(&q->vr), error);
	before = picture_take(q);
	checked_limit(0);
	q->batch.nb_chains = q->batch.nb_segs = 0;
	assert_int_equal(vringh_fetch(&q->vr, &q->batch, 1), -(int)error);
	assert_int_equal(q->batch.nb_chains, 0);
	vringh_complete(&q->vr, &chain, 1);
	assert_false(pending(q));
	assert_false(vringh_need_notify(&q->vr));
	assert_false(vringh_notify_enable(&q->vr));
	vringh_notify_disable(&q->vr);
	vringh_get_state(&q->vr);
	assert_int_equal(vringh_rewind(&q->vr), -(int)error);
	assert_int_equal(vringh_set_mem(&q->vr, NULL), -(int)error);
	assert_int_equal(vringh_set_mem(&q->vr, &q->mem.view), -(int)error);
	checked_limit(UINT64_MAX);
	after = picture_take(q);
	assert_memory_equal(before.bytes, after.bytes, before.len);
	free(before.bytes);
	free(after.bytes);
	expect_neighbour(q);
	queue_rewind(q, near_end(&q->v, 1));
	turn(q, q->v.size > 256 ? 8 : 2 * q->v.size + 2);
}

void
expect_neighbour(struct queue *q)
{
	struct neighbour *next = &q->next;
	struct mock_buf buf[2] = {{.len = 5}, {.len = 7, .write = true}};
	struct vringh_chain chain[4];
	struct vringh_seg seg[16];
	struct vringh_batch batch = {.chain = chain, .seg = seg, .max_chains = 4, .max_segs = 16};
	struct mock_used used[2];
	int e, i;

	for (i = 0; i < 2; i++)
		assert_true(mock_post(&next->drv, buf, 2, 0, i) >= 0);
	mock_publish(&next->drv);
	assert_int_equal(vringh_fetch(&next->vr, &batch, 3), 2);
	for (i = 0; i < 2; i++) {
		struct vringh_iter it = vringh_iter_write(&next->vr, &chain[i]);

		assert_int_equal(chain[i].error, VRINGH_OK);
		chain[i].written = vringh_push(&it, "neighbr", 7);
	}
	vringh_complete(&next->vr, chain, 2);
	assert_int_equal(mock_collect(&next->drv, used, 2), 2);
	for (i = 0; i < 2; i++) {
		char got[7];

		assert_int_equal(used[i].len, 7);
		mock_mem_read(&q->mem, mock_buf_addr(&next->drv, used[i].id, 5), got, 7);
		assert_memory_equal(got, "neighbr", 7);
	}
	for (e = 0; e < VRINGH_E_MAX; e++)
		assert_int_equal(vringh_error_count(&next->vr, e), 0);
}
