/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What a driver asks to receive, by control queue commands, and what it gets (virtio 1.3,
 * 5.1.6.5.1 to 5.1.6.5.3).
 */

#include "fn_harness.h"

#define N(f)  BIT(VIRTIO_NET_F_##f)
#define RX    (N(CTRL_VQ) | N(CTRL_RX))
#define ALL   (RX | N(CTRL_RX_EXTRA) | N(CTRL_VLAN) | N(CTRL_MAC_ADDR))
#define CTRL  2
#define TABLE 256  /* addresses of a kind that are told apart */
#define MOST  2700 /* addresses of a command */

/* Addresses: the function's own, which loop() sets, and others. */
#define OWN   0x020000000001
#define OTHER 0x020000000002
#define MULTI 0x333300000001
#define BCAST 0xffffffffffff

static struct frame f, got;

static struct guest *
loop(uint64_t features)
{
	struct guest *g = guest_open(
		&(struct guest_conf){.features = features, .size = 64, .buf_len = 24576});

	if (features & N(CTRL_MAC_ADDR))
		assert_int_equal(
			COMMAND(g, CTRL, VIRTIO_NET_CTRL_MAC, 1, 2, 0, 0, 0, 0, 1), VIRTIO_NET_OK);
	rx_post(g, 0, 32, 2048, 1);
	return g;
}

static void
put_be(uint8_t *at, uint64_t v, unsigned int len)
{
	for (; len > 0; len--)
		*at++ = v >> 8 * (len - 1);
}

/* A frame to an address, with a VLAN tag unless tag is negative. */
static void
frame_to(uint64_t addr, int tag, uint32_t len)
{
	static uint32_t number;

	frame_make(&f, number++, len);
	put_be(f.data, addr, 6);
	put_be(f.data + 12, tag < 0 ? 0x0800 : 0x8100, 2);
	if (tag >= 0 && len >= 18)
		put_be(f.data + 14, tag, 2);
}

/* Send what frame_to() has made: whole, or dropped and counted for the right reason. */
static bool
passes_in(struct guest *g, const uint32_t *piece, unsigned int nb_pieces)
{
	uint64_t dropped = stat_of(g, 1, VFN_STAT_DROPPED_FILTER);
	bool passed;

	assert_true(tx_post(g, 1, &f, piece, nb_pieces) >= 0);
	mock_publish(&g->q[1].drv);
	queue_kick(g, 1);
	tx_wait(g, 1, 1);
	passed = rx_try(g, 0, &got, 0);
	if (passed) {
		frames_equal(&got, &f);
		rx_post(g, 0, 1, 2048, 1);
	}
	stat_wait(g, 1, VFN_STAT_DROPPED_FILTER, dropped + !passed);
	return passed;
}

static bool
passes_tagged(struct guest *g, uint64_t addr, int tag)
{
	frame_to(addr, tag, 100);
	return passes_in(g, NULL, 0);
}

static bool
passes(struct guest *g, uint64_t addr)
{
	return passes_tagged(g, addr, -1);
}

static uint8_t
mode(struct guest *g, uint8_t cmd, bool on)
{
	return COMMAND(g, CTRL, VIRTIO_NET_CTRL_RX, cmd, on);
}

static void
promisc(struct guest *g, bool on)
{
	assert_int_equal(mode(g, VIRTIO_NET_CTRL_RX_PROMISC, on), VIRTIO_NET_OK);
}

/*
 * MAC_TABLE_SET with so many addresses from first on in each table. The counts may lie; extra
 * bytes follow.
 */
