/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* A queue's position over suspend, reset and restart, and the DMA map table under it. */

#include <sys/mman.h>

#include "endpoint_link.h"
#include "fn_harness.h"

#define RESET	BIT(VIRTIO_F_RING_RESET)
#define MINE_AT FREE_AT
#define PAGE	4096

static struct guest_conf one_pair;
static struct frame f, got;

static void
send_quietly(struct guest *g, unsigned int queue, uint32_t first, unsigned int n)
{
	for (; n > 0; n--, first++) {
		frame_make(&f, first, 60 + first % 900);
		assert_true(tx_post(g, queue, &f, NULL, 0) >= 0);
	}
	mock_publish(&g->q[queue].drv);
	queue_kick(g, queue);
}

/* Frames first, first + 1, ... arrive, whole and in order. */
static void
receive(struct guest *g, unsigned int queue, uint32_t first, unsigned int n)
{
	for (; n > 0; n--, first++) {
		frame_make(&f, first, 60 + first % 900);
		rx_wait(g, queue, &got);
		frames_equal(&got, &f);
	}
}

/* ---- suspend and restart ---- */

/* Where the driver thinks that the device stands, in the form of the state registers. */
static uint16_t
position(struct guest *g, unsigned int queue)
{
	return mock_used_position(&g->q[queue].drv, 0);
}

static void
suspended_queue_stands_still_and_loses_nothing(const struct shape *shape)
{
	struct guest *g = guest_open(&(struct guest_conf){.features = shape_features(shape)});
	uint64_t len = g->heap_end - HEAP_AT;
	uint8_t *before = malloc(len);
	struct vringh_state tx, rx;

	assert_non_null(before);
	rx_post(g, 0, 100, 2048, 1);
	send_quietly(g, 1, 0, 40);
	/* somewhere in the middle of it */
	queue_suspend(g, 1, true);
	tx = queue_state(g, 1);
	queue_suspend(g, 0, true);
	rx = queue_state(g, 0);
	assert_int_equal(tx.avail, tx.used);
	assert_int_equal(rx.avail, rx.used);
	send_quietly(g, 1, 40, 20);
	queue_kick_always(g, 0);
	queue_kick_always(g, 1);
	assert_true(mock_mem_read(&g->mem, HEAP_AT, before, len));
	nap_us(5000);
	assert_memory_equal(mock_mem_at(&g->mem, HEAP_AT, len), before, len);
	free(before);
	assert_int_equal(queue_state(g, 1).used, tx.used);
	assert_int_equal(queue_state(g, 0).used, rx.used);
	/* the receiver first, then the sender; neither needs another kick */
	queue_suspend(g, 0, false);
	queue_suspend(g, 1, false);
	receive(g, 0, 0, 60);
	tx_wait(g, 1, 60);
	queue_suspend(g, 0, true);
	queue_suspend(g, 1, true);
	assert_int_equal(queue_state(g, 0).used, position(g, 0));
	assert_int_equal(queue_state(g, 1).used, position(g, 1));
	assert_int_equal(queue_state(g, 0).avail, position(g, 0));
	assert_int_equal(queue_state(g, 1).avail, position(g, 1));
}

static void
position_handed_back_continues_the_ring(const struct shape *shape)
{
	struct guest *g =
		guest_open(&(struct guest_conf){.features = shape_features(shape), .size = 32});
	struct vringh_state s[2];
	unsigned int round, q;

	/* Suspend, read, reset, set, enable: a migration from here to here, over several laps. */
	for (round = 0; round < 12; round++) {
		uint32_t first = 20 * round;

		rx_post(g, 0, 7, 2048, 1);
		send_quietly(g, 1, first, 7);
		/* the sender first: without a receiver frames are dropped */
		for (q = 2; q-- > 0;) {
			queue_suspend(g, q, true);
			s[q] = queue_state(g, q);
			assert_int_equal(s[q].avail, s[q].used);
			queue_reset(g, q);
		}
		for (q = 0; q < 2; q++) {
			CSET(g, queue_select, q);
			VSET(g, queue_avail, s[q].avail);
			VSET(g, queue_used, s[q].used);
			assert_true(queue_enable(g, q));
		}
		receive(g, 0, first, 7);
		tx_wait(g, 1, 7);
	}
}

