/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * In-flight regions that somebody else has written to, before a device takes them up and while
 * it uses them. Runs on the test's only thread.
 */

#include "inflight.h"

static const struct mock_buf r[] = {{.len = 8}};
static const struct mock_buf rrw[] = {{.len = 8}, {.len = 9}, {.len = 10, .write = true}};

/* What cannot be true is refused, and the queue is as it was. */
static void
refused(struct queue *q)
{
	const uint16_t n = q->v.size;
	/* With entries 0 to 2 and 3 to 5 in flight; split: heads h[0] and h[1]. */
	const struct {
		size_t at;
		uint64_t v;
		size_t at2;
		uint64_t v2;
	} split[] = {{SPLIT_USED_IDX, 0x1000, 0, 0}, /* further behind than a batch can be */
		{SPLIT_USED_IDX, 0xfffb, LAST_BATCH_HEAD, n},
		{SPLIT_USED_IDX, 0xfffb, LAST_BATCH_HEAD, UINT16_MAX}},
	  packed[] = {{USED, n, 0, 0}, {OLD_USED, n, 0, 0}, {USED, UINT16_MAX, 0, 0},
		  {OLD_USED, UINT16_MAX, 0, 0}, {USED, UINT16_MAX, OLD_USED, UINT16_MAX},
		  {FREE_HEAD, 1, 0, 0}, {FREE_HEAD, n, 0, 0}, {FREE_HEAD, 7, 0, 0}, /* lost one */
		  {entry(q, 7) + NEXT, 7, 0, 0},	  /* free loop of one */
		  {entry(q, 7) + NEXT, 6, 0, 0},	  /* of two */
		  {entry(q, 7) + NEXT, 0, 0, 0},	  /* into what is in flight */
		  {entry(q, 1) + NEXT, 1, 0, 0},	  /* chain loop */
		  {entry(q, 1) + NEXT, 3, 0, 0},	  /* into the other one */
		  {entry(q, 1) + NEXT, n, 0, 0},	  /* out of the table */
		  {entry(q, 4) + NEXT, UINT16_MAX, 0, 0}, /* far out */
		  {entry(q, 5) + FLAGS, 1, 0, 0},	  /* longer than it is */
		  {entry(q, 4) + FLAGS, 0, 0, 0},	  /* shorter */
		  {entry(q, 1), 0x0100, 0, 0}};		  /* head in a chain */
	unsigned int i, nb = q->v.packed ? DIM(packed) : DIM(split);
	struct vringh_mem none = {.kind = VRINGH_MEM_REGION};
	struct vringh_state at;
	struct track *t = anew(q, 4);
	uint8_t *good = malloc(t->len);

	assert_non_null(good);
	post(q, rrw, 3, 0, 0);
	post(q, rrw, q->v.packed ? 3 : 1, 0, 1);
	assert_int_equal(fetch(q, 2), 2);
	memcpy(good, t->region, t->len);
	for (i = 0; i < nb; i++) {
		memcpy(t->region, good, t->len);
		poke(t, q->v.packed ? packed[i].at : split[i].at, 2,
			q->v.packed ? packed[i].v : split[i].v);
		if ((q->v.packed ? packed[i].at2 : split[i].at2) != 0)
			poke(t, q->v.packed ? packed[i].at2 : split[i].at2, 2,
				q->v.packed ? packed[i].v2 : split[i].v2);
		restart(q);
		at = vringh_get_state(&q->vr);
		if (set(q, t) != -VRINGH_E_INFLIGHT)
			fail_msg("case %u is not refused", i);
		assert_int_equal(vringh_broken(&q->vr), VRINGH_OK);
		assert_int_equal(vringh_get_state(&q->vr).avail, at.avail);
		assert_int_equal(vringh_get_state(&q->vr).used, at.used);
	}
	memcpy(t->region, good, t->len);
	restart(q);
	t->len--;
	assert_int_equal(set(q, t), -VRINGH_E_INFLIGHT);
	t->len++;
	assert_int_equal(vringh_set_inflight(&q->vr, &t->in, t->region + 4, t->len, t->resubmit),
		-VRINGH_E_INFLIGHT);
	assert_int_equal(set(q, t), 2);
	q->cfg.size = 0;
	assert_int_equal(vringh_init(&q->vr, &q->cfg), -VRINGH_E_SIZE);
	assert_int_equal(set(q, t), -VRINGH_E_SIZE);
	q->cfg.size = q->v.size;
	/* A ring that is not there any more is not looked at. */
	restart(q);
	assert_int_equal(set(q, t), 2);
	if (vringh_set_mem(&q->vr, &none) < 0) {
		checked_limit(0);
		assert_int_equal(vringh_rewind(&q->vr), -VRINGH_E_AREA);
		checked_limit(UINT64_MAX);
	}
	free(good);
	untrack(t);
}

