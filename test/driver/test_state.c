/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What is got of one function can be set on another one, which goes on in the middle of the rings.
 */

#include <fcntl.h>

#include "fn_state.h"

#define MQ (BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_RX))

static struct frame f, got;

static void
other_function_goes_on_in_the_middle(const struct shape *shape)
{
	static struct blob b;
	struct guest *g =
		guest_open(&(struct guest_conf){.features = shape_features(shape), .size = 32});
	unsigned int round;

	/* several laps of the rings */
	for (round = 0; round < 12; round++) {
		uint32_t first = 20 * round;

		rx_post(g, 0, 14, 2048, 1);
		numbered_send(g, 1, first, 7);
		VSET(g, suspend, 1);
		/* not seen by the one, to be found by the other */
		numbered_send(g, 1, first + 7, 7);
		blob_get(g, &b);
		function_exchange(g);
		assert_int_equal(blob_put(g, &b, VFN_PARTS_SET), 0);
		function_go_on(g);
		numbered_receive(g, 0, first, 14);
		tx_wait(g, 1, 14);
	}
}

static void
what_was_set_is_got_again(const struct shape *shape)
{
	static struct blob before, after;
	struct guest *g = guest_open(&(struct guest_conf){
		.features = shape_features(shape) | MQ, .pairs = 3, .used_pairs = 2});
	uint8_t *status;

	guest_use_pairs(g, 2);
	CSET(g, config_msix_vector, 0);
	rx_post(g, 0, 50, 2048, 1);
	numbered_send(g, 1, 0, 40);
	numbered_receive(g, 0, 0, 40);
	VSET(g, suspend, 1);
	blob_get(g, &before);
	function_exchange(g);
	assert_int_equal(blob_put(g, &before, VFN_PARTS_SET), 0);
	assert_int_equal(CGET(g, device_status), STATUS_FEATURES);
	blob_get(g, &after);
	/* it is the driver that says when the function goes */
	status = blob_find(&after, VFN_PART_STATUS, 0) + sizeof(struct vfn_part);
	*status |= VIRTIO_CONFIG_S_DRIVER_OK;
	blob_seal(&after);
	assert_true(blob_same(&before, &after));
	assert_int_equal(pairs_in_use(g), 2);
}

static void
running_function_tells_exact_positions(const struct shape *shape)
{
	static struct blob b;
	struct guest *g =
		guest_open(&(struct guest_conf){.features = shape_features(shape), .size = 256});
	unsigned int round, q;

	for (round = 0; round < 20; round++) {
		rx_post(g, 0, 100, 2048, 1);
		numbered_send(g, 1, 100 * round, 100);
		blob_get(g, &b);
		for (q = 0; q < 2; q++) {
			struct vfn_part_vq_position s;

			memcpy(&s, blob_find(&b, VFN_PART_VQ_POSITION, q) + sizeof(struct vfn_part),
				sizeof(s));
			assert_int_equal(s.avail, s.used);
		}
		numbered_receive(g, 0, 100 * round, 100);
		tx_wait(g, 1, 100);
	}
}

/* Frames that arrive as they were sent, and nothing else; false for anything wrong. */
static bool
frames_pass(struct guest *g, uint32_t first, unsigned int n, unsigned int ms)
{
	struct mock_driver *d = &g->q[0].drv;
	uint64_t end = now_ms() + ms;
	struct mock_used used;

	numbered_send(g, 1, first, n);
	while (n > 0 && now_ms() < end) {
		int ret = mock_collect(d, &used, 1);

		if (ret < 0)
			return false;
		if (ret == 0)
			continue;
		frame_make(&f, first, 60 + first % 900);
		assert_true(mock_mem_read(
			&g->mem, mock_buf_addr(d, used.id, HDR_LEN), got.data, f.len));
		if (used.len != HDR_LEN + f.len || memcmp(got.data, f.data, f.len) != 0)
			return false;
		first++;
		n--;
	}
	return n == 0 && used_try(g, 1, &used, ms);
}

/* The control of the tests above: they notice a position that is wrong by one. */
static void
position_off_by_one_is_noticed(const struct shape *shape)
{
	static struct blob b;
	static const int off[] = {0, 1, -1};
	unsigned int i, queue;

	for (i = 0; i < DIM(off); i++) {
		for (queue = 0; queue < 2; queue++) {
			struct guest *g = guest_open(&(struct guest_conf){
				.features = shape_features(shape), .size = 32});
			struct vringh_state s;

			rx_post(g, 0, 20, 2048, 1);
			numbered_send(g, 1, 0, 10);
			numbered_receive(g, 0, 0, 10);
			tx_wait(g, 1, 10);
			VSET(g, suspend, 1);
			blob_get(g, &b);
			s = queue_state(g, queue);
			EDIT_STATE(&b, queue, avail, s.avail + off[i]);
			EDIT_STATE(&b, queue, used, s.used + off[i]);
			blob_seal(&b);
			function_exchange(g);
			assert_int_equal(blob_put(g, &b, VFN_PARTS_SET), 0);
			function_go_on(g);
			assert_int_equal(
				frames_pass(g, 10, 5, off[i] == 0 ? PATIENCE_MS : 50), off[i] == 0);
			guest_close(g);
		}
	}
}

