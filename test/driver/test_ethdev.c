/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A DPDK port behind the function: net_ring, whose other end the test has in its hand. The test's
 * thread, but for EAL's, which tells of links and ports.
 */

#include <sched.h>

#include <rte_dev.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "fn_harness.h"

#define MAX_QUEUES 4
#define RING	   64

static unsigned int cpus[4], nb_cpus; /* two that there are, if there are two */
static struct rte_ring *to_fn[MAX_QUEUES], *from_fn[MAX_QUEUES];
static struct rte_mempool *pool;
static struct frame f, got;

/* A port net_ring_NAME with so many queues. */
static void
port_make(const char *name, unsigned int queues)
{
	unsigned int i;

	assert_true(rte_eth_from_rings(name, to_fn, queues, from_fn, queues, 0) >= 0);
	for (i = 0; i < MAX_QUEUES; i++)
		assert_int_equal(rte_ring_count(to_fn[i]) + rte_ring_count(from_fn[i]), 0);
}

static void
port_remove(const char *port)
{
	assert_int_equal(rte_eal_hotplug_remove("vdev", port), 0);
}

static int
teardown(void **state)
{
	struct rte_mbuf *m;
	uint16_t port;
	unsigned int i;

	guests_close(state);
	RTE_ETH_FOREACH_DEV(port)
	{
		char name[RTE_ETH_NAME_MAX_LEN];

		rte_eth_dev_get_name_by_port(port, name);
		rte_eal_hotplug_remove("vdev", name);
	}
	for (i = 0; i < 2 * MAX_QUEUES; i++)
		while (rte_ring_dequeue(i & 1 ? to_fn[i / 2] : from_fn[i / 2], (void **)&m) == 0)
			rte_pktmbuf_free(m);
	return 0;
}

/* The next frame that the function sent. */
static void
sent(unsigned int queue, struct frame *frame)
{
	uint64_t end = now_ms() + PATIENCE_MS;
	struct rte_mbuf *m;
	const void *data;

	while (rte_ring_dequeue(from_fn[queue], (void **)&m) != 0) {
		assert_true(now_ms() < end);
		nap_us(20);
	}
	frame->len = rte_pktmbuf_pkt_len(m);
	data = rte_pktmbuf_read(m, 0, frame->len, frame->data);
	if (data != frame->data)
		memcpy(frame->data, data, frame->len);
	rte_pktmbuf_free(m);
}

/* Hand a frame to the function, in pieces of so many bytes. */
static void
inject(unsigned int queue, const struct frame *frame, uint32_t piece)
{
	struct rte_mbuf *head = NULL, *m;
	uint32_t at, n;

	for (at = 0; at < frame->len; at += n) {
		m = rte_pktmbuf_alloc(pool);
		assert_non_null(m);
		n = frame->len - at < piece ? frame->len - at : piece;
		memcpy(rte_pktmbuf_append(m, n), frame->data + at, n);
		if (head == NULL)
			head = m;
		else
			assert_int_equal(rte_pktmbuf_chain(head, m), 0);
	}
	assert_int_equal(rte_ring_enqueue(to_fn[queue], head), 0);
}

static bool
link_is_up(struct guest *g)
{
	return reg_get(g, &g->device, FIELD(struct virtio_net_config, status)) &
		VIRTIO_NET_S_LINK_UP;
}

static void
link_wait(struct guest *g, bool up)
{
	uint64_t end = now_ms() + PATIENCE_MS;

	while (link_is_up(g) != up && now_ms() < end)
		nap_us(500);
	assert_int_equal(link_is_up(g), up);
}

static void
ring_wait_empty(unsigned int queue)
{
	uint64_t end = now_ms() + PATIENCE_MS;

	while (rte_ring_count(to_fn[queue]) > 0 && now_ms() < end)
		nap_us(50);
	assert_int_equal(rte_ring_count(to_fn[queue]), 0);
}

static const struct guest_conf on_ring = {.wiring = VFN_WIRING_ETHDEV, .ethdev = "net_ring_p"};

/* With a port of one queue. */
static struct guest *
open_on_ring(uint64_t features)
{
	struct guest_conf conf = on_ring;

	port_make("p", 1);
	conf.features = features;
	return guest_open(&conf);
}