static uint8_t
tables(struct guest *g, unsigned int nb_uni, uint64_t first_uni, unsigned int nb_multi,
	uint64_t first_multi, int lie_uni, int lie_multi, int extra)
{
	static uint8_t cmd[6 * MOST + 100];
	uint32_t n, count, at = 2, i;
	struct mock_used used;
	uint8_t ack;
	int id;

	memset(cmd, 0, sizeof(cmd));
	cmd[0] = VIRTIO_NET_CTRL_MAC;
	cmd[1] = VIRTIO_NET_CTRL_MAC_TABLE_SET;
	for (n = 0; n < 2; n++) {
		uint64_t addr = n == 0 ? first_uni : first_multi;

		count = (n == 0 ? nb_uni : nb_multi) + (n == 0 ? lie_uni : lie_multi);
		memcpy(cmd + at, &count, sizeof(count));
		at += sizeof(count);
		for (i = 0; i < (n == 0 ? nb_uni : nb_multi); i++, at += 6)
			put_be(cmd + at, addr + i, 6);
	}
	at += extra;
	assert_true(at + 4 <= g->conf.buf_len);
	id = command_post(g, CTRL, cmd, at, 2003, 1);
	assert_true(used_try(g, CTRL, &used, PATIENCE_MS));
	assert_int_equal(used.len, 1);
	assert_true(mock_mem_read(&g->mem, mock_buf_addr(&g->q[CTRL].drv, id, at), &ack, 1));
	return ack;
}

static void
all_is_received_until_the_driver_says_what_it_wants(const struct shape *shape)
{
	struct guest *g = loop(shape_features(shape) | (ALL & ~N(CTRL_VLAN)));

	assert_true(passes(g, OWN) && passes(g, OTHER) && passes(g, MULTI) && passes(g, BCAST));
	promisc(g, false);
	assert_true(passes(g, OWN) && passes(g, BCAST));
	assert_false(passes(g, OTHER) || passes(g, MULTI));
	promisc(g, true);
	assert_true(passes(g, OTHER) && passes(g, MULTI));
	/* and again after a reset */
	promisc(g, false);
	guest_reset(g);
	guest_start(g);
	rx_post(g, 0, 32, 2048, 1);
	assert_true(passes(g, OTHER) && passes(g, MULTI));
}

/* What passes in a mode, with OTHER not and MULTI + 1 in the table. */
static const struct {
	uint8_t on[2]; /* commands; 255: none */
	bool own, other, multi, listed, bcast;
} modes[] = {
	{{255, 255}, true, false, false, true, true},
	{{VIRTIO_NET_CTRL_RX_PROMISC, VIRTIO_NET_CTRL_RX_NOUNI}, true, true, true, true, true},
	{{VIRTIO_NET_CTRL_RX_ALLMULTI, 255}, true, false, true, true, true},
	{{VIRTIO_NET_CTRL_RX_ALLUNI, 255}, true, true, false, true, true},
	{{VIRTIO_NET_CTRL_RX_NOMULTI, 255}, true, false, false, false, true},
	{{VIRTIO_NET_CTRL_RX_NOMULTI, VIRTIO_NET_CTRL_RX_ALLMULTI}, true, false, false, false,
		true},
	{{VIRTIO_NET_CTRL_RX_NOUNI, 255}, false, false, false, true, true},
	{{VIRTIO_NET_CTRL_RX_NOUNI, VIRTIO_NET_CTRL_RX_ALLUNI}, false, false, false, true, true},
	{{VIRTIO_NET_CTRL_RX_NOBCAST, 255}, true, false, false, true, false},
	{{VIRTIO_NET_CTRL_RX_NOBCAST, VIRTIO_NET_CTRL_RX_ALLMULTI}, true, false, true, true, false},
};

static void
every_mode_does_what_it_says(void **state)
{
	struct guest *g = loop(ALL);
	unsigned int i, k;

	(void)state;
	promisc(g, false);
	assert_int_equal(tables(g, 0, 0, 1, MULTI + 1, 0, 0, 0), VIRTIO_NET_OK);
	for (i = 0; i < DIM(modes); i++) {
		for (k = 0; k < 2 && modes[i].on[k] != 255; k++)
			assert_int_equal(mode(g, modes[i].on[k], true), VIRTIO_NET_OK);
		if (passes(g, OWN) != modes[i].own || passes(g, OTHER) != modes[i].other ||
			passes(g, MULTI) != modes[i].multi ||
			passes(g, MULTI + 1) != modes[i].listed ||
			passes(g, BCAST) != modes[i].bcast)
			fail_msg("modes %u and %u", modes[i].on[0], modes[i].on[1]);
		for (k = 0; k < 2 && modes[i].on[k] != 255; k++)
			assert_int_equal(mode(g, modes[i].on[k], false), VIRTIO_NET_OK);
	}
}