static void
expect_lost(struct queue *q, struct vringh_state at)
{
	uint32_t chains = q->batch.nb_chains, segs = q->batch.nb_segs;

	assert_int_equal(vringh_fetch(&q->vr, &q->batch, 2), -VRINGH_E_STATE);
	assert_int_equal(vringh_broken(&q->vr), VRINGH_E_STATE);
	assert_int_equal(q->batch.nb_chains, chains);
	assert_int_equal(q->batch.nb_segs, segs);
	assert_int_equal(vringh_get_state(&q->vr).avail, at.avail);
	assert_int_equal(vringh_get_state(&q->vr).used, at.used);
}

/* Chains that grew after they were counted, together longer than the ring. */
static void
grown(struct queue *q)
{
	struct vringh_state at;
	uint32_t first, i;
	struct track *t;

	for (first = 0; first < 2; first++) {
		t = anew(q, 1);
		post(q, r, 1, 0, 0);
		post(q, r, 1, 0, 1);
		assert_int_equal(fetch(q, 2), 2);
		assert_int_equal(successor(q, t), 2);
		at = vringh_get_state(&q->vr);
		for (i = first; i < q->v.size; i++) {
			poke(t, entry(q, i) + NEXT, 2, i + 1 < q->v.size ? i + 1 : first);
			poke(t, entry(q, i) + FLAGS, 2, VRING_DESC_F_NEXT);
			poke(t, entry(q, i) + ADDR, 8, mock_buf_addr(&q->drv, 0, 0));
			poke(t, entry(q, i) + LEN, 4, 1);
		}
		if (first > 0) {
			assert_int_equal(vringh_fetch(&q->vr, &q->batch, 2), 1);
			assert_int_equal(q->batch.nb_chains, 1);
			assert_int_equal(q->batch.chain[0].slots, 1);
		}
		expect_lost(q, at);
		complete(q, 0, first);
		untrack(t);
	}
}

/* A free list that leads out of the region: what was tracked before is told first. */
static void
list_bent(struct queue *q)
{
	const uint16_t out[] = {q->v.size, UINT16_MAX};
	struct vringh_state at;
	struct track *t;
	unsigned int i;

	for (i = 0; i < DIM(out); i++) {
		t = anew(q, 1);
		poke(t, entry(q, 0) + NEXT, 2, out[i]);
		post(q, r, 1, 0, 0);
		post(q, r, 1, 0, 1);
		assert_int_equal(fetch(q, 2), 1);
		assert_int_equal(q->batch.nb_chains, 1);
		assert_int_equal(q->batch.nb_segs, 1);
		at = vringh_get_state(&q->vr);
		assert_int_equal(at.avail, mock_used_position(&q->drv, 1));
		expect_lost(q, at);
		untrack(t);

		t = anew(q, 1);
		poke(t, entry(q, 0) + NEXT, 2, out[i]);
		post(q, r, 1, 0, 0);
		assert_int_equal(fetch(q, 2), 1);
		at = vringh_get_state(&q->vr);
		post(q, rrw, 3, 0, 1);
		assert_int_equal(vringh_fetch(&q->vr, &q->batch, 1), -VRINGH_E_STATE);
		assert_int_equal(q->batch.nb_chains, 1);
		expect_lost(q, at);
		untrack(t);
	}
}

/* A chain's links lead out of the region. */
static void
links_bent(struct queue *q)
{
	struct track *t = anew(q, 1);

	post(q, rrw, 3, 0, 0);
	assert_int_equal(fetch(q, 1), 1);
	assert_int_equal(successor(q, t), 1);
	poke(t, entry(q, 0) + NEXT, 2, UINT16_MAX);
	assert_int_equal(fetch(q, 1), 1);
	assert_int_equal(q->batch.chain[0].slots, 1);
	poke(t, entry(q, 0) + LAST, 2, UINT16_MAX);
	complete(q, 0, 1);
	untrack(t);
}

struct vandal {
	struct track *t;
	uint64_t seed;
	unsigned int odds; /* one in so many times */
};

