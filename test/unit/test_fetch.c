/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Fetching chains in batches and handing them back: what is legal, on every kind of ring. */

#include "harness.h"

/* Chains of every shape; each fits in a ring of 8 next to one of two descriptors. */
static const struct mock_buf shape_r[] = {{.len = 100}};
static const struct mock_buf shape_w[] = {{.len = 100, .write = true}};
static const struct mock_buf shape_rw[] = {{.len = 1}, {.len = 3000, .write = true}};
static const struct mock_buf shape_5[] = {{.len = 12}, {.len = 1}, {.len = 1500},
	{.len = 1, .write = true}, {.len = 99, .write = true}};
static const struct mock_buf shape_zero[] = {{.len = 0}, {.len = 7}, {.len = 0},
	{.len = 0, .write = true}, {.len = 5, .write = true}, {.len = 0, .write = true}};
static const struct mock_buf shape_empty[] = {{.len = 0}};

static const struct {
	const struct mock_buf *buf;
	unsigned int nb;
} shapes[] = {
	{shape_r, DIM(shape_r)},
	{shape_w, DIM(shape_w)},
	{shape_rw, DIM(shape_rw)},
	{shape_5, DIM(shape_5)},
	{shape_zero, DIM(shape_zero)},
	{shape_empty, DIM(shape_empty)},
};

static void
nothing(struct queue *q)
{
	assert_int_equal(fetch(q, 1), 0);
	assert_false(pending(q));
	turn(q, 3);
	assert_int_equal(fetch(q, q->v.size), 0);
	assert_false(pending(q));
	/* Written but not published. */
	mock_post(&q->drv, shape_r, 1, 0, 0);
	assert_false(pending(q));
	assert_int_equal(fetch(q, 1), 0);
	mock_publish(&q->drv);
	assert_true(pending(q));
	assert_int_equal(fetch(q, 0), 0);
	assert_int_equal(fetch(q, 1), 1);
	assert_false(pending(q));
}

static void
each_shape(struct queue *q)
{
	unsigned int s, start, f;

	for (start = 0; start < 9; start++) {
		queue_rewind(q, near_end(&q->v, start));
		for (s = 0; s < DIM(shapes); s++)
			for (f = 0; f <= q->v.indirect; f++) {
				int id;

				if (shapes[s].nb > q->v.size)
					continue;
				id = post(q, shapes[s].buf, shapes[s].nb, f ? MOCK_INDIRECT : 0, s);
				assert_int_equal(fetch(q, 8), 1);
				expect_chain(
					q, &q->batch.chain[0], id, shapes[s].buf, shapes[s].nb);
				assert_int_equal(vringh_nb_descs(&q->vr, &q->batch.chain[0]),
					f ? 1 : shapes[s].nb);
				complete(q, 0, 1);
				expect_used(q, s, 0);
			}
	}
}

/* Full ring, fetched in pieces of 1, 2, 3, ...: order kept, nothing twice. */
static void
in_pieces(struct queue *q)
{
	uint32_t piece, i, got;

	for (piece = 1; piece <= q->v.size && piece < 70; piece = piece * 3 / 2 + 1) {
		for (i = 0; i < q->v.size; i++)
			mock_post(&q->drv, shape_w, 1, 0, i);
		mock_publish(&q->drv);
		q->batch.nb_chains = q->batch.nb_segs = 0;
		for (got = 0; got < q->v.size; got += piece) {
			uint32_t left = q->v.size - got;

			/* Appended to the batch. */
			assert_int_equal(vringh_fetch(&q->vr, &q->batch, piece),
				left < piece ? left : piece);
		}
		assert_int_equal(vringh_fetch(&q->vr, &q->batch, 1), 0);
		assert_int_equal(q->batch.nb_chains, q->v.size);
		assert_int_equal(q->batch.nb_segs, q->v.size);
		complete(q, 0, q->v.size);
		for (i = 0; i < q->v.size; i++)
			expect_used(q, i, 0);
		expect_none(q);
	}
}

