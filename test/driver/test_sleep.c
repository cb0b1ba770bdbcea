/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Pollers that sleep: nothing is lost to it, and each of their queues wakes them. */

#include "fn_harness.h"
#include "poller/poller.h"

static struct guest_conf sleepy = {.sleep = true};
static struct frame f, got;

static void
no_frame_is_lost_to_sleep(const struct shape *shape)
{
	struct guest *g =
		guest_open(&(struct guest_conf){.sleep = true, .features = shape_features(shape)});
	unsigned int i;
	uint64_t seed = 1;

	rx_post(g, 0, 100, 2048, 1);
	for (i = 0; i < 400; i++) {
		frame_make(&f, i, 60 + i);
		frame_passes(g, 1, g, 0, &f);
		rx_post(g, 0, 1, 2048, 1);
		/* around the time after which a poller lies down */
		nap_us(20 + mock_random(&seed) % 100);
	}
	assert_int_equal(stat_of(g, 0, VFN_STAT_PACKETS), 400);
}

static void
ping_pong_between_sleeping_functions_loses_nothing(void **state)
{
	struct guest *a = guest_open(&(struct guest_conf){.name = "a",
		.sleep = true,
		.wiring = VFN_WIRING_WIRE,
		.features = BIT(VIRTIO_RING_F_EVENT_IDX)});
	struct guest *b = guest_open(&(struct guest_conf){.name = "b",
		.sleep = true,
		.wiring = VFN_WIRING_WIRE,
		.peer = "a",
		.features = BIT(VIRTIO_F_RING_PACKED)});
	unsigned int i;

	(void)state;
	for (i = 0; i < 2000; i++) {
		rx_post(a, 0, 1, 2048, 1);
		rx_post(b, 0, 1, 2048, 1);
		frame_make(&f, i, 60 + i % 1000);
		frame_passes(a, 1, b, 0, &f);
		if (i % 2 == 0)
			nap_us(60);
		frame_passes(b, 1, a, 0, &f);
	}
	assert_true(stat_of(a, 1, VFN_STAT_ARMED) > 500);
}

static void
sleeping_sender_is_woken_by_the_receivers_buffers(const struct shape *shape)
{
	struct guest *g =
		guest_open(&(struct guest_conf){.sleep = true, .features = shape_features(shape)});
	uint64_t start = now_ms();
	unsigned int i;

	for (i = 0; i < 60; i++) {
		frame_make(&f, i, 100);
		tx_send(g, 1, &f);
		nap_us(i % 2 ? 120 : 30);
		rx_post(g, 0, 1, 2048, 1);
		rx_wait(g, 0, &got);
		frames_equal(&got, &f);
		tx_wait(g, 1, 1);
	}
	/* woken, and not only by the look every 100 ms */
	assert_true(now_ms() - start < 60 * 50);
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_NO_BUFFER), 0);
}

static void
receive_buffers_are_not_asked_for_while_there_are_enough(void **state)
{
	struct guest *g = guest_open(&sleepy);
	unsigned int i;

	(void)state;
	rx_post(g, 0, 10, 2048, 1);
	nap_us(2000);
	for (i = 0; i < 20; i++) {
		struct mock_buf buf = {.len = 2048, .write = true};

		assert_true(mock_post(&g->q[0].drv, &buf, 1, 0, 0) >= 0);
		mock_publish(&g->q[0].drv);
		assert_false(mock_should_kick(&g->q[0].drv));
		nap_us(200);
	}
}

static void
sender_is_heard_again_after_its_receiver_was_given_up(void **state)
{
	struct guest *g = guest_open(&sleepy);
	uint64_t end;

	(void)state;
	frame_make(&f, 1, 100);
	tx_send(g, 1, &f);
	tx_wait(g, 1, 1);
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_NO_BUFFER), 1);
	/* the poller goes to sleep; it has to ask for a kick of the transmit queue */
	for (end = now_ms() + 2000; now_ms() < end; nap_us(1000))
		if (!(__atomic_load_n(&g->q[1].drv.used_ring->flags, __ATOMIC_RELAXED) &
			    VRING_USED_F_NO_NOTIFY))
			return;
	fail_msg("the transmit queue is no longer armed");
}

