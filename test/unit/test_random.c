/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Random but repeatable traffic: chains of any shape and placement, fetched, handed back and
 * completed in any amount and order, with the memory moved and the state reloaded in between.
 * Every byte and every identity is checked; the mock driver checks the ring.
 */

#include <stdio.h>

#include "harness.h"

#define STEPS	 1500
#define MAX_BUFS 12
#define MAX_SEGS (2 * MAX_BUFS)

struct posted {
	struct mock_buf buf[MAX_BUFS];
	uint32_t nb, read_len, write_len, written;
};

struct held {
	struct vringh_chain chain;
	uint64_t token;
};

struct play {
	struct queue *q;
	uint64_t seed;
	uint64_t next_token;
	struct posted *posted; /* by token % size */
	struct held *held;     /* fetched and not completed, in order */
	uint32_t nb_held;
	uint64_t next_fetch; /* token that has to come next */
	uint64_t *used;	     /* tokens in order of completion */
	uint32_t nb_used;
};

static uint8_t
pattern(uint64_t token, uint32_t k)
{
	return token * 31 + k * 7 + (k >> 8);
}

/* Fill or check guest memory of a chain's buffers of one direction. */
static void
guest_bytes(struct play *p, uint64_t token, int id, bool write, uint32_t from, uint32_t to,
	bool check, int value)
{
	struct posted *c = &p->posted[token % p->q->v.size];
	uint32_t i, k, own = 0, pos = 0;

	for (i = 0; i < c->nb; own += c->buf[i].len, i++) {
		uint8_t *host;

		if (c->buf[i].write != write || c->buf[i].len == 0)
			continue;
		host = mock_mem_at(&p->q->mem, mock_buf_addr(&p->q->drv, id, own), c->buf[i].len);
		for (k = 0; k < c->buf[i].len; k++, pos++) {
			uint8_t v = value < 0 ? pattern(token, pos) : value;

			if (pos < from || pos >= to)
				continue;
			if (check)
				assert_int_equal(host[k], v);
			else
				host[k] = v;
		}
		if (!check)
			mock_link_wrote(&p->q->link, host, c->buf[i].len);
	}
}

static void
play_post(struct play *p)
{
	struct queue *q = p->q;
	uint32_t n = 1 + mock_random(&p->seed) % 6;

	if (mock_random(&p->seed) % 4 == 0)
		mock_shuffle(&q->drv, &p->seed);
	while (n-- > 0) {
		struct posted *c = &p->posted[p->next_token % q->v.size];
		uint32_t i, flags = 0, nb = 1 + mock_random(&p->seed) % MAX_BUFS;
		uint32_t writable;
		int id;

		if (mock_random(&p->seed) % 2)
			nb = 1;
		if (q->v.indirect && nb <= q->v.size && mock_random(&p->seed) % 2)
			flags = MOCK_INDIRECT | (mock_random(&p->seed) % 2 ? MOCK_SCATTER : 0);
		/* Tokens' places are a window: none is reused that is out. */
		if (c->nb != 0 || q->drv.nb_busy == q->v.size ||
			(flags == 0 && nb > q->drv.nb_room) || (flags != 0 && q->drv.nb_room == 0))
			break;
		memset(c, 0, sizeof(*c));
		writable = mock_random(&p->seed) % (nb + 1);
		for (i = 0; i < nb; i++) {
			c->buf[i].len = mock_random(&p->seed) % 8 ? mock_random(&p->seed) % 300 : 0;
			c->buf[i].write = i >= writable;
			*(c->buf[i].write ? &c->write_len : &c->read_len) += c->buf[i].len;
		}
		id = mock_post(&q->drv, c->buf, nb, flags, p->next_token);
		if (id < 0)
			break;
		c->nb = nb;
		guest_bytes(p, p->next_token, id, false, 0, UINT32_MAX, false, -1);
		guest_bytes(p, p->next_token, id, true, 0, UINT32_MAX, false, 0xee);
		p->next_token++;
	}
	if (mock_random(&p->seed) % 4)
		mock_publish(&q->drv);
}

static void
play_fetch(struct play *p)
{
	struct queue *q = p->q;
	int i, n;

	q->batch.max_segs = MAX_BUFS + mock_random(&p->seed) % MAX_SEGS;
	n = fetch(q, mock_random(&p->seed) % 9);
	assert_true(n >= 0);
	for (i = 0; i < n; i++) {
		const struct vringh_chain *chain = &q->batch.chain[i];
		uint64_t token = p->next_fetch++;
		struct posted *c = &p->posted[token % q->v.size];
		struct vringh_iter it = vringh_iter_read(&q->vr, chain);
		uint8_t got[MAX_BUFS * 300];
		uint32_t k;

		assert_int_equal(q->drv.record[chain->id].token, token);
		expect_chain(q, chain, chain->id, c->buf, c->nb);
		assert_int_equal(vringh_pull(&it, got, sizeof(got)), c->read_len);
		for (k = 0; k < c->read_len; k++)
			assert_int_equal(got[k], pattern(token, k));
		/* Written now: the segments are not kept. */
		c->written = mock_random(&p->seed) % (c->write_len + 1);
		for (k = 0; k < c->written; k++)
			got[k] = pattern(token, k);
		it = vringh_iter_write(&q->vr, chain);
		assert_int_equal(vringh_push(&it, got, c->written), c->written);
		p->held[p->nb_held++] = (struct held){*chain, token};
	}
}

