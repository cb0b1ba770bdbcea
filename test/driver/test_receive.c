/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Receive buffers: mergeable or not, too few, too small, bad ones in between (5.1.6.4). */

#include "fn_harness.h"

#define MRG BIT(VIRTIO_NET_F_MRG_RXBUF)

static struct frame f, got;

static bool
is_mergeable(const struct shape *shape)
{
	return shape->mergeable;
}

/* ---- mergeable ---- */

static void
num_buffers_is_what_the_frame_takes(const struct shape *shape)
{
	struct guest *g;
	uint32_t len;

	if (!is_mergeable(shape))
		return;
	g = guest_open(&(struct guest_conf){.features = shape_features(shape)});
	/* 100 bytes each: a frame of 88 is the last that takes one */
	for (len = 14; len < 1200; len += len < 100 || len % 100 > 80 ? 1 : 17) {
		unsigned int n = (HDR_LEN + len + 99) / 100;

		rx_post(g, 0, n, 100, 1 + len % 3);
		frame_make(&f, len, len);
		tx_send(g, 1, &f);
		rx_wait(g, 0, &got);
		frames_equal(&got, &f);
		assert_int_equal(got.hdr.num_buffers, n);
		tx_wait(g, 1, 1);
	}
}

static void
frame_waits_for_the_last_buffer_and_takes_none_before(const struct shape *shape)
{
	struct guest *g;
	unsigned int round;

	if (!is_mergeable(shape))
		return;
	g = guest_open(&(struct guest_conf){.features = shape_features(shape)});
	for (round = 0; round < 20; round++) {
		struct mock_used used;

		frame_make(&f, round, 2000 - HDR_LEN);
		rx_post(g, 0, 19, 100, 1);
		tx_send(g, 1, &f);
		assert_false(used_try(g, 0, &used, 2));
		assert_false(mock_has_used(&g->q[1].drv));
		rx_post(g, 0, 1, 100, 1);
		queue_kick_always(g, 0);
		rx_wait(g, 0, &got);
		frames_equal(&got, &f);
		assert_int_equal(got.hdr.num_buffers, 20);
		tx_wait(g, 1, 1);
	}
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_NO_BUFFER), 0);
}

static void
burst_may_need_more_buffers_than_one_look_finds(const struct shape *shape)
{
	struct guest *g;
	unsigned int i;

	if (!is_mergeable(shape))
		return;
	/* 32 frames that take 65 buffers each, all of which are there */
	g = guest_open(&(struct guest_conf){
		.features = shape_features(shape), .size = 4096, .buf_len = 6600});
	rx_post(g, 0, 32 * 65, 100, 1);
	for (i = 0; i < 32; i++) {
		frame_make(&f, i, 6500 - HDR_LEN);
		assert_true(tx_post(g, 1, &f, NULL, 0) >= 0);
	}
	mock_publish(&g->q[1].drv);
	queue_kick(g, 1);
	tx_wait(g, 1, 32);
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_SIZE), 0);
	for (i = 0; i < 32; i++) {
		frame_make(&f, i, 6500 - HDR_LEN);
		rx_wait(g, 0, &got);
		frames_equal(&got, &f);
		assert_int_equal(got.hdr.num_buffers, 65);
	}
}

static void
frame_that_never_fits_the_ring_is_dropped(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.features = MRG, .size = 16});

	(void)state;
	rx_post(g, 0, 16, 100, 1);
	frame_make(&f, 1, 1600 - HDR_LEN);
	frame_passes(g, 1, g, 0, &f);
	rx_post(g, 0, 16, 100, 1);
	frame_make(&f, 2, 1600 - HDR_LEN + 1);
	tx_send(g, 1, &f);
	tx_wait(g, 1, 1);
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_SIZE), 1);
	frame_make(&f, 3, 60);
	frame_passes(g, 1, g, 0, &f);
}

static void
frame_that_no_ring_full_of_buffers_holds_is_dropped_at_once(const struct shape *shape)
{
	bool indirect = shape->indirect;
	unsigned int pieces;

	/* buffers of several descriptors, which need not go into the ring without rest */
	for (pieces = 1; pieces <= 5; pieces++) {
		struct guest *g = guest_open(&(struct guest_conf){
			.features = shape_features(shape) | BIT(VIRTIO_NET_F_MRG_RXBUF),
			.size = 16,
			.buf_len = 20000});
		unsigned int n = indirect ? 16 : 16 / pieces, i;
		uint64_t begin = now_ms();

		rx_post(g, 0, n, 500, pieces);
		for (i = 0; i < 5; i++) {
			frame_make(&f, i, n * 500 - HDR_LEN + 1 + i);
			tx_send(g, 1, &f);
			tx_wait(g, 1, 1);
			/* behind other frames too, whose buffers may be used up then */
			frame_make(&f, i, 400);
			frame_passes(g, 1, g, 0, &f);
			rx_post(g, 0, 1, 500, pieces);
		}
		assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_SIZE), 5);
		assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_NO_BUFFER), 0);
		assert_true(now_ms() - begin < 4000);
		/* all of it is just enough */
		frame_make(&f, 9, n * 500 - HDR_LEN);
		frame_passes(g, 1, g, 0, &f);
		guest_close(g);
	}
}

