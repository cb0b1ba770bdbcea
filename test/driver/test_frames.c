/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Frames from a transmit queue to a receive queue: contents, layouts, lengths, who gets them. */

#include "fn_harness.h"

static struct guest_conf one_pair;
static struct frame f, got;

/* Two guests, wired to each other. */
static void
wired(struct guest **a, struct guest **b, uint64_t features)
{
	*a = guest_open(
		&(struct guest_conf){.name = "a", .wiring = VFN_WIRING_WIRE, .features = features});
	*b = guest_open(&(struct guest_conf){
		.name = "b", .wiring = VFN_WIRING_WIRE, .peer = "a", .features = features});
}

/* Bursts of all lengths that fit, in one or several pieces. */
static void
every_byte_arrives(struct guest *from, struct guest *to, unsigned int frames)
{
	static const uint32_t layouts[][4] = {
		{0}, {12, 0}, {12, 14, 0}, {1, 11, 1, 0}, {40, 100, 0}};
	uint32_t sent = 0, seen = 0;
	struct mock_used used;

	while (seen < frames) {
		unsigned int burst = 1 + sent % 45, i;

		rx_post(to, 0, burst, 2048, 1 + sent % 3);
		for (i = 0; i < burst; i++, sent++) {
			const uint32_t *layout = layouts[sent % DIM(layouts)];
			unsigned int n = 0;

			while (layout[n] != 0)
				n++;
			frame_make(&f, sent, 14 + sent * 37 % 1990);
			assert_true(tx_post(from, 1, &f, layout, n) >= 0);
		}
		mock_publish(&from->q[1].drv);
		queue_kick(from, 1);
		for (i = 0; i < burst; i++, seen++) {
			frame_make(&f, seen, 14 + seen * 37 % 1990);
			rx_wait(to, 0, &got);
			frames_equal(&got, &f);
			assert_int_equal(got.hdr.num_buffers, 1);
			assert_int_equal(got.hdr.hdr.flags, 0);
			assert_int_equal(got.hdr.hdr.gso_type, 0);
		}
		tx_wait(from, 1, burst);
	}
	assert_false(used_try(to, 0, &used, 0));
	assert_int_equal(stat_of(from, 1, VFN_STAT_PACKETS), sent);
	assert_int_equal(stat_of(to, 0, VFN_STAT_PACKETS), sent);
	assert_int_equal(stat_of(from, 1, VFN_STAT_BYTES), stat_of(to, 0, VFN_STAT_BYTES));
}

static void
every_byte_arrives_in_loopback(const struct shape *shape)
{
	struct guest *g = guest_open(&(struct guest_conf){.features = shape_features(shape)});

	every_byte_arrives(g, g, 600);
}

static void
every_byte_arrives_over_the_wire(const struct shape *shape)
{
	struct guest *a, *b;

	wired(&a, &b, shape_features(shape));
	every_byte_arrives(a, b, 300);
	every_byte_arrives(b, a, 300);
}

static void
guests_with_different_rings_understand_each_other(void **state)
{
	static const uint64_t features[] = {0, BIT(VIRTIO_F_RING_PACKED),
		BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_RING_F_EVENT_IDX)};
	unsigned int i, j;

	(void)state;
	for (i = 0; i < DIM(features); i++) {
		for (j = 0; j < DIM(features); j++) {
			struct guest *a = guest_open(&(struct guest_conf){.name = "a",
				.wiring = VFN_WIRING_WIRE,
				.peer = "b",
				.features = features[i]});
			struct guest *b = guest_open(&(struct guest_conf){
				.name = "b", .wiring = VFN_WIRING_WIRE, .features = features[j]});

			every_byte_arrives(a, b, 60);
			guests_close(state);
		}
	}
}

static void
header_in_single_bytes_is_a_header(const struct shape *shape)
{
	static const uint32_t ones[HDR_LEN + 14] = {[0 ... HDR_LEN + 13] = 1};
	struct guest *g = guest_open(&(struct guest_conf){.features = shape_features(shape)});

	rx_post(g, 0, 1, 1000, 13); /* in pieces, too */
	frame_make(&f, 1, 800);
	assert_true(tx_post(g, 1, &f, ones, HDR_LEN) >= 0);
	mock_publish(&g->q[1].drv);
	queue_kick(g, 1);
	rx_wait(g, 0, &got);
	frames_equal(&got, &f);
	rx_post(g, 0, 1, HDR_LEN + 14, HDR_LEN + 14);
	frame_make(&f, 2, 14);
	assert_true(tx_post(g, 1, &f, ones, DIM(ones)) >= 0);
	mock_publish(&g->q[1].drv);
	queue_kick(g, 1);
	rx_wait(g, 0, &got);
	frames_equal(&got, &f);
	tx_wait(g, 1, 2);
}

