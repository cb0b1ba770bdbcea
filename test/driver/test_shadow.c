/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Shadow rings: a guest whose function loops frames back, behind the driver's whole life cycle.
 * Relayed by the function's poller, or, where the link does no jobs, by the driver's thread.
 */

#include <sys/eventfd.h>

#include <rte_malloc.h>

#include "play_traffic.h"
#include "vfn_shadow.h"

#define LOG_ALL BIT(VHOST_F_LOG_ALL)

static struct frame f, got;

/* ---- there and back ---- */

struct switcher {
	struct play *p;
	unsigned int times;
	bool done;
};

static void *
switch_all_the_time(void *arg)
{
	struct switcher *s = arg;
	unsigned int i;

	for (i = 0; i < s->times; i++) {
		play_log_all(s->p, i % 2 == 0);
		/* from no time at all to some bursts, and some sleep */
		nap_us(i % 5 * i % 7 * 60);
	}
	__atomic_store_n(&s->done, true, __ATOMIC_RELEASE);
	return NULL;
}

/* Behind a link that is slow a few have to do. */
static unsigned int
times(void)
{
	return getenv("VFN_NIGHTLY") != NULL ? 2000 : getenv("VFN_POSTED") != NULL ? 10 : 60;
}

static void
switch_under_traffic(const struct shape *shape, bool in_order, bool thread)
{
	struct play *p = play_open(0,
		&(struct play_conf){.features = features_of(shape, in_order),
			.lm = VFN_LM_SHADOW,
			.thread = thread,
			.sleep = true,
			.size = 64});
	struct switcher s = {.p = p, .times = times()};
	uint32_t shadowed;
	struct traffic t;
	pthread_t id;

	play_log(p, play_log_len(p));
	play_start(p);
	t = traffic_start(p, 1, p, 0);
	assert_int_equal(pthread_create(&id, NULL, switch_all_the_time, &s), 0);
	while (!__atomic_load_n(&s.done, __ATOMIC_ACQUIRE))
		traffic_round(&t);
	pthread_join(id, NULL);
	shadowed = t.sent;
	assert_null(p->dev->shadow[0]);
	assert_int_equal(p->dev->dirty.starts, s.times / 2);
	/* direct once more, and then it stays shadowed to the end */
	while (t.sent < shadowed + 200)
		traffic_round(&t);
	play_log_all(p, true);
	assert_non_null(p->dev->shadow[0]);
	assert_non_null(p->dev->shadow[1]);
	while (t.sent < shadowed + 400)
		traffic_round(&t);
	traffic_finish(&t);
	play_stop(p);
	positions_exact(p);
	assert_true(t.sent > 1000 || t.sent > 400 + s.times);
}

static void
switches_under_traffic(const struct shape *shape)
{
	switch_under_traffic(shape, false, false);
}

static void
switches_under_traffic_in_order(const struct shape *shape)
{
	switch_under_traffic(shape, true, false);
}

static void
switches_under_traffic_with_a_thread(const struct shape *shape)
{
	switch_under_traffic(shape, false, true);
}

static void
switches_under_traffic_with_a_thread_in_order(const struct shape *shape)
{
	switch_under_traffic(shape, true, true);
}

/* A guest that sends is migrated, and one that only receives, over a wire. */
static void
wired_guest_switches_and_its_peer_loses_nothing(const struct shape *shape)
{
	struct play_conf conf = {.features = features_of(shape, false),
		.lm = VFN_LM_SHADOW,
		.sleep = true,
		.pairs = 2,
		.size = 64,
		.wiring = VFN_WIRING_WIRE};
	struct play *a = play_open(0, &conf), *b;
	struct switcher s = {.p = a, .times = times()};
	struct traffic t[4];
	pthread_t id;
	unsigned int i;

	conf.peer = "dev0";
	b = play_open(1, &conf);
	play_log(a, play_log_len(a));
	play_start(a);
	play_start(b);
	for (i = 0; i < 2; i++) {
		t[i] = traffic_start(a, TXQ(i), b, RXQ(i));
		t[2 + i] = traffic_start(b, TXQ(i), a, RXQ(i));
	}
	assert_int_equal(pthread_create(&id, NULL, switch_all_the_time, &s), 0);
	while (!__atomic_load_n(&s.done, __ATOMIC_ACQUIRE)) {
		for (i = 0; i < 4; i++) {
			traffic_collect(&t[i]);
			traffic_send(&t[i]);
			traffic_receive(&t[i]);
		}
	}
	pthread_join(id, NULL);
	for (i = 0; i < 4; i++)
		traffic_finish(&t[i]);
	play_stop(a);
	play_stop(b);
	positions_exact(a);
	positions_exact(b);
}