static void
addresses_of_the_table_are_received(const struct shape *shape)
{
	struct guest *g = loop(shape_features(shape) | ALL);

	promisc(g, false);
	assert_int_equal(tables(g, 3, OTHER, 2, MULTI, 0, 0, 0), VIRTIO_NET_OK);
	assert_true(passes(g, OWN) && passes(g, OTHER) && passes(g, OTHER + 2));
	assert_true(passes(g, MULTI) && passes(g, MULTI + 1));
	assert_false(passes(g, OTHER + 3) || passes(g, MULTI + 2));
	/* a new table replaces the old one; both may be empty */
	assert_int_equal(tables(g, 1, OTHER + 9, 0, 0, 0, 0, 0), VIRTIO_NET_OK);
	assert_true(passes(g, OTHER + 9));
	assert_false(passes(g, OTHER) || passes(g, MULTI));
	assert_int_equal(tables(g, 0, 0, 0, 0, 0, 0, 0), VIRTIO_NET_OK);
	assert_false(passes(g, OTHER + 9));
	assert_true(passes(g, OWN) && passes(g, BCAST));
}

static void
impossible_tables_change_nothing(void **state)
{
	static const uint8_t half[] = {VIRTIO_NET_CTRL_MAC, 0, 0, 0, 0};
	static const uint8_t one[] = {VIRTIO_NET_CTRL_MAC, 0, 0, 0, 0, 0};
	static const uint8_t unknown[] = {VIRTIO_NET_CTRL_MAC, 2, 0, 0, 0, 0, 0, 0, 0, 0};
	struct guest *g = loop(ALL);

	(void)state;
	promisc(g, false);
	assert_int_equal(tables(g, 2, OTHER, 2, MULTI, 0, 0, 0), VIRTIO_NET_OK);
	/* counts above and below what follows, by one and by 2^32, and surplus bytes */
	assert_int_equal(tables(g, 4, OTHER + 8, 0, 0, 1, 0, 0), VIRTIO_NET_ERR);
	assert_int_equal(tables(g, 4, OTHER + 8, 0, 0, -1, 0, 0), VIRTIO_NET_ERR);
	assert_int_equal(tables(g, 4, OTHER + 8, 4, MULTI + 8, 0, 1, 0), VIRTIO_NET_ERR);
	assert_int_equal(tables(g, 4, OTHER + 8, 4, MULTI + 8, 0, -1, 0), VIRTIO_NET_ERR);
	assert_int_equal(tables(g, 0, 0, 0, 0, -1, 0, 0), VIRTIO_NET_ERR);
	assert_int_equal(tables(g, 4, OTHER + 8, 0, 0, 0, -1, 0), VIRTIO_NET_ERR);
	/* 6 * 0x2aaaaaab is 2 in 32 bits */
	assert_int_equal(tables(g, 0, 0, 0, 0, 0x2aaaaaab, 0, 2), VIRTIO_NET_ERR);
	assert_int_equal(tables(g, 0, 0, 0, 0, 0, 0x2aaaaaab, 2), VIRTIO_NET_ERR);
	assert_int_equal(tables(g, 4, OTHER + 8, 4, MULTI + 8, 0, 0, 1), VIRTIO_NET_ERR);
	assert_int_equal(tables(g, 4, OTHER + 8, 4, MULTI + 8, 0, 0, -1), VIRTIO_NET_ERR);
	assert_int_equal(command_on(g, CTRL, half, sizeof(half)), VIRTIO_NET_ERR);
	assert_int_equal(command_on(g, CTRL, one, sizeof(one)), VIRTIO_NET_ERR);
	assert_int_equal(command_on(g, CTRL, unknown, sizeof(unknown)), VIRTIO_NET_ERR);
	assert_true(passes(g, OTHER) && passes(g, OTHER + 1) && passes(g, MULTI + 1));
	assert_false(passes(g, OTHER + 8) || passes(g, MULTI + 8));
}

