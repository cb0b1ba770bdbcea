/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Ports that end in the function: sink and generator. */

#include "fn_harness.h"

#define ETHERTYPE 0x88b5

static struct frame f, got;

/* ---- sink ---- */

static void
sink_consumes_and_counts_every_frame(const struct shape *shape)
{
	static const uint32_t layouts[][3] = {{0}, {12, 0}, {12, 14, 0}, {1, 11, 0}};
	struct guest *g = guest_open(&(struct guest_conf){
		.wiring = VFN_WIRING_SINK, .sleep = true, .features = shape_features(shape)});
	uint64_t bytes = 0;
	uint32_t sent = 0;
	unsigned int stat;

	rx_post(g, 0, 8, 2048, 1);
	while (sent < 600) {
		unsigned int burst = 1 + sent % 45, i;

		for (i = 0; i < burst; i++, sent++) {
			const uint32_t *layout = layouts[sent % DIM(layouts)];
			unsigned int n = 0;

			while (layout[n] != 0)
				n++;
			frame_make(&f, sent, 14 + sent * 37 % 1990);
			bytes += f.len;
			assert_true(tx_post(g, 1, &f, layout, n) >= 0);
		}
		mock_publish(&g->q[1].drv);
		queue_kick(g, 1);
		tx_wait(g, 1, burst);
	}
	assert_int_equal(stat_of(g, 1, VFN_STAT_PACKETS), sent);
	assert_int_equal(stat_of(g, 1, VFN_STAT_BYTES), bytes);
	for (stat = VFN_STAT_DROPPED_NO_BUFFER; stat <= VFN_STAT_ERRORS_DIRECTION; stat++)
		assert_int_equal(stat_of(g, 1, stat), 0);
	assert_false(rx_try(g, 0, &got, 0));
	assert_int_equal(stat_of(g, 0, VFN_STAT_PACKETS), 0);
}

static void
sink_still_judges_what_is_sent(const struct shape *shape)
{
	/* Bytes of a chain, and what it counts as beside, or instead of, a packet. */
	static const struct {
		uint32_t len;
		uint8_t flags, gso;
		unsigned int counter;
	} cases[] = {
		{0, 0, 0, VFN_STAT_ERRORS_HEADER},
		{HDR_LEN - 1, 0, 0, VFN_STAT_ERRORS_HEADER},
		{HDR_LEN + 13, 0, 0, VFN_STAT_DROPPED_SIZE},
		{HDR_LEN + 14, 0, 0, VFN_STAT_PACKETS},
		{HDR_LEN + 65534, 0, 0, VFN_STAT_PACKETS},
		{HDR_LEN + 65535, 0, 0, VFN_STAT_DROPPED_SIZE},
		/* offloads that were not negotiated, and a flag that says nothing here */
		{HDR_LEN + 100, VIRTIO_NET_HDR_F_NEEDS_CSUM, 0, VFN_STAT_ERRORS_HEADER},
		{HDR_LEN + 100, 0, VIRTIO_NET_HDR_GSO_TCPV4, VFN_STAT_ERRORS_HEADER},
		{HDR_LEN + 100, VIRTIO_NET_HDR_F_DATA_VALID, 0, VFN_STAT_PACKETS},
	};
	struct guest *g = guest_open(&(struct guest_conf){.wiring = VFN_WIRING_SINK,
		.features = shape_features(shape),
		.sleep = true,
		.size = 64,
		.buf_len = 66000});
	struct mock_buf write_only = {.len = 100, .write = true};
	uint64_t expected[VFN_NET_STAT_MAX] = {0};
	size_t i;

	for (i = 0; i < DIM(cases); i++) {
		frame_make(&f, i, cases[i].len > HDR_LEN ? cases[i].len - HDR_LEN : 0);
		f.hdr.hdr.flags = cases[i].flags;
		f.hdr.hdr.gso_type = cases[i].gso;
		assert_true(tx_post_bytes(g, 1, &f, cases[i].len) >= 0);
		mock_publish(&g->q[1].drv);
		queue_kick(g, 1);
		tx_wait(g, 1, 1);
		expected[cases[i].counter]++;
		if (cases[i].counter == VFN_STAT_DROPPED_SIZE)
			expected[VFN_STAT_PACKETS]++;
		if (stat_of(g, 1, cases[i].counter) != expected[cases[i].counter])
			fail_msg("case %zu is counted elsewhere", i);
	}
	assert_true(mock_post(&g->q[1].drv, &write_only, 1, 0, 0) >= 0);
	mock_publish(&g->q[1].drv);
	queue_kick(g, 1);
	tx_wait(g, 1, 1);
	assert_int_equal(stat_of(g, 1, VFN_STAT_ERRORS_DIRECTION), 1);
	for (i = VFN_STAT_PACKETS; i <= VFN_STAT_ERRORS_HEADER; i++)
		if (i != VFN_STAT_BYTES)
			assert_int_equal(stat_of(g, 1, i), expected[i]);
}

