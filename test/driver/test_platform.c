/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* What a platform lets a function reach: of each map a part, differently, or nothing. */

#include "fn_harness.h"

#define PAGE 4096u
/* Of a frame that nobody has to receive: it is shorter than an Ethernet header. */
#define SHORT 20u

/* It answers for maps at FREE_AT; lets pass, and counts, all others. */
struct play {
	struct vfn_platform platform;
	int refusal;
	bool read_only;
	uint64_t part[2], len; /* it lets two parts pass, from there on; 0: all */
	const struct vringh_io *io;
	unsigned int asked, flushed;
};

static int
play_map(struct vfn_platform *platform, struct vfn_dma_map *map)
{
	struct play *p = (struct play *)platform;
	unsigned int i;

	p->asked++;
	map->io = p->io;
	if (map->iova - FREE_AT >= 16 * PAGE)
		return 1;
	if (p->refusal != 0)
		return p->refusal;
	map->writable &= !p->read_only;
	if (p->len == 0)
		return 1;
	for (i = 0; i < DIM(p->part); i++) {
		if (map->iova > p->part[i])
			continue;
		vfn_dma_map_cut(map, p->part[i], p->len);
		return 1;
	}
	return 0;
}

/* Its memory is mapped after the platform is there. */
static struct guest *
guest_on(struct guest_conf conf, struct play *p)
{
	struct vfn_function *fn;
	struct guest *g;

	p->platform.map = play_map;
	assert_int_equal(function_open(&conf, &fn, &conf.link), 0);
	assert_int_equal(vfn_manage_platform(fn, &p->platform), 0);
	g = guest_new(&conf);
	assert_int_equal(vfn_manage_platform(fn, NULL), -EBUSY);
	guest_start(g);
	return g;
}

static void
guest_end(struct guest *g)
{
	struct vfn_link *link = g->link;

	guest_close(g);
	link->ops->close(link);
}

static void
frame_comes_back(struct guest *g)
{
	static struct frame f;
	static uint32_t number;

	rx_post(g, 0, 1, 2048, 1);
	frame_make(&f, number++, 100);
	frame_passes(g, 1, g, 0, &f);
}

/* A chain that lies there; which error is counted for it, VRINGH_OK: none. */
static enum vringh_error
error_of(struct guest *g, unsigned int queue, uint64_t at, uint32_t len)
{
	struct mock_buf buf = {.len = len, .write = queue == 0, .fixed = true, .iova = at};
	uint64_t before[VRINGH_E_SEGS + 1];
	static struct frame f;
	struct mock_used used;
	int e;

	for (e = VRINGH_E_NEXT; e <= VRINGH_E_SEGS; e++)
		before[e] = stat_of(g, queue, VFN_STAT_ERRORS_AVAIL_IDX + e - VRINGH_E_AVAIL_IDX);
	assert_true(mock_post(&g->q[queue].drv, &buf, 1, 0, 0) >= 0);
	mock_publish(&g->q[queue].drv);
	queue_kick(g, queue);
	if (queue == 0) {
		frame_make(&f, 0, 60);
		tx_send(g, 1, &f);
	}
	assert_true(used_try(g, queue, &used, PATIENCE_MS));
	for (e = VRINGH_E_NEXT; e <= VRINGH_E_SEGS; e++)
		if (stat_of(g, queue, VFN_STAT_ERRORS_AVAIL_IDX + e - VRINGH_E_AVAIL_IDX) >
			before[e])
			return e;
	return VRINGH_OK;
}

static void
map_that_is_refused_is_not_reached(void **state)
{
	struct play p = {.refusal = -EPERM};
	struct guest *g = guest_on((struct guest_conf){0}, &p);
	struct vfn_dma_map map = {
		.iova = FREE_AT, .len = PAGE, .fd = -1, .readable = true, .writable = true};

	(void)state;
	assert_int_equal(p.asked, 1);
	map.host = mock_mem_add(&g->mem, FREE_AT, PAGE, VRINGH_PERM_RW);
	map.fd = mock_mem_fd(&g->mem, FREE_AT, &map.offset);
	assert_int_equal(g->link->ops->dma_map(g->link, &map), -EPERM);
	assert_int_equal(p.asked, 2);
	assert_int_equal(error_of(g, 1, FREE_AT, SHORT), VRINGH_E_ADDR);
	frame_comes_back(g);
	/* Nothing is left of it. */
	p.refusal = 0;
	assert_int_equal(g->link->ops->dma_map(g->link, &map), 0);
	assert_int_equal(error_of(g, 1, FREE_AT, SHORT), VRINGH_OK);
	assert_int_equal(g->link->ops->dma_map(g->link, &map), -EEXIST);
	guest_end(g);
}