/* Bytes of a chain and what becomes of it. */
static const struct {
	uint32_t len;
	unsigned int counter; /* VFN_STAT_PACKETS: it passes */
} lengths[] = {
	{0, VFN_STAT_ERRORS_HEADER},
	{1, VFN_STAT_ERRORS_HEADER},
	{HDR_LEN - 1, VFN_STAT_ERRORS_HEADER},
	{HDR_LEN, VFN_STAT_DROPPED_SIZE},
	{HDR_LEN + 1, VFN_STAT_DROPPED_SIZE},
	{HDR_LEN + 13, VFN_STAT_DROPPED_SIZE},
	{HDR_LEN + 14, VFN_STAT_PACKETS},
	{HDR_LEN + 65534, VFN_STAT_PACKETS},
	{HDR_LEN + 65535, VFN_STAT_DROPPED_SIZE},
	{HDR_LEN + 65536, VFN_STAT_DROPPED_SIZE},
	{HDR_LEN + 65554, VFN_STAT_DROPPED_SIZE},
};

static void
impossible_lengths_are_dropped_and_counted(const struct shape *shape)
{
	struct guest *g = guest_open(&(struct guest_conf){
		.features = shape_features(shape), .size = 64, .buf_len = 66000});
	uint64_t expected[VFN_NET_STAT_MAX] = {0}, passed = 0;
	size_t i;

	for (i = 0; i < DIM(lengths); i++) {
		unsigned int s = lengths[i].counter;

		rx_post(g, 0, s == VFN_STAT_PACKETS ? 2 : 1, 66000, 1);
		frame_make(&f, i, lengths[i].len > HDR_LEN ? lengths[i].len - HDR_LEN : 0);
		assert_true(tx_post_bytes(g, 1, &f, lengths[i].len) >= 0);
		mock_publish(&g->q[1].drv);
		queue_kick(g, 1);
		tx_wait(g, 1, 1);
		if (s == VFN_STAT_PACKETS) {
			rx_wait(g, 0, &got);
			frames_equal(&got, &f);
			passed++;
		} else if (stat_of(g, 1, s) != ++expected[s]) {
			fail_msg("%u bytes are counted elsewhere", lengths[i].len);
		}
		/* the next good one passes, and nothing came before it */
		frame_make(&f, 1000 + i, 60);
		frame_passes(g, 1, g, 0, &f);
		passed++;
	}
	assert_int_equal(stat_of(g, 0, VFN_STAT_PACKETS), passed);
	assert_int_equal(stat_of(g, 1, VFN_STAT_ERRORS_HEADER), expected[VFN_STAT_ERRORS_HEADER]);
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_SIZE), expected[VFN_STAT_DROPPED_SIZE]);
}

static void
chains_in_the_wrong_direction_are_handed_back(const struct shape *shape)
{
	struct guest *g = guest_open(&(struct guest_conf){.features = shape_features(shape)});
	struct mock_buf write_only = {.len = 100, .write = true};
	struct mock_buf read_only = {.len = 2048};
	struct mock_used used;

	assert_true(mock_post(&g->q[1].drv, &write_only, 1, 0, 0) >= 0);
	mock_publish(&g->q[1].drv);
	queue_kick(g, 1);
	tx_wait(g, 1, 1);
	assert_int_equal(stat_of(g, 1, VFN_STAT_ERRORS_DIRECTION), 1);
	/* the bad one is skipped, the frame takes the next */
	assert_true(mock_post(&g->q[0].drv, &read_only, 1, 0, 0) >= 0);
	rx_post(g, 0, 1, 2048, 1);
	frame_make(&f, 1, 500);
	tx_send(g, 1, &f);
	assert_true(used_try(g, 0, &used, PATIENCE_MS));
	assert_int_equal(used.len, 0);
	assert_int_equal(stat_of(g, 0, VFN_STAT_ERRORS_DIRECTION), 1);
	rx_wait(g, 0, &got);
	frames_equal(&got, &f);
	tx_wait(g, 1, 1);
}