static void
every_byte_is_sent_to_the_port(const struct shape *shape)
{
	static const uint32_t layouts[][3] = {{0}, {12, 0}, {12, 14, 0}, {1, 11, 0}};
	struct guest *g = open_on_ring(shape_features(shape));
	uint32_t number = 0, seen = 0;

	while (seen < 150) {
		unsigned int burst = 1 + number % 45, i;

		for (i = 0; i < burst; i++, number++) {
			const uint32_t *layout = layouts[number % DIM(layouts)];
			unsigned int n = 0;

			while (layout[n] != 0)
				n++;
			frame_make(&f, number, 14 + number * 37 % 1500);
			assert_true(tx_post(g, 1, &f, layout, n) >= 0);
		}
		mock_publish(&g->q[1].drv);
		queue_kick(g, 1);
		for (i = 0; i < burst; i++, seen++) {
			frame_make(&f, seen, 14 + seen * 37 % 1500);
			sent(0, &got);
			frames_equal(&got, &f);
		}
		tx_wait(g, 1, burst);
	}
	assert_int_equal(stat_of(g, 1, VFN_STAT_PACKETS), number);
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_SIZE), 0);
}

static void
every_byte_of_the_port_arrives(const struct shape *shape)
{
	struct guest *g = open_on_ring(shape_features(shape));
	uint32_t number = 0, seen = 0;

	while (seen < 150) {
		unsigned int burst = 1 + number % 45, i;

		rx_post(g, 0, burst, 2048, 1 + number % 3);
		for (i = 0; i < burst; i++, number++) {
			frame_make(&f, number, 14 + number * 37 % 1500);
			/* in up to 15 mbufs */
			inject(0, &f, number % 3 ? 2000 : 100);
		}
		for (i = 0; i < burst; i++, seen++) {
			frame_make(&f, seen, 14 + seen * 37 % 1500);
			rx_wait(g, 0, &got);
			frames_equal(&got, &f);
			assert_int_equal(got.hdr.num_buffers, 1);
			assert_int_equal(got.hdr.hdr.flags, 0);
		}
	}
	assert_int_equal(stat_of(g, 0, VFN_STAT_PACKETS), number);
	if (!shape->mergeable)
		return;
	/* over several buffers */
	rx_post(g, 0, 12, 128, 1);
	frame_make(&f, 1, 1500);
	inject(0, &f, 2000);
	rx_wait(g, 0, &got);
	frames_equal(&got, &f);
	assert_int_equal(got.hdr.num_buffers, 12);
}

static void
bad_frames_are_counted_on_their_side(const struct shape *shape)
{
	struct guest *g = open_on_ring(shape_features(shape));
	static const uint32_t lens[] = {10, 13, 1519, 2000};
	unsigned int i;

	for (i = 0; i < DIM(lens); i++) {
		frame_make(&f, i, lens[i]);
		tx_send(g, 1, &f);
		tx_wait(g, 1, 1);
		assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_SIZE), i + 1);
	}
	frame_make(&f, 1, 60);
	f.hdr.hdr.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM; /* not negotiated */
	assert_true(tx_post_bytes(g, 1, &f, 5) >= 0);
	tx_send(g, 1, &f);
	tx_wait(g, 1, 2);
	assert_int_equal(stat_of(g, 1, VFN_STAT_ERRORS_HEADER), 2);
	/* bad ones between good ones: order and counts hold */
	for (i = 0; i < 20; i++) {
		frame_make(&f, i, i % 4 == 1 ? 5 : 100 + i);
		assert_true(tx_post(g, 1, &f, NULL, 0) >= 0);
	}
	mock_publish(&g->q[1].drv);
	queue_kick(g, 1);
	tx_wait(g, 1, 20);
	for (i = 0; i < 20; i++) {
		if (i % 4 == 1)
			continue;
		frame_make(&f, i, 100 + i);
		sent(0, &got);
		frames_equal(&got, &f);
	}
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_SIZE), DIM(lens) + 5);

	/* runt; no buffer; buffer too small */
	frame_make(&f, 1, 13);
	inject(0, &f, 2000);
	ring_wait_empty(0);
	stat_wait(g, 0, VFN_STAT_DROPPED_SIZE, 1);
	frame_make(&f, 1, 600);
	inject(0, &f, 2000);
	stat_wait(g, 0, VFN_STAT_DROPPED_NO_BUFFER, 1);
	rx_post(g, 0, 1, 500, 1);
	inject(0, &f, 2000);
	stat_wait(g, 0, shape->mergeable ? VFN_STAT_DROPPED_NO_BUFFER : VFN_STAT_DROPPED_SIZE, 2);
	frame_make(&f, 1, 400);
	inject(0, &f, 2000);
	rx_wait(g, 0, &got);
	frames_equal(&got, &f);
	assert_int_equal(stat_of(g, 0, VFN_STAT_PACKETS), 1);
}

