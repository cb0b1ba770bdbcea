/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Drivers without VERSION_1: their header is two bytes shorter unless buffers are mergeable
 * (virtio 1.3, 5.1.6.1).
 */

#include "fn_state.h"

#define N(f) BIT(VIRTIO_NET_F_##f)

static struct frame f, got;

static void
frames_pass(struct guest *from, struct guest *to)
{
	static const uint32_t pieces[][3] = {{10}, {12}, {9, 1}, {11, 1}, {1, 60, 1}, {0}};
	uint32_t len;

	for (len = 14; len < 1515; len += len < 70 ? 1 : 61) {
		frame_make(&f, len, len);
		assert_true(tx_post(from, 1, &f, pieces[len % DIM(pieces)],
				    pieces[len % DIM(pieces)][0] == 0 ? 0 : 3) >= 0);
		mock_publish(&from->q[1].drv);
		queue_kick(from, 1);
		rx_wait(to, 0, &got);
		frames_equal(&got, &f);
		assert_memory_equal(&got.hdr.hdr, &(struct virtio_net_hdr){0}, 10);
		tx_wait(from, 1, 1);
		rx_post(to, 0, 1, 2048, 1 + len % 3);
	}
}

static void
frames_come_back(const struct shape *shape)
{
	struct guest *g =
		guest_open(&(struct guest_conf){.legacy = true, .features = shape_features(shape)});

	rx_post(g, 0, 20, 2048, 1);
	frames_pass(g, g);
	assert_int_equal(stat_of(g, 0, VFN_STAT_BYTES), stat_of(g, 1, VFN_STAT_BYTES));
	assert_int_equal(stat_of(g, 0, VFN_STAT_PACKETS), stat_of(g, 1, VFN_STAT_PACKETS));
}

static void
frames_pass_between_old_and_new(const struct shape *shape)
{
	struct guest *a = guest_open(&(struct guest_conf){.name = "a",
		.wiring = VFN_WIRING_WIRE,
		.legacy = true,
		.features = shape_features(shape)});
	struct guest *b = guest_open(
		&(struct guest_conf){.name = "b", .wiring = VFN_WIRING_WIRE, .peer = "a"});

	rx_post(a, 0, 20, 2048, 1);
	rx_post(b, 0, 20, 2048, 1);
	frames_pass(a, b);
	frames_pass(b, a);
	assert_int_equal(stat_of(a, 0, VFN_STAT_BYTES), stat_of(b, 1, VFN_STAT_BYTES));
	assert_int_equal(stat_of(b, 0, VFN_STAT_BYTES), stat_of(a, 1, VFN_STAT_BYTES));
}

static void
header_is_as_long_as_it_is(const struct shape *shape)
{
	struct guest *g =
		guest_open(&(struct guest_conf){.legacy = true, .features = shape_features(shape)});
	uint32_t hdr = shape->mergeable ? 12 : 10;
	struct mock_used used;

	/* one byte less than a header, a header alone, the shortest frame */
	rx_post(g, 0, 5, 2048, 1);
	frame_make(&f, 1, 14);
	assert_true(tx_post_bytes(g, 1, &f, hdr - 1) >= 0);
	assert_true(tx_post_bytes(g, 1, &f, hdr) >= 0);
	assert_true(tx_post_bytes(g, 1, &f, hdr + 13) >= 0);
	assert_true(tx_post_bytes(g, 1, &f, hdr + 14) >= 0);
	mock_publish(&g->q[1].drv);
	queue_kick(g, 1);
	rx_wait(g, 0, &got);
	frames_equal(&got, &f);
	tx_wait(g, 1, 4);
	assert_int_equal(stat_of(g, 1, VFN_STAT_ERRORS_HEADER), 1);
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_SIZE), 2);
	assert_int_equal(stat_of(g, 1, VFN_STAT_BYTES), 13 + 14);
	guest_close(g);

	/* a receive buffer of less than a header; one that the frame just fills */
	g = guest_open(&(struct guest_conf){.legacy = true, .features = shape_features(shape)});
	rx_post(g, 0, 1, hdr - 1, 1);
	rx_post(g, 0, 2, hdr + 100, 1);
	frame_make(&f, 2, 100);
	tx_send(g, 1, &f);
	assert_true(used_try(g, 0, &used, PATIENCE_MS));
	assert_int_equal(used.len, 0);
	assert_int_equal(stat_of(g, 0, VFN_STAT_ERRORS_HEADER), 1);
	rx_wait(g, 0, &got);
	frames_equal(&got, &f);
	tx_wait(g, 1, 1);
	if (shape->mergeable)
		return;
	frame_make(&f, 3, 101);
	tx_send(g, 1, &f);
	tx_wait(g, 1, 1);
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_SIZE), 1);
}