static void
table_that_is_too_long_filters_nothing_of_its_kind(void **state)
{
	struct guest *g = loop(ALL);

	(void)state;
	promisc(g, false);
	assert_int_equal(tables(g, TABLE, OTHER, TABLE, MULTI, 0, 0, 0), VIRTIO_NET_OK);
	assert_true(passes(g, OTHER + TABLE - 1) && passes(g, MULTI + TABLE - 1));
	assert_false(passes(g, OTHER + TABLE) || passes(g, MULTI + TABLE));
	assert_int_equal(tables(g, TABLE + 1, OTHER, 1, MULTI, 0, 0, 0), VIRTIO_NET_OK);
	assert_true(passes(g, OTHER + TABLE) && passes(g, OTHER + 10000) && passes(g, MULTI));
	assert_false(passes(g, MULTI + 1));
	assert_int_equal(tables(g, 1, OTHER, TABLE + 1, MULTI, 0, 0, 0), VIRTIO_NET_OK);
	assert_true(passes(g, OTHER) && passes(g, MULTI + 10000));
	assert_false(passes(g, OTHER + 1));
	/* the longest command, and one that is longer */
	assert_int_equal(tables(g, 0, 0, 0, 0, 0, 0, 0), VIRTIO_NET_OK);
	assert_int_equal(tables(g, MOST + 1, OTHER, 0, 0, 0, 0, 0), VIRTIO_NET_ERR);
	assert_int_equal(tables(g, MOST - 1, OTHER, 1, MULTI, 0, 0, 1), VIRTIO_NET_ERR);
	assert_false(passes(g, OTHER) || passes(g, MULTI));
	assert_int_equal(tables(g, MOST - 1, OTHER, 1, MULTI, 0, 0, 0), VIRTIO_NET_OK);
	assert_true(passes(g, OTHER + 10000) && passes(g, MULTI));
	assert_false(passes(g, MULTI + 1));
	/* one that fits is exact again */
	assert_int_equal(tables(g, 1, OTHER, 0, 0, 0, 0, 0), VIRTIO_NET_OK);
	assert_false(passes(g, OTHER + 1));
}

static uint64_t
mac_of(struct guest *g)
{
	uint64_t v = 0;
	unsigned int i;

	for (i = 0; i < 6; i++)
		v = v << 8 | reg_get(g, &g->device, i, 1);
	return v;
}

static void
own_address_is_the_one_that_was_set(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.features = ALL, .size = 64});
	uint64_t original = mac_of(g);
	uint32_t generation = CGET(g, config_generation);

	(void)state;
	rx_post(g, 0, 32, 2048, 1);
	promisc(g, false);
	assert_true(passes(g, original));
	assert_int_equal(COMMAND(g, CTRL, VIRTIO_NET_CTRL_MAC, 1, 2, 0, 0, 0, 0, 2), VIRTIO_NET_OK);
	assert_int_equal(mac_of(g), OTHER);
	assert_int_not_equal(CGET(g, config_generation), generation);
	assert_true(passes(g, OTHER));
	assert_false(passes(g, original));
	/* a group, nobody, too short, too long */
	assert_int_equal(
		COMMAND(g, CTRL, VIRTIO_NET_CTRL_MAC, 1, 3, 0, 0, 0, 0, 2), VIRTIO_NET_ERR);
	assert_int_equal(
		COMMAND(g, CTRL, VIRTIO_NET_CTRL_MAC, 1, 0, 0, 0, 0, 0, 0), VIRTIO_NET_ERR);
	assert_int_equal(COMMAND(g, CTRL, VIRTIO_NET_CTRL_MAC, 1, 2, 0, 0, 0, 9), VIRTIO_NET_ERR);
	assert_int_equal(
		COMMAND(g, CTRL, VIRTIO_NET_CTRL_MAC, 1, 2, 0, 0, 0, 0, 9, 9), VIRTIO_NET_ERR);
	assert_int_equal(mac_of(g), OTHER);
	guest_reset(g);
	assert_int_equal(mac_of(g), original);
}