static uint16_t
sum16(const uint8_t *data, uint32_t len)
{
	uint32_t sum = 0, i;

	for (i = 0; i < len; i++)
		sum += i % 2 ? data[i] : data[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static void
partial_checksums_are_completed(void **state)
{
	struct guest *g = open_on_ring(BIT(VIRTIO_NET_F_CSUM));
	uint32_t len, sum;

	(void)state;
	for (len = 60; len < 70; len++) {
		frame_make(&f, len, len);
		f.hdr.hdr.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
		f.hdr.hdr.csum_start = 34;
		f.hdr.hdr.csum_offset = 6;
		tx_send(g, 1, &f);
		sent(0, &got);
		tx_wait(g, 1, 1);
		/* with the pseudo header's part, which was in its place, all ones */
		sum = sum16(got.data + 34, len - 34) + sum16(f.data + 40, 2);
		assert_int_equal((sum & 0xffff) + (sum >> 16), 0xffff);
		memcpy(got.data + 40, f.data + 40, 2);
		frames_equal(&got, &f);
	}
	/* outside the frame */
	f.hdr.hdr.csum_start = len - 2;
	tx_send(g, 1, &f);
	tx_wait(g, 1, 1);
	assert_int_equal(stat_of(g, 1, VFN_STAT_ERRORS_HEADER), 1);
}

static void
segmentation_is_not_offered(void **state)
{
	struct guest *g = guest_new(&on_ring),
		     *plain = guest_new(&(struct guest_conf){.name = "l"});
	const uint64_t gso = BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) |
		BIT(VIRTIO_NET_F_HOST_ECN) | BIT(VIRTIO_NET_F_HOST_UFO) |
		BIT(VIRTIO_NET_F_GUEST_TSO4) | BIT(VIRTIO_NET_F_GUEST_TSO6) |
		BIT(VIRTIO_NET_F_GUEST_ECN) | BIT(VIRTIO_NET_F_GUEST_UFO);

	(void)state;
	assert_true((guest_features(g) & gso) == 0);
	assert_true((guest_features(plain) & gso) == gso);
	assert_true((guest_features(g) | gso) == guest_features(plain));
}

static void
what_the_port_does_not_take_waits_in_order(const struct shape *shape)
{
	struct guest *g = open_on_ring(shape_features(shape));
	unsigned int i, room = rte_ring_get_capacity(from_fn[0]);

	for (i = 0; i < 150; i++) {
		frame_make(&f, i, 100 + i);
		assert_true(tx_post(g, 1, &f, NULL, 0) >= 0);
	}
	mock_publish(&g->q[1].drv);
	queue_kick(g, 1);
	stat_wait(g, 1, VFN_STAT_PACKETS, room);
	nap_us(3000);
	assert_int_equal(stat_of(g, 1, VFN_STAT_PACKETS), room);
	for (i = 0; i < 150; i++) {
		frame_make(&f, i, 100 + i);
		sent(0, &got);
		frames_equal(&got, &f);
	}
	tx_wait(g, 1, 150);
	assert_int_equal(stat_of(g, 1, VFN_STAT_PACKETS), 150);
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_NO_BUFFER), 0);
}

static void
port_that_takes_nothing_for_a_second_is_given_up(void **state)
{
	struct guest *g = open_on_ring(0);
	unsigned int i, room = rte_ring_get_capacity(from_fn[0]);

	(void)state;
	frame_make(&f, 1, 100);
	for (i = 0; i < room + 40; i++)
		assert_true(tx_post(g, 1, &f, NULL, 0) >= 0);
	mock_publish(&g->q[1].drv);
	queue_kick(g, 1);
	tx_wait(g, 1, room + 40);
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_NO_BUFFER), 40);
	assert_int_equal(stat_of(g, 1, VFN_STAT_PACKETS), room + 40);
}