static void
start_position_is_taken_from_the_registers(const struct shape *shape)
{
	static const uint16_t split[] = {1, 255, 256, 0x7fff, 0xfffd, 0xffff};
	static const uint16_t packed[] = {0x8001, 0x80fe, 0x80ff, 0, 1, 0xff};
	unsigned int i, q;

	for (i = 0; i < DIM(split); i++) {
		struct guest *g = guest_new(&one_pair);
		uint16_t start = shape->packed ? packed[i] : split[i];

		assert_int_equal(
			guest_negotiate(g, shape_features(shape) | RESET | BIT(VIRTIO_F_VERSION_1)),
			0);
		for (q = 0; q < 2; q++) {
			queue_lay(g, q, 0, start);
			CSET(g, queue_select, q);
			VSET(g, queue_avail, start);
			VSET(g, queue_used, start);
			assert_int_equal(VGET(g, queue_avail), start);
			assert_true(queue_enable(g, q));
			assert_int_equal(queue_state(g, q).used, start);
		}
		guest_driver_ok(g);
		rx_post(g, 0, 10, 2048, 1);
		send_quietly(g, 1, 0, 10);
		queue_kick_always(g, 1);
		receive(g, 0, 0, 10);
		tx_wait(g, 1, 10);
		guest_close(g);
	}
}

/* A ring that is moved: reset while suspended. Not a frame to it is dropped, until it is given up.
 */
static void
senders_wait_for_a_ring_that_moves(const struct shape *shape)
{
	struct guest *g = guest_open(&(struct guest_conf){.features = shape_features(shape)});
	struct vringh_state s;

	rx_post(g, 0, 20, 2048, 1);
	queue_suspend(g, 0, true);
	s = queue_state(g, 0);
	queue_reset(g, 0);
	send_quietly(g, 1, 0, 5);
	queue_kick_always(g, 1);
	nap_us(3000);
	assert_int_equal(stat_of(g, 1, VFN_STAT_PACKETS), 0);
	CSET(g, queue_select, 0);
	VSET(g, queue_avail, s.avail);
	VSET(g, queue_used, s.used);
	assert_true(queue_enable(g, 0));
	receive(g, 0, 0, 5);
	tx_wait(g, 1, 5);
	queue_suspend(g, 0, true);
	queue_reset(g, 0);
	send_quietly(g, 1, 5, 5);
	queue_reset(g, 0);
	tx_wait(g, 1, 5);
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_NO_PEER), 5);
}

static void
suspending_what_is_off_or_twice_is_nothing(void **state)
{
	struct guest *g = guest_open(&one_pair);

	(void)state;
	queue_reset(g, 1);
	VSET(g, queue_suspend, 1);
	assert_int_equal(VGET(g, queue_suspend), 0);
	queue_suspend(g, 0, true);
	queue_suspend(g, 0, true);
	queue_suspend(g, 0, false);
	queue_suspend(g, 0, false);
	queue_suspend(g, 0, true);
	queue_reset(g, 0);
	assert_int_equal(VGET(g, queue_suspend), 0);
}

static void
broken_queue_keeps_its_state_over_suspend(void **state)
{
	struct guest *g = guest_open(&one_pair);

	(void)state;
	rx_post(g, 0, 5, 2048, 1);
	send_quietly(g, 1, 0, 5);
	receive(g, 0, 0, 5);
	tx_wait(g, 1, 5);
	g->q[1].drv.avail_ring->idx = 5 + 257;
	queue_kick_always(g, 1);
	stat_wait(g, 1, VFN_STAT_ERRORS_AVAIL_IDX, 1);
	queue_suspend(g, 1, true);
	assert_int_equal(queue_state(g, 1).avail, 5);
	assert_int_equal(queue_state(g, 1).used, 5);
	queue_suspend(g, 1, false);
	assert_int_equal(VGET(g, queue_error), VRINGH_E_AVAIL_IDX);
}