/* ---- positions ---- */

static void
position_continues_over_close_and_start(const struct shape *shape)
{
	unsigned int mode, round;

	for (mode = 0; mode < 4; mode++) {
		struct play *p = play_open(0,
			&(struct play_conf){.features = features_of(shape, mode & 1),
				.thread = mode & 2,
				.lm = VFN_LM_SHADOW,
				.size = 32});
		struct traffic t;

		play_log(p, play_log_len(p));
		play_start(p);
		t = traffic_start(p, 1, p, 0);
		for (round = 0; round < 12; round++) {
			/* shadowed from dev_conf on, or only later, or not at all */
			if (round % 4 == 0)
				play_log_all(p, false);
			traffic_send(&t);
			if (round % 4 == 1)
				play_log_all(p, true);
			nap_us(round * 7 % 5 * 20);
			/* somewhere in the middle of it, with buffers out at the function */
			play_stop(p);
			traffic_receive(&t);
			traffic_collect(&t);
			positions_exact(p);
			play_start(p);
		}
		traffic_finish(&t);
		play_stop(p);
		positions_exact(p);
		plays_close(NULL);
	}
}

/* SET_VRING_CALL and _KICK, and rings disabled and enabled, while there are shadow rings. */
static void
rings_stop_and_start_while_shadowed(const struct shape *shape)
{
	struct play *p;
	unsigned int thread, i, q;

	for (thread = 0; thread < 2; thread++) {
		struct traffic t;

		p = play_open(0,
			&(struct play_conf){.features = features_of(shape, false) | LOG_ALL,
				.thread = thread,
				.sleep = true,
				.lm = VFN_LM_SHADOW,
				.size = 64});
		play_log(p, play_log_len(p));
		play_start(p);
		t = traffic_start(p, 1, p, 0);
		for (i = 0; i < 30; i++) {
			q = i % 2;
			traffic_round(&t);
			pthread_mutex_lock(&p->dev->lock);
			assert_int_equal(vfn_life_vring(p->dev, 0, q, false), 0);
			pthread_mutex_unlock(&p->dev->lock);
			assert_int_equal(p->base[q].avail, p->base[q].used);
			assert_true(p->dev->shadow[q] == NULL || !p->dev->shadow[q]->live);
			/* as librte_vhost does: the old ones are closed now */
			close(p->g->q[q].call);
			p->g->q[q].call = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
			if (i % 4 > 1)
				play_log_all(p, i % 4 == 3);
			pthread_mutex_lock(&p->dev->lock);
			assert_int_equal(vfn_life_vring(p->dev, 0, q, true), 0);
			pthread_mutex_unlock(&p->dev->lock);
			traffic_round(&t);
		}
		traffic_finish(&t);
		play_stop(p);
		positions_exact(p);
		plays_close(NULL);
	}
}

/* ---- bad guests ---- */

static uint64_t
counted(struct play *p, unsigned int queue, unsigned int stat)
{
	uint64_t value[VFN_STATS_MAX];

	pthread_mutex_lock(&p->dev->lock);
	assert_int_equal(vfn_vpci_stats(&p->dev->pci, queue, value, VFN_NET_STAT_MAX), 0);
	vfn_shadow_stats(p->dev, queue, value);
	pthread_mutex_unlock(&p->dev->lock);
	return value[stat] - p->dev->stats_base[queue][stat];
}

static struct play *
shadowed(uint64_t features, bool thread, uint16_t pairs)
{
	struct play *p = play_open(0,
		&(struct play_conf){.features = features | LOG_ALL,
			.lm = VFN_LM_SHADOW,
			.thread = thread,
			.pairs = pairs,
			.size = 64});

	play_log(p, play_log_len(p));
	play_start(p);
	return p;
}

