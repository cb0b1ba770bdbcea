/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* In which order requests of the block class end, and how many in a second. */

#include "blk_harness.h"

#define SIZE	(UINT64_C(8) << 20)
#define SECTORS (SIZE / SECTOR)

static uint8_t back[1 << 16];

/* A short one waits for a long one before it, and so does what is no request. */
static void
order_is_kept(const struct shape *shape)
{
	struct guest *g = disk_open(&(struct disk_conf){
		.size = SIZE, .shape = shape, .features = BIT(VIRTIO_F_IN_ORDER)});
	const struct ask asks[] = {
		{.type = VIRTIO_BLK_T_IN, .in_len = 160 * 1024},
		{.type = 77},
		{.type = VIRTIO_BLK_T_GET_ID, .in_len = 20},
		{.type = VIRTIO_BLK_T_IN, .sector = SECTORS, .in_len = 512},
		{.type = VIRTIO_BLK_T_IN, .in_len = 512},
		{.type = VIRTIO_BLK_T_DISCARD},
	};
	const int status[] = {0, 2, 0, 1, 0, 2};
	unsigned int turn, i;
	int id[DIM(asks)];

	assert_true(guest_features(g) & BIT(VIRTIO_F_IN_ORDER));
	for (turn = 0; turn < 10; turn++) {
		for (i = 0; i < DIM(asks); i++) {
			id[i] = ask_post(g, 0, &asks[i]);
			assert_true(id[i] >= 0);
		}
		queue_kick(g, 0);
		for (i = 0; i < DIM(asks); i++) {
			struct answer answer;

			assert_true(answer_try(g, 0, &answer, PATIENCE_MS));
			assert_int_equal(answer.id, id[i]);
			assert_int_equal(answer.status, status[i]);
		}
	}
}

static void
rate_is_kept(void **state)
{
	struct guest *g = disk_open(&(struct disk_conf){
		.size = SIZE, .queues = 2, .rate = {.ops = 1000}, .size_of_rings = 64});
	uint64_t start = now_ms(), ended = 0, each[2] = {0};
	struct answer answer;
	unsigned int q;

	(void)state;
	while (ended < 300) {
		for (q = 0; q < 2; q++) {
			while (g->q[q].drv.nb_busy < 16)
				ask_post(g, q,
					&(struct ask){.type = VIRTIO_BLK_T_IN, .in_len = 512});
			queue_kick(g, q);
			while (answer_try(g, q, &answer, 0)) {
				each[q]++;
				ended++;
			}
		}
		nap_us(100);
	}
	/* However loaded the machine is: not sooner. */
	assert_true(now_ms() - start + 10 >= ended);
	assert_in_range(each[0] * 100 / ended, 40, 60);
	vfn_manage_blk_rate(g->fn, 0, 0);
	while (g->q[0].drv.nb_busy > 0)
		assert_true(answer_try(g, 0, &answer, PATIENCE_MS));
	vfn_manage_blk_rate(g->fn, 0, 2 << 20);
	while (answer_try(g, 1, &answer, 100))
		;
	start = now_ms();
	for (ended = 0; ended < 16; ended++)
		assert_int_equal(disk_read(g, 0, back, sizeof(back)), 0);
	assert_true(now_ms() - start >= 460);
}

/* Disks of a group have one limit together, and each its share; another disk has none. */
static void
group_shares_a_limit(void **state)
{
	struct disk_conf conf = {.size = SIZE, .rate = {.ops = 1000, .group = "both"}};
	uint64_t start, ended = 0, each[3] = {0};
	struct answer answer;
	struct guest *g[3];
	unsigned int i, n;

	(void)state;
	g[0] = disk_open(&conf);
	conf.name = "second";
	conf.rate.ops = 0; /* as it is */
	g[1] = disk_open(&conf);
	conf.name = "third";
	conf.rate.group[0] = '\0';
	g[2] = disk_open(&conf);
	start = now_ms();
	while (ended < 200) {
		for (i = 0; i < DIM(g); i++) {
			/* 200 of the third, to see that it is not held up */
			while (g[i]->q[0].drv.nb_busy < 8 && (i < 2 || each[2] < 200))
				ask_post(g[i], 0,
					&(struct ask){.type = VIRTIO_BLK_T_GET_ID, .in_len = 20});
			queue_kick(g[i], 0);
			for (n = 0; answer_try(g[i], 0, &answer, 0); n++)
				each[i]++;
			ended += i < 2 ? n : 0;
		}
		nap_us(100);
	}
	assert_true(now_ms() - start + 10 >= ended);
	assert_in_range(each[0] * 100 / ended, 40, 60);
	assert_true(each[2] >= 190);
	/* the limit is one, whoever is asked */
	vfn_manage_blk_rate(g[1]->fn, 0, 0);
	while (g[0]->q[0].drv.nb_busy > 0)
		assert_true(answer_try(g[0], 0, &answer, PATIENCE_MS));
}

int
main(void)
{
	static const struct CMUnitTest plain[] = {
		cmocka_unit_test_teardown(rate_is_kept, disks_close),
		cmocka_unit_test_teardown(group_shares_a_limit, disks_close),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(order_is_kept),
	};

	if (fn_eal_init(NULL) != 0)
		return 1;
	shaped_teardown = disks_close;
	return run_list("blk_order", plain, DIM(plain), shaped, DIM(shaped));
}