static void
parts_are_reached_and_go_with_their_map(void **state)
{
	struct play p = {.part = {FREE_AT + PAGE, FREE_AT + 3 * PAGE}, .len = PAGE};
	struct guest *g = guest_on((struct guest_conf){0}, &p);
	unsigned int round;

	(void)state;
	for (round = 0; round < 2; round++) {
		guest_map(g, FREE_AT, 4 * PAGE + 100, VRINGH_PERM_RW);
		assert_int_equal(error_of(g, 1, FREE_AT, SHORT), VRINGH_E_ADDR);
		assert_int_equal(error_of(g, 1, FREE_AT + PAGE - 1, SHORT), VRINGH_E_ADDR);
		assert_int_equal(error_of(g, 1, FREE_AT + PAGE, SHORT), VRINGH_OK);
		assert_int_equal(
			error_of(g, 1, FREE_AT + 2 * PAGE - SHORT + 1, SHORT), VRINGH_E_ADDR);
		assert_int_equal(error_of(g, 1, FREE_AT + 2 * PAGE, SHORT), VRINGH_E_ADDR);
		assert_int_equal(error_of(g, 1, FREE_AT + 4 * PAGE - SHORT, SHORT), VRINGH_OK);
		assert_int_equal(error_of(g, 1, FREE_AT + 4 * PAGE, SHORT), VRINGH_E_ADDR);
		assert_int_equal(guest_unmap(g, FREE_AT, 4 * PAGE + 100), 0);
		assert_int_equal(error_of(g, 1, FREE_AT + PAGE, SHORT), VRINGH_E_ADDR);
	}
	frame_comes_back(g);
	guest_end(g);
}

static void
platform_may_take_a_right_away(void **state)
{
	struct play p = {.read_only = true};
	struct guest *g = guest_on((struct guest_conf){0}, &p);

	(void)state;
	guest_map(g, FREE_AT, PAGE, VRINGH_PERM_RW);
	assert_int_equal(error_of(g, 1, FREE_AT, SHORT), VRINGH_OK);
	assert_int_equal(error_of(g, 0, FREE_AT, 2048), VRINGH_E_PERM);
	guest_end(g);
}

static void
count_flush(void *arg, const void *addr, size_t len)
{
	(void)addr;
	(void)len;
	__atomic_fetch_add((unsigned int *)arg, 1, __ATOMIC_RELAXED);
}

static void
platform_may_make_windows_of_maps(void **state)
{
	struct play p = {0};
	const struct vringh_io io = {.flush = count_flush, .arg = &p.flushed};
	struct vfn_dma_map map = {.iova = FREE_AT, .len = PAGE, .fd = -1, .readable = true};
	struct guest *g;

	(void)state;
	p.io = &io;
	g = guest_on((struct guest_conf){0}, &p);
	frame_comes_back(g);
	assert_true(__atomic_load_n(&p.flushed, __ATOMIC_RELAXED) > 0);
	/* All that is mapped has the same hooks. */
	p.io = NULL;
	map.host = mock_mem_add(&g->mem, FREE_AT, PAGE, VRINGH_PERM_RW);
	map.fd = mock_mem_fd(&g->mem, FREE_AT, &map.offset);
	assert_int_equal(g->link->ops->dma_map(g->link, &map), -EINVAL);
	guest_end(g);
}

static void
part_that_is_none_is_refused(void **state)
{
	static const struct {
		uint64_t part, len;
	} bad[] = {
		{FREE_AT, PAGE + 1},
		{FREE_AT + PAGE - 1, 2},
		{FREE_AT + PAGE, 1},
		{FREE_AT + 1, UINT64_MAX},
	};
	struct play p = {0};
	struct guest *g = guest_on((struct guest_conf){0}, &p);
	struct vfn_dma_map map = {.iova = FREE_AT, .len = PAGE, .fd = -1, .readable = true};
	unsigned int i;

	(void)state;
	map.host = mock_mem_add(&g->mem, FREE_AT, PAGE, VRINGH_PERM_RW);
	map.fd = mock_mem_fd(&g->mem, FREE_AT, &map.offset);
	for (i = 0; i < DIM(bad); i++) {
		p.part[0] = p.part[1] = bad[i].part;
		p.len = bad[i].len;
		assert_int_equal(g->link->ops->dma_map(g->link, &map), -EINVAL);
	}
	frame_comes_back(g);
	guest_end(g);
}