static void
play_hand_back(struct play *p)
{
	uint32_t n = mock_random(&p->seed) % (p->nb_held + 1), i;

	for (i = 0; i < n; i++) {
		struct held *h = &p->held[p->nb_held - n + i];

		p->q->batch.chain[i] = h->chain;
		guest_bytes(p, h->token, h->chain.id, true, 0, UINT32_MAX, false, 0xee);
	}
	vringh_discard(&p->q->vr, p->q->batch.chain, n);
	p->nb_held -= n;
	p->next_fetch -= n;
}

/* The oldest chains, in any order: what is handed back are the youngest. */
static void
play_complete(struct play *p)
{
	struct vringh_chain chain[16];
	uint32_t n = mock_random(&p->seed) % (p->nb_held + 1), i;

	if (n > DIM(chain))
		n = DIM(chain);
	for (i = 0; i < n; i++) {
		uint32_t k = p->q->v.in_order ? i : i + mock_random(&p->seed) % (n - i);
		struct held h = p->held[k];

		p->held[k] = p->held[i];
		p->held[i] = h;
		chain[i] = h.chain;
		chain[i].seg = NULL; /* stale: not to be looked at */
		chain[i].written = p->posted[h.token % p->q->v.size].written;
		p->used[p->nb_used++] = h.token;
	}
	vringh_complete(&p->q->vr, chain, n);
	p->nb_held -= n;
	memmove(p->held, p->held + n, p->nb_held * sizeof(p->held[0]));
}

static void
play_collect(struct play *p, uint32_t most)
{
	uint32_t i = 0;
	struct mock_used used;
	int n;

	while (i < most && (n = mock_collect(&p->q->drv, &used, 1)) != 0) {
		struct posted *c = &p->posted[used.token % p->q->v.size];

		if (n < 0)
			fail_msg("%s", p->q->drv.fault);
		assert_true(i < p->nb_used);
		assert_int_equal(used.token, p->used[i++]);
		assert_int_equal(used.len, c->written);
		guest_bytes(p, used.token, used.id, true, 0, c->written, true, -1);
		guest_bytes(p, used.token, used.id, true, c->written, UINT32_MAX, true, 0xee);
		c->nb = 0;
	}
	p->nb_used -= i;
	memmove(p->used, p->used + i, p->nb_used * sizeof(p->used[0]));
}

static void
play_upheaval(struct play *p)
{
	unsigned int i;

	if (mock_random(&p->seed) % 2) {
		mock_mem_move(&p->q->mem);
		for (i = 0; i < 3; i++)
			if (p->q->area[i] != &p->q->mem)
				mock_mem_move(p->q->area[i]);
		assert_int_equal(queue_remap(p->q), VRINGH_OK);
	} else {
		p->q->cfg.state = vringh_get_state(&p->q->vr);
		assert_int_equal(vringh_init(&p->q->vr, &p->q->cfg), VRINGH_OK);
	}
}

static void
traffic(struct queue *q)
{
	struct play p = {.q = q,
		.seed = q->v.size * 32 + q->v.packed * 4 + q->v.event_idx * 2 + q->v.indirect +
			q->v.in_order * 8 + q->v.mem * 1000003};
	uint32_t step;

	p.posted = calloc(q->v.size, sizeof(*p.posted));
	p.held = calloc(q->v.size, sizeof(*p.held));
	p.used = calloc(q->v.size, sizeof(*p.used));
	queue_rewind(q, near_end(&q->v, mock_random(&p.seed) % 300 + 1));
	for (step = 0; step < STEPS; step++) {
		switch (mock_random(&p.seed) % 10) {
		case 0 ... 2:
			play_post(&p);
			break;
		case 3 ... 4:
			play_fetch(&p);
			break;
		case 5:
			play_hand_back(&p);
			break;
		case 6 ... 7:
			play_complete(&p);
			break;
		case 8:
			play_collect(&p, UINT32_MAX);
			break;
		default:
			if (mock_random(&p.seed) % 16 == 0)
				play_upheaval(&p);
		}
	}
	mock_publish(&q->drv);
	while (p.next_fetch < p.next_token || p.nb_held > 0) {
		play_fetch(&p);
		play_complete(&p);
	}
	play_collect(&p, UINT32_MAX);
	assert_int_equal(q->drv.nb_busy, 0);
	assert_int_equal(q->drv.nb_room, q->v.size);
	assert_true(p.next_token > 100);
	free(p.posted);
	free(p.held);
	free(p.used);
}

int
main(void)
{
	static const struct ring_test tests[] = {
		{"random traffic", traffic, T_ALL, 8, 256},
	};

	return RUN("random", tests);
}
