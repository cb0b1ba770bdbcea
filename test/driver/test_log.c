/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The function's dirty log, and stopping all of its queues at once. */

#include "fn_harness.h"

#define PAGE   4096u
#define FRAMES 100u
/* Reaches to the end of the heap. */
#define LOG_LEN ((HEAP_AT >> 15) + 4096)
#define LOG_AT	0x5000 /* in VFN_DMA_OWN */
#define GUARD	4096

static struct frame f, got;
static uint8_t bitmap[LOG_LEN + GUARD] __attribute__((aligned(4096)));

static bool
dirty(uint64_t addr)
{
	return bitmap[addr / PAGE / 8] >> addr / PAGE % 8 & 1;
}

static int
log_map(struct guest *g, uint64_t len)
{
	return g->link->ops->dma_map(g->link,
		&(struct vfn_dma_map){.space = VFN_DMA_OWN,
			.iova = LOG_AT,
			.len = len,
			.host = bitmap,
			.fd = -1,
			.readable = true,
			.writable = true});
}

/* True if the function logs from now on. */
static bool
log_start(struct guest *g, uint64_t len)
{
	VSET(g, dirty_lo, LOG_AT);
	VSET(g, dirty_hi, 0);
	VSET(g, dirty_len_lo, (uint32_t)len);
	VSET(g, dirty_len_hi, len >> 32);
	VSET(g, dirty_control, 1);
	return VGET(g, dirty_control) == 1;
}

static struct guest *
logging_guest(const struct shape *shape, unsigned int faults)
{
	struct guest *g = guest_open(
		&(struct guest_conf){.features = shape_features(shape), .faults = faults});

	memset(bitmap, 0, sizeof(bitmap));
	assert_int_equal(log_map(g, LOG_LEN), 0);
	return g;
}

static void
send_some(struct guest *g, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		frame_make(&f, i, 60 + i);
		frame_passes(g, 1, g, 0, &f);
	}
}

/*
 * Pages that changed since the copy was made, and are not in the log. Only those that the device
 * alone writes: receive buffers, and of the receive queue what the device writes of the ring.
 */
static unsigned int
unlogged(struct guest *g, const uint8_t *copy, unsigned int *changed)
{
	const struct mock_config *cfg = &g->q[0].drv.cfg;
	uint64_t area[2][2] = {
		{cfg->bufs, cfg->bufs + (uint64_t)cfg->size * cfg->buf_len},
		{cfg->device, cfg->device + mock_area_len(cfg, 2)},
	};
	unsigned int i, missing = 0;

	if (cfg->packed) {
		area[1][0] = cfg->desc;
		area[1][1] = cfg->desc + mock_area_len(cfg, 0);
	}
	*changed = 0;
	for (i = 0; i < DIM(area); i++) {
		uint64_t at = area[i][0] & ~(uint64_t)(PAGE - 1);

		for (; at < area[i][1]; at += PAGE) {
			if (memcmp(mock_mem_at(&g->mem, at, PAGE), copy + (at - HEAP_AT), PAGE) ==
				0)
				continue;
			++*changed;
			missing += !dirty(at);
		}
	}
	return missing;
}

static uint8_t *
heap_copy(struct guest *g)
{
	uint64_t len = g->heap_end - HEAP_AT;
	uint8_t *copy = malloc(len);

	assert_non_null(copy);
	memcpy(copy, mock_mem_at(&g->mem, HEAP_AT, len), len);
	return copy;
}

/* Traffic while the function logs, or does not: what changed, and what of it was not logged. */
static unsigned int
run_logged(struct guest *g, unsigned int *changed)
{
	unsigned int missing;
	uint8_t *copy;

	rx_post(g, 0, FRAMES, 2048, 2);
	copy = heap_copy(g);
	send_some(g, FRAMES);
	missing = unlogged(g, copy, changed);
	free(copy);
	return missing;
}

static void
what_the_function_writes_is_logged(const struct shape *shape)
{
	struct guest *g = logging_guest(shape, 0);
	unsigned int changed, i;

	assert_true(log_start(g, LOG_LEN));
	assert_int_equal(run_logged(g, &changed), 0);
	assert_true(changed >= FRAMES / 2);
	/* What was sent was only read. */
	assert_false(dirty(g->q[1].drv.cfg.bufs));
	/* Off and on again. */
	VSET(g, dirty_control, 0);
	assert_int_equal(VGET(g, dirty_control), 0);
	memset(bitmap, 0, sizeof(bitmap));
	run_logged(g, &changed);
	for (i = 0; i < sizeof(bitmap); i++)
		assert_int_equal(bitmap[i], 0);
	assert_true(log_start(g, LOG_LEN));
	assert_int_equal(run_logged(g, &changed), 0);
	for (i = LOG_LEN; i < sizeof(bitmap); i++)
		assert_int_equal(bitmap[i], 0);
}

static void
lost_log_is_noticed(const struct shape *shape)
{
	struct guest *g = logging_guest(shape, VFN_FAULT_NO_DIRTY);
	unsigned int changed;

	assert_true(log_start(g, LOG_LEN));
	assert_true(run_logged(g, &changed) >= FRAMES / 2);
	guest_close(g);
	g = logging_guest(shape, VFN_FAULT_NO_USED_DIRTY);
	assert_true(log_start(g, LOG_LEN));
	assert_in_range(run_logged(g, &changed), 1, FRAMES / 4);
}