static void
queue_that_is_off_stays_off(void **state)
{
	static struct blob b;
	struct guest *g =
		guest_open(&(struct guest_conf){.features = MQ, .pairs = 2, .used_pairs = 1});

	(void)state;
	blob_get(g, &b);
	function_exchange(g);
	assert_int_equal(blob_put(g, &b, VFN_PARTS_SET), 0);
	CSET(g, queue_select, RXQ(1));
	assert_int_equal(CGET(g, queue_enable), 0);
	CSET(g, queue_select, RXQ(0));
	assert_int_equal(CGET(g, queue_enable), 1);
	assert_int_equal(VGET(g, queue_suspend), 1);
	/* and nothing moves until it is resumed */
	rx_post(g, 0, 20, 2048, 1);
	guest_driver_ok(g);
	numbered_send(g, 1, 0, 10);
	assert_false(rx_try(g, 0, &got, 20));
	VSET(g, suspend, 0);
	numbered_receive(g, 0, 0, 10);
}

/* Setting, or refusing to, is not a reset: what the guest has mapped stays its doorbells. */
static void
doorbells_stay_in_their_file(void **state)
{
	static struct blob b;
	struct guest *g = guest_open(&(struct guest_conf){.size = 64});
	int before = -1, after = -1, i;
	uint64_t size;

	(void)state;
	blob_get(g, &b);
	function_exchange(g);
	assert_int_equal(g->link->ops->get_region_fd(g->link, VFN_REGION_BAR2, &before, &size), 0);
	for (i = 0; i < 2; i++) {
		b.data[0] ^= i == 0;
		assert_int_equal(blob_put(g, &b, VFN_PARTS_SET), i == 0 ? EINVAL : 0);
		b.data[0] ^= i == 0;
		assert_true(fcntl(before, F_GETFD) >= 0);
		assert_int_equal(
			g->link->ops->get_region_fd(g->link, VFN_REGION_BAR2, &after, &size), 0);
		assert_int_equal(before, after);
	}
}

/* Sent to a MAC address ending in a byte, in a VLAN: received, or dropped by the filter. */
static bool
is_wanted(struct guest *g, uint8_t last, uint8_t vlan)
{
	const uint8_t head[] = {2, 0, 0, 0, 0, last, 2, 9, 9, 9, 9, 9, 0x81, 0, 0, vlan};
	uint64_t dropped = stat_of(g, 1, VFN_STAT_DROPPED_FILTER);
	bool wanted;

	frame_make(&f, last, 100);
	memcpy(f.data, head, sizeof(head));
	tx_send(g, 1, &f);
	tx_wait(g, 1, 1);
	wanted = rx_try(g, 0, &got, 0);
	stat_wait(g, 1, VFN_STAT_DROPPED_FILTER, dropped + !wanted);
	return wanted;
}

static void
what_the_driver_wants_to_receive_goes_along(void **state)
{
	static struct blob before, after;
	const uint64_t features = BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_CTRL_RX) |
		BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) | BIT(VIRTIO_NET_F_CTRL_VLAN) |
		BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) | BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) |
		BIT(VIRTIO_NET_F_GUEST_CSUM);
	/* one unicast address, one multicast one */
	static const uint8_t tables[] = {VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, 1, 0,
		0, 0, 2, 0, 0, 0, 0, 8, 1, 0, 0, 0, 0x33, 0x33, 0, 0, 0, 1};
	static uint8_t too_many[2 + 2 * 4 + 257 * 6] = {
		VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, 1, 1};
	struct guest *g =
		guest_open(&(struct guest_conf){.features = features, .size = 64, .buf_len = 8192});
	struct mock_used used;
	unsigned int round;
	uint8_t mac[6], *status;

	(void)state;
	rx_post(g, 0, 30, 2048, 1);
	assert_int_equal(COMMAND(g, 2, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 0), 0);
	assert_int_equal(COMMAND(g, 2, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOBCAST, 1), 0);
	assert_int_equal(
		COMMAND(g, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, 2, 0, 0, 0, 0, 7),
		0);
	assert_int_equal(command_on(g, 2, tables, sizeof(tables)), 0);
	assert_int_equal(COMMAND(g, 2, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, 5, 0), 0);
	assert_int_equal(COMMAND(g, 2, VIRTIO_NET_CTRL_GUEST_OFFLOADS,
				 VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, 0, 0, 0, 0, 0, 0, 0, 0),
		0);
	for (round = 0; round < 2; round++) {
		VSET(g, suspend, 1);
		blob_get(g, &before);
		function_exchange(g);
		assert_int_equal(blob_put(g, &before, VFN_PARTS_SET), 0);
		blob_get(g, &after);
		status = blob_find(&after, VFN_PART_STATUS, 0) + sizeof(struct vfn_part);
		*status |= VIRTIO_CONFIG_S_DRIVER_OK;
		blob_seal(&after);
		assert_true(blob_same(&before, &after));
		g->link->ops->read(g->link, g->device.bar, g->device.offset, mac, sizeof(mac));
		assert_memory_equal(mac, "\2\0\0\0\0\7", sizeof(mac));
		function_go_on(g);
		assert_true(is_wanted(g, 7, 5));
		assert_true(is_wanted(g, 8, 5));
		assert_false(is_wanted(g, 7, 6));
		/* with too many addresses for the table nothing of their kind is filtered */
		assert_int_equal(is_wanted(g, 9, 5), round == 1);
		if (round == 0) {
			command_post(g, 2, too_many, sizeof(too_many), sizeof(too_many), 1);
			assert_true(used_try(g, 2, &used, PATIENCE_MS));
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(queue_that_is_off_stays_off),
		PLAIN(doorbells_stay_in_their_file),
		PLAIN(what_the_driver_wants_to_receive_goes_along),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(other_function_goes_on_in_the_middle),
		SHAPED(what_was_set_is_got_again),
		SHAPED(running_function_tells_exact_positions),
		SHAPED(position_off_by_one_is_noticed),
	};

	/* refusals by the thousand */
	if (fn_eal_init("--log-level=pmd.vdpa.vfn.function:critical", NULL) < 0)
		return 1;
	return run_list("state", tests, DIM(tests), shaped, DIM(shaped));
}
