/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Requests that are out: they end in any order, fail, or do not end, while the ring is stopped, its
 * memory goes, or somebody else goes on with it.
 */

#include "blk_harness.h"
#include "fn_state.h"

#define SIZE	   (UINT64_C(1) << 20)
#define REGION_AT  UINT64_C(0x4000000000000000) /* in VFN_DMA_OWN */
#define REGION_LEN 0x4000
#define LOG_AT	   UINT64_C(0x5000000000000000)

static uint8_t data[16384], back[4096];
static uint8_t region[REGION_LEN] __attribute__((aligned(4096)));
static uint8_t dirty[1 << 18] __attribute__((aligned(4096)));
static struct faulty *f;

static struct guest *
faulty_open(const struct shape *shape)
{
	f = faulty_new(SIZE);
	return disk_open(&(struct disk_conf){.backend = &faulty_backend,
		.arg = f,
		.size = SIZE,
		.shape = shape,
		.features = BIT(VIRTIO_BLK_F_FLUSH)});
}

/* n writes of a sector each, from a sector on. */
static void
write_sectors(struct guest *g, uint64_t first, unsigned int n, uint32_t number)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		pattern(data, first + i, SECTOR, number);
		assert_true(ask_post(g, 0,
				    &(struct ask){.type = VIRTIO_BLK_T_OUT,
					    .sector = first + i,
					    .out = data,
					    .out_len = SECTOR,
					    .layout = i % LAYOUTS}) >= 0);
	}
	queue_kick(g, 0);
}

static void
answers(struct guest *g, unsigned int n, int status)
{
	struct answer answer;
	unsigned int i;

	for (i = 0; i < n; i++) {
		if (!answer_try(g, 0, &answer, PATIENCE_MS))
			fail_msg("%u answers of %u are missing", n - i, n);
		assert_int_equal(answer.status, status);
	}
}

static void
sectors_are(uint64_t first, unsigned int n, uint32_t number)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		pattern(data, first + i, SECTOR, number);
		assert_memory_equal(f->bytes + (first + i) * SECTOR, data, SECTOR);
	}
}

/* The last one first, ring after ring. */
static void
requests_end_in_any_order(const struct shape *shape)
{
	struct guest *g = faulty_open(shape);
	unsigned int turn, n = shape->packed && !shape->indirect ? 6 : 7;
	struct answer answer;
	int id[8];

	for (turn = 0; turn < 40; turn++) {
		unsigned int i;

		faulty_set(f, true, 0);
		for (i = 0; i < n; i++)
			id[i] = ask_post(g, 0,
				&(struct ask){.type = VIRTIO_BLK_T_OUT,
					.sector = i,
					.out = data,
					.out_len = SECTOR,
					.layout = i % 2});
		queue_kick(g, 0);
		faulty_wait(f, n);
		assert_false(answer_try(g, 0, &answer, 0));
		for (i = n; i-- > 0;) {
			assert_true(id[i] >= 0);
			faulty_release(f, 1, turn % 2 == 0);
			assert_true(answer_try(g, 0, &answer, PATIENCE_MS));
			assert_int_equal(answer.id, turn % 2 == 0 ? id[i] : id[n - 1 - i]);
			assert_int_equal(answer.status, VIRTIO_BLK_S_OK);
		}
	}
}

static void
errors_become_states(void **state)
{
	static const struct {
		int error;
		int status;
		unsigned int stat;
	} rows[] = {
		{-EIO, VIRTIO_BLK_S_IOERR, VFN_STAT_ERRORS_IO},
		{-ENOSPC, VIRTIO_BLK_S_IOERR, VFN_STAT_ERRORS_SPACE},
		{-EDQUOT, VIRTIO_BLK_S_IOERR, VFN_STAT_ERRORS_SPACE},
		{-EFBIG, VIRTIO_BLK_S_IOERR, VFN_STAT_ERRORS_SPACE},
		{-EOPNOTSUPP, VIRTIO_BLK_S_UNSUPP, VFN_STAT_ERRORS_IO},
		{-ETIMEDOUT, VIRTIO_BLK_S_IOERR, VFN_STAT_ERRORS_IO},
		{-ENODEV, VIRTIO_BLK_S_IOERR, VFN_STAT_ERRORS_IO},
		{-ENOMEM, VIRTIO_BLK_S_IOERR, VFN_STAT_ERRORS_IO},
	};
	struct guest *g = faulty_open(NULL);
	unsigned int i, hold;

	(void)state;
	for (i = 0; i < DIM(rows); i++) {
		for (hold = 0; hold < 2; hold++) {
			uint64_t before = stat_of(g, 0, rows[i].stat);

			faulty_set(f, hold, rows[i].error);
			write_sectors(g, 0, 3, 1);
			if (hold) {
				faulty_wait(f, 3);
				faulty_release(f, 3, true);
			}
			answers(g, 3, rows[i].status);
			assert_int_equal(stat_of(g, 0, rows[i].stat), before + 3);
			faulty_set(f, false, 0);
			write_sectors(g, 0, 3, 2);
			answers(g, 3, VIRTIO_BLK_S_OK);
		}
	}
	assert_int_equal(stat_of(g, 0, VFN_STAT_WRITES), 2 * 6 * DIM(rows));
}

