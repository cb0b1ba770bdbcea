/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The control queue and steering over several queue pairs (virtio 1.3, 5.1.6.5). */

#include "fn_harness.h"

#define RXMODE (BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_CTRL_RX))
#define MQ     (BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_MQ))
#define PAIRS  4
#define CTRL   (2 * PAIRS)

static struct frame f, got;

static struct guest *
four_pairs(uint64_t features)
{
	struct guest *g =
		guest_open(&(struct guest_conf){.pairs = PAIRS, .size = 64, .features = features});
	unsigned int i;

	for (i = 0; i < PAIRS; i++)
		rx_post(g, RXQ(i), 32, 2048, 1);
	return g;
}

static uint8_t
set_pairs(struct guest *g, uint16_t pairs)
{
	uint8_t cmd[] = {VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, pairs, pairs >> 8};

	return command_on(g, CTRL, cmd, sizeof(cmd));
}

static void
receive_modes_are_acknowledged(const struct shape *shape)
{
	struct guest *g = four_pairs(shape_features(shape) | RXMODE | MQ);

	assert_int_equal(COMMAND(g, CTRL, 0, VIRTIO_NET_CTRL_RX_PROMISC, 1), VIRTIO_NET_OK);
	assert_int_equal(COMMAND(g, CTRL, 0, VIRTIO_NET_CTRL_RX_PROMISC, 0), VIRTIO_NET_OK);
	assert_int_equal(COMMAND(g, CTRL, 0, VIRTIO_NET_CTRL_RX_ALLMULTI, 1), VIRTIO_NET_OK);
	assert_int_equal(COMMAND(g, CTRL, 0, VIRTIO_NET_CTRL_RX_ALLMULTI, 2), VIRTIO_NET_ERR);
	assert_int_equal(COMMAND(g, CTRL, 0, VIRTIO_NET_CTRL_RX_PROMISC), VIRTIO_NET_ERR);
	assert_int_equal(COMMAND(g, CTRL, 0, VIRTIO_NET_CTRL_RX_PROMISC, 1, 1), VIRTIO_NET_ERR);
	/* these need CTRL_RX_EXTRA, which was not negotiated */
	assert_int_equal(COMMAND(g, CTRL, 0, VIRTIO_NET_CTRL_RX_ALLUNI, 1), VIRTIO_NET_ERR);
	assert_int_equal(COMMAND(g, CTRL, 0, 255, 1), VIRTIO_NET_ERR);
	assert_int_equal(stat_of(g, CTRL, VFN_STAT_PACKETS), 8);
}

static void
commands_of_features_not_negotiated_are_errors(void **state)
{
	static const uint8_t promisc[] = {0, 0, 1}, pairs[] = {4, 0, 1, 0};
	struct guest *g = four_pairs(MQ);

	(void)state;
	assert_int_equal(COMMAND(g, CTRL, 0, VIRTIO_NET_CTRL_RX_PROMISC, 1), VIRTIO_NET_ERR);
	guest_close(g);
	/* without MQ the control queue is number 2, where a receive queue would be with it */
	g = guest_open(&(struct guest_conf){
		.pairs = PAIRS, .features = RXMODE, .size = 64, .used_pairs = 1});
	assert_int_equal(command_on(g, 2, pairs, sizeof(pairs)), VIRTIO_NET_ERR);
	assert_int_equal(command_on(g, 2, promisc, sizeof(promisc)), VIRTIO_NET_OK);
}

static void
impossible_numbers_of_pairs_change_nothing(void **state)
{
	struct guest *g = four_pairs(MQ);

	(void)state;
	assert_int_equal(set_pairs(g, 3), VIRTIO_NET_OK);
	assert_int_equal(pairs_in_use(g), 3);
	assert_int_equal(set_pairs(g, 0), VIRTIO_NET_ERR);
	assert_int_equal(set_pairs(g, PAIRS + 1), VIRTIO_NET_ERR);
	assert_int_equal(set_pairs(g, 0x0100), VIRTIO_NET_ERR);
	assert_int_equal(set_pairs(g, 0xffff), VIRTIO_NET_ERR);
	assert_int_equal(COMMAND(g, CTRL, 4, 0), VIRTIO_NET_ERR);
	assert_int_equal(COMMAND(g, CTRL, 4, 0, 1), VIRTIO_NET_ERR);
	assert_int_equal(COMMAND(g, CTRL, 4, 0, 1, 0, 0), VIRTIO_NET_ERR);
	assert_int_equal(COMMAND(g, CTRL, 4, 1, 1, 0), VIRTIO_NET_ERR); /* RSS */
	assert_int_equal(pairs_in_use(g), 3);
}

static void
frames_are_steered_to_the_pairs_in_use(const struct shape *shape)
{
	static const uint16_t in_use[] = {4, 1, 2, 3, 4};
	struct guest *g = four_pairs(shape_features(shape) | MQ);
	unsigned int i, pair, n = 0;

	for (i = 0; i < DIM(in_use); i++) {
		assert_int_equal(set_pairs(g, in_use[i]), VIRTIO_NET_OK);
		for (pair = 0; pair < PAIRS; pair++) {
			frame_make(&f, n++, 100);
			frame_passes(g, TXQ(pair), g, RXQ(pair % in_use[i]), &f);
		}
	}
}