static void
suspended_receive_queue_leaves_frames_in_the_port(const struct shape *shape)
{
	struct guest *g = open_on_ring(shape_features(shape));
	unsigned int i;

	rx_post(g, 0, 50, 2048, 1);
	queue_suspend(g, 0, true);
	for (i = 0; i < 50; i++) {
		frame_make(&f, i, 100 + i);
		inject(0, &f, 2000);
	}
	nap_us(1000);
	assert_int_equal(rte_ring_count(to_fn[0]), 50);
	/* the other direction goes on */
	frame_make(&f, 7, 70);
	tx_send(g, 1, &f);
	sent(0, &got);
	frames_equal(&got, &f);
	tx_wait(g, 1, 1);
	queue_suspend(g, 0, false);
	for (i = 0; i < 50; i++) {
		frame_make(&f, i, 100 + i);
		rx_wait(g, 0, &got);
		frames_equal(&got, &f);
	}
	assert_int_equal(stat_of(g, 0, VFN_STAT_DROPPED_NO_BUFFER), 0);
}

static void
filters_hold_for_frames_of_the_port(void **state)
{
	struct guest *g = open_on_ring(BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_CTRL_RX));
	static const uint8_t mac[] = {0x02, 'v', 'f', 'n', 't', 's'};

	(void)state;
	assert_int_equal(COMMAND(g, 2, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 0), 0);
	rx_post(g, 0, 2, 2048, 1);
	frame_make(&f, 1, 100);
	f.data[0] = 0x04;
	inject(0, &f, 2000);
	stat_wait(g, 0, VFN_STAT_DROPPED_FILTER, 1);
	memcpy(f.data, mac, 6);
	inject(0, &f, 10);
	rx_wait(g, 0, &got);
	frames_equal(&got, &f);
}

/* Who has used each queue of a port: 0 nobody, else a thread, or UINT32_MAX for more than one. */
struct users {
	uint32_t rx[MAX_QUEUES], tx[MAX_QUEUES];
};

static void
used_by(uint32_t *user)
{
	uint32_t self = gettid(), nobody = 0;

	if (!__atomic_compare_exchange_n(
		    user, &nobody, self, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED) &&
		nobody != self)
		__atomic_store_n(user, UINT32_MAX, __ATOMIC_RELAXED);
}

static uint16_t
on_tx(uint16_t port, uint16_t queue, struct rte_mbuf **m, uint16_t n, void *arg)
{
	(void)port;
	(void)m;
	used_by(&((struct users *)arg)->tx[queue]);
	return n;
}

static uint16_t
on_rx(uint16_t port, uint16_t queue, struct rte_mbuf **m, uint16_t n, uint16_t max, void *arg)
{
	(void)port;
	(void)m;
	(void)max;
	used_by(&((struct users *)arg)->rx[queue]);
	return n;
}

static void
pairs_share_the_queues_that_the_port_has(void **state)
{
	struct guest_conf conf = on_ring;
	/* one for each port: they may keep their callbacks */
	static struct users all[MAX_QUEUES];
	unsigned int queues, i;
	struct guest *g;
	uint16_t port;

	for (queues = 1; queues <= MAX_QUEUES; queues++) {
		struct users *users = &all[queues - 1];

		port_make("p", queues);
		conf.pairs = 3;
		conf.nb_cpus = nb_cpus;
		memcpy(conf.cpu, cpus, sizeof(conf.cpu));
		conf.features = BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_VQ);
		g = guest_open(&conf);
		guest_use_pairs(g, 2);
		rte_eth_dev_get_port_by_name("net_ring_p", &port);
		for (i = 0; i < queues && i < 3; i++) {
			assert_non_null(rte_eth_add_tx_callback(port, i, on_tx, users));
			assert_non_null(rte_eth_add_rx_callback(port, i, on_rx, users));
		}
		for (i = 0; i < 3; i++) {
			frame_make(&f, i, 100);
			tx_send(g, TXQ(i), &f);
			sent(i % (queues < 3 ? queues : 3), &got);
			frames_equal(&got, &f);
			tx_wait(g, TXQ(i), 1);
			rx_post(g, RXQ(i), 4, 2048, 1);
		}
		/* every queue of the port is received, by the pairs in use */
		for (i = 0; i < queues && i < 3; i++) {
			frame_make(&f, i, 100);
			inject(i, &f, 2000);
			rx_wait(g, RXQ(i % 2), &got);
			frames_equal(&got, &f);
			assert_int_not_equal(users->rx[i], UINT32_MAX);
			assert_int_not_equal(users->tx[i], UINT32_MAX);
			assert_int_not_equal(users->tx[i], 0);
		}
		teardown(state);
	}
}

