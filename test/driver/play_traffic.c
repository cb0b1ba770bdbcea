/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Numbered frames of played guests. The test's thread. */

#include <poll.h>
#include <sys/eventfd.h>

#include "play_traffic.h"

static struct frame f, got;

uint64_t
features_of(const struct shape *shape, bool in_order)
{
	return shape_features(shape) | (in_order ? BIT(VIRTIO_F_IN_ORDER) : 0);
}

static uint32_t
length_of(const struct traffic *t, uint32_t number)
{
	/* two or three buffers where frames may have several */
	uint32_t most = t->to->g->features & BIT(VIRTIO_NET_F_MRG_RXBUF) ? 3 * t->rx_len - 100 :
									   t->rx_len - HDR_LEN;

	return 60 + number * 37 % (most - 60);
}

static void
rx_refill(struct traffic *t)
{
	struct guest *g = t->to->g;
	struct mock_driver *d = &g->q[t->rxq].drv;
	uint32_t each = g->features & BIT(VIRTIO_RING_F_INDIRECT_DESC) ? 2 : t->rx_pieces;

	while (d->nb_room >= each && d->nb_free >= each)
		rx_post(g, t->rxq, 1, t->rx_len, t->rx_pieces);
}

struct traffic
traffic_start(struct play *p, unsigned int txq, struct play *to, unsigned int rxq)
{
	bool mergeable = to->g->features & BIT(VIRTIO_NET_F_MRG_RXBUF);
	struct traffic t = {.p = p,
		.txq = txq,
		.to = to,
		.rxq = rxq,
		.window = p->g->conf.size / 4,
		.rx_len = mergeable ? 700 : 1600,
		.rx_pieces = 2};

	rx_refill(&t);
	return t;
}

void
traffic_collect(struct traffic *t)
{
	struct guest_queue *q = &t->p->g->q[t->txq];
	struct mock_used used[32];
	int n;

	do {
		n = mock_collect(&q->drv, used, DIM(used));
		if (n < 0)
			fail_msg("%s", q->drv.fault);
		while (n-- > 0)
			assert_int_equal(used[n].len, 0);
	} while (n >= 0 && mock_has_used(&q->drv));
}

bool
traffic_receive(struct traffic *t)
{
	bool any = false;

	while (rx_try(t->to->g, t->rxq, &got, 0)) {
		any = true;
		frame_make(&f, t->received, length_of(t, t->received));
		if (got.len < 4 || memcmp(got.data, &t->received, 4) != 0) {
			uint32_t number;

			memcpy(&number, got.data, sizeof(number));
			fail_msg("frame %u (%u bytes) comes instead of %u", number, got.len,
				t->received);
		}
		frames_equal(&got, &f);
		t->received++;
	}
	if (any)
		rx_refill(t);
	return any;
}

/* As a driver that sleeps: it asks for a call, looks once more, and waits for it. */
static void
wait_for_call(struct traffic *t)
{
	struct guest_queue *q = &t->to->g->q[t->rxq];
	struct pollfd pfd = {.fd = q->call, .events = POLLIN};
	eventfd_t count;

	if (!mock_events_enable(&q->drv, 0)) {
		if (poll(&pfd, 1, PATIENCE_MS) != 1)
			fail_msg("no call for frame %u of %u%s", t->received, t->sent,
				mock_has_used(&q->drv) ? ", which is there" : "");
		eventfd_read(q->call, &count);
	}
	mock_events_disable(&q->drv);
}

void
traffic_send(struct traffic *t)
{
	static const uint32_t pieces[] = {HDR_LEN, 30};

	for (; t->sent - t->received < t->window; t->sent++) {
		frame_make(&f, t->sent, length_of(t, t->sent));
		if (tx_post(t->p->g, t->txq, &f, pieces, t->sent % 3) < 0)
			break;
	}
	mock_publish(&t->p->g->q[t->txq].drv);
	queue_kick(t->p->g, t->txq);
}

/* One round; waits if that brings nothing. */
void
traffic_round(struct traffic *t)
{
	traffic_collect(t);
	traffic_send(t);
	if (!traffic_receive(t) && t->sent > t->received)
		wait_for_call(t);
}

void
traffic_finish(struct traffic *t)
{
	uint64_t end = now_ms() + PATIENCE_MS;

	while (t->received < t->sent) {
		if (!traffic_receive(t))
			wait_for_call(t);
		traffic_collect(t);
	}
	while (t->p->g->q[t->txq].drv.nb_busy > 0 && now_ms() < end)
		traffic_collect(t);
	assert_int_equal(t->p->g->q[t->txq].drv.nb_busy, 0);
}

void
positions_exact(struct play *p)
{
	unsigned int q;

	for (q = 0; q < 2u * p->dev->max_pairs; q++) {
		const struct mock_driver *d = &p->g->q[q].drv;

		assert_false(mock_has_used(d));
		assert_int_equal(p->base[q].avail, p->base[q].used);
		assert_int_equal(p->base[q].used, mock_used_position(d, 0));
	}
}

void
passes(struct play *p, uint32_t number)
{
	frame_make(&f, number, 200);
	frame_passes(p->g, 1, p->g, 0, &f);
}
