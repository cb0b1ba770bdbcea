/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Bytes between two queues, and in and out of each: any two formats, any two memories, chains
 * cut and placed at random, compared byte by byte with what lies in guest memory. Runs on the
 * test's only thread.
 */

#include <stdio.h>

#include "harness.h"

#define MAX_BUFS 8
#define MAX_LEN	 4000
#define ROUNDS	 12
#define LAND	 0x2000 /* bytes where buffers lie */

static const unsigned int mems[] = {VRINGH_MEM_DIRECT, VRINGH_MEM_REGION, VRINGH_MEM_IOTLB,
	VRINGH_MEM_IOMEM, MEM_NTB, MEM_MIX, MEM_FAR};

struct pair {
	unsigned int from, to; /* memories */
	char name[80];
};

/* A side of a copy: a queue, and the only chain in it. */
struct side {
	struct queue *q;
	struct mock_buf buf[MAX_BUFS];
	uint32_t nb, len;
	uint8_t flat[MAX_LEN + 300 * MAX_BUFS]; /* what the chain's bytes are to be */
};

/* Where buffers lie: in one piece, or in adjacent regions that begin anywhere. */
static void
land(struct queue *q, uint64_t *seed)
{
	uint64_t at = FREE_AT, end = FREE_AT + LAND;

	while (at < end && q->mem.window.len == 0) {
		uint64_t len = 1 + mock_random(seed) % 700;

		if (len > end - at)
			len = end - at;
		assert_non_null(mock_mem_add(&q->mem, at, len, VRINGH_PERM_RW));
		at += len;
	}
	if (at < end)
		assert_non_null(mock_mem_add(&q->mem, at, end - at, VRINGH_PERM_RW));
	assert_int_equal(queue_remap(q), VRINGH_OK);
}

/* Write or read what the chain's bytes are in guest memory. */
static void
guest_write(struct side *s)
{
	uint32_t i, done = 0;

	for (i = 0; i < s->nb; done += s->buf[i++].len)
		assert_true(
			mock_mem_write(&s->q->mem, s->buf[i].iova, s->flat + done, s->buf[i].len));
}

static void
guest_check(struct side *s)
{
	uint8_t got[MAX_LEN];
	uint32_t i, done = 0;

	for (i = 0; i < s->nb; done += s->buf[i++].len) {
		assert_true(mock_mem_read(&s->q->mem, s->buf[i].iova, got, s->buf[i].len));
		assert_memory_equal(got, s->flat + done, s->buf[i].len);
	}
}

/* A chain of buffers that do not overlap, fetched; all bytes random. */
static struct vringh_iter
lay(struct side *s, bool write, uint64_t *seed)
{
	uint64_t at = FREE_AT + mock_random(seed) % 64;
	uint32_t i, k;

	s->nb = 1 + mock_random(seed) % MAX_BUFS;
	s->len = 0;
	for (i = 0; i < s->nb; i++) {
		uint32_t len = mock_random(seed) % (mock_random(seed) % 4 ? 40 : 1 + LAND / 10);

		s->buf[i] =
			(struct mock_buf){.len = len, .write = write, .fixed = true, .iova = at};
		at += len + mock_random(seed) % 64;
		s->len += len;
	}
	for (k = 0; k < s->len; k++)
		s->flat[k] = mock_random(seed);
	guest_write(s);
	post(s->q, s->buf, s->nb, mock_random(seed) % 2 ? MOCK_INDIRECT : 0, 1);
	assert_int_equal(fetch(s->q, 1), 1);
	assert_int_equal(s->q->batch.chain[0].error, VRINGH_OK);
	return write ? vringh_iter_write(&s->q->vr, &s->q->batch.chain[0]) :
		       vringh_iter_read(&s->q->vr, &s->q->batch.chain[0]);
}

static void
round_trip(struct side *from, struct side *to, uint64_t *seed)
{
	struct vringh_iter src = lay(from, false, seed), dst = lay(to, true, seed);
	uint32_t in = 0, out = 0, i, left = 1000;

	/* In pieces of any length, now and then past memory of this process; the end is seen. */
	while (left-- > 0 && (in < from->len || out < to->len || left > 900)) {
		uint32_t want = mock_random(seed) % (mock_random(seed) % 3 ? 40 : MAX_LEN);
		uint32_t may_in = want < from->len - in ? want : from->len - in;
		uint32_t may_out = want < to->len - out ? want : to->len - out;
		uint32_t both = may_in < may_out ? may_in : may_out;
		uint8_t *tmp = malloc(want + 1); /* of exactly what may be touched */

		for (i = 0; i <= want; i++)
			tmp[i] = mock_random(seed);
		switch (mock_random(seed) % 6) {
		case 0:
			assert_int_equal(vringh_pull(&src, tmp, want), may_in);
			assert_memory_equal(tmp, from->flat + in, may_in);
			in += may_in;
			break;
		case 1:
			assert_int_equal(vringh_push(&dst, tmp, want), may_out);
			memcpy(to->flat + out, tmp, may_out);
			out += may_out;
			break;
		default:
			assert_int_equal(vringh_copy(&dst, &src, want), both);
			memcpy(to->flat + out, from->flat + in, both);
			in += both;
			out += both;
		}
		free(tmp);
	}
	from->q->batch.chain[0].written = 0;
	to->q->batch.chain[0].written = out;
	complete(from->q, 0, 1);
	complete(to->q, 0, 1);
	expect_used(from->q, 1, 0);
	expect_used(to->q, 1, out);
	guest_check(from);
	guest_check(to);
}

static void
copies(void **state)
{
	const struct pair *p = *state;
	struct side *side = calloc(2, sizeof(*side));
	unsigned int formats, i;
	uint64_t seed = p->from * 100 + p->to;

	for (formats = 0; formats < NB_FORMATS * NB_FORMATS; formats++) {
		struct variant v[2] = {format_variant(formats % NB_FORMATS, p->from, 8),
			format_variant(formats / NB_FORMATS, p->to, 8)};

		for (i = 0; i < 2; i++) {
			side[i].q = queue_open(&v[i]);
			land(side[i].q, &seed);
		}
		for (i = 0; i < ROUNDS; i++)
			round_trip(&side[0], &side[1], &seed);
		for (i = 0; i < 2; i++)
			queue_close(side[i].q);
	}
	free(side);
}

int
main(void)
{
	static struct pair pair[DIM(mems) * DIM(mems)];
	static struct CMUnitTest tests[DIM(mems) * DIM(mems)];
	unsigned int i;

	for (i = 0; i < DIM(pair); i++) {
		pair[i].from = mems[i % DIM(mems)];
		pair[i].to = mems[i / DIM(mems)];
		snprintf(pair[i].name, sizeof(pair[i].name), "from %s to %s, between all formats",
			mem_name(pair[i].from), mem_name(pair[i].to));
		tests[i] = (struct CMUnitTest){
			.name = pair[i].name, .test_func = copies, .initial_state = &pair[i]};
	}
	return run_group("copy", NULL, 0, tests, DIM(tests));
}
