/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The rate limit: the bucket by a clock that is played, bytes counted exactly, and functions
 * that are limited.
 */

#include <rte_cycles.h>

#include "fn_harness.h"
#include "rate.h"

#define HZ	UINT64_C(2000000000)
#define BURST	32u
#define LARGEST (65535u + 18)

static struct frame f;
static struct vfn_rate rate;
static struct vringh_chain chains[BURST];

static void
lengths(uint32_t len)
{
	unsigned int i;

	for (i = 0; i < BURST; i++)
		chains[i] = (struct vringh_chain){.read_len = HDR_LEN + len};
}

/* Bytes of frames of len bytes that pass at a moment. */
static uint64_t
passes(unsigned int pair, uint64_t now, uint32_t len)
{
	uint64_t sum = 0;
	unsigned int n;

	lengths(len);
	do {
		n = vfn_rate_take(&rate, pair, now, chains, BURST);
		sum += (uint64_t)n * len;
	} while (n == BURST);
	return sum;
}

static const uint32_t mbps[] = {1, 10, 100, 1000, 25000, 400000};

static void
bucket_holds_two_milliseconds_and_the_largest_frame(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < DIM(mbps); i++) {
		uint64_t bytes = mbps[i] * UINT64_C(250) + LARGEST, got;

		vfn_rate_init(&rate, mbps[i], HZ);
		got = passes(0, HZ * 100, 64);
		assert_in_range(got, bytes - bytes / 500 - 64, bytes + bytes / 500);
		/* and nothing more at that moment, however long nobody sent before */
		assert_int_equal(passes(0, HZ * 100, 64), 0);
		assert_in_range(
			passes(0, HZ * 5000, 64), bytes - bytes / 500 - 64, bytes + bytes / 500);
	}
}

static void
largest_frame_passes_at_any_rate(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < DIM(mbps); i++) {
		vfn_rate_init(&rate, mbps[i], HZ);
		lengths(LARGEST);
		assert_true(vfn_rate_take(&rate, 0, HZ * 100, chains, 1) == 1);
	}
}

/* It is longer than any frame may be: whoever drops it has to see it first. */
static void
oversized_chain_passes_at_any_rate(void **state)
{
	static const uint32_t len[] = {HDR_LEN + LARGEST + 1, 6 << 20, UINT32_MAX};
	size_t i, l;

	(void)state;
	for (i = 0; i < DIM(mbps); i++) {
		for (l = 0; l < DIM(len); l++) {
			vfn_rate_init(&rate, mbps[i], HZ);
			chains[0] = (struct vringh_chain){.read_len = len[l]};
			assert_int_equal(vfn_rate_take(&rate, 0, HZ * 100, chains, 1), 1);
			/* it is not for free */
			if (mbps[i] <= 100)
				assert_int_equal(vfn_rate_take(&rate, 0, HZ * 100, chains, 1), 0);
			assert_int_equal(vfn_rate_take(&rate, 0, HZ * 200, chains, 1), 1);
		}
	}
}

/* A poller that sleeps looks each millisecond and a bit. */
static void
large_frames_lose_nothing_to_seldom_looks(void **state)
{
	static const uint32_t len[] = {64000, LARGEST, 40000};
	size_t i, l;

	(void)state;
	for (i = 0; i < 4; i++) {
		for (l = 0; l < DIM(len); l++) {
			uint64_t bytes = mbps[i] * UINT64_C(1250000), sum = 0, now = HZ * 100;
			uint64_t end = now + 10 * HZ;

			vfn_rate_init(&rate, mbps[i], HZ);
			passes(0, now, 14);
			for (; now < end; now += HZ / 1000000 * 1073)
				sum += passes(0, now, len[l]);
			assert_in_range(sum, bytes - bytes / 100 - len[l], bytes + bytes / 500);
		}
	}
}

