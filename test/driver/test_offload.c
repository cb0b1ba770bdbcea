/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The virtio-net header: what may be sent, what the receiver gets of it (virtio 1.3, 5.1.6.2). */

#include "fn_harness.h"

#define N(f) BIT(VIRTIO_NET_F_##f)

/* All that a sender can offer, and all that a receiver can take. */
#define SENDER	 (N(CSUM) | N(HOST_TSO4) | N(HOST_TSO6) | N(HOST_ECN) | N(HOST_UFO))
#define RECEIVER (N(GUEST_CSUM) | N(GUEST_TSO4) | N(GUEST_TSO6) | N(GUEST_ECN) | N(GUEST_UFO))

#define L3 14u /* Ethernet header */
#define L4 34u /* and IPv4 */

static struct frame f, got;

static struct guest *
loop(uint64_t features, uint32_t buf_len)
{
	struct guest *g = guest_open(
		&(struct guest_conf){.features = features, .size = 16, .buf_len = buf_len});

	rx_post(g, 0, 10, buf_len, 1);
	return g;
}

static void
tcp_frame(uint32_t number, uint32_t len, uint8_t gso_type, uint16_t gso_size)
{
	frame_make(&f, number, len);
	f.hdr.hdr = (struct virtio_net_hdr){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = gso_type,
		.gso_size = gso_size,
		.hdr_len = L4 + 20,
		.csum_start = L4,
		.csum_offset = 16,
	};
}