static void
sink_takes_offloads_that_were_negotiated(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.wiring = VFN_WIRING_SINK,
		.size = 64,
		.buf_len = 66000,
		.features = BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4)});

	(void)state;
	frame_make(&f, 1, 65535 + 14);
	f.hdr.hdr.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	f.hdr.hdr.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
	f.hdr.hdr.gso_size = 1448;
	f.hdr.hdr.csum_start = 34;
	f.hdr.hdr.csum_offset = 16;
	tx_send(g, 1, &f);
	tx_wait(g, 1, 1);
	assert_int_equal(stat_of(g, 1, VFN_STAT_BYTES), 65535 + 14);
	assert_int_equal(stat_of(g, 1, VFN_STAT_ERRORS_HEADER), 0);
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_SIZE), 0);
}

static void
sink_that_is_unplugged_counts_drops(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.wiring = VFN_WIRING_SINK});
	unsigned int i;

	(void)state;
	assert_int_equal(reg_get(g, &g->device, FIELD(struct virtio_net_config, status)),
		VIRTIO_NET_S_LINK_UP);
	frame_make(&f, 1, 100);
	for (i = 0; i < 3; i++) {
		vfn_manage_link(g->fn, i != 1);
		tx_send(g, 1, &f);
		tx_wait(g, 1, 1);
		assert_int_equal(stat_of(g, 1, VFN_STAT_PACKETS), i + 1);
		assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_NO_PEER), i > 0);
	}
}

static void
sink_survives_a_queue_that_breaks(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.wiring = VFN_WIRING_SINK,
		.pairs = 2,
		.features = BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_VQ)});

	(void)state;
	g->q[TXQ(0)].drv.avail_ring->idx = g->conf.size + 1;
	queue_kick_always(g, TXQ(0));
	stat_wait(g, TXQ(0), VFN_STAT_ERRORS_AVAIL_IDX, 1);
	frame_make(&f, 1, 100);
	tx_send(g, TXQ(1), &f);
	tx_wait(g, TXQ(1), 1);
	assert_int_equal(stat_of(g, TXQ(1), VFN_STAT_PACKETS), 1);
}

/* ---- generator ---- */

static uint64_t
number_of(const struct frame *frame)
{
	uint64_t number = 0;
	uint32_t i;

	for (i = 14; i < 22; i++)
		number = number << 8 | (i < frame->len ? frame->data[i] : 0);
	return number;
}

/* The next frame of a queue is the one of this number. */
static void
generated(struct guest *g, unsigned int queue, uint64_t number, uint32_t len)
{
	rx_wait(g, queue, &got);
	assert_int_equal(got.len, len);
	assert_memory_equal(got.data, ((uint8_t[]){0x02, 'v', 'f', 'n', 't', 's'}), 6);
	assert_int_equal(got.data[6] & 3, 2); /* unicast, locally administered */
	assert_int_equal(got.data[12] << 8 | got.data[13], ETHERTYPE);
	assert_int_equal(got.hdr.hdr.flags, 0);
	assert_int_equal(got.hdr.hdr.gso_type, 0);
	if (len >= 22)
		assert_int_equal(number_of(&got), number);
}