/* Chains that can't be used come back empty and in their turn; the shadow itself is not there. */
static void
bad_chains_come_back_in_their_turn(const struct shape *shape)
{
	unsigned int mode, i;

	for (mode = 0; mode < 4; mode++) {
		struct play *p = shadowed(features_of(shape, mode & 1), mode & 2, 1);
		const uint64_t bad[] = {p->dev->shadow[0]->ring.desc, p->dev->shadow[1]->table_iova,
			HEAP_AT - 4096, play_end(p) - 10};
		struct mock_driver *d = &p->g->q[1].drv;
		struct mock_used used;
		int id;

		assert_true(bad[0] >= play_end(p) && bad[1] >= play_end(p));
		rx_post(p->g, 0, 40, 2048, 1);
		frame_make(&f, 1, 100);
		for (i = 0; i < 20; i++) {
			struct mock_buf buf = {.len = 100, .fixed = true, .iova = bad[i / 2 % 4]};

			if (i % 2 == 0)
				assert_true(tx_post(p->g, 1, &f, NULL, 0) >= 0);
			else
				assert_true(mock_post(d, &buf, 1, 0, i) >= 0);
		}
		/* and a frame with room to write behind it: not a longer frame */
		id = mock_post(d,
			(struct mock_buf[]){{.len = HDR_LEN + 100}, {.len = 50, .write = true}}, 2,
			0, i);
		assert_true(id >= 0);
		mock_mem_write(&p->g->mem, mock_buf_addr(d, id, 0), &f.hdr, HDR_LEN);
		mock_mem_write(&p->g->mem, mock_buf_addr(d, id, HDR_LEN), f.data, 100);
		mock_publish(d);
		queue_kick(p->g, 1);
		for (i = 0; i <= 20; i++) {
			assert_true(used_try(p->g, 1, &used, PATIENCE_MS));
			assert_int_equal(used.token, i % 2 == 0 && i < 20 ? 0 : i);
			if (!used.skipped)
				assert_int_equal(used.len, 0);
		}
		for (i = 0; i < 11; i++) {
			rx_wait(p->g, 0, &got);
			frames_equal(&got, &f);
		}
		assert_int_equal(counted(p, 1, VFN_STAT_ERRORS_ADDR), 10);
		play_stop(p);
		positions_exact(p);
		/* what the relay has counted is not forgotten with it */
		assert_int_equal(counted(p, 1, VFN_STAT_ERRORS_ADDR), 10);
		plays_close(NULL);
	}
}

/* What is not the function's fault must not look like it when the guest stops. */
static void
bad_chain_behind_unused_ones_goes_back_with_them(const struct shape *shape)
{
	unsigned int mode, i;

	for (mode = 0; mode < 4; mode++) {
		struct play *p = shadowed(features_of(shape, mode & 1), mode & 2, 1);
		struct mock_driver *d = &p->g->q[0].drv;
		struct mock_buf buf = {.len = 100, .fixed = true, .write = true, .iova = 4096};
		struct mock_used used;

		rx_post(p->g, 0, 3, 2048, 1);
		assert_true(mock_post(d, &buf, 1, 0, 1) >= 0);
		rx_post(p->g, 0, 1, 2048, 1);
		/* all of them are with the relay when a frame comes back */
		passes(p, 1);
		nap_us(1000);
		play_stop(p);
		positions_exact(p);
		play_start(p);
		passes(p, 2);
		passes(p, 3);
		assert_true(used_try(p->g, 0, &used, PATIENCE_MS));
		assert_int_equal(used.token, 1);
		assert_int_equal(used.len, 0);
		passes(p, 4);
		for (i = 0; i < 2; i++)
			assert_int_equal(p->g->q[i].drv.nb_busy, 0);
		assert_int_equal(counted(p, 0, VFN_STAT_ERRORS_ADDR), 1);
		plays_close(NULL);
	}
}