static uint8_t
vlan(struct guest *g, uint8_t cmd, uint16_t vid)
{
	return COMMAND(g, CTRL, VIRTIO_NET_CTRL_VLAN, cmd, vid, vid >> 8);
}

static void
vlans_that_were_added_are_received(const struct shape *shape)
{
	static const uint16_t vids[] = {0, 1, 7, 8, 100, 4095};
	struct guest *g = loop(shape_features(shape) | ALL);
	unsigned int i, k;

	promisc(g, false);
	assert_true(passes(g, OWN));
	for (i = 0; i < DIM(vids); i++)
		assert_false(passes_tagged(g, OWN, vids[i]));
	for (i = 0; i < DIM(vids); i++) {
		assert_int_equal(vlan(g, VIRTIO_NET_CTRL_VLAN_ADD, vids[i]), VIRTIO_NET_OK);
		for (k = 0; k < DIM(vids); k++)
			assert_int_equal(passes_tagged(g, OWN, vids[k]), k <= i);
		/* priority and DEI are no part of the id; the address is looked at as well */
		assert_true(passes_tagged(g, OWN, vids[i] | 0xf000));
		assert_false(passes_tagged(g, OTHER, vids[i]));
	}
	for (i = 0; i < DIM(vids); i++) {
		assert_int_equal(vlan(g, VIRTIO_NET_CTRL_VLAN_DEL, vids[i]), VIRTIO_NET_OK);
		for (k = 0; k < DIM(vids); k++)
			assert_int_equal(passes_tagged(g, OWN, vids[k]), k > i);
	}
	promisc(g, true);
	assert_true(passes_tagged(g, OTHER, 100));
	/* too short for a tag: none */
	promisc(g, false);
	frame_to(OWN, 100, 17);
	assert_true(passes_in(g, NULL, 0));
	frame_to(OWN, 100, 18);
	assert_false(passes_in(g, NULL, 0));
}

static void
impossible_vlans_change_nothing(void **state)
{
	struct guest *g = loop(ALL);

	(void)state;
	promisc(g, false);
	assert_int_equal(vlan(g, VIRTIO_NET_CTRL_VLAN_ADD, 5), VIRTIO_NET_OK);
	assert_int_equal(vlan(g, VIRTIO_NET_CTRL_VLAN_ADD, 4096 + 6), VIRTIO_NET_ERR);
	assert_int_equal(vlan(g, VIRTIO_NET_CTRL_VLAN_DEL, 4096 + 5), VIRTIO_NET_ERR);
	assert_int_equal(vlan(g, VIRTIO_NET_CTRL_VLAN_ADD, 0xffff), VIRTIO_NET_ERR);
	assert_int_equal(vlan(g, 2, 5), VIRTIO_NET_ERR);
	assert_int_equal(COMMAND(g, CTRL, VIRTIO_NET_CTRL_VLAN, 0, 6), VIRTIO_NET_ERR);
	assert_int_equal(COMMAND(g, CTRL, VIRTIO_NET_CTRL_VLAN, 0, 6, 0, 0), VIRTIO_NET_ERR);
	assert_int_equal(COMMAND(g, CTRL, VIRTIO_NET_CTRL_VLAN, 1), VIRTIO_NET_ERR);
	assert_true(passes_tagged(g, OWN, 5));
	assert_false(passes_tagged(g, OWN, 6) || passes_tagged(g, OWN, 4095));
}