static void
generator_fills_every_buffer_in_order(const struct shape *shape)
{
	static const uint32_t sizes[] = {17, 64, 1990};
	unsigned int s, round, pieces;

	for (s = 0; s < DIM(sizes); s++) {
		struct guest *g = guest_open(&(struct guest_conf){.wiring = VFN_WIRING_GEN,
			.gen = sizes[s],
			.features = shape_features(shape)});
		uint64_t number = 0;
		uint32_t len = sizes[s];

		for (round = 0; round < 8; round++) {
			unsigned int burst = 1 + round * 23 % 80, i;

			pieces = 1 + round % 3;
			rx_post(g, 0, burst, 2048, pieces);
			for (i = 0; i < burst; i++) {
				generated(g, 0, number++, len);
				assert_int_equal(got.hdr.num_buffers, 1);
				if (len == 64)
					assert_int_equal(got.data[63], 63);
			}
			assert_false(rx_try(g, 0, &got, 0));
		}
		assert_int_equal(stat_of(g, 0, VFN_STAT_PACKETS), number);
		assert_int_equal(stat_of(g, 0, VFN_STAT_BYTES), number * len);
		/* sending goes on beside it */
		frame_make(&f, 1, 60);
		tx_send(g, 1, &f);
		tx_wait(g, 1, 1);
		assert_int_equal(stat_of(g, 1, VFN_STAT_PACKETS), 1);
		assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_NO_PEER), 0);
		guests_close(NULL);
	}
}

static void
generator_spreads_a_frame_over_mergeable_buffers(const struct shape *shape)
{
	struct guest *g;
	uint64_t number;

	if (!shape->mergeable)
		return;
	g = guest_open(&(struct guest_conf){.wiring = VFN_WIRING_GEN,
		.gen = 9000,
		.sleep = true,
		.features = shape_features(shape)});
	for (number = 0; number < 20; number++) {
		/* one buffer less than it takes: the frame waits */
		rx_post(g, 0, 4, 2000, 1);
		assert_false(rx_try(g, 0, &got, number < 5 ? 2 : 0));
		rx_post(g, 0, 1, 2000, 1);
		queue_kick_always(g, 0);
		generated(g, 0, number, 9000);
		assert_int_equal(got.hdr.num_buffers, 5);
		assert_int_equal(got.data[8999], (uint8_t)8999);
	}
	assert_int_equal(stat_of(g, 0, VFN_STAT_DROPPED_SIZE), 0);
}

static void
generator_leaves_buffers_that_are_too_small(const struct shape *shape)
{
	struct guest *g;
	uint64_t dropped;

	if (shape->mergeable)
		return;
	g = guest_open(&(struct guest_conf){
		.wiring = VFN_WIRING_GEN, .gen = 1000, .features = shape_features(shape)});
	rx_post(g, 0, 1, HDR_LEN + 1000, 1);
	rx_post(g, 0, 1, HDR_LEN + 999, 1);
	generated(g, 0, 0, 1000);
	assert_false(rx_try(g, 0, &got, 2));
	dropped = stat_of(g, 0, VFN_STAT_DROPPED_SIZE);
	assert_true(dropped > 0);
	assert_int_equal(stat_of(g, 0, VFN_STAT_PACKETS), 1);
	assert_int_equal(stat_of(g, 0, VFN_STAT_ERRORS_HEADER), 0);
}

