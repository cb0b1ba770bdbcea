/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Vector instructions change nothing: two devices look at the same ring, one of them without, and
 * have to see and to write the same.
 */

#include "harness.h"

#define RUN_LEN 13

/* Ways in which one descriptor of a run differs from its neighbours. */
enum odd {
	ALIKE,
	NO_REGION,
	BEFORE_REGION,
	ENDS_REGION, /* which is legal */
	PAST_REGION,
	LONGEST,
	TOP_OF_MEMORY,
	EMPTY,
	OTHER_DIRECTION,
	CHAINED,
	INDIRECT,
	NO_HEAD, /* split only */
	NB_ODD,
};

static void
make_odd(struct queue *q, int id, uint32_t at, enum odd odd)
{
	struct mock_desc d = mock_get_desc(&q->drv, id, 0);
	struct vringh_region r = mock_mem_region(&q->mem, d.addr);

	switch (odd) {
	case NO_REGION:
		d.addr = NOWHERE;
		break;
	case BEFORE_REGION:
		d.addr = r.iova - 1;
		break;
	case ENDS_REGION:
		d.addr = r.iova + r.len - d.len;
		break;
	case PAST_REGION:
		d.addr = r.iova + r.len - d.len + 1;
		break;
	case LONGEST:
		d.len = UINT32_MAX;
		break;
	case TOP_OF_MEMORY:
		d.addr = UINT64_MAX - 7;
		break;
	case EMPTY:
		d.len = 0;
		break;
	case OTHER_DIRECTION:
		d.flags ^= VRING_DESC_F_WRITE;
		break;
	case CHAINED:
		d.flags |= VRING_DESC_F_NEXT;
		break;
	case INDIRECT:
		d.flags |= VRING_DESC_F_INDIRECT;
		break;
	case NO_HEAD:
		mock_set_head(&q->drv, at, q->v.size);
		return;
	default:
		return;
	}
	mock_set_desc(&q->drv, id, 0, &d);
}

static void
expect_same(const struct vringh_batch *a, const struct vringh_batch *b, bool iotlb)
{
	uint32_t i, j;

	assert_int_equal(a->nb_chains, b->nb_chains);
	assert_int_equal(a->nb_segs, b->nb_segs);
	for (i = 0; i < a->nb_chains; i++) {
		const struct vringh_chain *c = &a->chain[i], *d = &b->chain[i];

		assert_int_equal(c->seg - a->seg, d->seg - b->seg);
		assert_int_equal(c->read_len, d->read_len);
		assert_int_equal(c->write_len, d->write_len);
		assert_int_equal(c->nb_read, d->nb_read);
		assert_int_equal(c->nb_write, d->nb_write);
		assert_int_equal(c->id, d->id);
		assert_int_equal(c->slots, d->slots);
		assert_int_equal(c->written, d->written);
		assert_int_equal(c->error, d->error);
		for (j = 0; j < c->nb_read + (uint32_t)c->nb_write; j++) {
			assert_ptr_equal(c->seg[j].addr, d->seg[j].addr);
			assert_int_equal(c->seg[j].iova, d->seg[j].iova);
			assert_int_equal(c->seg[j].len, d->seg[j].len);
			if (!iotlb)
				continue;
			assert_int_equal(c->seg[j].dirty, d->seg[j].dirty);
			assert_int_equal(c->seg[j].gen, d->seg[j].gen);
		}
	}
}

/* Both complete the same chains on the same ring, one after the other. */
static void
complete_both(struct queue *q, struct vringh *scalar, struct vringh_batch *batch, unsigned int seed)
{
	enum vringh_area area = q->v.packed ? VRINGH_AREA_DESC : VRINGH_AREA_DEVICE;
	uint32_t len = mock_area_len(&q->drv.cfg, area), i;
	uint8_t *ring = vringh_area(&q->vr, area), *before = malloc(len), *after = malloc(len);

	assert_true(before != NULL && after != NULL);
	for (i = 0; i < q->batch.nb_chains; i++) {
		/* Some chains of a run are written to, some are not. */
		uint32_t written = (seed + i) % 7 == 3 ? 0 : q->batch.chain[i].write_len;

		q->batch.chain[i].written = batch->chain[i].written = written;
	}
	memcpy(before, ring, len);
	vringh_complete(&q->vr, q->batch.chain, q->batch.nb_chains);
	memcpy(after, ring, len);
	memcpy(ring, before, len);
	vringh_complete(scalar, batch->chain, batch->nb_chains);
	assert_memory_equal(ring, after, len);
	assert_int_equal(vringh_get_state(&q->vr).used, vringh_get_state(scalar).used);
	for (i = 0; i < VRINGH_E_MAX; i++)
		assert_int_equal(vringh_error_count(&q->vr, i), vringh_error_count(scalar, i));
	free(before);
	free(after);
}

static void
one_run(struct queue *q, uint32_t start, bool write, enum odd odd, uint32_t place)
{
	struct vringh_batch batch = q->batch;
	struct vringh scalar;
	uint32_t i;
	int ret;

	queue_rewind(q, near_end(&q->v, start));
	q->cfg.scalar = true;
	q->cfg.state = vringh_get_state(&q->vr);
	assert_int_equal(vringh_init(&scalar, &q->cfg), VRINGH_OK);
	q->cfg.scalar = false;
	/* A run of either direction, so that both know the region. */
	for (i = 0; i < 2; i++) {
		post_one(q, 64, i, i);
		assert_int_equal(fetch(q, 1), 1);
		batch.nb_chains = batch.nb_segs = 0;
		assert_int_equal(vringh_fetch(&scalar, &batch, 1), 1);
		complete(q, 0, 1);
		vringh_complete(&scalar, q->batch.chain, 1);
		expect_used(q, i, 0);
	}
	for (i = 0; i < RUN_LEN; i++) {
		uint32_t at = q->drv.avail % q->v.size;
		int id = post_one(q, 60 + i, write, i);

		if (i == place)
			make_odd(q, id, at, odd);
	}
	batch.chain = calloc(q->batch.max_chains, sizeof(*batch.chain));
	batch.seg = calloc(q->batch.max_segs, sizeof(*batch.seg));
	assert_true(batch.chain != NULL && batch.seg != NULL);
	batch.nb_chains = batch.nb_segs = 0;
	ret = fetch(q, RUN_LEN);
	assert_int_equal(vringh_fetch(&scalar, &batch, RUN_LEN), ret);
	assert_int_equal(vringh_broken(&q->vr), vringh_broken(&scalar));
	expect_same(&q->batch, &batch, buffer_kind(q) == VRINGH_MEM_IOTLB);
	if (odd == ALIKE)
		assert_int_equal(ret, RUN_LEN);
	if (ret > 0)
		complete_both(q, &scalar, &batch, start + place);
	free(batch.chain);
	free(batch.seg);
}

static void
same(struct queue *q)
{
	uint32_t start, place;
	unsigned int odd;
	int write;

	for (odd = 0; odd < NB_ODD; odd++)
		for (place = 0; place < RUN_LEN; place++)
			for (start = 0; start < 18; start++)
				for (write = 0; write < 2; write++)
					if (odd != NO_HEAD || !q->v.packed)
						one_run(q, start, write, odd, place);
}

int
main(void)
{
	static const struct ring_test tests[] = {
		{"one descriptor of a run is odd", same, T_IN_PLACE | T_ALL, 16, 256},
	};

	return RUN("vector", tests);
}