static void
broken_ring_stops_alone(void **state)
{
	unsigned int thread;

	for (thread = 0; thread < 2; thread++) {
		struct play *p =
			shadowed(BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_VQ), thread, 2);

		rx_post(p->g, 0, 20, 2048, 1);
		rx_post(p->g, 2, 20, 2048, 1);
		passes(p, 1);
		p->g->q[1].drv.avail_ring->idx = 1 + 65;
		queue_kick_always(p->g, 1);
		while (counted(p, 1, VFN_STAT_ERRORS_AVAIL_IDX) == 0)
			nap_us(100);
		frame_make(&f, 2, 100);
		frame_passes(p->g, 3, p->g, 2, &f);
		play_stop(p);
		assert_int_equal(p->base[1].avail, 1);
		assert_int_equal(p->base[1].used, 1);
		p->g->q[1].drv.avail_ring->idx = 1;
		play_start(p);
		passes(p, 3);
		plays_close(state);
	}
}

/* More pieces than the relay has room for at once, in tables or in the ring. */
static void
long_chains_take_turns(const struct shape *shape)
{
	uint32_t pieces[30], number = 0, in, i;
	unsigned int mode;

	for (i = 0; i < DIM(pieces); i++)
		pieces[i] = 20;
	for (mode = 0; mode < 4; mode++) {
		struct play *p = shadowed(features_of(shape, mode & 1), mode & 2, 1);
		unsigned int each = shape->indirect ? 30 : 5;
		unsigned int most = shape->indirect ? 60 : 12;

		for (in = number + 400; number < in;) {
			unsigned int n = 1 + number % most, k;

			rx_post(p->g, 0, n, 2048, each);
			for (k = 0; k < n; k++) {
				frame_make(&f, number + k, 700 + k);
				assert_true(tx_post(p->g, 1, &f, pieces, (number + k) % each) >= 0);
			}
			mock_publish(&p->g->q[1].drv);
			queue_kick(p->g, 1);
			for (k = 0; k < n; k++) {
				frame_make(&f, number + k, 700 + k);
				rx_wait(p->g, 0, &got);
				frames_equal(&got, &f);
			}
			tx_wait(p->g, 1, n);
			number += n;
		}
		play_stop(p);
		positions_exact(p);
		plays_close(NULL);
	}
}

/* A chain as long as the ring, one of its pieces across two regions: no longer than it was. */
static void
chain_as_long_as_the_ring_fits(const struct shape *shape)
{
	struct mock_buf buf[4] = {
		{.len = HDR_LEN + 60}, {.len = 60, .fixed = true}, {.len = 20}, {.len = 20}};
	unsigned int mode;
	int id;

	for (mode = 0; mode < 4; mode++) {
		struct play *p = play_open(0,
			&(struct play_conf){.features = features_of(shape, mode & 1) | LOG_ALL,
				.lm = VFN_LM_SHADOW,
				.thread = mode & 2,
				.size = 4});

		play_log(p, play_log_len(p));
		play_start(p);
		rx_post(p->g, 0, 2, 2048, 1);
		frame_make(&f, 1, 60);
		buf[1].iova = play_border(p) - 30;
		id = mock_post(&p->g->q[1].drv, buf, 4, 0, 0);
		assert_true(id >= 0);
		mock_mem_write(&p->g->mem, mock_buf_addr(&p->g->q[1].drv, id, 0), &f.hdr, HDR_LEN);
		mock_publish(&p->g->q[1].drv);
		queue_kick(p->g, 1);
		rx_wait(p->g, 0, &got);
		assert_int_equal(got.len, 160);
		tx_wait(p->g, 1, 1);
		plays_close(NULL);
	}
}