static void
generator_hands_back_bad_buffers(const struct shape *shape)
{
	struct mock_buf read_only = {.len = 2048};
	struct guest *g = guest_open(&(struct guest_conf){.wiring = VFN_WIRING_GEN,
		.gen = 64,
		.sleep = true,
		.features = shape_features(shape)});
	struct mock_used used;

	rx_post(g, 0, 1, 2048, 1);
	assert_true(mock_post(&g->q[0].drv, &read_only, 1, 0, 0) >= 0);
	rx_post(g, 0, 1, 2048, 1);
	generated(g, 0, 0, 64);
	assert_true(used_try(g, 0, &used, PATIENCE_MS));
	assert_int_equal(used.len, 0);
	generated(g, 0, 1, 64);
	assert_int_equal(stat_of(g, 0, VFN_STAT_ERRORS_DIRECTION), 1);
}

static void
generator_stands_still_while_it_should(const struct shape *shape)
{
	struct guest *g = guest_open(&(struct guest_conf){.wiring = VFN_WIRING_GEN,
		.gen = 64,
		.sleep = true,
		.features = shape_features(shape)});
	struct vringh_state before;
	unsigned int round, i;
	uint64_t number = 0;

	for (round = 0; round < 6; round++) {
		bool unplug = round & 1;

		/* in the middle of the work */
		rx_post(g, 0, 250, 2048, 1);
		if (unplug)
			vfn_manage_link(g->fn, false);
		else
			queue_suspend(g, 0, true);
		before = queue_state(g, 0);
		nap_us(300);
		assert_int_equal(queue_state(g, 0).avail, before.avail);
		assert_int_equal(queue_state(g, 0).used, before.used);
		if (unplug)
			vfn_manage_link(g->fn, true);
		else
			queue_suspend(g, 0, false);
		for (i = 0; i < 250; i++)
			generated(g, 0, number++, 64);
	}
}

static void
generator_sleeps_while_there_are_no_buffers(const struct shape *shape)
{
	struct guest *g = guest_open(&(struct guest_conf){.wiring = VFN_WIRING_GEN,
		.gen = 64,
		.sleep = true,
		.features = shape_features(shape)});
	uint64_t number = 0, end = now_ms() + PATIENCE_MS, armed = 0;
	unsigned int round;

	for (round = 0; round < 10; round++) {
		while (stat_of(g, 0, VFN_STAT_ARMED) == armed && now_ms() < end)
			nap_us(50);
		armed = stat_of(g, 0, VFN_STAT_ARMED);
		assert_true(now_ms() < end);
		/* 40 times as often as that if it did not block */
		nap_us(2000);
		assert_true(stat_of(g, 0, VFN_STAT_ARMED) < armed + 5);
		armed = stat_of(g, 0, VFN_STAT_ARMED);
		rx_post(g, 0, 1 + round, 2048, 1);
		for (; number < (round + 1) * (round + 2) / 2; number++)
			generated(g, 0, number, 64);
	}
}

static void
generator_fills_the_pairs_in_use(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.wiring = VFN_WIRING_GEN,
		.gen = 64,
		.pairs = 3,
		.features = BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_VQ)});
	unsigned int i, pairs, posted[3] = {0}, next[3] = {0};

	(void)state;
	for (pairs = 1; pairs <= 3; pairs++) {
		guest_use_pairs(g, pairs);
		/* each has numbers of its own; buffers stay in a pair until it is used */
		for (i = 0; i < 3; i++) {
			rx_post(g, RXQ(i), 1, 2048, 1);
			posted[i]++;
		}
		for (i = 0; i < 3; i++) {
			while (i < pairs && next[i] < posted[i])
				generated(g, RXQ(i), next[i]++, 64);
			assert_false(rx_try(g, RXQ(i), &got, 1));
		}
	}
	/* a queue that is set up anew counts anew */
	queue_reset(g, RXQ(1));
	queue_setup(g, RXQ(1));
	rx_post(g, RXQ(1), 1, 2048, 1);
	generated(g, RXQ(1), 0, 64);
}