/* A stop waits for what is out, and then the position is final. */
static void *
release_later(void *arg)
{
	nap_us(200000);
	faulty_release(f, (uintptr_t)arg, false);
	return NULL;
}

static void
stop_waits_for_what_is_out(const struct shape *shape)
{
	struct guest *g = faulty_open(shape);
	struct vringh_state at;
	pthread_t thread;

	faulty_set(f, true, 0);
	write_sectors(g, 10, 4, 3);
	faulty_wait(f, 4);
	pthread_create(&thread, NULL, release_later, (void *)4);
	queue_suspend(g, 0, true);
	pthread_join(thread, NULL);
	at = queue_state(g, 0);
	assert_int_equal(at.avail, at.used);
	answers(g, 4, VIRTIO_BLK_S_OK);
	assert_int_equal(at.used, mock_used_position(&g->q[0].drv, 0));
	sectors_are(10, 4, 3);
	queue_suspend(g, 0, false);
	faulty_set(f, false, 0);
	write_sectors(g, 20, 4, 4);
	answers(g, 4, VIRTIO_BLK_S_OK);
}

static void
stop_that_takes_too_long_is_none(void **state)
{
	struct guest *g = faulty_open(NULL);
	struct mock_mem *mem = &g->mem;

	(void)state;
	faulty_set(f, true, 0);
	write_sectors(g, 10, 4, 5);
	faulty_wait(f, 4);
	CSET(g, queue_select, 0);
	VSET(g, queue_suspend, 1);
	assert_int_equal(VGET(g, queue_suspend), 0);
	VSET(g, suspend, 1);
	assert_int_equal(VGET(g, suspend), 0);
	CSET(g, queue_reset, 1);
	assert_int_equal(CGET(g, queue_enable), 1);
	CSET(g, device_status, 0);
	assert_int_not_equal(CGET(g, device_status), 0);
	assert_int_equal(
		g->link->ops->dma_unmap(g->link, VFN_DMA_GUEST, HEAP_AT, g->heap_end - HEAP_AT),
		-EBUSY);
	assert_non_null(mock_mem_at(mem, HEAP_AT, 4096));
	assert_int_equal(vfn_manage_blk_resize(g->fn, SIZE / 2), -EBUSY);
	/* nothing was lost */
	faulty_release(f, 4, false);
	answers(g, 4, VIRTIO_BLK_S_OK);
	sectors_are(10, 4, 5);
	faulty_set(f, false, 0);
	guest_reset(g);
}

static void
reset_waits_for_what_is_out(const struct shape *shape)
{
	struct guest *g = faulty_open(shape);
	struct disk_conf conf = {.shape = shape};
	pthread_t thread;
	unsigned int i;

	for (i = 0; i < 3; i++) {
		faulty_set(f, true, i == 1 ? -EIO : 0);
		write_sectors(g, 10, 4, 6 + i);
		faulty_wait(f, 4);
		pthread_create(&thread, NULL, release_later, (void *)4);
		guest_reset(g);
		pthread_join(thread, NULL);
		faulty_wait(f, 0);
		disk_start(g, &conf);
		faulty_set(f, false, 0);
		write_sectors(g, 10, 4, 16 + i);
		answers(g, 4, VIRTIO_BLK_S_OK);
	}
}

static void
memory_stays_while_it_is_used(void **state)
{
	struct guest *g = faulty_open(NULL);
	pthread_t thread;
	uint64_t at = FREE_AT;
	struct mock_buf buf[3] = {{.len = 16},
		{.len = SECTOR, .write = true, .fixed = true, .iova = FREE_AT},
		{.len = 1, .write = true}};
	struct virtio_blk_outhdr hdr = {.type = VIRTIO_BLK_T_IN, .sector = 3};
	struct mock_used used;
	int id;

	(void)state;
	pattern(f->bytes + 3 * SECTOR, 3, SECTOR, 9);
	guest_map(g, at, 4096, VRINGH_PERM_RW);
	faulty_set(f, true, 0);
	id = mock_post(&g->q[0].drv, buf, 3, 0, 0);
	assert_true(id >= 0);
	mock_mem_write(&g->mem, mock_buf_addr(&g->q[0].drv, id, 0), &hdr, sizeof(hdr));
	mock_publish(&g->q[0].drv);
	queue_kick(g, 0);
	faulty_wait(f, 1);
	pthread_create(&thread, NULL, release_later, (void *)1);
	/* freed when this returns: a later access is found by the sanitizer */
	assert_int_equal(g->link->ops->dma_unmap(g->link, VFN_DMA_GUEST, at, 4096), 0);
	faulty_wait(f, 0);
	mock_mem_read(&g->mem, at, back, SECTOR);
	assert_memory_equal(back, f->bytes + 3 * SECTOR, SECTOR);
	mock_mem_remove(&g->mem, at);
	pthread_join(thread, NULL);
	assert_true(used_try(g, 0, &used, PATIENCE_MS));
	assert_int_equal(used.len, SECTOR + 1);
}