/* Numbers as the region holds them, right or a little wrong, or anything. */
static void
vandalize(struct vandal *v)
{
	uint64_t what = mock_random(&v->seed);
	size_t at = mock_random(&v->seed) % (v->t->len / 2) * 2;

	if (what % v->odds != 0)
		return;
	if (what & 1 << 16)
		at %= 48;
	/* Ours, most of the time. */
	if (at < SPLIT_USED_IDX && what & 0xff << 20)
		return;
	v->t->region[at] = what >> 32 & (what & 1 << 17 ? 0xf : 0xff);
	if (what & 3 << 18)
		v->t->region[at + 1] = 0;
}

#ifdef HARNESS_CHECKED
static void
seen(void *arg, const void *p, size_t len)
{
	(void)p;
	(void)len;
	vandalize(arg);
}
#endif

/* Whatever the region holds, and whenever it changes: no access outside, and bounded work. */
static void
vandalized(struct queue *q)
{
	struct track *t = track(q);
	struct vandal v = {.t = t};
	uint64_t seed, s, limit = 200 + 100 * (uint64_t)q->v.size * (q->v.size + 2);
	uint32_t bad = 0, broken = 0, again = 0;

	for (seed = 0; seed < 1500; seed++) {
		uint32_t i, ops = 12, held = 0;
		int n;

		v.seed = s = seed;
		v.odds = 1 + seed % 3 * 20;
		queue_rewind(q, near_end(&q->v, seed % 4));
		memset(t->region, 0, t->len);
		assert_int_equal(set(q, t), 0);
		q->batch.nb_chains = q->batch.nb_segs = 0;
		for (i = 0; i < q->v.size; i++)
			mock_post(&q->drv, i & 1 ? rrw : r, i & 1 ? 3 : 1, 0, i);
		mock_publish(&q->drv);
		fetch(q, 1 + seed % q->v.size);
		complete(q, 0, seed % 2);
		for (i = 0; i < seed % 16; i++)
			vandalize(&v);
		restart(q);
#ifdef HARNESS_CHECKED
		checked_tell(seen, &v);
#endif
		checked_limit(limit);
		n = set(q, t);
		assert_in_range(n < 0 ? 0 : n, 0, q->v.size);
		bad += n < 0;
		while (ops-- > 0 && vringh_broken(&q->vr) == VRINGH_OK) {
			uint32_t pick = 1 + mock_random(&s) % q->v.size;
			struct vringh_chain *chain = q->batch.chain;

			checked_limit(limit);
			vandalize(&v);
			if (held == 0)
				q->batch.nb_chains = q->batch.nb_segs = 0;
			pick = pick < held ? pick : held;
			switch (mock_random(&s) % 4) {
			case 0:
				vringh_complete(&q->vr, chain, pick);
				held -= pick;
				q->batch.nb_chains -= pick;
				memmove(chain, chain + pick, held * sizeof(*chain));
				break;
			case 1:
				vringh_discard(&q->vr, chain + held - pick, pick);
				held -= pick;
				q->batch.nb_chains -= pick;
				break;
			default:
				n = vringh_fetch(&q->vr, &q->batch, q->v.size);
				held += n > 0 ? n : 0;
				assert_int_equal(q->batch.nb_chains, held);
				again += n > 0 && chain[held - n].again;
			}
			if (q->v.packed) {
				struct vringh_state at = vringh_get_state(&q->vr);
				uint32_t avail = at.avail & 0x7fff, used = at.used & 0x7fff;

				assert_true(used < q->v.size && avail < q->v.size);
				assert_true((at.avail ^ at.used) & 0x8000 ? avail <= used :
									    avail >= used);
			}
		}
		broken += vringh_broken(&q->vr) != VRINGH_OK;
#ifdef HARNESS_CHECKED
		checked_tell(NULL, NULL);
#endif
		checked_limit(UINT64_MAX);
	}
	/* All of it was met, but for what small rings have none of. */
	assert_true(again > 0);
	if (q->v.size >= 8)
		assert_true(bad > 0 && (broken > 0 || !q->v.packed));
	untrack(t);
}

int
main(void)
{
	static const struct ring_test tests[] = {
		{"a region that cannot be is believed", refused, 0, 8, 256},
		{"chains grow after they were counted", grown, T_ALL | T_PACKED, 3, 8},
		{"free list leads out of the region", list_bent, T_ALL | T_PACKED, 8, 8},
		{"chain leads out of the region", links_bent, T_ALL | T_PACKED, 3, 8},
		{"region is rewritten at any time", vandalized, T_ALL | T_COHERENT, 0, 8},
	};

	/* That ring has none. */
	tests_only = T_TOGETHER;
	return RUN("inflight hostile", tests);
}