static void
bytes_per_second_are_those_of_the_rate(void **state)
{
	/* 37 us: the bucket never fills at these steps */
	const uint64_t step = HZ / 27027;
	size_t i, l;

	(void)state;
	for (i = 0; i < DIM(mbps); i++) {
		static const uint32_t len[] = {14, 64, 1514, 9014};

		for (l = 0; l < DIM(len); l++) {
			uint64_t bytes = mbps[i] * UINT64_C(125000), sum = 0, now = HZ * 100, end;

			vfn_rate_init(&rate, mbps[i], HZ);
			passes(0, now, 14);
			if (mbps[i] > 1000 && len[l] < 1000)
				continue; /* takes long, and shows nothing else */
			for (end = now + HZ; now < end; now += step)
				sum += passes(0, now, len[l]);
			assert_in_range(sum, bytes - bytes / 500 - len[l], bytes + bytes / 500);
		}
	}
}

static void
what_was_not_sent_is_paid_back(void **state)
{
	(void)state;
	vfn_rate_init(&rate, 100, HZ);
	assert_true(passes(0, HZ * 100, 1000) >= 65000);
	lengths(1000);
	assert_int_equal(vfn_rate_take(&rate, 0, HZ * 100, chains, 8), 0);
	vfn_rate_give_back(&rate, chains, 3);
	assert_int_equal(vfn_rate_take(&rate, 0, HZ * 100, chains, 8), 3);
}

static void
chains_without_a_frame_cost_nothing(void **state)
{
	unsigned int i;

	(void)state;
	vfn_rate_init(&rate, 1, HZ);
	passes(0, HZ * 100, 14);
	for (i = 0; i < BURST; i++)
		chains[i] = (struct vringh_chain){.read_len = i % (HDR_LEN + 1)};
	assert_int_equal(vfn_rate_take(&rate, 0, HZ * 100, chains, BURST), BURST);
}

/* A clock that is behind by a little finds an empty bucket, not one full of years. */
static void
clock_of_another_core_may_be_behind(void **state)
{
	(void)state;
	vfn_rate_init(&rate, 100, HZ);
	/* to the last byte that is there: what is left is 2 us at most */
	assert_true(passes(0, HZ * 100, 14) > 0);
	assert_int_equal(passes(0, HZ * 100 - HZ / 100000, 14), 0);
}

/* Pairs that always have frames, looked at in the same order each time. */
static void
waiting_pairs_share_whoever_is_looked_at_first(void **state)
{
	static const struct {
		uint32_t mbps, len[3];
		uint64_t step_us;
	} cases[] = {
		{10, {1514, 1514, 1514}, 1060},
		{10, {1514, 1514, 1514}, 1},
		{10, {65000, 64, 1514}, 1060},
		{1000, {1514, 1514, 1514}, 1060},
		{1000, {64, 1514, 1514}, 10},
		{25000, {9014, 1514, 1514}, 50},
	};
	size_t c;

	(void)state;
	for (c = 0; c < DIM(cases); c++) {
		uint64_t sum[3] = {0}, frames[3] = {0}, all, now = HZ * 100, end = HZ * 104;
		uint64_t bytes = cases[c].mbps * UINT64_C(500000);
		unsigned int i;

		vfn_rate_init(&rate, cases[c].mbps, HZ);
		passes(0, now, 14);
		for (; now < end; now += HZ / 1000000 * cases[c].step_us) {
			for (i = 0; i < 3; i++) {
				unsigned int n;

				lengths(cases[c].len[i]);
				n = vfn_rate_take(&rate, i, now, chains, BURST);
				frames[i] += n;
				sum[i] += (uint64_t)n * cases[c].len[i];
			}
		}
		all = sum[0] + sum[1] + sum[2];
		/* none of it is lost by waiting for one another */
		assert_in_range(all, bytes - bytes / 20 - 65000, bytes + bytes / 500);
		for (i = 0; i < 3; i++) {
			if (frames[i] == 0)
				fail_msg("case %zu: pair %u starves", c, i);
			if (cases[c].len[0] == cases[c].len[1] &&
				cases[c].len[1] == cases[c].len[2])
				assert_in_range(sum[i], all / 3 - all / 10, all / 3 + all / 10);
		}
	}
}