/* Other changes do not wait. */
static void
changes_do_not_wait(void **state)
{
	struct guest *g = faulty_open(NULL);
	uint64_t start;

	(void)state;
	faulty_set(f, true, 0);
	write_sectors(g, 10, 4, 5);
	faulty_wait(f, 4);
	start = now_ms();
	assert_int_equal(g->link->ops->set_irq(g->link, 1, g->q[0].call), 0);
	guest_map(g, FREE_AT, 4096, VRINGH_PERM_RW);
	assert_int_equal(vfn_manage_pollers(g->fn, &(struct vfn_pollers){.nb_cpus = 1}), 0);
	assert_true(now_ms() - start < 2500);
	faulty_release(f, 4, false);
	answers(g, 4, VIRTIO_BLK_S_OK);
}

/* ---- in flight ---- */

static bool
enable(struct guest *g, uint16_t position)
{
	CSET(g, queue_select, 0);
	VSET(g, queue_inflight_lo, (uint32_t)REGION_AT);
	VSET(g, queue_inflight_hi, REGION_AT >> 32);
	VSET(g, queue_inflight_len, REGION_LEN);
	VSET(g, queue_avail, position);
	VSET(g, queue_used, position);
	return queue_enable(g, 0);
}

static int
own_map(struct guest *g, uint64_t at, void *p, uint64_t len)
{
	return g->link->ops->dma_map(g->link,
		&(struct vfn_dma_map){.space = VFN_DMA_OWN,
			.iova = at,
			.len = len,
			.host = p,
			.fd = -1,
			.readable = true,
			.writable = true});
}

/*
 * A process ends while requests are out, after others that were made later have ended. Whoever
 * comes next finds region and rings as they were then: what was out is done again, and nothing is
 * done twice that had ended. What the first one did after its end is taken back here.
 */
static void
what_was_in_flight_is_done_again(const struct shape *shape)
{
	struct guest *g = faulty_open(shape);
	uint64_t heap = g->heap_end - HEAP_AT;
	uint8_t *as_it_was = malloc(REGION_LEN + heap);
	unsigned int turn;

	memset(region, 0, sizeof(region));
	assert_int_equal(own_map(g, REGION_AT, region, REGION_LEN), 0);
	for (turn = 0; turn < 20; turn++) {
		uint64_t again = stat_of(g, 0, VFN_STAT_AGAIN);
		struct vringh_state at;

		queue_reset(g, 0);
		assert_true(enable(g, mock_used_position(&g->q[0].drv, 0)));
		faulty_set(f, true, 0);
		write_sectors(g, 10, 4, 100 + turn);
		faulty_wait(f, 4);
		faulty_release(f, 2, turn % 2 == 0);
		answers(g, 2, VIRTIO_BLK_S_OK);
		faulty_wait(f, 2);
		memcpy(as_it_was, region, REGION_LEN);
		memcpy(as_it_was + REGION_LEN, mock_mem_at(&g->mem, HEAP_AT, heap), heap);
		faulty_release(f, 2, false);
		queue_reset(g, 0);
		memcpy(region, as_it_was, REGION_LEN);
		memcpy(mock_mem_at(&g->mem, HEAP_AT, heap), as_it_was + REGION_LEN, heap);
		memset(f->bytes + (turn % 2 == 0 ? 10 : 12) * SECTOR, 0, 2 * SECTOR);

		faulty_set(f, false, 0);
		assert_true(enable(g, mock_used_position(&g->q[0].drv, 0)));
		if (turn % 4 == 3)
			queue_suspend(g, 0, true);
		answers(g, 2, VIRTIO_BLK_S_OK);
		assert_int_equal(stat_of(g, 0, VFN_STAT_AGAIN), again + 2);
		sectors_are(10, 4, 100 + turn);
		at = queue_state(g, 0);
		assert_int_equal(at.avail, at.used);
		assert_int_equal(at.used, mock_used_position(&g->q[0].drv, 0));
	}
	free(as_it_was);
}

/* ---- dirty log ---- */