/* Internet checksum (RFC 1071), written to be obvious, in big-endian words. */
static uint16_t
checksum(const uint8_t *data, uint32_t len)
{
	uint32_t sum = 0, i;

	for (i = 0; i < len; i++) {
		sum += i % 2 == 0 ? data[i] << 8 : data[i];
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return ~sum;
}

/* ---- refused ---- */

struct bad {
	const char *name;
	uint64_t lacks; /* of what the driver could have negotiated */
	struct virtio_net_hdr hdr;
};

#define CS VIRTIO_NET_HDR_F_NEEDS_CSUM
#define T4 VIRTIO_NET_HDR_GSO_TCPV4
#define T6 VIRTIO_NET_HDR_GSO_TCPV6
#define EC VIRTIO_NET_HDR_GSO_ECN

/* All are sent with frames of 1000 bytes. */
static const struct bad bad[] = {
	{"csum_start at the end", 0, {.flags = CS, .csum_start = 1000}},
	{"csum_start past the end", 0, {.flags = CS, .csum_start = 1001, .csum_offset = 16}},
	{"checksum half outside", 0, {.flags = CS, .csum_start = 900, .csum_offset = 99}},
	{"csum_offset past the end", 0, {.flags = CS, .csum_start = 34, .csum_offset = 65535}},
	{"sum wraps 16 bits", 0, {.flags = CS, .csum_start = 65535, .csum_offset = 40}},
	{"CSUM not negotiated", N(CSUM) | SENDER,
		{.flags = CS, .csum_start = 34, .csum_offset = 16}},
	{"gso_type 2", 0, {.flags = CS, .gso_type = 2, .gso_size = 100, .csum_start = 34}},
	{"gso_type 0x7f", 0, {.flags = CS, .gso_type = 0x7f, .gso_size = 100, .csum_start = 34}},
	{"gso_type UDP_L4", 0, {.flags = CS, .gso_type = 5, .gso_size = 100, .csum_start = 34}},
	{"only ECN", 0, {.flags = CS, .gso_type = EC, .gso_size = 100, .csum_start = 34}},
	{"gso_size 0", 0, {.flags = CS, .gso_type = T4, .hdr_len = 54, .csum_start = 34}},
	{"TSO without checksum", 0, {.gso_type = T4, .gso_size = 100, .hdr_len = 54}},
	{"TSO4 not negotiated", N(HOST_TSO4),
		{.flags = CS,
			.gso_type = T4,
			.gso_size = 100,
			.csum_start = 34,
			.csum_offset = 16}},
	{"TSO6 not negotiated", N(HOST_TSO6),
		{.flags = CS,
			.gso_type = T6,
			.gso_size = 100,
			.csum_start = 34,
			.csum_offset = 16}},
	{"ECN not negotiated", N(HOST_ECN),
		{.flags = CS,
			.gso_type = T4 | EC,
			.gso_size = 100,
			.csum_start = 34,
			.csum_offset = 16}},
	{"UFO not negotiated", N(HOST_UFO),
		{.flags = CS,
			.gso_type = VIRTIO_NET_HDR_GSO_UDP,
			.gso_size = 100,
			.csum_start = 34,
			.csum_offset = 6}},
};

static void
impossible_headers_are_counted_and_never_forwarded(const struct shape *shape)
{
	size_t i;

	for (i = 0; i < DIM(bad); i++) {
		struct guest *g =
			loop(shape_features(shape) | RECEIVER | (SENDER & ~bad[i].lacks), 2048);

		frame_make(&f, 1, 1000);
		f.hdr.hdr = bad[i].hdr;
		tx_send(g, 1, &f);
		tx_wait(g, 1, 1);
		if (stat_of(g, 1, VFN_STAT_ERRORS_HEADER) != 1)
			fail_msg("%s: not counted", bad[i].name);
		frame_make(&f, 2, 1000);
		frame_passes(g, 1, g, 0, &f);
		assert_int_equal(stat_of(g, 0, VFN_STAT_PACKETS), 1);
		assert_int_equal(stat_of(g, 1, VFN_STAT_PACKETS), 1);
		guest_close(g);
	}
}

static void
fields_without_meaning_are_not_refused_or_passed_on(void **state)
{
	struct guest *g = loop(0, 2048);

	(void)state;
	/* neither flag nor type: the rest may be anything */
	frame_make(&f, 1, 100);
	f.hdr.hdr = (struct virtio_net_hdr){.flags = 0xfe,
		.gso_size = 0xffff,
		.hdr_len = 0xffff,
		.csum_start = 0xffff,
		.csum_offset = 0xffff};
	f.hdr.num_buffers = 0xffff;
	frame_passes(g, 1, g, 0, &f);
	tx_send(g, 1, &f);
	rx_wait(g, 0, &got);
	assert_memory_equal(&got.hdr.hdr, &(struct virtio_net_hdr){0}, sizeof(got.hdr.hdr));
	assert_int_equal(got.hdr.num_buffers, 1);
	tx_wait(g, 1, 1);
}

static void
flags_without_meaning_are_not_taken_for_a_checksum(void **state)
{
	static const uint64_t receiver[] = {0, N(GUEST_CSUM)};
	size_t i;

	(void)state;
	/* DATA_VALID and what is reserved, in a layout that is not the usual one */
	for (i = 0; i < DIM(receiver); i++) {
		struct guest *g = loop(N(CSUM) | receiver[i], 2048);

		frame_make(&f, 1, 100);
		f.hdr.hdr =
			(struct virtio_net_hdr){.flags = 0xfe, .csum_start = 20, .csum_offset = 2};
		assert_true(tx_post(g, 1, &f, (const uint32_t[]){5}, 1) >= 0);
		mock_publish(&g->q[1].drv);
		queue_kick(g, 1);
		rx_wait(g, 0, &got);
		frames_equal(&got, &f);
		assert_memory_equal(&got.hdr.hdr, &(struct virtio_net_hdr){0}, sizeof(got.hdr.hdr));
		guest_close(g);
	}
}

static void
hints_are_not_relied_upon(const struct shape *shape)
{
	static const uint16_t hdr_lens[] = {0, 1, 53, 54, 1000, 1001, 65535};
	struct guest *g = loop(shape_features(shape) | SENDER | RECEIVER, 2048);
	size_t i;

	/* hdr_len, a size above the payload, num_buffers, flags of the other direction */
	for (i = 0; i < 2 * DIM(hdr_lens); i++) {
		tcp_frame(i, 1000, i % 2 ? T4 : 0, i % 4 == 1 ? 100 : 65535);
		f.hdr.hdr.hdr_len = hdr_lens[i / 2];
		f.hdr.hdr.flags |= i % 3 == 0 ? 0xfe : 0;
		f.hdr.num_buffers = 3 * i;
		tx_send(g, 1, &f);
		rx_wait(g, 0, &got);
		tx_wait(g, 1, 1);
		frames_equal(&got, &f);
		assert_int_equal(got.hdr.hdr.flags, CS);
		assert_int_equal(got.hdr.hdr.gso_type, i % 2 ? T4 : 0);
		assert_int_equal(got.hdr.hdr.csum_start, L4);
		assert_true(got.hdr.hdr.hdr_len <= got.len);
		rx_post(g, 0, 1, 2048, 1);
	}
	assert_int_equal(stat_of(g, 1, VFN_STAT_ERRORS_HEADER), 0);
}

/* ---- passed on ---- */

static void
offloads_that_both_sides_took_are_carried_through(const struct shape *shape)
{
	static const uint8_t types[] = {0, T4, T6, T4 | EC, T6 | EC, VIRTIO_NET_HDR_GSO_UDP};
	struct guest *g = loop(shape_features(shape) | SENDER | RECEIVER, 66000);
	size_t i;

	for (i = 0; i < DIM(types); i++) {
		tcp_frame(i, 3000 + i, types[i], types[i] != 0 ? 1000 : 0);
		tx_send(g, 1, &f);
		rx_wait(g, 0, &got);
		frames_equal(&got, &f);
		assert_int_equal(got.hdr.hdr.flags, CS);
		assert_int_equal(got.hdr.hdr.gso_type, types[i]);
		assert_int_equal(got.hdr.hdr.gso_size, f.hdr.hdr.gso_size);
		assert_int_equal(got.hdr.hdr.csum_start, L4);
		assert_int_equal(got.hdr.hdr.csum_offset, 16);
		assert_true(got.hdr.hdr.hdr_len <= got.len);
		tx_wait(g, 1, 1);
	}
	/* the largest IP packet, tagged */
	tcp_frame(7, 65535 + 18, T4, 1400);
	frame_passes(g, 1, g, 0, &f);
	tcp_frame(8, 65535 + 19, T4, 1400);
	tx_send(g, 1, &f);
	tx_wait(g, 1, 1);
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_SIZE), 1);
}