/* One that waits and does not come any more costs the others nothing in the long run. */
static void
pair_that_went_away_does_not_hold_the_others_up(void **state)
{
	uint64_t now = HZ * 100, end = HZ * 101, sum = 0;

	(void)state;
	vfn_rate_init(&rate, 100, HZ);
	passes(0, now, 14);
	lengths(1514);
	assert_int_equal(vfn_rate_take(&rate, 5, now, chains, BURST), 0);
	for (; now < end; now += HZ / 10000)
		sum += passes(0, now, 1514);
	assert_in_range(sum, 12500000 - 12500000 / 20, 12500000 + 12500000 / 500);
}

/* ---- functions ---- */

/* Send frames as fast as they go for a while; returns bytes consumed, and how long that took. */
static uint64_t
pump(struct guest *g, unsigned int pairs, uint32_t len, unsigned int ms, uint64_t *ticks)
{
	uint64_t start = rte_rdtsc(), end = now_ms() + ms, before = 0, after = 0;
	unsigned int out[4] = {0}, i;
	struct mock_used used;

	for (i = 0; i < pairs; i++)
		before += stat_of(g, TXQ(i), VFN_STAT_BYTES);
	frame_make(&f, 1, len);
	while (now_ms() < end) {
		for (i = 0; i < pairs; i++) {
			while (out[i] < g->conf.size && tx_post(g, TXQ(i), &f, NULL, 0) >= 0)
				out[i]++;
			mock_publish(&g->q[TXQ(i)].drv);
			queue_kick(g, TXQ(i));
			while (used_try(g, TXQ(i), &used, 0))
				out[i]--;
		}
		nap_us(200);
	}
	for (i = 0; i < pairs; i++)
		after += stat_of(g, TXQ(i), VFN_STAT_BYTES);
	*ticks = rte_rdtsc() - start;
	return after - before;
}

static void
function_sends_at_most_its_rate(void **state)
{
	static const struct {
		uint32_t mbps, len;
		enum vfn_wiring wiring;
		bool sleep;
	} cases[] = {
		{8, 1000, VFN_WIRING_SINK, false},
		{8, 1000, VFN_WIRING_SINK, true},
		{100, 1514, VFN_WIRING_SINK, true},
		{100, 1514, VFN_WIRING_LOOPBACK, true},
	};
	size_t c;

	for (c = 0; c < DIM(cases); c++) {
		struct guest *g = guest_open(&(struct guest_conf){.wiring = cases[c].wiring,
			.rate_mbps = cases[c].mbps,
			.sleep = cases[c].sleep,
			.pairs = 2,
			.features = BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_VQ)});
		uint64_t bytes, ticks, full, most;

		if (cases[c].wiring == VFN_WIRING_LOOPBACK) {
			rx_post(g, RXQ(0), 256, 2048, 1);
			rx_post(g, RXQ(1), 256, 2048, 1);
		}
		bytes = pump(g, 2, cases[c].len, 150, &ticks);
		full = cases[c].mbps * UINT64_C(250) + LARGEST;
		most = full + cases[c].mbps * UINT64_C(125000) * ticks / rte_get_tsc_hz();
		/* exact upwards, whatever the machine does; downwards it may be busy */
		assert_true(bytes <= most + most / 500);
		if (cases[c].wiring == VFN_WIRING_SINK)
			assert_true(bytes >= most / 2);
		assert_true(stat_of(g, TXQ(0), VFN_STAT_BYTES) >= bytes / 8);
		assert_true(stat_of(g, TXQ(1), VFN_STAT_BYTES) >= bytes / 8);
		assert_int_equal(stat_of(g, TXQ(0), VFN_STAT_DROPPED_NO_BUFFER), 0);
		guests_close(state);
	}
}

