/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The function's in-flight regions: what it goes on from, and what it refuses. */

#include "fn_harness.h"

#define REGION_AT  UINT64_C(0x4000000000000040) /* in VFN_DMA_OWN; one per queue */
#define REGION_LEN 0x4000

static struct frame f;
static uint8_t region[2][REGION_LEN] __attribute__((aligned(4096)));

static int
region_map(struct guest *g, unsigned int queue)
{
	return g->link->ops->dma_map(g->link,
		&(struct vfn_dma_map){.space = VFN_DMA_OWN,
			.iova = REGION_AT + queue * REGION_LEN,
			.len = REGION_LEN,
			.host = region[queue],
			.fd = -1,
			.readable = true,
			.writable = true});
}

static bool
enable(struct guest *g, unsigned int queue, uint64_t at, uint32_t len, uint16_t position)
{
	CSET(g, queue_select, queue);
	VSET(g, queue_inflight_lo, (uint32_t)at);
	VSET(g, queue_inflight_hi, at >> 32);
	VSET(g, queue_inflight_len, len);
	VSET(g, queue_avail, position);
	VSET(g, queue_used, position);
	return queue_enable(g, queue);
}

/* Another function on the same rings, with what a front-end knows of their positions. */
static void
another(struct guest *g, bool stale)
{
	unsigned int queue;

	for (queue = 0; queue < 2; queue++)
		queue_reset(g, queue);
	for (queue = 0; queue < 2; queue++) {
		uint16_t at = mock_used_position(&g->q[queue].drv, 0);

		if (stale && g->q[queue].drv.cfg.packed)
			at = 0x8000;
		assert_true(enable(g, queue, REGION_AT + queue * REGION_LEN, REGION_LEN, at));
	}
}

static struct guest *
tracked_guest(const struct shape *shape)
{
	struct guest *g =
		guest_open(&(struct guest_conf){.features = shape_features(shape), .size = 32});

	memset(region, 0, sizeof(region));
	assert_int_equal(region_map(g, 0), 0);
	assert_int_equal(region_map(g, 1), 0);
	another(g, false);
	return g;
}

static void
pass(struct guest *g, uint32_t first, unsigned int n)
{
	for (; n > 0; n--, first++) {
		rx_post(g, 0, 1, 2048, 1);
		frame_make(&f, first, 60 + first % 900);
		frame_passes(g, 1, g, 0, &f);
	}
}

static void
region_tells_where_the_ring_stands(const struct shape *shape)
{
	struct guest *g = tracked_guest(shape);
	unsigned int turn, queue;

	for (turn = 0; turn < 5; turn++) {
		pass(g, 100 * turn, 7 + 13 * turn);
		another(g, true);
		for (queue = 0; queue < 2; queue++) {
			struct vringh_state s = queue_state(g, queue);

			assert_int_equal(s.avail, mock_used_position(&g->q[queue].drv, 0));
			assert_int_equal(s.avail, s.used);
		}
	}
	pass(g, 1000, 40);
}

static void
suspended_queue_is_tracked_when_it_goes_on(const struct shape *shape)
{
	struct guest *g = tracked_guest(shape);

	pass(g, 0, 10);
	queue_suspend(g, 1, true);
	queue_suspend(g, 1, false);
	pass(g, 10, 10);
	another(g, true);
	pass(g, 20, 40);
}

static void
bad_region_is_refused(const struct shape *shape)
{
	struct guest *g = tracked_guest(shape);
	uint64_t at = REGION_AT + REGION_LEN;
	uint32_t need = vringh_inflight_size(shape->packed, 32);
	uint16_t position;
	unsigned int i;

	pass(g, 0, 10);
	position = mock_used_position(&g->q[1].drv, 0);
	queue_reset(g, 1);
	assert_false(enable(g, 1, at, need - 1, position));
	assert_int_equal(VGET(g, queue_error), VRINGH_E_STATE);
	assert_false(enable(g, 1, at - 2 * REGION_LEN, need, position));
	assert_false(enable(g, 1, at + 1, need, position));
	assert_false(enable(g, 1, at + REGION_LEN - need + 1, need, position));
	/* Split: marks of chains that nobody made available. Packed: a free list without end. */
	for (i = 1; i < 4; i++)
		if (shape->packed)
			region[1][32 * i + 2] = 1;
		else
			region[1][16 * i + 1] = 1;
	assert_false(enable(g, 1, at, need, position));
	assert_int_equal(VGET(g, queue_error), VRINGH_E_STATE);
	memset(region[1], 0, 8);
	assert_true(enable(g, 1, at, need, position));
	assert_int_equal(VGET(g, queue_error), 0);
	pass(g, 10, 40);
}

static void
region_that_goes_is_not_touched(const struct shape *shape)
{
	struct guest *g = tracked_guest(shape);
	unsigned int queue;

	pass(g, 0, 10);
	for (queue = 0; queue < 2; queue++) {
		assert_int_equal(g->link->ops->dma_unmap(g->link, VFN_DMA_OWN,
					 REGION_AT + queue * REGION_LEN, REGION_LEN),
			0);
		memset(region[queue], 0x5a, REGION_LEN);
	}
	pass(g, 10, 40);
	assert_int_equal(region[0][0], 0x5a);
	assert_memory_equal(&region[0][0], &region[0][1], REGION_LEN - 1);
	assert_memory_equal(region[0], region[1], REGION_LEN);
}

static void
registers_are_the_selected_queues(void **state)
{
	struct guest *g = guest_new(&(struct guest_conf){.pairs = 1});

	(void)state;
	CSET(g, queue_select, 1);
	VSET(g, queue_inflight_lo, 0x1234);
	VSET(g, queue_inflight_hi, 0x5678);
	VSET(g, queue_inflight_len, 99);
	CSET(g, queue_select, 0);
	assert_int_equal(VGET(g, queue_inflight_lo), 0);
	CSET(g, queue_select, 1);
	assert_int_equal(VGET(g, queue_inflight_lo), 0x1234);
	assert_int_equal(VGET(g, queue_inflight_hi), 0x5678);
	assert_int_equal(VGET(g, queue_inflight_len), 99);
	guest_reset(g);
	CSET(g, queue_select, 1);
	assert_int_equal(VGET(g, queue_inflight_lo), 0);
	assert_int_equal(VGET(g, queue_inflight_hi), 0);
	assert_int_equal(VGET(g, queue_inflight_len), 0);
	guest_close(g);
	/* Fixed once it is enabled. */
	g = tracked_guest(&(struct shape){.packed = true});
	CSET(g, queue_select, 1);
	VSET(g, queue_inflight_len, 0);
	VSET(g, queue_inflight_lo, 0);
	assert_int_equal(VGET(g, queue_inflight_len), REGION_LEN);
	assert_int_equal(VGET(g, queue_inflight_lo), (uint32_t)(REGION_AT + REGION_LEN));
}

int
main(void)
{
	static const struct CMUnitTest plain[] = {PLAIN(registers_are_the_selected_queues)};
	static const struct shaped_test shaped[] = {
		SHAPED(region_tells_where_the_ring_stands),
		SHAPED(suspended_queue_is_tracked_when_it_goes_on),
		SHAPED(bad_region_is_refused),
		SHAPED(region_that_goes_is_not_touched),
	};

	if (fn_eal_init(NULL) != 0)
		return 1;
	return run_list("inflight", plain, DIM(plain), shaped, DIM(shaped));
}