static void
checksum_is_filled_for_a_receiver_that_wants_it_whole(const struct shape *shape)
{
	static const uint32_t start[] = {L4, 54, 20, 33};
	static const uint32_t pieces[] = {HDR_LEN, 17, 60, 1};
	struct guest *g = loop(shape_features(shape) | N(CSUM), 4096);
	uint32_t len;

	for (len = 60; len < 2060; len += 33) {
		uint32_t s = start[len % DIM(start)];
		uint16_t sum;

		tcp_frame(len, len, 0, 0);
		f.hdr.hdr.csum_start = s;
		f.hdr.hdr.csum_offset = len % 7;
		/* what is in the field is the pseudo header's sum (5.1.6.2) */
		sum = checksum(f.data + s, f.len - s);
		assert_true(tx_post(g, 1, &f, pieces, len % 2 ? DIM(pieces) : 0) >= 0);
		mock_publish(&g->q[1].drv);
		queue_kick(g, 1);
		rx_wait(g, 0, &got);
		assert_int_equal(got.hdr.hdr.flags, 0);
		assert_int_equal(got.hdr.hdr.csum_start, 0);
		f.data[s + len % 7] = sum >> 8;
		f.data[s + len % 7 + 1] = sum;
		frames_equal(&got, &f);
		tx_wait(g, 1, 1);
		rx_post(g, 0, 1, 4096, 1);
	}
}

static void
checksum_that_comes_out_as_zero_is_all_ones(void **state)
{
	struct guest *g = loop(N(CSUM), 2048);

	(void)state;
	frame_make(&f, 1, 60);
	memset(f.data + L4, 0, 60 - L4);
	f.data[L4 + 6] = 0xff;
	f.data[L4 + 7] = 0xff;
	f.hdr.hdr = (struct virtio_net_hdr){.flags = CS, .csum_start = L4, .csum_offset = 6};
	tx_send(g, 1, &f);
	rx_wait(g, 0, &got);
	assert_int_equal(got.data[L4 + 6], 0xff);
	assert_int_equal(got.data[L4 + 7], 0xff);
}

static void
checksum_at_the_very_end_is_filled(void **state)
{
	struct guest *g = loop(N(CSUM), 66000);

	(void)state;
	/* start + offset + 2 is exactly the length, even and odd */
	tcp_frame(1, 100, 0, 0);
	f.hdr.hdr.csum_start = 98;
	f.hdr.hdr.csum_offset = 0;
	tx_send(g, 1, &f);
	rx_wait(g, 0, &got);
	assert_int_equal(got.data[98] << 8 | got.data[99], checksum(f.data + 98, 2));
	tx_wait(g, 1, 1);
	tcp_frame(1, 101, 0, 0);
	f.hdr.hdr.csum_start = 0;
	f.hdr.hdr.csum_offset = 99;
	tx_send(g, 1, &f);
	rx_wait(g, 0, &got);
	assert_int_equal(got.data[99] << 8 | got.data[100], checksum(f.data, 101));
	tx_wait(g, 1, 1);
	/* the largest frame without segmentation */
	tcp_frame(1, 65534, 0, 0);
	tx_send(g, 1, &f);
	rx_wait(g, 0, &got);
	assert_int_equal(
		got.data[L4 + 16] << 8 | got.data[L4 + 17], checksum(f.data + L4, 65534 - L4));
}