static void
writable_tail_of_a_transmit_chain_stays_untouched(const struct shape *shape)
{
	struct guest *g = guest_open(&(struct guest_conf){.features = shape_features(shape)});
	struct mock_buf buf[2] = {{.len = 72}, {.len = 100, .write = true}};
	uint8_t tail[100], expect[100];
	int id;

	rx_post(g, 0, 1, 2048, 1);
	id = mock_post(&g->q[1].drv, buf, 2, 0, 0);
	assert_true(id >= 0);
	memset(expect, 0x77, sizeof(expect));
	mock_mem_write(&g->mem, mock_buf_addr(&g->q[1].drv, id, 72), expect, sizeof(expect));
	mock_publish(&g->q[1].drv);
	queue_kick(g, 1);
	rx_wait(g, 0, &got);
	assert_int_equal(got.len, 60);
	tx_wait(g, 1, 1);
	mock_mem_read(&g->mem, mock_buf_addr(&g->q[1].drv, id, 72), tail, sizeof(tail));
	assert_memory_equal(tail, expect, sizeof(tail));
}

static void
frames_without_a_receiver_are_counted_and_dropped(void **state)
{
	struct guest *a = guest_open(
		&(struct guest_conf){.name = "a", .wiring = VFN_WIRING_WIRE, .peer = "b"});
	struct guest *b;

	(void)state;
	frame_make(&f, 1, 100);
	tx_send(a, 1, &f);
	tx_wait(a, 1, 1);
	assert_int_equal(stat_of(a, 1, VFN_STAT_DROPPED_NO_PEER), 1);
	/* there, but not yet running */
	b = guest_new(&(struct guest_conf){.name = "b", .wiring = VFN_WIRING_WIRE});
	tx_send(a, 1, &f);
	tx_wait(a, 1, 1);
	assert_int_equal(stat_of(a, 1, VFN_STAT_DROPPED_NO_PEER), 2);
	guest_start(b);
	rx_post(b, 0, 3, 2048, 1);
	frame_passes(a, 1, b, 0, &f);
	/* reset, set up again, gone */
	guest_reset(b);
	tx_send(a, 1, &f);
	tx_wait(a, 1, 1);
	assert_int_equal(stat_of(a, 1, VFN_STAT_DROPPED_NO_PEER), 3);
	guest_start(b);
	rx_post(b, 0, 3, 2048, 1);
	frame_passes(a, 1, b, 0, &f);
	guest_close(b);
	tx_send(a, 1, &f);
	tx_wait(a, 1, 1);
	assert_int_equal(stat_of(a, 1, VFN_STAT_DROPPED_NO_PEER), 4);
}

static void
one_end_of_a_wire_takes_one_peer(void **state)
{
	struct guest_conf third = {.name = "c", .wiring = VFN_WIRING_WIRE, .peer = "a"};
	struct vfn_function *fn;
	struct vfn_link *link;
	struct guest *a, *b;

	wired(&a, &b, 0);
	assert_int_equal(function_open(&third, &fn, &link), -EBUSY);
	third.name = "b";
	assert_int_equal(function_open(&third, &fn, &link), -EEXIST);
	/* the two are not impressed; a loopback that is named as peer is none */
	rx_post(b, 0, 1, 2048, 1);
	frame_make(&f, 1, 100);
	frame_passes(a, 1, b, 0, &f);
	guests_close(state);
	guest_open(&(struct guest_conf){.name = "loop"});
	a = guest_open(
		&(struct guest_conf){.name = "a", .wiring = VFN_WIRING_WIRE, .peer = "loop"});
	tx_send(a, 1, &f);
	tx_wait(a, 1, 1);
	assert_int_equal(stat_of(a, 1, VFN_STAT_DROPPED_NO_PEER), 1);
}