static void
port_is_owned_while_the_function_has_it(void **state)
{
	struct rte_eth_dev_owner owner;
	struct guest *g = open_on_ring(0);
	uint16_t port, p;

	(void)state;
	assert_int_equal(rte_eth_dev_get_port_by_name("net_ring_p", &port), 0);
	assert_int_equal(rte_eth_dev_owner_get(port, &owner), 0);
	assert_string_equal(owner.name, "fn");
	RTE_ETH_FOREACH_DEV(p)
	assert_int_not_equal(p, port);
	guest_close(g);
	assert_int_equal(rte_eth_dev_owner_get(port, &owner), 0);
	assert_int_equal(owner.id, RTE_ETH_DEV_NO_OWNER);
	/* and again */
	g = guest_open(&on_ring);
	frame_make(&f, 1, 100);
	tx_send(g, 1, &f);
	sent(0, &got);
	frames_equal(&got, &f);
}

static void
port_in_use_leaves_the_link_down(void **state)
{
	struct rte_eth_dev_owner owner = {.name = "somebody"};
	struct rte_eth_conf conf = {0};
	struct guest *g;
	uint16_t port;

	(void)state;
	port_make("p", 1);
	rte_eth_dev_get_port_by_name("net_ring_p", &port);
	assert_int_equal(rte_eth_dev_owner_new(&owner.id), 0);
	assert_int_equal(rte_eth_dev_owner_set(port, &owner), 0);
	g = guest_open(&on_ring);
	assert_false(link_is_up(g));
	frame_make(&f, 1, 100);
	tx_send(g, 1, &f);
	tx_wait(g, 1, 1);
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_NO_PEER), 1);
	assert_int_equal(rte_eth_dev_owner_unset(port, owner.id), 0);
	/* started by somebody who does not care to own it */
	assert_int_equal(rte_eth_dev_configure(port, 1, 1, &conf), 0);
	assert_int_equal(rte_eth_rx_queue_setup(port, 0, 64, 0, NULL, pool), 0);
	assert_int_equal(rte_eth_tx_queue_setup(port, 0, 64, 0, NULL), 0);
	assert_int_equal(rte_eth_dev_start(port), 0);
	guest_reset(g);
	guest_start(g);
	assert_false(link_is_up(g));
	assert_int_equal(rte_eth_dev_stop(port), 0);
	guest_reset(g);
	guest_start(g);
	assert_true(link_is_up(g));
	tx_send(g, 1, &f);
	sent(0, &got);
	frames_equal(&got, &f);
}

static void
one_port_is_given_to_one_function(void **state)
{
	const struct guest_conf second = {
		.name = "b", .wiring = VFN_WIRING_ETHDEV, .ethdev = "net_ring_p"};
	struct vfn_function *fn;
	struct vfn_link *link;
	struct guest *g = guest_new(&on_ring);

	(void)state;
	assert_int_equal(function_open(&second, &fn, &link), -EBUSY);
	guest_close(g);
	assert_int_equal(function_open(&second, &fn, &link), 0);
	link->ops->close(link);
}

/* The guest is there first. */
static void
port_may_come_and_go(void **state)
{
	struct guest *g = guest_open(&on_ring);
	unsigned int i;

	(void)state;
	rx_post(g, 0, 100, 2048, 1);
	for (i = 1; i <= 3; i++) {
		assert_false(link_is_up(g));
		frame_make(&f, i, 100);
		tx_send(g, 1, &f);
		tx_wait(g, 1, 1);
		assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_NO_PEER), i);
		port_make("p", 1);
		link_wait(g, true);
		tx_send(g, 1, &f);
		sent(0, &got);
		frames_equal(&got, &f);
		tx_wait(g, 1, 1);
		inject(0, &f, 2000);
		rx_wait(g, 0, &got);
		frames_equal(&got, &f);
		port_remove("net_ring_p");
	}
	assert_false(link_is_up(g));
}