static void
vlans_are_filtered_without_receive_modes(void **state)
{
	struct guest *g = loop(N(CTRL_VQ) | N(CTRL_VLAN));

	(void)state;
	assert_true(passes(g, OWN) && passes(g, OTHER) && passes(g, MULTI));
	assert_false(passes_tagged(g, OTHER, 5));
	assert_int_equal(vlan(g, VIRTIO_NET_CTRL_VLAN_ADD, 5), VIRTIO_NET_OK);
	assert_true(passes_tagged(g, OTHER, 5));
}

static void
commands_of_features_not_negotiated_are_errors(void **state)
{
	struct guest *g = loop(N(CTRL_VQ));

	(void)state;
	assert_int_equal(mode(g, VIRTIO_NET_CTRL_RX_PROMISC, false), VIRTIO_NET_ERR);
	assert_int_equal(mode(g, VIRTIO_NET_CTRL_RX_NOUNI, true), VIRTIO_NET_ERR);
	assert_int_equal(tables(g, 1, OTHER, 0, 0, 0, 0, 0), VIRTIO_NET_ERR);
	assert_int_equal(vlan(g, VIRTIO_NET_CTRL_VLAN_ADD, 5), VIRTIO_NET_ERR);
	assert_int_equal(
		COMMAND(g, CTRL, VIRTIO_NET_CTRL_MAC, 1, 2, 0, 0, 0, 0, 2), VIRTIO_NET_ERR);
	assert_true(passes(g, OTHER) && passes_tagged(g, MULTI, 5));
	guest_close(g);
	/* the modes that CTRL_RX has are not those of CTRL_RX_EXTRA, tags are not filtered */
	g = loop(RX);
	promisc(g, false);
	assert_int_equal(mode(g, VIRTIO_NET_CTRL_RX_ALLUNI, true), VIRTIO_NET_ERR);
	assert_int_equal(mode(g, VIRTIO_NET_CTRL_RX_NOBCAST, true), VIRTIO_NET_ERR);
	assert_true(passes_tagged(g, BCAST, 5));
	assert_false(passes(g, OTHER));
}

static void
nothing_is_filtered_while_the_control_queue_is_off(void **state)
{
	struct guest *g = loop(ALL | BIT(VIRTIO_F_RING_PACKED));

	(void)state;
	promisc(g, false);
	assert_false(passes(g, OTHER));
	queue_reset(g, CTRL);
	assert_true(passes(g, OTHER) && passes_tagged(g, MULTI, 9));
	queue_setup(g, CTRL);
	assert_false(passes(g, OTHER));
}

static void
address_in_pieces_is_found(const struct shape *shape)
{
	static const uint32_t layouts[][6] = {{12}, {12, 1, 1, 1, 1, 1}, {12, 3, 5, 6}, {1, 14, 2},
		{13, 5, 7, 1, 1}, {5, 7, 12, 2, 2}};
	struct guest *g = loop(shape_features(shape) | ALL);
	unsigned int i;

	promisc(g, false);
	assert_int_equal(vlan(g, VIRTIO_NET_CTRL_VLAN_ADD, 0x123), VIRTIO_NET_OK);
	for (i = 0; i < DIM(layouts); i++) {
		frame_to(OWN, 0x123, 200);
		assert_true(passes_in(g, layouts[i], DIM(layouts[i])));
		frame_to(OWN, 0x124, 200);
		assert_false(passes_in(g, layouts[i], DIM(layouts[i])));
		frame_to(OWN + 1, -1, 200);
		assert_false(passes_in(g, layouts[i], DIM(layouts[i])));
		frame_to(BCAST, -1, 200);
		assert_true(passes_in(g, layouts[i], DIM(layouts[i])));
	}
}