static void
frames_above_the_receivers_mtu_are_dropped(void **state)
{
	struct guest *a = guest_open(&(struct guest_conf){.name = "a", .wiring = VFN_WIRING_WIRE});
	struct guest *b = guest_open(&(struct guest_conf){.name = "b",
		.wiring = VFN_WIRING_WIRE,
		.peer = "a",
		.mtu = 1000,
		.features = BIT(VIRTIO_NET_F_MTU)});

	rx_post(b, 0, 8, 2048, 1);
	frame_make(&f, 1, 1000 + 14 + 4);
	frame_passes(a, 1, b, 0, &f);
	frame_make(&f, 2, 1000 + 14 + 4 + 1);
	tx_send(a, 1, &f);
	tx_wait(a, 1, 1);
	assert_int_equal(stat_of(a, 1, VFN_STAT_DROPPED_SIZE), 1);
	guests_close(state);
	/* offered is not negotiated */
	a = guest_open(&(struct guest_conf){.mtu = 1000});
	rx_post(a, 0, 8, 2048, 1);
	frame_passes(a, 1, a, 0, &f);
}

static void
frames_wait_while_the_receiver_is_suspended(const struct shape *shape)
{
	struct guest *a, *b;
	unsigned int i;

	wired(&a, &b, shape_features(shape));
	rx_post(b, 0, 100, 2048, 1);
	queue_suspend(b, 0, true);
	for (i = 0; i < 50; i++) {
		frame_make(&f, i, 100 + i);
		tx_send(a, 1, &f);
	}
	nap_us(2000);
	assert_int_equal(stat_of(a, 1, VFN_STAT_PACKETS), 0);
	queue_suspend(b, 0, false);
	for (i = 0; i < 50; i++) {
		frame_make(&f, i, 100 + i);
		rx_wait(b, 0, &got);
		frames_equal(&got, &f);
	}
	tx_wait(a, 1, 50);
}

/* Break a transmit queue as a hostile guest does. */
static void
break_queue(struct guest *g, unsigned int queue)
{
	uint64_t before = stat_of(g, queue, VFN_STAT_ERRORS_AVAIL_IDX);

	g->q[queue].drv.avail_ring->idx = g->q[queue].drv.avail + g->conf.size + 1;
	queue_kick_always(g, queue);
	stat_wait(g, queue, VFN_STAT_ERRORS_AVAIL_IDX, before + 1);
}

static void
hostile_transmit_queue_stops_alone(void **state)
{
	const uint64_t mq = BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_VQ);
	struct guest *a = guest_open(&(struct guest_conf){
		.name = "a", .pairs = 2, .wiring = VFN_WIRING_WIRE, .features = mq});
	struct guest *b = guest_open(
		&(struct guest_conf){.name = "b", .wiring = VFN_WIRING_WIRE, .peer = "a"});
	struct guest *c = guest_open(&(struct guest_conf){.name = "c"});
	unsigned int round;

	(void)state;
	rx_post(a, 0, 16, 2048, 1);
	rx_post(b, 0, 16, 2048, 1);
	rx_post(c, 0, 16, 2048, 1);
	for (round = 1; round <= 3; round++) {
		break_queue(a, TXQ(0));
		CSET(a, queue_select, TXQ(0));
		assert_int_equal(VGET(a, queue_error), VRINGH_E_AVAIL_IDX);
		frame_make(&f, 1, 100);
		frame_passes(a, TXQ(1), b, 0, &f);
		frame_passes(b, TXQ(0), a, 0, &f);
		frame_passes(c, TXQ(0), c, 0, &f);
		assert_int_equal(stat_of(a, TXQ(0), VFN_STAT_ERRORS_AVAIL_IDX), round);
		/* a new start; counters go on */
		queue_reset(a, TXQ(0));
		queue_lay(a, TXQ(0), 0, 0);
		assert_true(queue_enable(a, TXQ(0)));
		/* behind an IOMMU it may be asked for yet where the ring is */
		while (VGET(a, queue_error) == VRINGH_E_MISS)
			nap_us(1000);
		assert_int_equal(VGET(a, queue_error), 0);
		frame_passes(a, TXQ(0), b, 0, &f);
		a->heap -= a->heap - HEAP_AT > 3 * (a->heap_end - HEAP_AT) / 4 ?
			(a->heap_end - HEAP_AT) / 3 :
			0;
	}
}