static void
full_ring_behind_a_frame_is_no_reason_to_drop(const struct shape *shape)
{
	struct guest *g = guest_open(&(struct guest_conf){
		.features = shape_features(shape) | BIT(VIRTIO_NET_F_MRG_RXBUF),
		.size = 16,
		.buf_len = 20000});
	unsigned int n = shape->indirect ? 16 : 8, i;

	/* the first takes a part of the ring, the second needs nearly all of it */
	rx_post(g, 0, n, 500, 2);
	frame_make(&f, 1, 900);
	assert_true(tx_post(g, 1, &f, NULL, 0) >= 0);
	frame_make(&f, 2, (n - 1) * 500);
	assert_true(tx_post(g, 1, &f, NULL, 0) >= 0);
	mock_publish(&g->q[1].drv);
	queue_kick(g, 1);
	rx_wait(g, 0, &got);
	assert_int_equal(got.len, 900);
	nap_us(20000);
	for (i = 0; i < 2; i++) {
		assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_SIZE), 0);
		rx_post(g, 0, 1, 500, 2);
	}
	rx_wait(g, 0, &got);
	frames_equal(&got, &f);
	tx_wait(g, 1, 2);
}

static void
generated_frame_that_no_ring_holds_is_counted(const struct shape *shape)
{
	struct guest *g = guest_open(&(struct guest_conf){
		.features = shape_features(shape) | BIT(VIRTIO_NET_F_MRG_RXBUF),
		.wiring = VFN_WIRING_GEN,
		.gen = 9000,
		.size = 16});
	unsigned int n = shape->indirect ? 16 : 5;
	uint64_t end;

	rx_post(g, 0, n - 1, 500, 3);
	nap_us(20000);
	assert_int_equal(stat_of(g, 0, VFN_STAT_DROPPED_SIZE), 0);
	rx_post(g, 0, 1, 500, 3);
	/* each time that it is tried */
	for (end = now_ms() + PATIENCE_MS; now_ms() < end;)
		if (stat_of(g, 0, VFN_STAT_DROPPED_SIZE) > 0)
			break;
	assert_true(stat_of(g, 0, VFN_STAT_DROPPED_SIZE) > 0);
}

static void
bad_buffer_between_good_ones_is_given_back_once(const struct shape *shape)
{
	struct mock_buf read_only = {.len = 2048};
	struct mock_used used;
	struct guest *g;

	if (!is_mergeable(shape))
		return;
	g = guest_open(&(struct guest_conf){.features = shape_features(shape)});
	/* good, bad, good: enough for a frame of two */
	rx_post(g, 0, 1, 100, 1);
	assert_true(mock_post(&g->q[0].drv, &read_only, 1, 0, 0) >= 0);
	rx_post(g, 0, 1, 100, 1);
	frame_make(&f, 1, 150);
	tx_send(g, 1, &f);
	assert_true(used_try(g, 0, &used, PATIENCE_MS));
	assert_int_equal(used.len, 0);
	rx_wait(g, 0, &got);
	frames_equal(&got, &f);
	assert_int_equal(got.hdr.num_buffers, 2);
	tx_wait(g, 1, 1);
}

static void
bad_buffer_while_a_frame_waits_is_given_back_once(const struct shape *shape)
{
	static const uint32_t two[] = {1024, 1024};
	struct mock_buf read_only[2] = {{.len = two[0]}, {.len = two[1]}};
	struct mock_used used;
	struct guest *g;
	unsigned int i, nb_frames = 0, nb_empty = 0;

	if (!is_mergeable(shape))
		return;
	g = guest_open(&(struct guest_conf){.features = shape_features(shape)});
	/* good, bad: the frame needs another good one, that comes later */
	rx_post(g, 0, 1, 100, 1);
	assert_true(mock_post(&g->q[0].drv, read_only, 2, 0, 7) >= 0);
	mock_publish(&g->q[0].drv);
	frame_make(&f, 1, 150);
	tx_send(g, 1, &f);
	nap_us(3000);
	rx_post(g, 0, 1, 100, 1);
	queue_kick_always(g, 0);
	/* in whatever order: the bad one empty, the two good ones filled, nothing else */
	for (i = 0; i < 3; i++) {
		if (!used_try(g, 0, &used, 2000))
			fail_msg("a buffer stays away");
		nb_empty += used.token == 7 && used.len == 0;
		nb_frames += used.token == 0 && used.len > 0;
	}
	assert_int_equal(nb_empty, 1);
	assert_int_equal(nb_frames, 2);
	tx_wait(g, 1, 1);
	assert_false(used_try(g, 0, &used, 5));
	/* and the ring is where it should be */
	rx_post(g, 0, 1, 200, 1);
	frame_passes(g, 1, g, 0, &f);
}

/* ---- not mergeable ---- */