static void
pairs_in_use_without_a_ring_get_nothing(void **state)
{
	struct guest *g = four_pairs(MQ | BIT(VIRTIO_F_RING_PACKED));
	struct mock_used used;
	unsigned int pair, n = 0;

	(void)state;
	assert_int_equal(set_pairs(g, PAIRS), VIRTIO_NET_OK);
	queue_reset(g, RXQ(1));
	for (pair = 0; pair < PAIRS; pair++) {
		frame_make(&f, pair, 100);
		tx_send(g, TXQ(pair), &f);
		tx_wait(g, TXQ(pair), 1);
	}
	for (pair = 0; pair < PAIRS; pair++)
		while (pair != 1 && used_try(g, RXQ(pair), &used, 0))
			n++;
	assert_int_equal(n, PAIRS);
	assert_false(used_try(g, RXQ(1), &used, 0));
}

static void
malformed_commands_are_errors(const struct shape *shape)
{
	struct guest *g = four_pairs(shape_features(shape) | RXMODE | MQ);
	static uint8_t big[2 + 257] = {0, 0, 1};
	struct mock_used used;
	uint8_t ack;
	int id;

	assert_int_equal(COMMAND(g, CTRL, 0), VIRTIO_NET_ERR); /* half a header */
	assert_int_equal(COMMAND(g, CTRL, 6, 0, 1), VIRTIO_NET_ERR);
	assert_int_equal(COMMAND(g, CTRL, 255, 0, 1), VIRTIO_NET_ERR);
	assert_int_equal(COMMAND(g, CTRL, VIRTIO_NET_CTRL_VLAN, 0, 1, 0), VIRTIO_NET_ERR);
	/* a MAC table that says it has 2^32 - 1 entries */
	assert_int_equal(
		COMMAND(g, CTRL, VIRTIO_NET_CTRL_MAC, 0, 255, 255, 255, 255), VIRTIO_NET_ERR);
	/* longer than it says, a good one in front */
	id = command_post(g, CTRL, big, sizeof(big), 100, 1);
	assert_true(used_try(g, CTRL, &used, PATIENCE_MS));
	assert_true(
		mock_mem_read(&g->mem, mock_buf_addr(&g->q[CTRL].drv, id, sizeof(big)), &ack, 1));
	assert_int_equal(ack, VIRTIO_NET_ERR);
	/* nothing but the byte for the answer */
	id = command_post(g, CTRL, big, 0, 1, 1);
	assert_true(used_try(g, CTRL, &used, PATIENCE_MS));
	assert_int_equal(used.len, 1);
	assert_true(mock_mem_read(&g->mem, mock_buf_addr(&g->q[CTRL].drv, id, 0), &ack, 1));
	assert_int_equal(ack, VIRTIO_NET_ERR);
	assert_int_equal(COMMAND(g, CTRL, 0, VIRTIO_NET_CTRL_RX_PROMISC, 1), VIRTIO_NET_OK);
}

static void
command_without_room_for_an_answer_is_handed_back(const struct shape *shape)
{
	static const uint8_t pairs[] = {4, 0, 2, 0};
	struct guest *g = four_pairs(shape_features(shape) | RXMODE | MQ);
	struct mock_used used;

	command_post(g, CTRL, pairs, sizeof(pairs), 4, 0);
	assert_true(used_try(g, CTRL, &used, PATIENCE_MS));
	assert_int_equal(used.len, 0);
	assert_int_equal(pairs_in_use(g), 1);
	assert_int_equal(stat_of(g, CTRL, VFN_STAT_ERRORS_DIRECTION), 1);
	assert_int_equal(COMMAND(g, CTRL, 0, VIRTIO_NET_CTRL_RX_PROMISC, 1), VIRTIO_NET_OK);
}

static void
command_that_is_not_mapped_is_counted_for_that_only(void **state)
{
	struct guest *g = four_pairs(MQ);
	struct mock_buf buf[2] = {
		{.len = 4, .fixed = true, .iova = FREE_AT}, {.len = 1, .write = true}};
	struct mock_used used;

	(void)state;
	assert_true(mock_post(&g->q[CTRL].drv, buf, 2, 0, 0) >= 0);
	mock_publish(&g->q[CTRL].drv);
	queue_kick(g, CTRL);
	assert_true(used_try(g, CTRL, &used, PATIENCE_MS));
	assert_int_equal(used.len, 0);
	assert_int_equal(stat_of(g, CTRL, VFN_STAT_ERRORS_ADDR), 1);
	assert_int_equal(stat_of(g, CTRL, VFN_STAT_ERRORS_DIRECTION), 0);
}

static void
many_commands_at_once_are_all_answered(void **state)
{
	static const uint8_t promisc[] = {0, 0, 1};
	struct guest *g = four_pairs(RXMODE | MQ);
	struct mock_used used;
	unsigned int round, i;

	(void)state;
	for (round = 0; round < 5; round++) {
		for (i = 0; i < 20; i++)
			command_post(g, CTRL, promisc, sizeof(promisc), 3, 1);
		for (i = 0; i < 20; i++) {
			assert_true(used_try(g, CTRL, &used, PATIENCE_MS));
			assert_int_equal(used.len, 1);
		}
	}
	assert_int_equal(stat_of(g, CTRL, VFN_STAT_PACKETS), 100);
}