/* ---- the map table ---- */

static int
map_only(struct guest *g, uint64_t iova, uint64_t len)
{
	static uint8_t host[16];

	return g->link->ops->dma_map(g->link,
		&(struct vfn_dma_map){.iova = iova,
			.len = len,
			.host = host,
			.fd = -1,
			.readable = true,
			.writable = true});
}

static void
overlapping_maps_are_refused(void **state)
{
	/* around one map of 0x2000 at 0x10000 */
	static const struct {
		uint64_t iova, len;
		int ret;
	} t[] = {
		{0x10000, 0x2000, -EEXIST},
		{0x10000, 1, -EEXIST},
		{0x11fff, 1, -EEXIST},
		{0xffff, 2, -EEXIST},
		{0xf000, 0x10000, -EEXIST},
		{0x11fff, 2, -EEXIST},
		{0, UINT64_MAX, -EEXIST},
		{0x10800, 0x100, -EEXIST},
		{0xffff, 1, 0},
		{0x12000, 1, 0},
		{0xf000, 0xfff, 0},
		{0x12001, 0xfff, 0},
		{0xf000, 1, -EEXIST},
		{0xe000, 0x4001, -EEXIST},
		{0, 1, 0},
		{UINT64_MAX - 4095, 4096, 0},
		{UINT64_MAX, 1, -EEXIST},
	};
	struct guest *g = guest_new(&one_pair);
	size_t i;

	(void)state;
	if (over_endpoint())
		return; /* addresses without memory */
	assert_int_equal(map_only(g, 0x10000, 0x2000), 0);
	for (i = 0; i < DIM(t); i++)
		if (map_only(g, t[i].iova, t[i].len) != t[i].ret)
			fail_msg("map %zu", i);
}

static void
senseless_maps_are_refused(void **state)
{
	struct guest *g = guest_new(&one_pair);

	(void)state;
	if (over_endpoint())
		return; /* addresses without memory */
	assert_int_equal(map_only(g, 0x10000, 0), -EINVAL);
	assert_int_equal(map_only(g, UINT64_MAX, 2), -EINVAL);
	assert_int_equal(map_only(g, 0x1000, UINT64_MAX), -EINVAL);
	assert_int_equal(
		g->link->ops->dma_map(g->link,
			&(struct vfn_dma_map){.iova = 0, .len = 4096, .fd = -1, .readable = true}),
		-EINVAL);
	assert_int_equal(g->link->ops->dma_unmap(g->link, VFN_DMA_GUEST, 0x1000, 0), -EINVAL);
	assert_int_equal(
		g->link->ops->dma_unmap(g->link, VFN_DMA_GUEST, 0x1000, UINT64_MAX), -EINVAL);
}

static void
unmapping_takes_whole_maps_only(void **state)
{
	struct guest *g = guest_new(&one_pair);

	(void)state;
	if (over_endpoint())
		return; /* addresses without memory */
	assert_int_equal(map_only(g, 0x10000, 0x2000), 0);
	assert_int_equal(map_only(g, 0x20000, 0x1000), 0);
	assert_int_equal(map_only(g, 0x21000, 0x1000), 0);
#define UNMAP(iova, len) g->link->ops->dma_unmap(g->link, VFN_DMA_GUEST, iova, len)
	assert_int_equal(UNMAP(0x10000, 0x1fff), -EINVAL);
	assert_int_equal(UNMAP(0x10001, 0x1fff), -EINVAL);
	assert_int_equal(UNMAP(0x10800, 1), -EINVAL);
	assert_int_equal(UNMAP(0xf000, 0x1001), -EINVAL);
	/* the first inside, the last cut: neither goes */
	assert_int_equal(UNMAP(0x10000, 0x10001), -EINVAL);
	assert_int_equal(map_only(g, 0x10000, 1), -EEXIST);
	/* nothing there is nothing to do */
	assert_int_equal(UNMAP(0x12000, 0x1000), 0);
	assert_int_equal(UNMAP(0xf000, 0x12000), 0);
	assert_int_equal(map_only(g, 0x10000, 1), 0);
	assert_int_equal(map_only(g, 0x20000, 1), 0);
	assert_int_equal(map_only(g, 0x21000, 1), -EEXIST);
	assert_int_equal(UNMAP(0, UINT64_MAX), 0);
	assert_int_equal(map_only(g, 0x21000, 1), 0);
#undef UNMAP
}