static void
receiver_decides_and_not_the_sender(void **state)
{
	struct guest *a = guest_open(&(struct guest_conf){
		.name = "a", .wiring = VFN_WIRING_WIRE, .features = ALL, .size = 64});
	struct guest *b = guest_open(&(struct guest_conf){
		.name = "b", .wiring = VFN_WIRING_WIRE, .peer = "a", .features = ALL, .size = 64});

	(void)state;
	rx_post(a, 0, 8, 2048, 1);
	rx_post(b, 0, 8, 2048, 1);
	promisc(b, false);
	frame_to(OTHER, -1, 100);
	frame_passes(b, 1, a, 0, &f);
	tx_send(a, 1, &f);
	tx_wait(a, 1, 1);
	assert_false(rx_try(b, 0, &got, 0));
	assert_int_equal(stat_of(a, 1, VFN_STAT_DROPPED_FILTER), 1);
	assert_int_equal(stat_of(a, 1, VFN_STAT_PACKETS), 1);
	assert_int_equal(stat_of(b, 1, VFN_STAT_DROPPED_FILTER), 0);
	frame_to(mac_of(b), -1, 100);
	frame_passes(a, 1, b, 0, &f);
}

static void
wanted_frames_are_not_lost_while_filters_change(void **state)
{
	struct guest *g = loop(ALL);
	unsigned int round, i, arrived = 0, sent = 0;

	(void)state;
	for (round = 0; round < 60; round++) {
		for (i = 0; i < 6; i++, sent++) {
			frame_to(i % 2 ? OWN : BCAST, -1, 60 + sent);
			tx_send(g, 1, &f);
		}
		promisc(g, round % 2);
		tx_wait(g, 1, 6);
		while (rx_try(g, 0, &got, 0)) {
			assert_int_equal(got.len, 60 + arrived++);
			rx_post(g, 0, 1, 2048, 1);
		}
	}
	assert_int_equal(arrived, sent);
}

static void
address_that_changes_under_our_hands_is_judged_once(void **state)
{
	struct guest *g = loop(ALL);
	unsigned int i, delivered = 0;

	(void)state;
	promisc(g, false);
	for (i = 0; i < 2000; i++) {
		unsigned int flips = 0;
		struct mock_used used;
		uint8_t *last;
		int id;

		frame_to(OWN, -1, 100);
		id = tx_post(g, 1, &f, NULL, 0);
		assert_true(id >= 0);
		last = mock_mem_at(&g->mem, mock_buf_addr(&g->q[1].drv, id, HDR_LEN + 5), 1);
		mock_publish(&g->q[1].drv);
		queue_kick(g, 1);
		while (!mock_has_used(&g->q[1].drv)) {
			__atomic_store_n(last, ++flips % 2 ? 9 : 1, __ATOMIC_RELAXED);
			if (flips % 4096 == 0)
				nap_us(10);
		}
		assert_true(used_try(g, 1, &used, 0));
		if (!rx_try(g, 0, &got, 0))
			continue;
		delivered++;
		assert_int_equal(got.len, f.len);
		rx_post(g, 0, 1, 2048, 1);
	}
	assert_int_equal(delivered + stat_of(g, 1, VFN_STAT_DROPPED_FILTER), 2000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(every_mode_does_what_it_says),
		PLAIN(impossible_tables_change_nothing),
		PLAIN(table_that_is_too_long_filters_nothing_of_its_kind),
		PLAIN(own_address_is_the_one_that_was_set),
		PLAIN(impossible_vlans_change_nothing),
		PLAIN(vlans_are_filtered_without_receive_modes),
		PLAIN(commands_of_features_not_negotiated_are_errors),
		PLAIN(nothing_is_filtered_while_the_control_queue_is_off),
		PLAIN(receiver_decides_and_not_the_sender),
		PLAIN(wanted_frames_are_not_lost_while_filters_change),
		PLAIN(address_that_changes_under_our_hands_is_judged_once),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(all_is_received_until_the_driver_says_what_it_wants),
		SHAPED(addresses_of_the_table_are_received),
		SHAPED(vlans_that_were_added_are_received),
		SHAPED(address_in_pieces_is_found),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("filter", tests, DIM(tests), shaped, DIM(shaped));
}