static void
room_for_chains(struct queue *q)
{
	uint32_t i, most = q->v.size;

	for (i = 0; i < most; i++)
		mock_post(&q->drv, shape_w, 1, 0, i);
	mock_publish(&q->drv);
	q->batch.max_chains = most - 1;
	assert_int_equal(fetch(q, most), most - 1);
	assert_int_equal(vringh_fetch(&q->vr, &q->batch, most), 0);
	assert_int_equal(q->batch.nb_chains, most - 1);
	complete(q, 0, most - 1);
	assert_int_equal(fetch(q, most), 1);
	complete(q, 0, 1);
	for (i = 0; i < most; i++)
		expect_used(q, i, 0);
}

/* Three chains of two segments: room for n segments holds n/2 chains, the rest comes later. */
static void
room_for_segs(struct queue *q)
{
	uint32_t room, f;

	for (f = 0; f <= q->v.indirect; f++)
		for (room = 2; room < 7; room++) {
			uint32_t i, got = 0;
			int n;

			for (i = 0; i < 3; i++)
				mock_post(&q->drv, shape_rw, 2, f ? MOCK_INDIRECT : 0, i);
			mock_publish(&q->drv);
			q->batch.max_segs = room;
			while ((n = fetch(q, 8)) > 0) {
				assert_int_equal(n, room / 2 < 3 - got ? room / 2 : 3 - got);
				assert_int_equal(q->batch.nb_segs, 2 * n);
				for (i = 0; (int)i < n; i++)
					assert_int_equal(q->batch.chain[i].write_len, 3000);
				/* No room left for another: not an error. */
				if (room % 2 == 1 && got + n < 3)
					assert_int_equal(vringh_fetch(&q->vr, &q->batch, 1), 0);
				complete(q, 0, n);
				for (i = 0; (int)i < n; i++)
					expect_used(q, got + i, 0);
				got += n;
			}
			assert_int_equal(got, 3);
			assert_int_equal(vringh_broken(&q->vr), VRINGH_OK);
		}
}

/* The same for chains of one segment, which take the short way. */
static void
room_for_one_seg(struct queue *q)
{
	uint32_t room, i;

	for (room = 1; room < q->v.size && room < 9; room++) {
		for (i = 0; i < q->v.size; i++)
			mock_post(&q->drv, shape_w, 1, 0, i);
		mock_publish(&q->drv);
		q->batch.max_segs = room;
		for (i = 0; i < q->v.size; i++) {
			assert_int_equal(
				fetch(q, q->v.size), room < q->v.size - i ? room : q->v.size - i);
			assert_true(q->batch.nb_segs <= room);
			complete(q, 0, 1);
			vringh_discard(&q->vr, q->batch.chain + 1, q->batch.nb_chains - 1);
			expect_used(q, i, 0);
		}
	}
}

/* A fetch ends when it has looked at enough, on the short way and on the long one. */
static void
enough_descs(struct queue *q)
{
	struct mock_buf odd[] = {{.len = 1}, {.len = 0}, {.len = 7}};
	uint32_t enough, i, f, k;
	int n, got;

	for (f = 0; f <= q->v.indirect; f++)
		for (enough = 2; enough < 6; enough++)
			for (k = 2; k <= 3; k++) {
				uint32_t most = (enough + k - 1) / k;

				if (q->v.size < 6 || (k == 3 && q->v.size < 9))
					continue;
				for (i = 0; i < 3; i++)
					mock_post(&q->drv, odd, k, f ? MOCK_INDIRECT : 0, i);
				mock_publish(&q->drv);
				q->batch.max_descs = enough;
				for (got = 0; (n = fetch(q, 8)) > 0; got += n) {
					assert_true((uint32_t)n <= most);
					complete(q, 0, n);
					for (i = 0; (int)i < n; i++)
						expect_used(q, got + i, 0);
				}
				assert_int_equal(got, 3);
			}
	/* one that is longer still is fetched, alone */
	q->batch.max_descs = 2;
	for (i = 0; i < 2 && q->v.size >= 10; i++)
		mock_post(&q->drv, shape_5, 5, 0, i);
	mock_publish(&q->drv);
	for (got = 0; got < 2 && q->v.size >= 10; got++) {
		assert_int_equal(fetch(q, 8), 1);
		assert_int_equal(q->batch.chain[0].error, VRINGH_OK);
		complete(q, 0, 1);
		expect_used(q, got, 0);
	}
	q->batch.max_descs = 0;
}