static void *mine;

/* Two pairs, wired in loopback; the second one's transmit ring is in a map of its own. */
static struct guest *
with_a_ring_of_its_own(uint64_t features)
{
	struct guest *g = guest_new(&(struct guest_conf){.pairs = 2,
		.features = features | BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_VQ)});

	guest_start(g);
	guest_use_pairs(g, 2);
	mine = guest_map(g, MINE_AT, ring_bytes(g), VRINGH_PERM_RW);
	queue_reset(g, TXQ(1));
	queue_lay(g, TXQ(1), MINE_AT, features & BIT(VIRTIO_F_RING_PACKED) ? 0x8000 : 0);
	assert_true(queue_enable(g, TXQ(1)));
	rx_post(g, RXQ(0), 64, 2048, 1);
	rx_post(g, RXQ(1), 64, 2048, 1);
	frame_make(&f, 1, 100);
	frame_passes(g, TXQ(0), g, RXQ(0), &f);
	frame_passes(g, TXQ(1), g, RXQ(1), &f);
	return g;
}

/* The guest keeps what is in there. */
static void
take_away(struct guest *g)
{
	assert_int_equal(
		g->link->ops->dma_unmap(g->link, VFN_DMA_GUEST, MINE_AT, ring_bytes(g)), 0);
}

static void
put_back(struct guest *g)
{
	struct vfn_dma_map map = {
		.iova = MINE_AT,
		.len = ring_bytes(g),
		.host = mine,
		.readable = true,
		.writable = true,
	};

	map.fd = mock_mem_fd(&g->mem, MINE_AT, &map.offset);
	assert_int_equal(g->link->ops->dma_map(g->link, &map), 0);
}

/* Of a queue whose ring is not mapped: nothing is lost, and it goes on when it is. */
static void
stands_still_until_mapped(struct guest *g)
{
	static struct frame got;

	tx_send(g, TXQ(1), &f);
	frame_passes(g, TXQ(0), g, RXQ(0), &f);
	assert_false(rx_try(g, RXQ(1), &got, 20));
	assert_int_equal(VGET(g, queue_error), 0);
	assert_int_equal(queue_state(g, TXQ(1)).used & 0x7fff, 1);
	put_back(g);
	rx_wait(g, RXQ(1), &got);
	frames_equal(&got, &f);
	tx_wait(g, TXQ(1), 1);
}

static void
unmapped_ring_stands_still(const struct shape *shape)
{
	struct guest *g = with_a_ring_of_its_own(shape_features(shape));

	take_away(g);
	CSET(g, queue_select, TXQ(1));
	stands_still_until_mapped(g);
	/* and where it is enabled anew meanwhile */
	take_away(g);
	queue_reset(g, TXQ(1));
	put_back(g);
	queue_lay(g, TXQ(1), MINE_AT, shape->packed ? 0x8000 : 0);
	assert_true(queue_enable(g, TXQ(1)));
	assert_int_equal(VGET(g, queue_error), 0);
	frame_passes(g, TXQ(1), g, RXQ(1), &f);
}

static void
ring_unmapped_while_suspended_is_not_touched_by_resuming(void **state)
{
	struct guest *g = with_a_ring_of_its_own(0);

	(void)state;
	queue_suspend(g, TXQ(1), true);
	take_away(g);
	queue_suspend(g, TXQ(1), false);
	stands_still_until_mapped(g);
}