static bool
is_dirty(uint64_t addr)
{
	return dirty[addr / 4096 / 8] >> addr / 4096 % 8 & 1;
}

/* Data that was asked for before the log began is in it when it arrives. */
static void
what_is_read_is_logged(const struct shape *shape)
{
	struct guest *g = faulty_open(shape);
	struct mock_driver *d = &g->q[0].drv;
	struct answer answer;
	int id;

	memset(dirty, 0, sizeof(dirty));
	assert_int_equal(own_map(g, LOG_AT, dirty, sizeof(dirty)), 0);
	VSET(g, dirty_lo, (uint32_t)LOG_AT);
	VSET(g, dirty_hi, LOG_AT >> 32);
	VSET(g, dirty_len_lo, sizeof(dirty));
	VSET(g, dirty_len_hi, 0);
	faulty_set(f, true, 0);
	id = ask_post(g, 0,
		&(struct ask){.type = VIRTIO_BLK_T_IN, .in_len = 16384, .layout = LAYOUT_SPLIT});
	queue_kick(g, 0);
	faulty_wait(f, 1);
	VSET(g, dirty_control, 1);
	assert_int_equal(VGET(g, dirty_control), 1);
	assert_false(is_dirty(mock_buf_addr(d, id, 4096)));
	faulty_release(f, 1, false);
	assert_true(answer_try(g, 0, &answer, PATIENCE_MS));
	assert_true(is_dirty(mock_buf_addr(d, id, 16)));
	assert_true(is_dirty(mock_buf_addr(d, id, 4096)));
	assert_true(is_dirty(mock_buf_addr(d, id, 16 + 16384)));
	assert_false(is_dirty(mock_buf_addr(d, id, 5 * 4096)));
	assert_true(is_dirty(shape->packed ? d->cfg.desc : d->cfg.device));
	/* what is written to the disk is not written to memory, but for the status */
	memset(dirty, 0, sizeof(dirty));
	id = ask_post(g, 0, &(struct ask){.type = VIRTIO_BLK_T_OUT, .out = data, .out_len = 4096});
	queue_kick(g, 0);
	faulty_wait(f, 1);
	faulty_release(f, 1, false);
	assert_true(answer_try(g, 0, &answer, PATIENCE_MS));
	assert_false(is_dirty(mock_buf_addr(d, id, 0)));
	assert_true(is_dirty(mock_buf_addr(d, id, 16 + 4096)));
}

/* ---- state ---- */

static void
parts_wait_and_hold_the_write_cache(void **state)
{
	struct disk_conf conf = {
		.size = SIZE, .features = BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_CONFIG_WCE)};
	struct guest *g;
	struct blob blob;
	uint8_t *wce;

	(void)state;
	conf.arg = f = faulty_new(SIZE);
	conf.backend = &faulty_backend;
	g = disk_open(&conf);
	faulty_set(f, true, 0);
	write_sectors(g, 0, 1, 1);
	faulty_wait(f, 1);
	assert_int_equal(state_command(g, VFN_PARTS_GET), EBUSY);
	faulty_release(f, 1, false);
	answers(g, 1, VIRTIO_BLK_S_OK);
	assert_int_equal(reg_set(g, &g->device, offsetof(struct virtio_blk_config, wce), 1, 0), 0);
	blob_get(g, &blob);
	wce = blob_find(&blob, VFN_PART_BLK_WRITEBACK, 0);
	assert_non_null(wce);
	assert_int_equal(wce[sizeof(struct vfn_part)], 0);
	faulty_set(f, false, 0);
	CSET(g, device_status, 0);
	assert_int_equal(disk_config(g).wce, 1);
	assert_int_equal(blob_put(g, &blob, VFN_PARTS_SET), 0);
	assert_int_equal(disk_config(g).wce, 0);
	wce[sizeof(struct vfn_part)] = 2;
	blob_seal(&blob);
	assert_int_equal(blob_put(g, &blob, VFN_PARTS_CHECK), EINVAL);
}

int
main(void)
{
	static const struct CMUnitTest plain[] = {
#define T(test) cmocka_unit_test_teardown(test, disks_close)
		T(errors_become_states),
		T(stop_that_takes_too_long_is_none),
		T(memory_stays_while_it_is_used),
		T(changes_do_not_wait),
		T(parts_wait_and_hold_the_write_cache),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(requests_end_in_any_order),
		SHAPED(stop_waits_for_what_is_out),
		SHAPED(reset_waits_for_what_is_out),
		SHAPED(what_was_in_flight_is_done_again),
		SHAPED(what_is_read_is_logged),
	};

	if (fn_eal_init(NULL) != 0)
		return 1;
	shaped_teardown = disks_close;
	return run_list("blk_out", plain, DIM(plain), shaped, DIM(shaped));
}