static void
segmentation_of_what_is_no_packet_is_dropped(void **state)
{
	static const struct {
		uint64_t receiver;
		uint8_t type;
	} t[] = {
		{0, T4},
		{N(GUEST_CSUM), T4},
		{N(GUEST_CSUM) | N(GUEST_TSO6), T4},
		{N(GUEST_CSUM) | N(GUEST_TSO4), T6},
		{N(GUEST_CSUM) | N(GUEST_TSO4), T4 | EC},
		{N(GUEST_CSUM) | N(GUEST_TSO4), VIRTIO_NET_HDR_GSO_UDP},
	};
	size_t i;

	for (i = 0; i < DIM(t); i++) {
		struct guest *a = guest_open(&(struct guest_conf){.name = "a",
			.wiring = VFN_WIRING_WIRE,
			.features = SENDER,
			.buf_len = 4096});
		struct guest *b = guest_open(&(struct guest_conf){.name = "b",
			.wiring = VFN_WIRING_WIRE,
			.peer = "a",
			.features = t[i].receiver});

		rx_post(b, 0, 4, 2048, 1);
		tcp_frame(1, 1900, t[i].type, 500);
		tx_send(a, 1, &f);
		tx_wait(a, 1, 1);
		assert_int_equal(stat_of(a, 1, VFN_STAT_DROPPED_OFFLOAD), 1);
		frame_make(&f, 2, 1900);
		frame_passes(a, 1, b, 0, &f);
		assert_int_equal(stat_of(b, 0, VFN_STAT_PACKETS), 1);
		guests_close(state);
	}
}

static uint8_t
offloads(struct guest *g, uint64_t on)
{
	uint8_t cmd[2 + sizeof(on)] = {
		VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET};

	memcpy(cmd + 2, &on, sizeof(on));
	return command_on(g, 2, cmd, sizeof(cmd));
}

/* Is such a frame passed on as it is? Else it is dropped and counted. */
static bool
segments_pass(struct guest *g, uint8_t type)
{
	uint64_t dropped = stat_of(g, 1, VFN_STAT_DROPPED_OFFLOAD);
	bool passed;

	tcp_frame(1, 1900, type, 500);
	tx_send(g, 1, &f);
	tx_wait(g, 1, 1);
	passed = rx_try(g, 0, &got, 0);
	if (passed) {
		assert_int_equal(got.hdr.hdr.gso_type, type);
		frames_equal(&got, &f);
		rx_post(g, 0, 1, 2048, 1);
	}
	stat_wait(g, 1, VFN_STAT_DROPPED_OFFLOAD, dropped + !passed);
	return passed;
}

/* Does a partial checksum arrive as it is? Else it has to be filled in. */
static bool
checksum_is_left(struct guest *g)
{
	tcp_frame(1, 500, 0, 0);
	tx_send(g, 1, &f);
	rx_wait(g, 0, &got);
	tx_wait(g, 1, 1);
	rx_post(g, 0, 1, 2048, 1);
	if (got.hdr.hdr.flags == VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		frames_equal(&got, &f);
		return true;
	}
	assert_int_equal(got.hdr.hdr.flags, 0);
	assert_int_equal(
		got.data[L4 + 16] << 8 | got.data[L4 + 17], checksum(f.data + L4, 500 - L4));
	return false;
}

static void
offloads_are_switched_while_running(const struct shape *shape)
{
	struct guest *g = loop(
		shape_features(shape) | SENDER | RECEIVER | N(CTRL_VQ) | N(CTRL_GUEST_OFFLOADS),
		2048);

	/* on to begin with, as they were negotiated */
	assert_true(checksum_is_left(g) && segments_pass(g, T4) && segments_pass(g, T6) &&
		segments_pass(g, T4 | EC) && segments_pass(g, VIRTIO_NET_HDR_GSO_UDP));
	assert_int_equal(offloads(g, 0), VIRTIO_NET_OK);
	assert_false(checksum_is_left(g) || segments_pass(g, T4) || segments_pass(g, T6));
	assert_int_equal(offloads(g, N(GUEST_CSUM)), VIRTIO_NET_OK);
	assert_true(checksum_is_left(g));
	assert_false(segments_pass(g, T4) || segments_pass(g, VIRTIO_NET_HDR_GSO_UDP));
	assert_int_equal(offloads(g, N(GUEST_CSUM) | N(GUEST_TSO6)), VIRTIO_NET_OK);
	assert_true(segments_pass(g, T6));
	assert_false(segments_pass(g, T4) || segments_pass(g, T6 | EC));
	/* segments are not complete without their checksum */
	assert_int_equal(offloads(g, RECEIVER & ~N(GUEST_CSUM)), VIRTIO_NET_OK);
	assert_false(checksum_is_left(g) || segments_pass(g, T4));
	assert_int_equal(offloads(g, RECEIVER), VIRTIO_NET_OK);
	assert_true(checksum_is_left(g) && segments_pass(g, T4 | EC));
	/* and as negotiated again after a reset */
	assert_int_equal(offloads(g, 0), VIRTIO_NET_OK);
	guest_reset(g);
	guest_start(g);
	rx_post(g, 0, 10, 2048, 1);
	assert_true(checksum_is_left(g) && segments_pass(g, T4));
}