static void
other_maps_may_change_while_queues_run(void **state)
{
	struct guest *g = with_a_ring_of_its_own(0);
	unsigned int i;

	(void)state;
	for (i = 0; i < 50; i++) {
		/* before and behind what is in use: the table moves */
		guest_map(g, 0x1000, 4096, VRINGH_PERM_RW);
		guest_map(g, MINE_AT + 0x1000000, 4096, VRINGH_PERM_RW);
		frame_passes(g, TXQ(1), g, RXQ(1), &f);
		assert_int_equal(guest_unmap(g, 0x1000, 4096), 0);
		frame_passes(g, TXQ(0), g, RXQ(0), &f);
		assert_int_equal(guest_unmap(g, MINE_AT + 0x1000000, 4096), 0);
		rx_post(g, RXQ(0), 1, 2048, 1);
		rx_post(g, RXQ(1), 1, 2048, 1);
	}
}

/* A page of the ring's own region, as a map of its own that has no neighbours in this process. */
static void
map_page(struct guest *g, unsigned int i)
{
	struct vfn_dma_map map = {
		.iova = MINE_AT + (uint64_t)i * PAGE,
		.len = PAGE,
		.readable = true,
		.writable = true,
	};

	map.fd = mock_mem_fd(&g->mem, MINE_AT, &map.offset);
	map.offset += (uint64_t)i * PAGE;
	map.host = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, map.fd, map.offset);
	assert_ptr_not_equal(map.host, MAP_FAILED);
	assert_int_equal(g->link->ops->dma_map(g->link, &map), 0);
}

/* As a guest's IOMMU maps it. Pages may go and come back, and the ring is again in one piece. */
static void
ring_may_lie_in_several_maps(const struct shape *shape)
{
	struct guest *g = guest_new(&(struct guest_conf){.pairs = 2,
		.size = 1024,
		.files = true,
		.features =
			shape_features(shape) | BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_VQ)});
	unsigned int n = ring_bytes(g) / PAGE, i, turn;
	static struct frame got;

	guest_start(g);
	guest_use_pairs(g, 2);
	assert_non_null(mock_mem_add(&g->mem, MINE_AT, ring_bytes(g), VRINGH_PERM_RW));
	for (i = 0; i < n; i++)
		map_page(g, i);
	queue_reset(g, TXQ(1));
	queue_lay(g, TXQ(1), MINE_AT, shape->packed ? 0x8000 : 0);
	assert_true(queue_enable(g, TXQ(1)));
	frame_make(&f, 1, 100);
	for (turn = 0; turn < 4; turn++) {
		/* round the ring */
		for (i = 0; i < 600; i++) {
			rx_post(g, RXQ(1), 1, 2048, 1);
			frame_passes(g, TXQ(1), g, RXQ(1), &f);
		}
		assert_int_equal(g->link->ops->dma_unmap(
					 g->link, VFN_DMA_GUEST, MINE_AT + turn % 2 * PAGE, PAGE),
			0);
		rx_post(g, RXQ(1), 1, 2048, 1);
		tx_send(g, TXQ(1), &f);
		assert_false(rx_try(g, RXQ(1), &got, 20));
		map_page(g, turn % 2);
		rx_wait(g, RXQ(1), &got);
		frames_equal(&got, &f);
		tx_wait(g, TXQ(1), 1);
	}
	take_away(g);
	queue_reset(g, TXQ(1));
	mock_free(&g->q[TXQ(1)].drv);
	g->q[TXQ(1)].laid = false;
	mock_mem_remove(&g->mem, MINE_AT);
}

static void
post_at(struct guest *g, unsigned int queue, uint64_t iova, uint32_t len, bool write)
{
	struct mock_buf buf = {.len = len, .write = write, .fixed = true, .iova = iova};

	assert_true(mock_post(&g->q[queue].drv, &buf, 1, 0, 0) >= 0);
	mock_publish(&g->q[queue].drv);
	queue_kick(g, queue);
}