/* Frames both ways while the port goes: the poller looks at it all the time. */
static void
port_goes_while_it_is_used(void **state)
{
	struct guest *g = guest_new(&on_ring);
	unsigned int round, i;

	for (round = 0; round < 10; round++) {
		struct mock_used used;

		port_make("p", 1);
		if (round == 0)
			guest_start(g);
		link_wait(g, true);
		rx_post(g, 0, 20, 2048, 1);
		frame_make(&f, round, 100);
		for (i = 0; i < 60; i++) {
			inject(0, &f, 2000);
			assert_true(tx_post(g, 1, &f, NULL, 0) >= 0);
		}
		mock_publish(&g->q[1].drv);
		queue_kick(g, 1);
		nap_us(round * 10);
		port_remove("net_ring_p");
		link_wait(g, false);
		tx_wait(g, 1, 60);
		while (rx_try(g, 0, &got, 0))
			frames_equal(&got, &f);
		queue_reset(g, 0);
		g->heap = HEAP_AT + (g->heap_end - HEAP_AT) / 2;
		queue_setup(g, 0);
		while (used_try(g, 0, &used, 0))
			;
		for (i = 0; i < 2; i++) {
			struct rte_mbuf *m;

			while (rte_ring_dequeue(i ? to_fn[0] : from_fn[0], (void **)&m) == 0)
				rte_pktmbuf_free(m);
		}
	}
	(void)state;
}

static void
unplugged_function_passes_nothing(void **state)
{
	struct guest *g = open_on_ring(0);

	(void)state;
	rx_post(g, 0, 2, 2048, 1);
	vfn_manage_link(g->fn, false);
	assert_false(link_is_up(g));
	frame_make(&f, 1, 100);
	inject(0, &f, 2000);
	tx_send(g, 1, &f);
	tx_wait(g, 1, 1);
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_NO_PEER), 1);
	assert_false(rx_try(g, 0, &got, 3));
	vfn_manage_link(g->fn, true);
	assert_true(link_is_up(g));
	rx_wait(g, 0, &got);
}

static void
jumbo_frames_pass_where_the_mtu_says_so(void **state)
{
	struct guest_conf conf = on_ring;
	struct guest *g;

	(void)state;
	port_make("p", 1);
	conf.mtu = 9000;
	conf.buf_len = 9100;
	conf.features = BIT(VIRTIO_NET_F_MTU);
	g = guest_open(&conf);
	frame_make(&f, 1, 9018);
	tx_send(g, 1, &f);
	sent(0, &got);
	frames_equal(&got, &f);
	rx_post(g, 0, 1, 9100, 1);
	inject(0, &f, 2000);
	rx_wait(g, 0, &got);
	frames_equal(&got, &f);
	frame_make(&f, 1, 9019);
	tx_send(g, 1, &f);
	tx_wait(g, 1, 2);
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_SIZE), 1);
}

int
main(void)
{
#define TEST(test) cmocka_unit_test_teardown(test, teardown)
	const struct CMUnitTest tests[] = {
		TEST(partial_checksums_are_completed),
		TEST(segmentation_is_not_offered),
		TEST(port_that_takes_nothing_for_a_second_is_given_up),
		TEST(filters_hold_for_frames_of_the_port),
		TEST(pairs_share_the_queues_that_the_port_has),
		TEST(port_is_owned_while_the_function_has_it),
		TEST(port_in_use_leaves_the_link_down),
		TEST(one_port_is_given_to_one_function),
		TEST(port_may_come_and_go),
		TEST(port_goes_while_it_is_used),
		TEST(unplugged_function_passes_nothing),
		TEST(jumbo_frames_pass_where_the_mtu_says_so),
	};
#undef TEST
	static const struct shaped_test shaped[] = {
		SHAPED(every_byte_is_sent_to_the_port),
		SHAPED(every_byte_of_the_port_arrives),
		SHAPED(bad_frames_are_counted_on_their_side),
		SHAPED(what_the_port_does_not_take_waits_in_order),
		SHAPED(suspended_receive_queue_leaves_frames_in_the_port),
	};
	cpu_set_t set;
	unsigned int i;

	shaped_teardown = teardown;
	if (fn_eal_init(NULL) < 0)
		return 1;
	sched_getaffinity(0, sizeof(set), &set);
	for (i = 0; i < CPU_SETSIZE && nb_cpus < 2; i++)
		if (CPU_ISSET(i, &set))
			cpus[nb_cpus++] = i;
	pool = rte_pktmbuf_pool_create("test", 1023, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE, 0);
	if (pool == NULL)
		return 1;
	for (i = 0; i < MAX_QUEUES; i++) {
		char name[16];

		snprintf(name, sizeof(name), "to%u", i);
		to_fn[i] = rte_ring_create(name, RING, 0, 0);
		snprintf(name, sizeof(name), "from%u", i);
		from_fn[i] = rte_ring_create(name, RING, 0, 0);
		if (to_fn[i] == NULL || from_fn[i] == NULL)
			return 1;
	}
	return run_list("ethdev", tests, DIM(tests), shaped, DIM(shaped));
}