static void
frames_wait_in_order_and_none_is_lost(const struct shape *shape)
{
	struct guest *g = guest_open(&(struct guest_conf){
		.rate_mbps = 20, .sleep = true, .features = shape_features(shape)});
	static struct frame got;
	unsigned int i;

	/* more than the bucket holds: 70 at once, the rest in 11 ms or more */
	rx_post(g, 0, 100, 2048, 1);
	for (i = 0; i < 100; i++) {
		frame_make(&f, i, 1000);
		assert_true(tx_post(g, 1, &f, NULL, 0) >= 0);
	}
	mock_publish(&g->q[1].drv);
	queue_kick(g, 1);
	for (i = 0; i < 100; i++) {
		frame_make(&f, i, 1000);
		rx_wait(g, 0, &got);
		frames_equal(&got, &f);
	}
	tx_wait(g, 1, 100);
	assert_int_equal(stat_of(g, 1, VFN_STAT_PACKETS), 100);
	/* in those 11 ms the poller slept, but never for a kick of this queue */
	assert_true(stat_of(g, 1, VFN_STAT_ARMED) < 50);
}

/* The receiver takes none: what was not sent does not count against the rate. */
static void
stalled_frames_are_not_paid_for(void **state)
{
	uint64_t took = UINT64_MAX, start;
	unsigned int round, i;
	static struct frame got;

	/* paid for once they would take half a second; a machine that is busy gets more tries */
	for (round = 0; round < 5 && took > 300; round++) {
		struct guest *g = guest_open(&(struct guest_conf){.rate_mbps = 1});

		for (i = 0; i < 60; i++) {
			frame_make(&f, i, 1000);
			assert_true(tx_post(g, 1, &f, NULL, 0) >= 0);
		}
		mock_publish(&g->q[1].drv);
		queue_kick(g, 1);
		nap_us(10000); /* thousands of looks */
		assert_int_equal(stat_of(g, 1, VFN_STAT_PACKETS), 0);
		start = now_ms();
		rx_post(g, 0, 60, 2048, 1);
		for (i = 0; i < 60; i++)
			rx_wait(g, 0, &got);
		took = now_ms() - start;
		guests_close(state);
	}
	assert_true(took <= 300);
}

/* What is larger than any frame is dropped, and holds nobody up. */
static void
oversized_frame_does_not_block_its_queue(void **state)
{
	static const enum vfn_wiring wirings[] = {VFN_WIRING_SINK, VFN_WIRING_LOOPBACK};
	unsigned int i;

	for (i = 0; i < DIM(wirings); i++) {
		struct guest *g = guest_open(&(struct guest_conf){
			.wiring = wirings[i], .rate_mbps = 100, .buf_len = 70000});

		rx_post(g, 0, 10, 2048, 1);
		frame_make(&f, 1, 69000);
		tx_send(g, 1, &f);
		frame_make(&f, 2, 100);
		tx_send(g, 1, &f);
		tx_wait(g, 1, 2);
		assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_SIZE), 1);
		guests_close(state);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(bucket_holds_two_milliseconds_and_the_largest_frame),
		PLAIN(largest_frame_passes_at_any_rate),
		PLAIN(oversized_chain_passes_at_any_rate),
		PLAIN(large_frames_lose_nothing_to_seldom_looks),
		PLAIN(oversized_frame_does_not_block_its_queue),
		PLAIN(bytes_per_second_are_those_of_the_rate),
		PLAIN(what_was_not_sent_is_paid_back),
		PLAIN(chains_without_a_frame_cost_nothing),
		PLAIN(clock_of_another_core_may_be_behind),
		PLAIN(waiting_pairs_share_whoever_is_looked_at_first),
		PLAIN(pair_that_went_away_does_not_hold_the_others_up),
		PLAIN(function_sends_at_most_its_rate),
		PLAIN(stalled_frames_are_not_paid_for),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(frames_wait_in_order_and_none_is_lost),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("rate", tests, DIM(tests), shaped, DIM(shaped));
}