static void
buffers_are_used_as_the_maps_permit(const struct shape *shape)
{
	struct guest *g = guest_open(&(struct guest_conf){.features = shape_features(shape)});
	struct mock_used used;

	guest_map(g, MINE_AT, 4096, VRINGH_PERM_READ);
	guest_map(g, MINE_AT + 0x10000, 4096, VRINGH_PERM_WRITE);
	rx_post(g, 0, 1, 2048, 1);
	/* sent from memory that may not be read, not mapped at all, and half of it */
	post_at(g, 1, MINE_AT + 0x10000, 100, false);
	post_at(g, 1, MINE_AT + 0x20000, 100, false);
	post_at(g, 1, MINE_AT + 4096 - 50, 100, false);
	tx_wait(g, 1, 3);
	assert_int_equal(stat_of(g, 1, VFN_STAT_ERRORS_PERM), 1);
	assert_int_equal(stat_of(g, 1, VFN_STAT_ERRORS_ADDR), 2);
	/* and from memory that may be */
	post_at(g, 1, MINE_AT, 100, false);
	rx_wait(g, 0, &got);
	assert_int_equal(got.len, 100 - HDR_LEN);
	tx_wait(g, 1, 1);
	/* received into the same two */
	post_at(g, 0, MINE_AT, 2048, true);
	post_at(g, 0, MINE_AT + 0x10000, 2048, true);
	post_at(g, 1, MINE_AT, 100, false);
	assert_true(used_try(g, 0, &used, PATIENCE_MS));
	assert_int_equal(used.len, 0);
	assert_true(used_try(g, 0, &used, PATIENCE_MS));
	assert_int_equal(used.len, 100);
	assert_int_equal(stat_of(g, 0, VFN_STAT_ERRORS_PERM), 1);
	tx_wait(g, 1, 1);
}

static void
unmapped_buffers_are_not_touched_after_the_call(void **state)
{
	struct guest *g = guest_open(&one_pair);
	unsigned int i;

	(void)state;
	/* the function forwards from a map that goes away under it; freed at once */
	for (i = 0; i < 50; i++) {
		unsigned int n;

		guest_map(g, MINE_AT, 4096, VRINGH_PERM_RW);
		rx_post(g, 0, 8, 2048, 1);
		for (n = 0; n < 8; n++)
			post_at(g, 1, MINE_AT, 1000, false);
		if (i % 3 != 0)
			nap_us(i % 7 * 5);
		assert_int_equal(guest_unmap(g, MINE_AT, 4096), 0);
		tx_wait(g, 1, 8);
		while (rx_try(g, 0, &got, 0))
			assert_int_equal(got.len, 1000 - HDR_LEN);
		queue_reset(g, 0);
		queue_setup(g, 0);
		g->heap = HEAP_AT + 2 * (g->heap_end - HEAP_AT) / 3;
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(suspending_what_is_off_or_twice_is_nothing),
		PLAIN(broken_queue_keeps_its_state_over_suspend),
		PLAIN(overlapping_maps_are_refused),
		PLAIN(senseless_maps_are_refused),
		PLAIN(unmapping_takes_whole_maps_only),
		PLAIN(ring_unmapped_while_suspended_is_not_touched_by_resuming),
		PLAIN(other_maps_may_change_while_queues_run),
		PLAIN(unmapped_buffers_are_not_touched_after_the_call),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(suspended_queue_stands_still_and_loses_nothing),
		SHAPED(position_handed_back_continues_the_ring),
		SHAPED(senders_wait_for_a_ring_that_moves),
		SHAPED(start_position_is_taken_from_the_registers),
		SHAPED(unmapped_ring_stands_still),
		SHAPED(ring_may_lie_in_several_maps),
		SHAPED(buffers_are_used_as_the_maps_permit),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("queue state", tests, DIM(tests), shaped, DIM(shaped));
}