static void
frame_larger_than_the_buffer_is_dropped_and_the_buffer_kept(const struct shape *shape)
{
	struct guest *g;

	if (is_mergeable(shape))
		return;
	g = guest_open(&(struct guest_conf){.features = shape_features(shape)});
	rx_post(g, 0, 1, 500, 1);
	frame_make(&f, 1, 500 - HDR_LEN + 1);
	tx_send(g, 1, &f);
	tx_wait(g, 1, 1);
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_SIZE), 1);
	frame_make(&f, 2, 500 - HDR_LEN);
	frame_passes(g, 1, g, 0, &f);
	assert_int_equal(stat_of(g, 0, VFN_STAT_PACKETS), 1);
}

/* ---- both ---- */

static void
frames_wait_for_buffers_in_order(const struct shape *shape)
{
	struct guest *g = guest_open(&(struct guest_conf){.features = shape_features(shape)});
	struct mock_used used;
	unsigned int i;

	for (i = 0; i < 100; i++) {
		frame_make(&f, i, 60 + i);
		tx_send(g, 1, &f);
	}
	assert_false(used_try(g, 1, &used, 3));
	for (i = 0; i < 100; i++) {
		if (i % 10 == 0) {
			rx_post(g, 0, 10, 2048, 1);
			queue_kick_always(g, 0);
		}
		frame_make(&f, i, 60 + i);
		rx_wait(g, 0, &got);
		frames_equal(&got, &f);
	}
	tx_wait(g, 1, 100);
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_NO_BUFFER), 0);
}

static void
buffer_shorter_than_a_header_is_given_back_empty(const struct shape *shape)
{
	struct guest *g = guest_open(&(struct guest_conf){.features = shape_features(shape)});
	struct mock_used used;
	uint64_t errors;

	rx_post(g, 0, 1, HDR_LEN - 1, 1);
	rx_post(g, 0, 1, 1000, 1);
	frame_make(&f, 1, 100);
	tx_send(g, 1, &f);
	assert_true(used_try(g, 0, &used, PATIENCE_MS));
	assert_int_equal(used.len, 0);
	rx_wait(g, 0, &got);
	frames_equal(&got, &f);
	errors = stat_of(g, 0, VFN_STAT_ERRORS_HEADER) + stat_of(g, 0, VFN_STAT_ERRORS_DIRECTION);
	assert_int_equal(errors, 1);
}

static void
short_receive_buffer_counts_as_a_short_chain(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){0});

	(void)state;
	rx_post(g, 0, 1, HDR_LEN - 1, 1);
	rx_post(g, 0, 1, 1000, 1);
	frame_make(&f, 1, 100);
	tx_send(g, 1, &f);
	tx_wait(g, 1, 1);
	/* errors_header: "chain too short for it"; errors_direction: "chain not writable" */
	assert_int_equal(stat_of(g, 0, VFN_STAT_ERRORS_HEADER), 1);
	assert_int_equal(stat_of(g, 0, VFN_STAT_ERRORS_DIRECTION), 0);
}

static void
receiver_without_buffers_for_a_second_is_given_up(const struct shape *shape)
{
	struct guest *g;
	uint64_t start;

	/* takes a second: formats only */
	if (shape->event_idx || shape->indirect)
		return;
	g = guest_open(&(struct guest_conf){.features = shape_features(shape)});
	start = now_ms();
	frame_make(&f, 1, 100);
	tx_send(g, 1, &f);
	tx_send(g, 1, &f);
	tx_wait(g, 1, 2);
	assert_in_range(now_ms() - start, 900, 5000);
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_NO_BUFFER), 2);
	assert_int_equal(stat_of(g, 1, VFN_STAT_PACKETS), 2);
	/* it may come back */
	rx_post(g, 0, 2, 2048, 1);
	frame_make(&f, 2, 100);
	frame_passes(g, 1, g, 0, &f);
	frame_passes(g, 1, g, 0, &f);
	/* then it has its second again */
	start = now_ms();
	tx_send(g, 1, &f);
	tx_wait(g, 1, 1);
	assert_in_range(now_ms() - start, 900, 5000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(frame_that_never_fits_the_ring_is_dropped),
		PLAIN(short_receive_buffer_counts_as_a_short_chain),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(num_buffers_is_what_the_frame_takes),
		SHAPED(frame_waits_for_the_last_buffer_and_takes_none_before),
		SHAPED(burst_may_need_more_buffers_than_one_look_finds),
		SHAPED(frame_that_no_ring_full_of_buffers_holds_is_dropped_at_once),
		SHAPED(full_ring_behind_a_frame_is_no_reason_to_drop),
		SHAPED(generated_frame_that_no_ring_holds_is_counted),
		SHAPED(bad_buffer_between_good_ones_is_given_back_once),
		SHAPED(bad_buffer_while_a_frame_waits_is_given_back_once),
		SHAPED(frame_larger_than_the_buffer_is_dropped_and_the_buffer_kept),
		SHAPED(frames_wait_for_buffers_in_order),
		SHAPED(buffer_shorter_than_a_header_is_given_back_empty),
		SHAPED(receiver_without_buffers_for_a_second_is_given_up),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("receive", tests, DIM(tests), shaped, DIM(shaped));
}