static void
impossible_offloads_change_nothing(void **state)
{
	struct guest *g = loop(
		SENDER | N(GUEST_CSUM) | N(GUEST_TSO4) | N(CTRL_VQ) | N(CTRL_GUEST_OFFLOADS), 2048);

	(void)state;
	assert_int_equal(offloads(g, N(GUEST_CSUM) | N(GUEST_TSO6)), VIRTIO_NET_ERR);
	assert_int_equal(offloads(g, N(HOST_TSO4)), VIRTIO_NET_ERR); /* negotiated, but no GUEST_ */
	assert_int_equal(offloads(g, 1), VIRTIO_NET_ERR);
	assert_int_equal(offloads(g, UINT64_MAX), VIRTIO_NET_ERR);
	assert_int_equal(
		COMMAND(g, 2, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, 0, 0, 0, 0), VIRTIO_NET_ERR);
	assert_int_equal(
		COMMAND(g, 2, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
		VIRTIO_NET_ERR);
	assert_int_equal(COMMAND(g, 2, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 1, 0, 0, 0, 0, 0, 0, 0, 0),
		VIRTIO_NET_ERR);
	assert_true(checksum_is_left(g) && segments_pass(g, T4));
	guest_close(g);
	g = loop(SENDER | RECEIVER | N(CTRL_VQ), 2048);
	assert_int_equal(offloads(g, 0), VIRTIO_NET_ERR);
	assert_true(checksum_is_left(g) && segments_pass(g, T4));
}

static void
header_is_read_once(void **state)
{
	/* differs from 500 in one byte: a copy may be torn between two */
	const uint16_t far = 500 | 0xea00;
	struct guest *g = loop(SENDER | RECEIVER, 2048);
	unsigned int i, delivered = 0;

	(void)state;
	/* while the guest flips the type under the function's hands, none that is bad gets out */
	for (i = 0; i < 3000; i++) {
		struct virtio_net_hdr *hdr;
		struct mock_used used;
		unsigned int flips = 0;
		int id;

		tcp_frame(i, 600, T4, 100);
		f.hdr.hdr.csum_start = 500;
		id = tx_post(g, 1, &f, (const uint32_t[]){HDR_LEN}, 1);
		assert_true(id >= 0);
		hdr = (void *)mock_mem_at(&g->mem, mock_buf_addr(&g->q[1].drv, id, 0), HDR_LEN);
		mock_publish(&g->q[1].drv);
		queue_kick(g, 1);
		while (!mock_has_used(&g->q[1].drv)) {
			uint8_t to = ++flips % 2 ? 0x42 : T4;

			__atomic_store_n(&hdr->gso_type, to, __ATOMIC_RELAXED);
			__atomic_store_n(&hdr->csum_start, flips % 2 ? far : 500, __ATOMIC_RELAXED);
			if (flips % 4096 == 0)
				nap_us(10);
		}
		assert_true(used_try(g, 1, &used, 0));
		if (!rx_try(g, 0, &got, 0))
			continue;
		delivered++;
		assert_int_equal(got.hdr.hdr.gso_type, T4);
		assert_int_equal(got.hdr.hdr.csum_start, 500);
		rx_post(g, 0, 1, 2048, 1);
	}
	assert_int_equal(delivered + stat_of(g, 1, VFN_STAT_ERRORS_HEADER), 3000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(fields_without_meaning_are_not_refused_or_passed_on),
		PLAIN(flags_without_meaning_are_not_taken_for_a_checksum),
		PLAIN(checksum_that_comes_out_as_zero_is_all_ones),
		PLAIN(checksum_at_the_very_end_is_filled),
		PLAIN(segmentation_of_what_is_no_packet_is_dropped),
		PLAIN(impossible_offloads_change_nothing),
		PLAIN(header_is_read_once),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(impossible_headers_are_counted_and_never_forwarded),
		SHAPED(hints_are_not_relied_upon),
		SHAPED(offloads_that_both_sides_took_are_carried_through),
		SHAPED(offloads_are_switched_while_running),
		SHAPED(checksum_is_filled_for_a_receiver_that_wants_it_whole),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("offload", tests, DIM(tests), shaped, DIM(shaped));
}