static void
poller_spins_where_it_pays_only(void **state)
{
	const uint64_t us = 1000;
	struct vfn_poller p = {.stats.hz = 1000000 * us, .spin = 50 * us};
	unsigned int i;

	(void)state;
	/* a little more spinning would have spared these sleeps: as long as it may */
	assert_int_equal(vfn_poller_next_spin(&p, 40 * us, false), 50 * us);
	/* after long ones it spins half as long each time, down to a few microseconds */
	for (i = 25; i >= 6; i /= 2) {
		p.spin = vfn_poller_next_spin(&p, 1000 * us, false);
		assert_true(p.spin / us == i);
	}
	for (i = 0; i < 3; i++)
		p.spin = vfn_poller_next_spin(&p, 1000 * us, false);
	assert_int_equal(p.spin, 5 * us);
	/* work that came while it was going to sleep says nothing */
	assert_int_equal(vfn_poller_next_spin(&p, 1 * us, true), 5 * us);
	/* and back */
	assert_int_equal(vfn_poller_next_spin(&p, 10 * us, false), 10 * us);
}

/* Those that are quiet stay armed while the poller is awake for others. */
static void
sleeping_poller_is_woken_by_any_of_many_queues(const struct shape *shape)
{
	struct guest *g = guest_open(&(struct guest_conf){.pairs = 64,
		.size = 8,
		.sleep = true,
		.features =
			shape_features(shape) | BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_VQ)});
	struct guest *busy_one = guest_open(&(struct guest_conf){.name = "busy", .sleep = true});
	uint64_t armed, sleeps, seed = 3, end = now_ms() + PATIENCE_MS;
	unsigned int i, pair;

	guest_use_pairs(g, 64);
	for (pair = 0; pair < 64; pair++)
		rx_post(g, RXQ(pair), 6, 2048, 1);
	for (i = 0; i < 100; i++) {
		frame_make(&f, i, 100);
		if (i % 2 == 0) {
			rx_post(busy_one, 0, 1, 2048, 1);
			frame_passes(busy_one, 1, busy_one, 0, &f);
		}
		nap_us(mock_random(&seed) % 300);
		pair = mock_random(&seed) % 64;
		frame_passes(g, TXQ(pair), g, RXQ(pair), &f);
		rx_post(g, RXQ(pair), 1, 2048, 1);
	}
	/* awake for another's traffic it soon arms nothing anew for those that are quiet */
	pair = 63;
	do {
		assert_true(now_ms() < end);
		armed = stat_of(g, TXQ(pair), VFN_STAT_ARMED);
		sleeps = stat_of(busy_one, 1, VFN_STAT_ARMED);
		for (i = 0; i < 10; i++) {
			rx_post(busy_one, 0, 1, 2048, 1);
			frame_passes(busy_one, 1, busy_one, 0, &f);
			nap_us(500);
		}
	} while (stat_of(g, TXQ(pair), VFN_STAT_ARMED) != armed ||
		stat_of(busy_one, 1, VFN_STAT_ARMED) == sleeps);
	frame_passes(g, TXQ(pair), g, RXQ(pair), &f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(poller_spins_where_it_pays_only),
		PLAIN(ping_pong_between_sleeping_functions_loses_nothing),
		PLAIN(receive_buffers_are_not_asked_for_while_there_are_enough),
		PLAIN(sender_is_heard_again_after_its_receiver_was_given_up),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(no_frame_is_lost_to_sleep),
		SHAPED(sleeping_sender_is_woken_by_the_receivers_buffers),
		SHAPED(sleeping_poller_is_woken_by_any_of_many_queues),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("sleep", tests, DIM(tests), shaped, DIM(shaped));
}