static void
answers_are_told_by_an_interrupt(void **state)
{
	struct guest *g = four_pairs(RXMODE | MQ);
	uint64_t count = 0;

	(void)state;
	mock_events_enable(&g->q[CTRL].drv, 0);
	assert_int_equal(COMMAND(g, CTRL, 0, VIRTIO_NET_CTRL_RX_PROMISC, 1), VIRTIO_NET_OK);
	stat_wait(g, CTRL, VFN_STAT_CALLS, 1);
	assert_int_equal(read(g->q[CTRL].call, &count, sizeof(count)), sizeof(count));
	assert_int_equal(count, 1);
}

/*
 * A driver that makes commands available without end gets so many at once and then so many in a
 * millisecond: the control lock, and the pollers, are others' as well.
 */
static void
endless_commands_are_carried_out_at_a_pace(void **state)
{
	struct guest *other = guest_open(&(struct guest_conf){.name = "other"});
	struct guest *g = guest_open(&(struct guest_conf){
		.name = "endless", .size = 1024, .buf_len = 64, .features = RXMODE});
	struct mock_driver *d = &g->q[2].drv;
	uint64_t start = now_ms(), end, done;
	uint16_t used, head;
	unsigned int i;

	(void)state;
	head = command_post(g, 2, "\0\0\1", 3, 3, 1);
	stat_wait(g, 2, VFN_STAT_PACKETS, 1);
	for (i = 0; i < d->cfg.size; i++)
		d->avail_ring->ring[i] = head;
	for (end = start + 300; now_ms() < end;) {
		used = __atomic_load_n(&d->used_ring->idx, __ATOMIC_ACQUIRE);
		__atomic_store_n(
			&d->avail_ring->idx, (uint16_t)(used + d->cfg.size), __ATOMIC_RELEASE);
		assert_int_equal(CGET(other, num_queues), 3);
	}
	done = stat_of(g, 2, VFN_STAT_PACKETS);
	assert_in_range(done, 32, 16 * (66 + now_ms() - start));
	guest_reset(g);
}

static void
no_frame_is_lost_while_pairs_change(void **state)
{
	struct guest *g = four_pairs(MQ);
	unsigned int round, pair, arrived = 0, sent = 0;

	(void)state;
	for (round = 0; round < 60; round++) {
		for (pair = 0; pair < PAIRS; pair++, sent++) {
			frame_make(&f, sent, 60 + sent);
			tx_send(g, TXQ(pair), &f);
		}
		assert_int_equal(set_pairs(g, 1 + round % PAIRS), VIRTIO_NET_OK);
		for (pair = 0; pair < PAIRS; pair++)
			tx_wait(g, TXQ(pair), 1);
		for (pair = 0; pair < PAIRS; pair++) {
			while (rx_try(g, RXQ(pair), &got, 0)) {
				uint32_t number;

				memcpy(&number, got.data, sizeof(number));
				frame_make(&f, number, 60 + number);
				frames_equal(&got, &f);
				arrived++;
				rx_post(g, RXQ(pair), 1, 2048, 1);
			}
		}
	}
	assert_int_equal(arrived, sent);
}

static void
hostile_control_queue_stops_alone(void **state)
{
	struct guest *g = four_pairs(RXMODE | MQ);

	(void)state;
	g->q[CTRL].drv.avail_ring->idx = 65;
	queue_kick_always(g, CTRL);
	stat_wait(g, CTRL, VFN_STAT_ERRORS_AVAIL_IDX, 1);
	frame_make(&f, 1, 100);
	frame_passes(g, TXQ(0), g, RXQ(0), &f);
	queue_reset(g, CTRL);
	queue_lay(g, CTRL, 0, 0);
	assert_true(queue_enable(g, CTRL));
	assert_int_equal(COMMAND(g, CTRL, 0, VIRTIO_NET_CTRL_RX_PROMISC, 1), VIRTIO_NET_OK);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(commands_of_features_not_negotiated_are_errors),
		PLAIN(impossible_numbers_of_pairs_change_nothing),
		PLAIN(pairs_in_use_without_a_ring_get_nothing),
		PLAIN(command_that_is_not_mapped_is_counted_for_that_only),
		PLAIN(many_commands_at_once_are_all_answered),
		PLAIN(answers_are_told_by_an_interrupt),
		PLAIN(endless_commands_are_carried_out_at_a_pace),
		PLAIN(no_frame_is_lost_while_pairs_change),
		PLAIN(hostile_control_queue_stops_alone),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(receive_modes_are_acknowledged),
		SHAPED(frames_are_steered_to_the_pairs_in_use),
		SHAPED(malformed_commands_are_errors),
		SHAPED(command_without_room_for_an_answer_is_handed_back),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("control", tests, DIM(tests), shaped, DIM(shaped));
}