/* What no batch could hold is a bad chain, or the queue would stand still for ever. */
static void
too_many_segs(struct queue *q)
{
	int id;

	q->batch.max_segs = 4;
	id = post(q, shape_5, 5, 0, 1);
	expect_bad(q, id, VRINGH_E_SEGS);
	id = post(q, shape_5 + 1, 4, 0, 2);
	assert_int_equal(fetch(q, 2), 1);
	expect_chain(q, &q->batch.chain[0], id, shape_5 + 1, 4);
	complete(q, 0, 1);
	expect_used(q, 2, 0);
	/* Behind another one it gets a second try first. */
	mock_post(&q->drv, shape_r, 1, 0, 3);
	mock_post(&q->drv, shape_5, 5, 0, 4);
	mock_publish(&q->drv);
	assert_int_equal(fetch(q, 2), 1);
	complete(q, 0, 1);
	expect_used(q, 3, 0);
	assert_int_equal(fetch(q, 2), 1);
	assert_int_equal(q->batch.chain[0].error, VRINGH_E_SEGS);
	complete(q, 0, 1);
	expect_used(q, 4, 0);
}

/* The chain as a value, segments included. */
static void
same_chain(const struct vringh_chain *a, const struct vringh_seg *sa, const struct vringh_chain *b)
{
	unsigned int i;

	assert_int_equal(a->read_len, b->read_len);
	assert_int_equal(a->write_len, b->write_len);
	assert_int_equal(a->nb_read, b->nb_read);
	assert_int_equal(a->nb_write, b->nb_write);
	assert_int_equal(a->id, b->id);
	assert_int_equal(a->slots, b->slots);
	assert_int_equal(a->error, b->error);
	for (i = 0; i < (unsigned int)a->nb_read + a->nb_write; i++) {
		assert_ptr_equal(sa[i].addr, b->seg[i].addr);
		assert_int_equal(sa[i].iova, b->seg[i].iova);
		assert_int_equal(sa[i].len, b->seg[i].len);
	}
}

/* Chains of 1, 2, ... slots at every position before the ring's end; each n handed back. */
static void
hand_back(struct queue *q)
{
	uint32_t start, n, f;

	for (f = 0; f <= q->v.indirect; f++)
		for (start = 0; start <= 8; start++)
			for (n = 0; n <= 4; n++) {
				struct vringh_chain chain[4];
				struct vringh_seg seg[32];
				struct vringh_state before;
				uint32_t i, at = 0;
				int got;

				queue_rewind(q, near_end(&q->v, start));
				for (i = 0; i < 4; i++) {
					uint32_t s = (i + start) % 3; /* 1, 1, 2 slots */

					if (mock_post(&q->drv, shapes[s].buf, shapes[s].nb,
						    f && s == 2 ? MOCK_INDIRECT : 0, i) < 0)
						break;
				}
				mock_publish(&q->drv);
				got = fetch(q, 4);
				assert_int_equal(got, i);
				if (got < (int)n)
					continue;
				memcpy(chain, q->batch.chain, got * sizeof(chain[0]));
				memcpy(seg, q->batch.seg, q->batch.nb_segs * sizeof(seg[0]));
				for (i = 0; i < got - n; i++)
					at += chain[i].nb_read + chain[i].nb_write;
				before = vringh_get_state(&q->vr);
				vringh_discard(&q->vr, &q->batch.chain[got - n], n);
				assert_int_equal(pending(q), n > 0);
				assert_int_equal(fetch(q, 8), n);
				for (i = 0; i < n; i++) {
					same_chain(
						&chain[got - n + i], &seg[at], &q->batch.chain[i]);
					at += chain[got - n + i].nb_read +
						chain[got - n + i].nb_write;
				}
				assert_int_equal(vringh_get_state(&q->vr).avail, before.avail);
				/* All of them handed back: as if never fetched. */
				vringh_discard(&q->vr, chain, got);
				assert_int_equal(vringh_get_state(&q->vr).avail,
					vringh_get_state(&q->vr).used);
				assert_int_equal(fetch(q, 8), got);
				complete(q, 0, got);
				for (i = 0; (int)i < got; i++)
					expect_used(q, i, 0);
				expect_none(q);
			}
}