static void
checksums_and_segments_for_a_short_header(const struct shape *shape)
{
	struct guest *a = guest_open(&(struct guest_conf){.name = "a",
		.wiring = VFN_WIRING_WIRE,
		.buf_len = 9000,
		.features = N(CSUM) | N(HOST_TSO4)});
	struct guest *b = guest_open(&(struct guest_conf){.name = "b",
		.wiring = VFN_WIRING_WIRE,
		.peer = "a",
		.legacy = true,
		.features = shape_features(shape) | N(GUEST_CSUM)});
	unsigned int i;

	rx_post(b, 0, 20, 2048, 1);
	frame_make(&f, 1, 54 + 5000);
	memcpy(f.data + 12, (const uint8_t[]){8, 0, 0x45, 0, 0, 0, 0, 1, 0, 0, 64, 6}, 12);
	f.data[46] = 5 << 4;
	f.hdr.hdr = (struct virtio_net_hdr){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
		.gso_size = 1000,
		.csum_start = 34,
		.csum_offset = 16};
	tx_send(a, 1, &f);
	for (i = 0; i < 5; i++) {
		rx_wait(b, 0, &got);
		assert_int_equal(got.len, 1054);
		assert_int_equal(got.hdr.hdr.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
		assert_int_equal(got.hdr.hdr.csum_start, 34);
		assert_memory_equal(got.data + 54, f.data + 54 + i * 1000, 1000);
	}
	tx_wait(a, 1, 1);
	/* a partial checksum goes through as it is */
	frame_make(&f, 1, 600);
	f.hdr.hdr = (struct virtio_net_hdr){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16};
	tx_send(a, 1, &f);
	rx_wait(b, 0, &got);
	frames_equal(&got, &f);
	assert_memory_equal(&got.hdr.hdr, &f.hdr.hdr, 10);
	tx_wait(a, 1, 1);
}

static void
ports_that_end_in_the_function_know_the_header(const struct shape *shape)
{
	struct guest *g = guest_open(&(struct guest_conf){.legacy = true,
		.wiring = VFN_WIRING_GEN,
		.gen = 200,
		.features = shape_features(shape)});
	unsigned int i;

	rx_post(g, 0, 10, 2048, 1);
	for (i = 0; i < 10; i++) {
		rx_wait(g, 0, &got);
		assert_int_equal(got.len, 200);
		assert_memory_equal(got.data + 6, "\x02vfngn\x88\xb5", 8);
		assert_memory_equal(&got.hdr.hdr, &(struct virtio_net_hdr){0}, 10);
	}
	frame_make(&f, 1, 60);
	tx_send(g, 1, &f);
	tx_wait(g, 1, 1);
	assert_int_equal(stat_of(g, 1, VFN_STAT_BYTES), 60);
	/* what would be an offload two bytes further on is none */
	assert_int_equal(stat_of(g, 1, VFN_STAT_ERRORS_HEADER), 0);
}

static void
other_function_goes_on_with_the_same_header(const struct shape *shape)
{
	static struct blob b;
	struct guest *g = guest_open(&(struct guest_conf){
		.legacy = true, .features = shape_features(shape), .size = 32});
	unsigned int round;

	for (round = 0; round < 4; round++) {
		uint32_t first = 20 * round;

		rx_post(g, 0, 14, 2048, 1);
		numbered_send(g, 1, first, 7);
		VSET(g, suspend, 1);
		numbered_send(g, 1, first + 7, 7);
		blob_get(g, &b);
		function_exchange(g);
		assert_int_equal(blob_put(g, &b, VFN_PARTS_CHECK), 0);
		assert_int_equal(blob_put(g, &b, VFN_PARTS_SET), 0);
		function_go_on(g);
		numbered_receive(g, 0, first, 14);
		tx_wait(g, 1, 14);
	}
}

static void
modern_driver_after_a_legacy_one_and_back(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.legacy = true});
	unsigned int i;

	(void)state;
	for (i = 0; i < 4; i++) {
		rx_post(g, 0, 20, 2048, 1);
		frames_pass(g, g);
		guest_reset(g);
		g->conf.legacy = !g->conf.legacy;
		guest_start(g);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(modern_driver_after_a_legacy_one_and_back),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(frames_come_back),
		SHAPED(frames_pass_between_old_and_new),
		SHAPED(header_is_as_long_as_it_is),
		SHAPED(other_function_goes_on_with_the_same_header),
		SHAPED(checksums_and_segments_for_a_short_header),
		SHAPED(ports_that_end_in_the_function_know_the_header),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("legacy", tests, DIM(tests), shaped, DIM(shaped));
}