static void
generator_respects_address_filter_and_mtu(void **state)
{
	const uint8_t mac[] = {0x02, 1, 2, 3, 4, 5};
	struct guest *g = guest_open(&(struct guest_conf){.wiring = VFN_WIRING_GEN,
		.gen = 64,
		.features = BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_CTRL_RX) |
			BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) | BIT(VIRTIO_NET_F_CTRL_MAC_ADDR)});
	uint8_t set_mac[2 + 6] = {VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET};
	unsigned int i;

	(void)state;
	memcpy(set_mac + 2, mac, 6);
	assert_int_equal(command_on(g, 2, set_mac, sizeof(set_mac)), VIRTIO_NET_OK);
	rx_post(g, 0, 1, 2048, 1);
	rx_wait(g, 0, &got);
	assert_memory_equal(got.data, mac, 6);
	assert_int_equal(COMMAND(g, 2, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 0), 0);
	rx_post(g, 0, 1, 2048, 1);
	rx_wait(g, 0, &got);
	assert_int_equal(COMMAND(g, 2, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOUNI, 1), 0);
	rx_post(g, 0, 1, 2048, 1);
	assert_false(rx_try(g, 0, &got, 3));
	guests_close(state);

	g = guest_open(&(struct guest_conf){.wiring = VFN_WIRING_GEN,
		.gen = 1019,
		.mtu = 1000,
		.features = BIT(VIRTIO_NET_F_MTU)});
	rx_post(g, 0, 1, 2048, 1);
	for (i = 0; i < PATIENCE_MS && stat_of(g, 0, VFN_STAT_DROPPED_SIZE) == 0; i++)
		nap_us(1000);
	assert_true(stat_of(g, 0, VFN_STAT_DROPPED_SIZE) > 0);
	assert_false(rx_try(g, 0, &got, 3));
	guests_close(state);
	g = guest_open(&(struct guest_conf){.wiring = VFN_WIRING_GEN,
		.gen = 1018,
		.mtu = 1000,
		.features = BIT(VIRTIO_NET_F_MTU)});
	rx_post(g, 0, 1, 2048, 1);
	generated(g, 0, 0, 1018);
}

static void
generator_stops_for_a_reset_and_a_broken_ring(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.wiring = VFN_WIRING_GEN, .gen = 64});
	unsigned int i;

	(void)state;
	for (i = 0; i < 20; i++) {
		rx_post(g, 0, 256, 2048, 1);
		guest_reset(g);
		guest_start(g);
	}
	rx_post(g, 0, 10, 2048, 1);
	for (i = 0; i < 10; i++)
		generated(g, 0, i, 64);
	g->q[0].drv.avail_ring->idx += g->conf.size + 1;
	queue_kick_always(g, 0);
	stat_wait(g, 0, VFN_STAT_ERRORS_AVAIL_IDX, 1);
	frame_make(&f, 1, 60);
	tx_send(g, 1, &f);
	tx_wait(g, 1, 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(sink_takes_offloads_that_were_negotiated),
		PLAIN(sink_that_is_unplugged_counts_drops),
		PLAIN(sink_survives_a_queue_that_breaks),
		PLAIN(generator_fills_the_pairs_in_use),
		PLAIN(generator_respects_address_filter_and_mtu),
		PLAIN(generator_stops_for_a_reset_and_a_broken_ring),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(sink_consumes_and_counts_every_frame),
		SHAPED(sink_still_judges_what_is_sent),
		SHAPED(generator_fills_every_buffer_in_order),
		SHAPED(generator_spreads_a_frame_over_mergeable_buffers),
		SHAPED(generator_leaves_buffers_that_are_too_small),
		SHAPED(generator_hands_back_bad_buffers),
		SHAPED(generator_stands_still_while_it_should),
		SHAPED(generator_sleeps_while_there_are_no_buffers),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("ports", tests, DIM(tests), shaped, DIM(shaped));
}