/* One at a time, last first: the whole ring there and back. */
static void
hand_back_one_by_one(struct queue *q)
{
	uint32_t i, n = q->v.size < 1000 ? q->v.size : 1000;

	queue_rewind(q, near_end(&q->v, n / 2));
	for (i = 0; i < n; i++)
		mock_post(&q->drv, shape_w, 1, 0, i);
	mock_publish(&q->drv);
	assert_int_equal(fetch(q, n), n);
	for (i = n; i-- > 0;)
		vringh_discard(&q->vr, &q->batch.chain[i], 1);
	assert_int_equal(vringh_get_state(&q->vr).avail, q->cfg.state.avail);
	assert_int_equal(fetch(q, n), n);
	complete(q, 0, n);
	for (i = 0; i < n; i++)
		expect_used(q, i, 0);
}

/* A chain that fills the ring, wherever it starts; then it is handed back and fetched again. */
static void
whole_ring(struct queue *q)
{
	struct mock_buf *buf = calloc(q->v.size, sizeof(*buf));
	uint32_t i, start;
	int id;

	for (i = 0; i < q->v.size; i++)
		buf[i] = (struct mock_buf){.len = i % 3 + (q->v.size < 100), .write = i > 2};
	for (i = 0; i < q->v.size && q->v.size > 256; i++)
		buf[i] = (struct mock_buf){.len = 2, .fixed = true, .iova = BUFS_AT + 5 * i};
	for (start = 0; start < 9; start++) {
		queue_rewind(q, near_end(&q->v, start));
		id = post(q, buf, q->v.size, 0, start);
		assert_int_equal(fetch(q, 2), 1);
		expect_chain(q, &q->batch.chain[0], id, buf, q->v.size);
		vringh_discard(&q->vr, q->batch.chain, 1);
		assert_int_equal(fetch(q, 2), 1);
		expect_chain(q, &q->batch.chain[0], id, buf, q->v.size);
		complete(q, 0, 1);
		expect_used(q, start, 0);
		expect_none(q);
	}
	free(buf);
}

/* Ids and descriptors in no order. */
static void
any_placement(struct queue *q)
{
	uint64_t seed = q->v.size;
	uint32_t round, i, n;

	for (round = 0; round < 50; round++) {
		mock_shuffle(&q->drv, &seed);
		for (n = 0; n < 4; n++) {
			int flags = q->v.indirect && n % 2 ? MOCK_INDIRECT | MOCK_SCATTER : 0;

			if (mock_post(&q->drv, shapes[n].buf, shapes[n].nb, flags, n) < 0)
				break;
		}
		mock_publish(&q->drv);
		assert_int_equal(fetch(q, n + 1), n);
		for (i = 0; i < n; i++) {
			uint16_t id = q->batch.chain[i].id;

			assert_int_equal(q->drv.record[id].token, i);
			expect_chain(q, &q->batch.chain[i], id, shapes[i].buf, shapes[i].nb);
		}
		complete(q, 0, n);
		for (i = 0; i < n; i++)
			expect_used(q, i, 0);
	}
}

int
main(void)
{
	static const struct ring_test tests[] = {
		{"finds what is not there, misses what is", nothing, 0, 2, 0},
		{"segments of every shape of chain", each_shape, 0, 1, 0},
		{"full ring in partial batches", in_pieces, 0, 1, 0},
		{"no room for another chain", room_for_chains, 0, 2, 0},
		{"no room for another chain's segments", room_for_segs, 0, 6, 0},
		{"no room for another segment", room_for_one_seg, 0, 2, 256},
		{"enough descriptors", enough_descs, 0, 6, 0},
		{"chain that fits in no batch", too_many_segs, 0, 8, 0},
		{"chains handed back come again", hand_back, 0, 1, 0},
		{"chains handed back one by one", hand_back_one_by_one, 0, 1, 0},
		{"chain as long as the ring, across its end", whole_ring, 0, 1, 0},
		{"descriptors and ids in no order", any_placement, 0, 5, 0},
	};

	return RUN("fetch", tests);
}