static void
hostile_receive_queue_costs_its_frames_only(void **state)
{
	struct guest *a, *b;

	(void)state;
	wired(&a, &b, 0);
	rx_post(a, 0, 4, 2048, 1);
	b->q[0].drv.avail_ring->idx = 300;
	frame_make(&f, 1, 100);
	tx_send(a, 1, &f);
	tx_wait(a, 1, 1);
	assert_int_equal(stat_of(b, 0, VFN_STAT_ERRORS_AVAIL_IDX), 1);
	assert_int_equal(stat_of(a, 1, VFN_STAT_DROPPED_NO_PEER), 1);
	frame_passes(b, 1, a, 0, &f);
	queue_reset(b, 0);
	queue_lay(b, 0, 0, 0);
	assert_true(queue_enable(b, 0));
	rx_post(b, 0, 4, 2048, 1);
	frame_passes(a, 1, b, 0, &f);
}

static void
bad_head_breaks_the_queue_and_bad_next_the_chain(void **state)
{
	struct guest *g = guest_open(&one_pair);
	static const uint32_t two[] = {50};
	struct mock_desc d;
	int id;

	(void)state;
	rx_post(g, 0, 4, 2048, 1);
	frame_make(&f, 1, 200);
	id = tx_post(g, 1, &f, two, 1);
	d = mock_get_desc(&g->q[1].drv, id, 0);
	d.ref = 0xfff0;
	mock_set_desc(&g->q[1].drv, id, 0, &d);
	mock_publish(&g->q[1].drv);
	queue_kick(g, 1);
	tx_wait(g, 1, 1);
	assert_int_equal(stat_of(g, 1, VFN_STAT_ERRORS_NEXT), 1);
	frame_passes(g, 1, g, 0, &f);
	assert_true(tx_post(g, 1, &f, NULL, 0) >= 0);
	g->q[1].drv.avail_ring->ring[2] = 256;
	mock_publish(&g->q[1].drv);
	queue_kick_always(g, 1);
	stat_wait(g, 1, VFN_STAT_ERRORS_HEAD, 1);
}

static void
buffers_that_alias_do_no_harm(const struct shape *shape)
{
	struct guest *g = guest_open(&(struct guest_conf){.features = shape_features(shape)});
	unsigned int i;

	/* received where it is sent from, and a little beside it, in both directions */
	for (i = 0; i < 40; i++) {
		uint64_t at = mock_buf_addr(&g->q[1].drv, 200, 200);
		struct mock_buf in = {
			.len = 1500, .write = true, .fixed = true, .iova = at + i - 20};
		struct mock_buf out = {.len = 1000, .fixed = true, .iova = at};
		uint8_t zero[HDR_LEN] = {0};
		struct mock_used used;

		assert_true(mock_mem_write(&g->mem, at, zero, sizeof(zero)));
		assert_true(mock_post(&g->q[0].drv, &in, 1, 0, 0) >= 0);
		mock_publish(&g->q[0].drv);
		queue_kick(g, 0);
		assert_true(mock_post(&g->q[1].drv, &out, 1, 0, 0) >= 0);
		mock_publish(&g->q[1].drv);
		queue_kick(g, 1);
		assert_true(used_try(g, 0, &used, PATIENCE_MS));
		assert_int_equal(used.len, 1000);
		tx_wait(g, 1, 1);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(guests_with_different_rings_understand_each_other),
		PLAIN(frames_without_a_receiver_are_counted_and_dropped),
		PLAIN(one_end_of_a_wire_takes_one_peer),
		PLAIN(frames_above_the_receivers_mtu_are_dropped),
		PLAIN(hostile_transmit_queue_stops_alone),
		PLAIN(hostile_receive_queue_costs_its_frames_only),
		PLAIN(bad_head_breaks_the_queue_and_bad_next_the_chain),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(every_byte_arrives_in_loopback),
		SHAPED(every_byte_arrives_over_the_wire),
		SHAPED(header_in_single_bytes_is_a_header),
		SHAPED(impossible_lengths_are_dropped_and_counted),
		SHAPED(chains_in_the_wrong_direction_are_handed_back),
		SHAPED(writable_tail_of_a_transmit_chain_stays_untouched),
		SHAPED(frames_wait_while_the_receiver_is_suspended),
		SHAPED(buffers_that_alias_do_no_harm),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("frames", tests, DIM(tests), shaped, DIM(shaped));
}