static void
pool_is_what_a_function_reaches(void **state)
{
	/* A heap, a page of one map, and the end of another. */
	struct guest *g = guest_open(
		&(struct guest_conf){.pool = "[0x4000003000+8K,0x40000000+256M,0x4000001000+4K]"});
	struct vfn_dma_map relay = {.iova = FREE_AT + 16 * PAGE,
		.len = PAGE,
		.fd = -1,
		.readable = true,
		.relay = true};

	(void)state;
	frame_comes_back(g);
	guest_map(g, FREE_AT, 3 * PAGE, VRINGH_PERM_RW);
	guest_map(g, FREE_AT + 3 * PAGE, PAGE, VRINGH_PERM_RW);
	/* None of it. */
	guest_map(g, FREE_AT + 8 * PAGE, PAGE, VRINGH_PERM_RW);
	assert_int_equal(error_of(g, 1, FREE_AT + PAGE, SHORT), VRINGH_OK);
	assert_int_equal(error_of(g, 1, FREE_AT + PAGE - 1, SHORT), VRINGH_E_ADDR);
	assert_int_equal(error_of(g, 1, FREE_AT + 2 * PAGE, SHORT), VRINGH_E_ADDR);
	assert_int_equal(error_of(g, 1, FREE_AT + 4 * PAGE - SHORT, SHORT), VRINGH_OK);
	assert_int_equal(error_of(g, 1, FREE_AT + 4 * PAGE, SHORT), VRINGH_E_ADDR);
	assert_int_equal(error_of(g, 1, FREE_AT + 8 * PAGE, SHORT), VRINGH_E_ADDR);
	assert_int_equal(error_of(g, 0, FREE_AT + 8 * PAGE, 2048), VRINGH_E_ADDR);
	/* Rings elsewhere are refused, and others run on. */
	guest_map(g, FREE_AT + 32 * PAGE, ring_bytes(g), VRINGH_PERM_RW);
	queue_reset(g, 1);
	queue_lay(g, 1, FREE_AT + 32 * PAGE, 0);
	assert_false(queue_enable(g, 1));
	assert_int_equal(VGET(g, queue_error), VRINGH_E_AREA);
	queue_lay(g, 1, 0, 0);
	assert_true(queue_enable(g, 1));
	frame_comes_back(g);
	/* What is a driver's own is not asked for; an endpoint's client cannot say so. */
	if (getenv("VFN_POSTED") != NULL)
		return;
	relay.host = mock_mem_add(&g->mem, relay.iova, PAGE, VRINGH_PERM_RW);
	relay.fd = mock_mem_fd(&g->mem, relay.iova, &relay.offset);
	assert_int_equal(g->link->ops->dma_map(g->link, &relay), 0);
	assert_int_equal(error_of(g, 1, relay.iova, SHORT), VRINGH_OK);
}

/* Dirty logs and in-flight regions are no guest memory. */
static void
own_memory_is_not_asked_for(void **state)
{
	struct play p = {.refusal = -EPERM};
	struct guest *g = guest_on((struct guest_conf){0}, &p);
	struct vfn_dma_map map = {
		.space = VFN_DMA_OWN, .iova = FREE_AT, .len = PAGE, .fd = -1, .readable = true};
	const unsigned int asked = p.asked;

	(void)state;
	map.host = mock_mem_add(&g->mem, FREE_AT, PAGE, VRINGH_PERM_RW);
	map.fd = mock_mem_fd(&g->mem, FREE_AT, &map.offset);
	assert_int_equal(g->link->ops->dma_map(g->link, &map), 0);
	assert_int_equal(p.asked, asked);
	g->link->ops->dma_unmap(g->link, VFN_DMA_OWN, 0, 0);
	guest_end(g);
}

static void
pool_as_it_is_written(void **state)
{
	static const char *const bad[] = {"", "0", "0x1000", "0x1000+", "+1", "1+0", "-1+1", " 1+1",
		"1+1 ", "1+1x", "0x+1", "1+1KK", "1+1k", "1+99999999999999999999", "16777216T+1",
		"0xffffffffffffffff+2", "2+0xffffffffffffffff", "[1+1", "[]", "[1+1,]", "1+1,2+1",
		"[1+2,2+1]", "[2+1,1+2]", "[1+4,2+1]", "[2+1,1+4]", "[1+1]x",
		"[1+1,2+1,3+1,4+1,5+1,6+1,7+1,8+1,9+1]"};
	struct vfn_pool pool;
	unsigned int i;

	(void)state;
	for (i = 0; i < DIM(bad); i++)
		if (vfn_pool_parse(bad[i], &pool))
			fail_msg("\"%s\" is taken", bad[i]);
	assert_true(vfn_pool_parse("0xffffffffffffffff+1", &pool));
	assert_true(vfn_pool_parse("0+1T", &pool));
	assert_true(pool.nb_ranges == 1 && pool.range[0].len == UINT64_C(1) << 40);
	assert_true(vfn_pool_parse("[2G+64M,4096+4K,8192+1]", &pool));
	assert_int_equal(pool.nb_ranges, 3);
	assert_true(pool.range[0].iova == 4096 && pool.range[0].len == 4096);
	assert_true(pool.range[1].iova == 8192 && pool.range[1].len == 1);
	assert_true(pool.range[2].iova == UINT64_C(1) << 31 && pool.range[2].len == 64 << 20);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(map_that_is_refused_is_not_reached),
		PLAIN(parts_are_reached_and_go_with_their_map),
		PLAIN(platform_may_take_a_right_away),
		PLAIN(platform_may_make_windows_of_maps),
		PLAIN(part_that_is_none_is_refused),
		PLAIN(pool_is_what_a_function_reaches),
		PLAIN(own_memory_is_not_asked_for),
		PLAIN(pool_as_it_is_written),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("platform", tests, DIM(tests), NULL, 0);
}