/* A relay that has nothing to do lets its poller, or its thread, sleep; also when it is full. */
static void
quiet_relay_uses_no_cpu(const struct shape *shape)
{
	unsigned int mode;

	/* mergeable: no difference, and time passes */
	for (mode = shape->mergeable ? 4 : 0; mode < 4; mode++) {
		struct play *p = play_open(0,
			&(struct play_conf){.features = features_of(shape, false) | LOG_ALL,
				.lm = VFN_LM_SHADOW,
				.thread = mode & 1,
				.sleep = true,
				.size = 64});
		struct timespec a, b;

		play_log(p, play_log_len(p));
		play_start(p);
		/* more pieces than there is room for */
		rx_post(p->g, 0, shape->indirect ? 60 : 2, 2048, mode & 2 ? 30 : 1);
		passes(p, 1);
		nap_us(20000);
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
		nap_us(100000);
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
		assert_true((b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000 < 20);
		passes(p, 2);
		plays_close(NULL);
	}
}

/* The sender's blocks: tried once, and the receiver's comes a little later. */
static void
call_that_blocks_is_left_alone(void **state)
{
	unsigned int mode;

	(void)state;
	for (mode = 0; mode < 2; mode++) {
		struct play *p = play_open(0,
			&(struct play_conf){.features = LOG_ALL,
				.lm = VFN_LM_SHADOW,
				.thread = mode & 1,
				.sleep = true});
		uint64_t value[VFN_STATS_MAX] = {0}, end = now_ms() + PATIENCE_MS;
		eventfd_t count = 0;
		unsigned int i;

		play_log(p, play_log_len(p));
		play_blocks = p->g->q[1].call;
		play_blocked = 0;
		play_start(p);
		for (i = 0; i < 2; i++)
			mock_events_enable(&p->g->q[i].drv, 0);
		rx_post(p->g, 0, 40, 2048, 1);
		for (i = 0; i < 20; i++)
			passes(p, i);
		while (eventfd_read(p->g->q[0].call, &count) < 0 && now_ms() < end)
			nap_us(1000);
		assert_true(count > 0);
		assert_int_equal(play_blocked, 1);
		pthread_mutex_lock(&p->dev->lock);
		vfn_shadow_stats(p->dev, 1, value);
		pthread_mutex_unlock(&p->dev->lock);
		assert_int_equal(value[VFN_STAT_CALLS_BLOCKED], 1);
		/* a queue that starts again has another one, for all that is known */
		assert_int_equal(vfn_life_vring(p->dev, 0, 1, false), 0);
		play_blocks = -1;
		assert_int_equal(vfn_life_vring(p->dev, 0, 1, true), 0);
		nap_us(250000);
		passes(p, i);
		for (end = now_ms() + PATIENCE_MS;
			eventfd_read(p->g->q[1].call, &count) < 0 && now_ms() < end;)
			nap_us(1000);
		assert_true(now_ms() < end);
		plays_close(NULL);
	}
}

static void
nothing_stays_behind(void **state)
{
	struct rte_malloc_socket_stats before, after;
	struct play *p = play_open(0,
		&(struct play_conf){.lm = VFN_LM_SHADOW,
			.pairs = 4,
			.features = BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_VQ)});
	unsigned int i;

	(void)state;
	play_log(p, play_log_len(p));
	play_start(p);
	rte_malloc_get_socket_stats(0, &before);
	for (i = 0; i < 20; i++) {
		play_log_all(p, true);
		assert_int_equal(vfn_life_vring(p->dev, 0, i % 8, false), 0);
		rte_malloc_get_socket_stats(0, &after);
		assert_true(after.heap_allocsz_bytes > before.heap_allocsz_bytes);
		if (i % 3 == 0)
			play_stop(p);
		play_log_all(p, false);
		if (i % 3 == 0)
			play_start(p);
		assert_int_equal(vfn_life_vring(p->dev, 0, i % 8, true), 0);
		rte_malloc_get_socket_stats(0, &after);
		assert_int_equal(after.heap_allocsz_bytes, before.heap_allocsz_bytes);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(broken_ring_stops_alone, plays_close),
		cmocka_unit_test_teardown(call_that_blocks_is_left_alone, plays_close),
		cmocka_unit_test_teardown(nothing_stays_behind, plays_close),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(switches_under_traffic),
		SHAPED(switches_under_traffic_in_order),
		SHAPED(switches_under_traffic_with_a_thread),
		SHAPED(switches_under_traffic_with_a_thread_in_order),
		SHAPED(wired_guest_switches_and_its_peer_loses_nothing),
		SHAPED(position_continues_over_close_and_start),
		SHAPED(rings_stop_and_start_while_shadowed),
		SHAPED(bad_chains_come_back_in_their_turn),
		SHAPED(bad_chain_behind_unused_ones_goes_back_with_them),
		SHAPED(long_chains_take_turns),
		SHAPED(chain_as_long_as_the_ring_fits),
		SHAPED(quiet_relay_uses_no_cpu),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	shaped_teardown = plays_close;
	return run_list("shadow", tests, DIM(tests), shaped, DIM(shaped));
}
