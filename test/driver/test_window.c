/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A guest whose function reaches nothing but windows: rings and copies of all buffers go over a
 * simulated bridge, behind the driver's whole life cycle.
 */

#include "play_traffic.h"
#include "vfn_shadow.h"
#include "windows_link.h"

#define LOG_ALL BIT(VHOST_F_LOG_ALL)

static struct frame f, got;

static void
bridge(uint64_t size)
{
	windows_size = size;
}

/* Of a play whose frames come back. */
static struct play *
looped(const struct shape *shape, bool in_order, uint32_t size)
{
	return play_open(0,
		&(struct play_conf){.features = features_of(shape, in_order),
			.lm = VFN_LM_SHADOW,
			.sleep = true,
			.size = size});
}

/* Nobody has read what the other has, and both have written. */
static void
only_written(struct play *p)
{
	struct ntb_stats host, end;

	ntb_stats(windows_host(p->dev->pci.link), &host);
	ntb_stats(windows_end(p->dev->pci.link), &end);
	assert_true(host.flushed_bytes > 0);
	assert_true(end.flushed_bytes > 0);
	assert_int_equal(host.reads_across, 0);
	assert_int_equal(end.reads_across, 0);
}

static void
frames_cross(const struct shape *shape, bool in_order, uint32_t n)
{
	struct traffic t;
	struct play *p;

	bridge(1 << 20);
	p = looped(shape, in_order, 64);
	play_start(p);
	t = traffic_start(p, 1, p, 0);
	while (t.sent < n)
		traffic_round(&t);
	traffic_finish(&t);
	play_stop(p);
	positions_exact(p);
	only_written(p);
}

static void
frames_cross_whole_and_in_order(const struct shape *shape)
{
	frames_cross(shape, false, 600);
}

static void
frames_cross_of_a_ring_in_order(const struct shape *shape)
{
	frames_cross(shape, true, 600);
}

/* Less room than there are buffers: they go as others come back. */
static void
small_windows_hold_back(const struct shape *shape)
{
	struct traffic t;
	struct play *p;

	bridge(48 << 10);
	p = looped(shape, false, 64);
	play_start(p);
	t = traffic_start(p, 1, p, 0);
	while (t.sent < 400)
		traffic_round(&t);
	traffic_finish(&t);
	play_stop(p);
	positions_exact(p);
	only_written(p);
}

static void
position_continues_and_pages_are_logged(const struct shape *shape)
{
	struct traffic t;
	unsigned int round;
	struct play *p;
	uint64_t page;

	bridge(1 << 20);
	p = looped(shape, false, 32);
	play_log(p, play_log_len(p));
	play_start(p);
	t = traffic_start(p, 1, p, 0);
	for (round = 0; round < 12; round++) {
		traffic_send(&t);
		nap_us(round * 7 % 5 * 20);
		/* somewhere in the middle of it, with buffers out at the function */
		play_stop(p);
		traffic_receive(&t);
		traffic_collect(&t);
		positions_exact(p);
		play_start(p);
	}
	traffic_finish(&t);
	play_log_all(p, true);
	memset(p->found, 0, play_log_len(p));
	while (t.sent < 300)
		traffic_round(&t);
	traffic_finish(&t);
	play_stop(p);
	positions_exact(p);
	for (page = 0; page < 8 * play_log_len(p); page++)
		if (page_get(p->found, page) && !page_get(p->log, page))
			fail_msg("page 0x%jx is written and not logged", (uintmax_t)page);
	only_written(p);
}

/* Two guests, each behind a bridge of its own. */
static void
guests_behind_two_bridges(const struct shape *shape)
{
	struct play_conf conf = {.features = features_of(shape, false),
		.sleep = true,
		.pairs = 2,
		.size = 64,
		.wiring = VFN_WIRING_WIRE};
	struct play *a, *b;
	struct traffic t[4];
	unsigned int i;

	bridge(1 << 20);
	a = play_open(0, &conf);
	conf.peer = "dev0";
	b = play_open(1, &conf);
	play_start(a);
	play_start(b);
	for (i = 0; i < 2; i++) {
		t[i] = traffic_start(a, TXQ(i), b, RXQ(i));
		t[2 + i] = traffic_start(b, TXQ(i), a, RXQ(i));
	}
	while (t[0].sent < 200)
		for (i = 0; i < 4; i++) {
			traffic_collect(&t[i]);
			traffic_send(&t[i]);
			traffic_receive(&t[i]);
		}
	for (i = 0; i < 4; i++)
		traffic_finish(&t[i]);
	play_stop(a);
	play_stop(b);
	positions_exact(a);
	positions_exact(b);
	only_written(a);
	only_written(b);
}

/* ---- controls ---- */

static struct play *
started(void)
{
	static const struct shape shape = {.packed = true, .event_idx = true};
	struct play *p;

	bridge(1 << 20);
	p = looped(&shape, false, 64);
	play_start(p);
	return p;
}

static bool
comes_whole(struct play *p, uint32_t number)
{
	frame_make(&f, number, 200);
	rx_post(p->g, 0, 1, 1600, 1);
	assert_true(tx_post(p->g, 1, &f, NULL, 0) >= 0);
	mock_publish(&p->g->q[1].drv);
	queue_kick(p->g, 1);
	return rx_try(p->g, 0, &got, 500) && got.len == f.len &&
		memcmp(got.data, f.data, f.len) == 0;
}

/* The first thing that crosses is the frame. */
static void
forgotten_flush_of_the_driver_is_seen(void **state)
{
	struct play *p = started();

	(void)state;
	assert_true(comes_whole(p, 2));
	ntb_sim_lose(windows_host(p->dev->pci.link), NTB_SIM_LOSE_FLUSH, UINT32_MAX);
	assert_false(comes_whole(p, 3));
}

static void
forgotten_flush_of_the_function_is_seen(void **state)
{
	struct play *p = started();

	(void)state;
	assert_true(comes_whole(p, 2));
	ntb_sim_lose(windows_end(p->dev->pci.link), NTB_SIM_LOSE_FLUSH, UINT32_MAX);
	assert_false(comes_whole(p, 3));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(forgotten_flush_of_the_driver_is_seen, plays_close),
		cmocka_unit_test_teardown(forgotten_flush_of_the_function_is_seen, plays_close),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(frames_cross_whole_and_in_order),
		SHAPED(frames_cross_of_a_ring_in_order),
		SHAPED(small_windows_hold_back),
		SHAPED(position_continues_and_pages_are_logged),
		SHAPED(guests_behind_two_bridges),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	shaped_teardown = plays_close;
	return run_list("window", tests, DIM(tests), shaped, DIM(shaped));
}