static void
log_that_cannot_be_is_refused(void **state)
{
	uint64_t need, len;
	struct guest *g;

	(void)state;
	g = guest_open(&(struct guest_conf){0});
	memset(bitmap, 0, sizeof(bitmap));
	assert_false(log_start(g, LOG_LEN)); /* not mapped */
	assert_int_equal(log_map(g, LOG_LEN), 0);
	assert_false(log_start(g, LOG_LEN + 1)); /* not all of it is */
	assert_false(log_start(g, 0));
	need = (g->heap_end - 1) / PAGE / 8 + 1;
	for (len = need - 1; len > 0; len /= 7)
		assert_false(log_start(g, len));
	assert_true(log_start(g, need));
	/* Fixed while it is in use. */
	VSET(g, dirty_lo, 0);
	VSET(g, dirty_len_lo, 1);
	assert_int_equal(VGET(g, dirty_lo), LOG_AT);
	assert_int_equal(VGET(g, dirty_len_lo), need);
	send_some(g, 0);
	/* Memory that is taken away is not written any more. */
	assert_int_equal(g->link->ops->dma_unmap(g->link, VFN_DMA_OWN, LOG_AT, LOG_LEN), 0);
	assert_int_equal(VGET(g, dirty_control), 0);
	/* Nor after a reset. */
	assert_int_equal(log_map(g, LOG_LEN), 0);
	assert_true(log_start(g, LOG_LEN));
	guest_reset(g);
	assert_int_equal(VGET(g, dirty_control), 0);
	assert_int_equal(VGET(g, dirty_len_lo), 0);
}

/* A ring that lies where the log does not reach. */
static void
queue_that_cannot_be_logged_is_refused(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.pairs = 2, .used_pairs = 1});

	(void)state;
	assert_int_equal(log_map(g, LOG_LEN), 0);
	assert_true(log_start(g, LOG_LEN));
	guest_map(g, FREE_AT, ring_bytes(g), VRINGH_PERM_RW);
	queue_lay(g, 2, FREE_AT, 0);
	assert_false(queue_enable(g, 2));
	CSET(g, queue_select, 2);
	assert_int_equal(VGET(g, queue_error), VRINGH_E_AREA);
	rx_post(g, 0, 1, 2048, 1);
	frame_make(&f, 1, 100);
	frame_passes(g, 1, g, 0, &f);
	VSET(g, dirty_control, 0);
	assert_true(queue_enable(g, 2));
}

/* No descriptor reaches what only registers name. */
static void
own_memory_is_out_of_reach(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){0});
	struct mock_buf buf[2] = {{.len = HDR_LEN + 100, .write = true, .fixed = true}};
	struct mock_used used;

	(void)state;
	memset(bitmap, 0, sizeof(bitmap));
	assert_int_equal(log_map(g, LOG_LEN), 0);
	buf[0].iova = LOG_AT;
	assert_true(mock_post(&g->q[0].drv, buf, 1, 0, 7) >= 0);
	mock_publish(&g->q[0].drv);
	queue_kick_always(g, 0);
	frame_make(&f, 1, 100);
	tx_send(g, 1, &f);
	assert_true(used_try(g, 0, &used, PATIENCE_MS));
	assert_int_equal(used.len, 0);
	assert_int_equal(stat_of(g, 0, VFN_STAT_ERRORS_ADDR), 1);
	assert_int_equal(bitmap[0], 0);
	/* The same address may be the guest's as well. */
	guest_map(g, LOG_AT, PAGE, VRINGH_PERM_RW);
	assert_int_equal(log_map(g, LOG_LEN), -EEXIST);
}

static void
all_queues_stand_still_at_once(const struct shape *shape)
{
	struct guest *g =
		guest_open(&(struct guest_conf){.features = shape_features(shape), .pairs = 3});
	unsigned int pair, round;
	struct mock_used used;

	guest_use_pairs(g, 3);
	for (round = 0; round < 20; round++) {
		for (pair = 0; pair < 3; pair++) {
			rx_post(g, RXQ(pair), 1, 2048, 1);
			frame_make(&f, pair, 100);
			frame_passes(g, TXQ(pair), g, RXQ(pair), &f);
		}
		VSET(g, suspend, 1);
		assert_int_equal(VGET(g, suspend), 1);
		for (pair = 0; pair < 3; pair++) {
			struct vringh_state at = queue_state(g, TXQ(pair));

			assert_int_equal(at.avail, at.used);
			rx_post(g, RXQ(pair), 1, 2048, 1);
			tx_send(g, TXQ(pair), &f);
			assert_false(used_try(g, TXQ(pair), &used, 1));
		}
		VSET(g, suspend, 0);
		assert_int_equal(VGET(g, suspend), 0);
		for (pair = 0; pair < 3; pair++) {
			queue_kick_always(g, TXQ(pair));
			rx_wait(g, RXQ(pair), &got);
			frames_equal(&got, &f);
			tx_wait(g, TXQ(pair), 1);
		}
	}
}

static void
function_that_never_stands_still_says_so(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.faults = VFN_FAULT_NO_SUSPEND});

	(void)state;
	VSET(g, suspend, 1);
	assert_int_equal(VGET(g, suspend), 0);
	rx_post(g, 0, 1, 2048, 1);
	frame_make(&f, 1, 100);
	frame_passes(g, 1, g, 0, &f);
}

int
main(void)
{
	static const struct shaped_test shaped[] = {
		SHAPED(what_the_function_writes_is_logged),
		SHAPED(lost_log_is_noticed),
		SHAPED(all_queues_stand_still_at_once),
	};
	static const struct CMUnitTest plain[] = {
		PLAIN(log_that_cannot_be_is_refused),
		PLAIN(queue_that_cannot_be_logged_is_refused),
		PLAIN(own_memory_is_out_of_reach),
		PLAIN(function_that_never_stands_still_says_so),
	};

	if (fn_eal_init(NULL) != 0)
		return 1;
	return run_list("log", plain, DIM(plain), shaped, DIM(shaped));
}
